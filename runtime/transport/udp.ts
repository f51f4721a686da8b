/**
 * Packets in UDP datagrams, one each, as they are: no encryption, no handshake, no header of its own.
 *
 *     write() ──► longer than the MTU, no peer: dropped ──► sendmmsg ═══ road ═══ recvmmsg
 *     read() ◄─── not from the peer, no IP packet, longer than the MTU: refused ◄─────┘
 *
 * Nothing waits here: the system's socket has a queue for each direction.
 */

import { lookup } from "node:dns/promises";
import {
  addressOf,
  type EndpointBytes,
  formatEndpoint,
  isAt,
  openUdpSocket,
  portOf,
  type UdpSocket,
} from "../../driver/mod.ts";
import { type Address, parseAddress } from "../../lib/address.ts";
import { checkNames, type OptionNames } from "../../lib/options.ts";
import {
  type EndHost,
  type Packet,
  type PacketBatch,
  Refusals,
  type Transport,
  type Waitable,
} from "../../lib/core/mod.ts";
import {
  formatHostPort,
  type HostPort,
  parseHostPort,
  parseListen,
  parsePeer,
  requireNet,
} from "./_host_port.ts";
import { objectionTo } from "./_objection.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";

// Specification
/** RFC 791 section 3.1 and RFC 768: 20 and 8 bytes. */
const IPV4_OVERHEAD = 28;
/** RFC 8200 section 3 and RFC 768: 40 and 8 bytes. */
const IPV6_OVERHEAD = 48;
/** The longest payload of a UDP datagram over IPv4 (bytes). */
const MAX_DATAGRAM = 65_507;

// Implementation
/** RFC 894: what nearly every road takes (bytes). */
const ETHERNET_MTU = 1500;

/** Options for {@linkcode udp}: `peer`, `listen`, or both. */
export interface UdpOptions {
  /**
   * Who is at the other end: `192.0.2.1:4500`, `[2001:db8::1]:4500`, `vpn.example:4500`. A name is resolved once,
   * when the tunnel opens. @default {whoever sent the last datagram with an IP packet}
   */
  peer?: string;
  /** One's own port, or `ADDRESS:PORT`; a port alone is one of all IPv4 addresses. @default {a free one} */
  listen?: string | number;
  /**
   * The interface that datagrams leave by, whatever the routes say, by its name: `eth0`, `Ethernet 2`. A tunnel that
   * is this machine's way to everywhere needs it, or its own datagrams go into it. On Linux and macOS, datagrams
   * that arrive elsewhere are not received. @default {the routes'}
   */
  interface?: string;
  /** The longest packet; longer ones are dropped in both directions (bytes). @default {1500} */
  mtu?: number;
}

const NAMES: OptionNames<UdpOptions> = {
  peer: "optional",
  listen: "optional",
  interface: "optional",
  mtu: "optional",
};

/** What {@linkcode udp} opens: one peer, reached by datagrams; `packet.endpoint` is where they came from and go. */
export class UdpTransport implements Transport {
  /** Such as `udp 192.0.2.1:4500`, or `udp listening on 0.0.0.0:4500`. */
  readonly name: string;
  /** The outer IP and UDP headers (bytes). */
  readonly overhead: number;
  /** The longest packet that passes Ethernet in one piece; the system cuts longer ones in fragments (bytes). */
  readonly pathMtu: number;
  /** The longest packet; longer ones are dropped in both directions (bytes). */
  readonly mtu: number;
  /** None: what it has accepted is the system's. */
  readonly queued = 0;

  readonly #socket: UdpSocket;
  /** Whether the peer is whoever sent last. */
  readonly #roams: boolean;
  readonly #peer: EndpointBytes;
  readonly #peerView: DataView<ArrayBuffer>;
  /** Has datagrams to a new peer leave beside the tunnel. */
  readonly #bypass: (address: Address) => void;
  #hasPeer: boolean;
  #host: EndHost | undefined;
  readonly #refusals = new Refusals();

  /** For {@linkcode udp}, with a socket that is bound and, unless the peer is whoever sends, where that is. */
  constructor(
    socket: UdpSocket,
    peer: HostPort | undefined,
    mtu: number = ETHERNET_MTU,
    bypass: (address: Address) => void = () => {},
  ) {
    const { family, local } = socket;
    this.mtu = mtu;
    this.overhead = family === 6 ? IPV6_OVERHEAD : IPV4_OVERHEAD;
    this.pathMtu = ETHERNET_MTU - this.overhead;
    this.#socket = socket;
    this.#bypass = bypass;
    this.#roams = peer === undefined;
    this.#hasPeer = !this.#roams;
    this.#peer = peer === undefined ? local.slice() : socket.endpoint(parseAddress(peer.host), peer.port);
    this.#peerView = new DataView(this.#peer.buffer);
    this.name = `udp${this.#roams ? " listening on" : ""} ${formatEndpoint(this.#peer, family)}`;
  }

  /** The socket's; `undefined` when it is closed. */
  get waitable(): Waitable | undefined {
    return this.#socket.waitable;
  }

  /** Why it is gone: the socket failed. */
  get failure(): Error | undefined {
    return this.#socket.failure;
  }

  /** Settled when the system has the socket back. */
  get closed(): Promise<void> {
    return this.#socket.closed;
  }

  /** Who is at the other end, such as `192.0.2.1:4500`; `undefined` while nobody is known. */
  get peer(): string | undefined {
    return this.#hasPeer ? formatEndpoint(this.#peer, this.#socket.family) : undefined;
  }

  /** Where it receives, such as `0.0.0.0:4500`; `undefined` when it is closed. */
  get local(): string | undefined {
    const { waitable, local, family } = this.#socket;
    return waitable === undefined ? undefined : formatEndpoint(local, family);
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#socket.attach(host.pool, this.mtu);
  }

  /** Appends what arrived. */
  read(batch: PacketBatch): number {
    const first = batch.length;
    const count = this.#socket.receive(batch);
    const host = this.#host!;
    let refused = 0;
    for (let i = first; i < first + count; i++) {
      const packet = batch.packets[i]!;
      const objection = this.#admit(packet);
      if (objection === undefined) continue;
      host.refuse(packet.length, objection);
      packet.pool.give(packet);
      refused++;
    }
    if (refused > 0) {
      batch.compact();
      // More may be there than a breath has shown that moved nothing.
      host.wake();
    }
    return count - refused;
  }

  /** Hands packets to the system until it has no room; what it refuses is dropped with its reason. */
  write(batch: PacketBatch): number {
    if (this.#socket.waitable === undefined) return 0;
    const dropped = this.#prepare(batch);
    const { packets, length } = batch;
    let done = 0;
    while (done < length) {
      const sent = this.#socket.send(packets, done, length);
      for (const end = done + sent; done < end; done++) packets[done]!.pool.give(packets[done]!);
      if (done === length) break;
      const { refusal } = this.#socket;
      if (refusal === undefined) break;
      this.#host!.drop(packets[done++]!, this.#refusals.of(refusal));
    }
    batch.shift(done);
    return dropped + done;
  }

  /** Closes the socket. What the system has is sent; what was not read is gone. */
  close(): void {
    this.#socket.close();
  }

  /** The same as {@linkcode UdpTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Why a packet may not come in; one that may and whose sender is new makes it the peer, where peers may change. */
  #admit(packet: Packet): string | undefined {
    const known = this.#hasPeer && isAt(packet, this.#peerView, 0, this.#socket.family);
    if (!known && !this.#roams) return "not from the peer";
    // RFC 768: nobody can be answered there.
    if (portOf(packet.endpoint) === 0) return "from port 0";
    const objection = objectionTo(packet.bytes, packet.offset, packet.length, this.mtu);
    if (objection === undefined && !known) {
      this.#peer.set(packet.endpoint);
      this.#hasPeer = true;
      this.#bypass(addressOf(this.#peer, this.#socket.family));
    }
    return objection;
  }

  /** Drops what cannot be sent, and says of the rest where it goes; returns how many were dropped. */
  #prepare(batch: PacketBatch): number {
    const { packets, length } = batch;
    let dropped = 0;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.length <= this.mtu && this.#hasPeer) {
        packet.finish();
        packet.endpoint.set(this.#peer);
      } else {
        this.#host!.drop(packet, packet.length > this.mtu ? "longer than the MTU" : "no peer");
        dropped++;
      }
    }
    if (dropped > 0) batch.compact();
    return dropped;
  }
}

/**
 * Joins the tunnel to another machine by UDP. With `peer`, that machine: datagrams from elsewhere are refused.
 * Without, whoever sends an IP packet to the port is the peer from then on, so that it may change its address.
 * As URLs: `udp://HOST:PORT`, `udp://HOST:PORT?listen=PORT` and, without a peer, `udp://ADDRESS:PORT?listen`; with
 * `?interface=NAME` or `&interface=NAME`, by this interface alone.
 *
 * **Limits**: Packets travel in plain text, and whoever is on the road reads and forges them. Without `peer`,
 * anyone who can send to the port takes the tunnel over with one datagram. Put a stage that encrypts before it, or
 * keep it to networks that you trust. Link-local IPv6 peers (`fe80::…%eth0`) are not supported. An `interface` that is
 * removed does not come back under its name: open the tunnel anew.
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
 */
export function udp(options: UdpOptions): (context?: FarEndContext) => Promise<UdpTransport> {
  checkNames("open a UDP transport", options, NAMES);
  const { peer: peerText, listen, mtu = ETHERNET_MTU } = options;
  if (peerText === undefined && listen === undefined) {
    throw new TypeError("Cannot use udp(): it has no peer and no port: give peer, listen or both");
  }
  const peer = peerText === undefined ? undefined : parsePeer(peerText, `peer "${peerText}"`);
  const local = listen === undefined ? undefined : parseListen(listen, `listen "${listen}"`);
  if (!Number.isInteger(mtu) || mtu < 1 || mtu > MAX_DATAGRAM) {
    throw new RangeError(
      `Cannot use MTU ${mtu} over UDP: it is not a whole number from 1 to ${MAX_DATAGRAM}`,
    );
  }
  if (options.interface !== undefined && !/^[^\0]+$/.test(options.interface)) {
    throw new TypeError(`Cannot use interface ${JSON.stringify(options.interface)}: it is no name`);
  }
  // Alone, a port listens on the addresses of the peer's family.
  const anywhere = local !== undefined && !String(listen).includes(":");
  if (peer?.family !== undefined && local !== undefined && !anywhere && peer.family !== local.family) {
    throw new TypeError(`Cannot reach "${peerText}" from "${listen}": one is IPv4 and one is IPv6`);
  }
  return (context = WITHOUT_TUNNEL) => openUdp(peer, local, anywhere, options, context);
}

async function openUdp(
  asked: HostPort | undefined,
  local: HostPort | undefined,
  anywhere: boolean,
  options: UdpOptions,
  context: FarEndContext,
): Promise<UdpTransport> {
  const peer = asked === undefined
    ? undefined
    : await context.lookUp(() => resolvePeer(asked, anywhere ? undefined : local?.family));
  if (peer !== undefined) context.bypass(parseAddress(peer.host), options.interface);
  const family = peer?.family ?? local!.family;
  const host = local === undefined || anywhere ? family === 6 ? "::" : "0.0.0.0" : local.host;
  const socket = await openUdpSocket({
    address: parseAddress(host),
    port: local?.port ?? 0,
    ipv6Only: peer !== undefined,
    ...(options.interface === undefined ? {} : { interface: options.interface }),
  });
  const bypass = (address: Address) => context.bypass(address, options.interface);
  return new UdpTransport(socket, peer, options.mtu, bypass);
}

async function resolvePeer(peer: HostPort, family: 4 | 6 | undefined): Promise<HostPort> {
  if (peer.family !== undefined) return peer;
  requireNet(peer.host);
  try {
    const found = await lookup(peer.host, { family: family ?? 0 });
    return parseHostPort(formatHostPort(found.address, peer.port), `"${found.address}"`);
  } catch (cause) {
    const kind = family === undefined ? "" : `IPv${family} `;
    throw new Deno.errors.NotFound(
      `Cannot reach "${peer.host}": it has no ${kind}address: check the name, or write its address`,
      { cause },
    );
  }
}
