/** Far ends over UDP: their options, and what opens them. */

import { MAX_DATAGRAM, openUdpSocket, type UdpSocketOptions } from "../../driver/mod.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { checkNames, type OptionNames } from "../../lib/core/options.ts";
import { type AddressPort, type HostPort, parseListen, parsePeer } from "./host_port.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";
import { checkPayload } from "./_payload.ts";
import { resolveHost } from "./resolve_host.ts";
import { UdpTransport } from "./udp_transport.ts";

/** Options for {@linkcode udp}: `peer`, `listen`, or both. */
export interface UdpOptions {
  /**
   * The remote side: `192.0.2.1:4500`, `[2001:db8::1]:4500`, `vpn.example:4500`. Of a name's addresses, the next one is
   * used when one cannot be reached or does not answer; then the name is looked up again.
   * @default {the sender of the last datagram with an IP packet}
   */
  peer?: string;
  /** The local port, or `ADDRESS:PORT`; a port alone is one of all IPv4 addresses. @default {a free one} */
  listen?: string | number;
  /**
   * The interface that datagrams leave by, whatever the routes say, by its name: `eth0`, `Ethernet 2`. On Linux and
   * macOS, datagrams that arrive elsewhere are not received. @default {the routes'}
   */
  interface?: string;
  /**
   * The longest packet (bytes). Longer ones from this machine are answered with ICMP errors, or fragmented, as
   * `TunnelEnd.mtu` says; longer ones from the peer are dropped.
   * @default {1500; 1743 with `payload: "any"`, which leaves room for what a stage adds}
   */
  mtu?: number;
  /**
   * The content of datagrams. `"ip"`: IP packets; anything else is refused. `"any"`: any bytes, but no empty datagrams,
   * for scripts with a stage that encrypts. Then a received packet has its sender in `packet.endpoint`. A packet goes to
   * its endpoint, if it has one: a stage sets it by `packet.sendTo()`, and a packet that a stage turns round goes back
   * to its sender. Any other goes to `peer`. Without `peer`, no datagram makes its sender the peer: that is left to the
   * stage, which can tell whom it trusts. @default {"ip"}
   */
  payload?: "ip" | "any";
}

const NAMES: OptionNames<UdpOptions> = {
  peer: "optional",
  listen: "optional",
  interface: "optional",
  mtu: "optional",
  payload: "optional",
};

/**
 * Joins the tunnel to another machine by UDP. With `peer`, datagrams from elsewhere are refused. Without, the sender of
 * the last IP packet is the peer, so that its address may change. A listener on all addresses replies from the one that
 * the peer wrote to. As URLs: `udp://HOST:PORT`, `udp://HOST:PORT?listen=PORT` and, without a peer,
 * `udp://ADDRESS:PORT?listen`; `?interface=NAME`, `?mtu=BYTES` and `?payload=any` are the other options.
 *
 * **Encryption**: Packets travel in plain text. Anyone on the path can read and forge them, and without `peer` one
 * datagram to the port takes the tunnel over. On networks that you do not trust, use `payload: "any"` with a stage that
 * encrypts: the last stage, with `segmented`. Its packets need not be IP, and a forged datagram moves no peer: the stage
 * remembers the endpoint of each peer that it has authenticated, and addresses packets by `packet.sendTo()`. Leave room
 * for what it adds: the tunnel's `mtu` and those bytes together are at most this transport's `mtu`.
 *
 * **Names**: Up to eight IPv4 and eight IPv6 addresses of a peer's name are tried, in the system's order (RFC 6724): the next one at once when this
 * machine has no route or an ICMP error comes (Linux), and after three seconds without an answer. The name is looked up
 * again, at longer and longer intervals up to five minutes, while nothing is heard. Traffic that is never answered looks
 * like a silent peer: give such a peer's address, or a name with one.
 *
 * **Limits**: On Windows, replies leave from the address that the routes choose. Link-local IPv6 peers
 * (`fe80::…%eth0`) are not supported. An `interface` that is removed does not come back under its name: open the
 * tunnel anew.
 *
 * @throws {SyntaxError} when `peer` or `listen` does not parse; {@linkcode TypeError} with neither, or when one is
 * IPv4 and one IPv6; {@linkcode RangeError} for an MTU out of range. What it returns rejects with
 * `Deno.errors.NotCapable` without `--allow-ffi`, or without `--allow-net` for a name; `NotFound` for a name that
 * does not resolve, or an interface that is not there; `AddrInUse` for a port that is taken, `PermissionDenied` for
 * one that is not allowed, and `DriverError` otherwise.
 *
 * @example
 * ```ts
 * import { script, udp } from "@warren/tunnel";
 *
 * const far = udp({ peer: "192.0.2.1:4500", listen: 4500 });
 * export default script(import.meta, { address: "10.9.0.2/24", mtu: 1452, far }, (tunnel) => tunnel.run());
 * ```
 *
 * @example A stage that keeps its peer: only a datagram that `open` accepts moves it
 * ```ts
 * import { ENDPOINT_LENGTH, type Packet, type PacketBatch, script } from "@warren/tunnel";
 * import { type Stage, type StageContext, udp } from "@warren/tunnel";
 *
 * // Changes the packet's bytes in place; open() returns whether the packet is genuine.
 * interface Cipher {
 *   seal(packet: Packet): void;
 *   open(packet: Packet): boolean;
 * }
 *
 * class Seal implements Stage {
 *   readonly name = "seal";
 *   readonly segmented = true;
 *   readonly #cipher: Cipher;
 *   #peer: Uint8Array | undefined;
 *
 *   constructor(cipher: Cipher) {
 *     this.#cipher = cipher;
 *   }
 *
 *   outbound(batch: PacketBatch): void {
 *     for (const packet of batch) {
 *       this.#cipher.seal(packet);
 *       if (this.#peer !== undefined) packet.sendTo(this.#peer);
 *     }
 *   }
 *
 *   inbound(batch: PacketBatch, context: StageContext): void {
 *     for (const packet of batch) {
 *       if (!this.#cipher.open(packet)) context.drop(packet, "seal: forged");
 *       else (this.#peer ??= new Uint8Array(ENDPOINT_LENGTH)).set(packet.endpoint);
 *     }
 *   }
 * }
 *
 * const far = udp({ listen: 4500, payload: "any" });
 * const options = { address: "10.9.0.1/24", mtu: 1400, far };
 * export const sealed = (cipher: Cipher) =>
 *   script(import.meta, options, (tunnel) => tunnel.use(new Seal(cipher)).run());
 * ```
 */
export function udp(options: UdpOptions): (context?: FarEndContext) => Promise<UdpTransport> {
  checkNames("open a UDP transport", options, NAMES);
  const { peer: peerText, listen, interface: name, mtu, payload } = options;
  requireType("peer", peerText, 'text such as "192.0.2.1:4500"', "string");
  requireType("listen", listen, 'a port, or text such as "192.0.2.1:4500"', "string", "number");
  requireType("interface", name, 'text such as "eth0"', "string");
  if (peerText === undefined && listen === undefined) {
    throw new TypeError("Cannot use udp(): it has no peer and no port: give peer, listen or both");
  }
  const peer = peerText === undefined ? undefined : parsePeer(peerText, `peer "${peerText}"`);
  const local = listen === undefined ? undefined : parseListen(listen, `listen "${listen}"`);
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= 1 && mtu <= MAX_DATAGRAM)) {
    throw new RangeError(
      `Cannot open a UDP transport: mtu must be an integer from 1 to ${MAX_DATAGRAM}, got ${
        Deno.inspect(mtu)
      }`,
    );
  }
  if (payload !== undefined) checkPayload("UDP", payload);
  if (name !== undefined && !/^[^\0]+$/.test(name)) {
    throw new TypeError(`Cannot use interface ${JSON.stringify(name)}: it is no name`);
  }
  // Alone, a port listens on the addresses of the peer's family.
  const anywhere = local !== undefined && !String(listen).includes(":");
  if (peer?.family !== undefined && local !== undefined && !anywhere && peer.family !== local.family) {
    throw new TypeError(`Cannot reach "${peerText}" from "${listen}": one is IPv4 and one is IPv6`);
  }
  return (context = WITHOUT_TUNNEL) => openUdp(peer, local, anywhere, options, context);
}

/** Refuses an option of another type, for scripts whose types nobody has checked. */
function requireType(name: string, value: unknown, rule: string, ...types: string[]): void {
  if (value === undefined || types.includes(typeof value)) return;
  throw new TypeError(`Cannot open a UDP transport: ${name} must be ${rule}, got ${Deno.inspect(value)}`);
}

async function openUdp(
  asked: HostPort | undefined,
  local: HostPort | undefined,
  anywhere: boolean,
  options: UdpOptions,
  context: FarEndContext,
): Promise<UdpTransport> {
  const { interface: name, mtu, payload } = options;
  const bypass = (address: Address) => context.bypass(address, name);
  const hasName = asked !== undefined && asked.family === undefined;
  const family = anywhere || local === undefined ? asked?.family : local.family;
  // Its name may have addresses of both families, now or later.
  const isDual = hasName && family === undefined;
  const lookUp = () => context.lookUp(() => resolveHost(asked!, family));
  const peer = asked === undefined ? undefined : await lookUp();
  const isWildcard = local === undefined || anywhere || /^(0\.0\.0\.0|::)$/.test(local.host);
  const open = (version: 4 | 6) =>
    openUdpSocket({
      address: parseAddress(local === undefined || anywhere ? version === 6 ? "::" : "0.0.0.0" : local.host),
      port: local?.port ?? 0,
      ipv6Only: asked !== undefined && !isDual,
      // A client's own address is the routes' choice, which may change.
      localAddresses: local !== undefined && isWildcard,
      ...(name === undefined ? {} : { interface: name }),
      ...(peer === undefined
        ? {}
        : { onUnreachable: (endpoint, code) => transport.unreachable(endpoint, code) } satisfies Partial<
          UdpSocketOptions
        >),
    });
  const has4 = peer?.some((address) => address.family === 4) === true;
  // Where there is no IPv6 at all, IPv4 is enough.
  const socket = isDual
    ? await open(6).catch((error) => has4 ? open(4) : Promise.reject(error))
    : await open(family ?? local!.family!);
  const usable = (list: readonly AddressPort[]) =>
    socket.family === 4 ? list.filter((address) => address.family === 4) : list;
  const transport = new UdpTransport(socket, {
    bypass,
    tell: (message) => console.error(`warren: ${message}`),
    ...(mtu === undefined ? {} : { mtu }),
    ...(payload === undefined ? {} : { payload }),
    ...(peer === undefined ? {} : { peer: usable(peer) }),
    ...(hasName ? { lookUp: async () => usable(await lookUp()) } : {}),
  });
  return transport;
}
