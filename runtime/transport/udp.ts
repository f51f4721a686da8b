/** Far ends over UDP: options, checks and opener. */

import { openUdpSocket } from "../../driver/mod.ts";
import { MAX_DATAGRAM } from "../../driver/udp_socket.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { checkInteger, checkOptions, gotValue, type OptionKinds } from "../../lib/core/options.ts";
import { type AddressPort, type HostPort, parseListen, parsePeer } from "./host_port.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";
import { PAYLOADS } from "./_payload.ts";
import { resolveHost } from "./resolve_host.ts";
import { UdpTransport } from "./udp_transport.ts";

/** Options for {@linkcode udp}: `peer`, `listen`, or both. */
export interface UdpOptions {
  /**
   * Address of the remote side: `192.0.2.1:4500`, `[2001:db8::1]:4500` or `vpn.example:4500`.
   * @default {the sender of the last datagram with an IP packet}
   */
  peer?: string;
  /**
   * Local port or `ADDRESS:PORT`. A port alone stands for all addresses of the peer's family, or of IPv4.
   * @default {a free port}
   */
  listen?: string | number;
  /**
   * Name of the interface through which datagrams leave, regardless of the routes: `eth0`, `Ethernet 2`. On Linux and
   * macOS, datagrams that arrive through other interfaces are not received. @default {chosen by the routes}
   */
  interface?: string;
  /**
   * Maximum packet length (bytes). Longer packets from this machine are fragmented or answered with ICMP errors, as
   * described at `TunnelEnd.mtu`; longer packets from the peer are dropped.
   * @default {1500, or 1743 with `payload: "any"`, which leaves room for the bytes that a stage adds}
   */
  mtu?: number;
  /**
   * Content of datagrams: `"ip"` for IP packets; `"any"` for any bytes, at least one, for a stage that encrypts.
   *
   * With `"any"`, a received packet has its sender in `packet.endpoint`. A packet with an endpoint is sent there: a
   * stage sets it with `packet.sendTo()`, and a packet that a stage turns round returns to its sender. Other packets
   * go to `peer`. Without `peer`, no datagram changes the peer: the stage decides which sender it trusts.
   * @default {"ip"}
   */
  payload?: "ip" | "any";
}

const NAMES: OptionKinds<UdpOptions> = {
  peer: "text",
  listen: "any",
  interface: "text",
  mtu: "number",
  payload: PAYLOADS,
};

/**
 * Far end over UDP: joins the tunnel to another machine, with one packet in each datagram and no header of its own.
 *
 * With `peer`, datagrams from other addresses are dropped. Without it, the sender of the last IP packet is the peer, so
 * its address may change. A listener on all addresses replies from the address to which the peer has sent.
 *
 * **URLs**: `udp://HOST:PORT`; `udp://HOST:PORT?listen=PORT`; without a peer, `udp://ADDRESS:PORT?listen`. Other
 * options follow as `interface=NAME`, `mtu=BYTES` and `payload=any`.
 *
 * **Encryption**: None. Anyone on the path can read and forge packets, and without `peer` a single datagram takes
 * over the tunnel. On untrusted networks, use `payload: "any"` and, as the last stage, one that encrypts, with
 * `segmented`. The stage stores the endpoint of each peer that it has authenticated and addresses packets with
 * `packet.sendTo()`. The tunnel's `mtu` plus the bytes that the stage adds must not exceed this `mtu`.
 *
 * **Names**: Up to eight IPv4 and eight IPv6 addresses of a peer's name are tried, in the system's order (RFC 6724).
 * The next one is tried at once if this machine has no route or an ICMP error arrives (Linux), and after three
 * seconds without a reply. While nothing arrives, the name is looked up again, after 5 s, 10 s and so on, up to 5
 * minutes. One-way traffic looks like a silent peer: use an address, or a name with one address.
 *
 * **Drops**: outbound `no peer`, `longer than the MTU` and the system's error names; inbound `not from the peer`,
 * `not an IP packet`, `longer than the MTU`, `empty`, `from port 0` and `peer unreachable (ICMP): CODE`.
 *
 * **Limits**: On Windows, replies leave from the address that the routes choose. Link-local IPv6 peers (`fe80::…%eth0`)
 * are not supported. After an `interface` is removed, the tunnel must be opened again.
 *
 * @throws {SyntaxError} when `peer` or `listen` does not parse.
 * @throws {TypeError} with neither `peer` nor `listen`, for an unknown option, or if one address is IPv4 and one IPv6.
 * @throws {RangeError} for an `mtu` out of range. The opener rejects with `Deno.errors.NotCapable` without
 * `--allow-ffi`, or without `--allow-net` for a name; `NotFound` for a name that does not resolve or a missing
 * interface; `AddrInUse` for a port in use, `PermissionDenied` for a privileged port, and `DriverError` otherwise.
 *
 * @example Connect to a peer
 * ```ts
 * import { script, udp } from "@warren/tunnel";
 *
 * const far = udp({ peer: "192.0.2.1:4500", listen: 4500 });
 * export default script(import.meta, { address: "10.9.0.2/24", mtu: 1452, far }, (tunnel) => tunnel.run());
 * ```
 *
 * @example A stage that encrypts: only a datagram that it authenticates changes the peer's address
 * ```ts
 * import { ENDPOINT_LENGTH, type Packet, type PacketBatch, script } from "@warren/tunnel";
 * import { type Stage, type StageContext, udp } from "@warren/tunnel";
 *
 * // Changes the packet's bytes in place. open() returns whether the packet is authentic.
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
  checkOptions("open a UDP transport", options, NAMES);
  const { peer: peerText, listen, interface: name, mtu } = options;
  if (!["undefined", "string", "number"].includes(typeof listen)) {
    throw new TypeError(`Cannot open a UDP transport: listen must be a port or text, ${gotValue(listen)}`);
  }
  if (peerText === undefined && listen === undefined) {
    throw new TypeError("Cannot open a UDP transport: peer, listen or both must be given");
  }
  const peer = peerText === undefined ? undefined : parsePeer(peerText, `peer "${peerText}"`);
  const local = listen === undefined ? undefined : parseListen(listen, `listen "${listen}"`);
  if (mtu !== undefined) checkInteger("open a UDP transport", "mtu", mtu, 1, MAX_DATAGRAM);
  if (name !== undefined && !/^[^\0]+$/.test(name)) {
    throw new TypeError(
      `Cannot open a UDP transport: interface must be a name such as "eth0", ${gotValue(name)}`,
    );
  }
  // A port alone stands for all addresses of the peer's family.
  const anywhere = local !== undefined && !String(listen).includes(":");
  if (peer?.family !== undefined && local !== undefined && !anywhere && peer.family !== local.family) {
    throw new TypeError(`Cannot reach "${peerText}" from "${listen}": one is IPv4 and one is IPv6`);
  }
  return (context = WITHOUT_TUNNEL) => openUdp(peer, local, anywhere, options, context);
}

async function openUdp(
  remote: HostPort | undefined,
  local: HostPort | undefined,
  anywhere: boolean,
  options: UdpOptions,
  context: FarEndContext,
): Promise<UdpTransport> {
  const { interface: name, mtu, payload = context.payload } = options;
  const bypass = (address: Address) => context.bypass(address, name);
  const hasName = remote !== undefined && remote.family === undefined;
  const family = anywhere || local === undefined ? remote?.family : local.family;
  // The name may have addresses of both families, now or later.
  const isDual = hasName && family === undefined;
  const lookUp = () => context.lookUp(() => resolveHost(remote!, family));
  const peer = remote === undefined ? undefined : await lookUp();
  const isWildcard = local === undefined || anywhere || /^(0\.0\.0\.0|::)$/.test(local.host);
  const open = (version: 4 | 6) =>
    openUdpSocket({
      address: parseAddress(local === undefined || anywhere ? version === 6 ? "::" : "0.0.0.0" : local.host),
      port: local?.port ?? 0,
      ipv6Only: remote !== undefined && !isDual,
      // Without `listen`, the routes choose the local address, and may choose a different one later.
      localAddresses: local !== undefined && isWildcard,
      interface: name,
      onUnreachable: peer && ((endpoint, code) => transport.unreachable(endpoint, code)),
    });
  const has4 = peer?.some((address) => address.family === 4) === true;
  // A system without IPv6 uses the IPv4 addresses.
  const socket = isDual
    ? await open(6).catch((error) => has4 ? open(4) : Promise.reject(error))
    : await open(family ?? local!.family!);
  const usable = (list: readonly AddressPort[]) =>
    socket.family === 4 ? list.filter((address) => address.family === 4) : list;
  const transport = new UdpTransport(socket, {
    bypass,
    report: (message) => console.error(`warren: ${message}`),
    mtu,
    payload,
    peer: peer && usable(peer),
    lookUp: hasName ? async () => usable(await lookUp()) : undefined,
  });
  return transport;
}
