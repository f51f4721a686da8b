/**
 * Packets in UDP datagrams, one each, as they are: no encryption, no handshake, no header of its own.
 *
 *     write() ──► longer than the MTU, no peer: dropped ──► sendmmsg ═══ path ═══ recvmmsg
 *     read() ◄─── not from the peer, no IP packet, longer than the MTU: refused ◄─────┘
 *
 * Nothing waits here: the system's socket has a queue for each direction.
 */

import {
  addressOf,
  clearLocal,
  Endpoint,
  type EndpointBytes,
  formatEndpoint,
  hasLocal,
  isAt,
  isFromLocal,
  mapAddress,
  portOf,
  type UdpSocket,
  unmapAddress,
} from "../../driver/mod.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import {
  type EndHost,
  ErrorReasons,
  type Packet,
  type PacketBatch,
  SMALL_ROOM,
  type Transport,
  type Waitable,
} from "../../lib/core/mod.ts";
import { type AddressPort, formatHostPort } from "./host_port.ts";
import { type Payload, refusalReason } from "./_payload.ts";
import { KnownEndpoints } from "./known_endpoints.ts";
import { CHECK_INTERVAL, PeerAddresses } from "./peer_addresses.ts";

// Specification
/** RFC 791 section 3.1 and RFC 768: 20 and 8 bytes. */
const IPV4_OVERHEAD = 28;
/** RFC 8200 section 3 and RFC 768: 40 and 8 bytes. */
const IPV6_OVERHEAD = 48;

// Implementation
/** RFC 894: what nearly every path carries (bytes). */
const ETHERNET_MTU = 1500;
/** Room for an Ethernet's packet and what a stage adds to it; the longest datagram that a small slot takes (bytes). */
const ANY_MTU = SMALL_ROOM - 1;
/** Errors told; further ones are only counted. */
const MAX_TOLD = 16;
/** Errors of sending by which this machine says that it has no route, or no source address, for a destination. */
const UNREACHABLE = new Set([
  "ENETUNREACH",
  "EHOSTUNREACH",
  "EADDRNOTAVAIL",
  "ENETDOWN",
  "EAFNOSUPPORT",
  "EINVAL",
]);
/** Errors of sending from a local address that this machine no longer has. */
const NOT_LOCAL = new Set(["EINVAL", "EADDRNOTAVAIL", "ENODEV", "ENXIO", "ENETUNREACH"]);

/** The parts of a {@linkcode UdpTransport}, besides its socket. */
export interface UdpTransportParts {
  /** The remote side's addresses. @default {the sender of the last datagram with an IP packet} */
  peer?: readonly AddressPort[];
  /** See {@linkcode UdpOptions}. */
  mtu?: number;
  /** See {@linkcode UdpOptions}. */
  payload?: Payload;
  /** Has datagrams to an address leave beside the tunnel. */
  bypass?: (address: Address) => void;
  /** Tells the user of the tunnel, once of each error. @default {nobody} */
  tell?: (message: string) => void;
  /** Looks the peer's name up again. @default {the peer has no name} */
  lookUp?: () => Promise<readonly AddressPort[]>;
}

/** A far end reached by datagrams, which `udp()` opens: one peer or, with `payload: "any"`, those of a stage. */
export class UdpTransport implements Transport {
  /** Such as `udp 192.0.2.1:4500`, or `udp listening on 0.0.0.0:4500`. */
  readonly name: string;
  /** The longest packet (bytes). */
  readonly mtu: number;
  /** The content of its datagrams: IP packets, or any bytes. */
  readonly payload: "ip" | "any";
  /** None: what it has accepted is the system's. */
  readonly queued = 0;

  readonly #socket: UdpSocket;
  /** The peer's addresses; `undefined` if the peer is the one who sent last, or a stage's. */
  readonly #addresses: PeerAddresses | undefined;
  /** An endpoint for each of them; without addresses, one for the peer. */
  #endpoints: EndpointBytes[] = [];
  #views: DataView<ArrayBuffer>[] = [];
  /** The index of the peer's; -1 while there is none. */
  #current: number;
  readonly #bypass: (address: Address) => void;
  /** Recent endpoints of new peers and of stages: each has been bypassed. */
  readonly #known: KnownEndpoints;
  readonly #lookUp: (() => Promise<readonly AddressPort[]>) | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #isLookingUp = false;
  #host: EndHost | undefined;
  readonly #errorReasons = new ErrorReasons();
  readonly #tell: (message: string) => void;
  /** Errors that were told. */
  readonly #told = new Set<string>();
  /** Reasons for counters, by the name of the ICMP error. */
  readonly #reported = new Map<string, string>();

  /** For `udp()`, with a socket that is bound. */
  constructor(socket: UdpSocket, parts: UdpTransportParts = {}) {
    const { peer, payload = "ip", bypass = () => {}, lookUp, tell = () => {} } = parts;
    const { family, local } = socket;
    this.mtu = parts.mtu ?? (payload === "any" ? ANY_MTU : ETHERNET_MTU);
    this.payload = payload;
    this.#socket = socket;
    this.#bypass = bypass;
    this.#known = new KnownEndpoints(family);
    this.#lookUp = lookUp;
    this.#tell = tell;
    this.#addresses = peer === undefined ? undefined : new PeerAddresses(peer);
    this.#current = peer === undefined ? -1 : 0;
    this.#setEndpoints(peer);
    const at = peer === undefined ? formatEndpoint(local, family) : hostPortOf(peer[0]!);
    this.name = `udp ${peer === undefined ? "listening on " : ""}${at}`;
    if (lookUp === undefined) return;
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL);
    Deno.unrefTimer(this.#timer);
  }

  /** The outer IP and UDP headers (bytes). */
  get overhead(): number {
    const { family } = this.#socket;
    const peer = this.#endpoints[Math.max(this.#current, 0)]!;
    return unmapAddress(addressOf(peer, family)).family === 6 ? IPV6_OVERHEAD : IPV4_OVERHEAD;
  }

  /** The longest packet that passes Ethernet in one piece; the system sends longer ones in fragments (bytes). */
  get pathMtu(): number {
    return ETHERNET_MTU - this.overhead;
  }

  /** The socket's; `undefined` when it is closed. */
  get waitable(): Waitable | undefined {
    return this.#socket.waitable;
  }

  /** The socket's failure, after which it is gone. */
  get failure(): Error | undefined {
    return this.#socket.failure;
  }

  /** Settled when the system has the socket back. */
  get closed(): Promise<void> {
    return this.#socket.closed;
  }

  /** The remote side, such as `192.0.2.1:4500`; `undefined` while nobody is known. */
  get peer(): string | undefined {
    if (this.#addresses !== undefined) return hostPortOf(this.#addresses.current);
    return this.#current < 0 ? undefined : formatEndpoint(this.#endpoints[0]!, this.#socket.family);
  }

  /** The address that it receives at, such as `0.0.0.0:4500`; `undefined` when it is closed. */
  get local(): string | undefined {
    const { waitable, local, family } = this.#socket;
    return waitable === undefined ? undefined : formatEndpoint(local, family);
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#socket.attach(host.pool, this.mtu);
  }

  /** A byte more than its MTU, so that a datagram that is longer is seen to be. */
  get longestRead(): number {
    return this.mtu + 1;
  }

  /** Appends what arrived. */
  read(batch: PacketBatch): number {
    const first = batch.length;
    const count = this.#socket.receive(batch);
    const host = this.#host!;
    let refused = 0;
    for (let i = first; i < first + count; i++) {
      const packet = batch.packets[i]!;
      const reason = this.#admit(packet);
      if (reason === undefined) continue;
      host.refuse(packet.length, reason);
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
      if (this.#sendsOtherwise(refusal, packets, done, length)) continue;
      this.#tellOnce(refusal);
      this.#host!.drop(packets[done++]!, this.#errorReasons.of(refusal));
    }
    if (done > 0) this.#addresses?.sent();
    batch.shift(done);
    return dropped + done;
  }

  /** Counts an ICMP error about a datagram, and moves on to the peer's next address if it is about the one in use. */
  unreachable(endpoint: EndpointBytes, code: string): void {
    const addresses = this.#addresses;
    const index = this.#endpoints.findIndex((other) => isSameEndpoint(other, endpoint, this.#socket.family));
    if (addresses === undefined || index < 0) return;
    let reason = this.#reported.get(code);
    if (reason === undefined) this.#reported.set(code, reason = `peer unreachable, says ICMP: ${code}`);
    this.#host?.refuse(0, reason);
    this.#tellOnce(code);
    if (index === this.#current && addresses.unreachable(false)) this.#use(addresses.index);
  }

  /** Closes the socket. What the system has is sent; what was not read is gone. */
  close(): void {
    clearInterval(this.#timer);
    this.#socket.close();
  }

  /** The same as {@linkcode UdpTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Returns the reason to refuse a packet. Otherwise, where peers may change, a new sender becomes the peer. */
  #admit(packet: Packet): string | undefined {
    const index = this.#indexOf(packet);
    if (index < 0 && this.#addresses !== undefined) return "not from the peer";
    // RFC 768: nobody can be answered there.
    if (portOf(packet.endpoint) === 0) return "from port 0";
    const reason = refusalReason(this.payload, packet.bytes, packet.offset, packet.length, this.mtu);
    if (reason !== undefined) return reason;
    if (index >= 0) this.#hear(packet, index);
    else if (this.payload === "ip") this.#follow(packet);
    return undefined;
  }

  /** The index of the peer's address that a packet came from; -1 for none. */
  #indexOf(packet: Packet): number {
    const views = this.#views;
    const { family } = this.#socket;
    if (this.#current < 0) return -1;
    if (isAt(packet, views[this.#current]!, 0, family)) return this.#current;
    for (let i = 0; i < views.length; i++) if (isAt(packet, views[i]!, 0, family)) return i;
    return -1;
  }

  /** Notes that the peer was heard, and at which of this machine's addresses: replies leave from there. */
  #hear(packet: Packet, index: number): void {
    if (this.#socket.localAddresses && !hasLocal(packet, this.#views[index]!, 0, this.#socket.family)) {
      this.#endpoints[index]!.set(packet.endpoint);
    }
    const addresses = this.#addresses;
    if (addresses === undefined) return;
    addresses.heard(index);
    this.#use(addresses.index);
  }

  /** Sends to this address of the peer's from now on. */
  #use(index: number): void {
    if (index === this.#current) return;
    this.#current = index;
    this.#bypassEndpoint(this.#endpoints[index]!);
  }

  /** Makes a packet's sender the peer. */
  #follow(packet: Packet): void {
    this.#endpoints[0]!.set(packet.endpoint);
    this.#current = 0;
    if (!this.#known.note(packet)) this.#bypassEndpoint(packet.endpoint);
  }

  #bypassEndpoint(endpoint: Uint8Array): void {
    this.#bypass(unmapAddress(addressOf(endpoint, this.#socket.family)));
  }

  /** Drops what cannot be sent, and addresses the rest; returns how many were dropped. */
  #prepare(batch: PacketBatch): number {
    const { packets, length } = batch;
    let dropped = 0;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const isAddressed = this.#isAddressed(packet);
      if (packet.length <= this.mtu && (isAddressed || this.#current >= 0)) {
        packet.finish();
        if (!isAddressed) packet.endpoint.set(this.#endpoints[this.#current]!);
        else if (!this.#known.note(packet)) this.#bypassEndpoint(packet.endpoint);
      } else {
        this.#host!.drop(packet, packet.length > this.mtu ? "longer than the MTU" : "no peer");
        dropped++;
      }
    }
    if (dropped > 0) batch.compact();
    return dropped;
  }

  /** Tells whether a stage has said where a packet goes. */
  #isAddressed(packet: Packet): boolean {
    return this.payload === "any" && packet.hasEndpoint;
  }

  /**
   * After the system has refused a packet: whether there is another way for it and those behind it. That is any local
   * address instead of the one that the peer wrote to, or the next one of the peer's addresses.
   */
  #sendsOtherwise(refusal: string, packets: readonly Packet[], start: number, end: number): boolean {
    const packet = packets[start]!;
    const code = refusal.replace(/^WSA/, "");
    if (NOT_LOCAL.has(code) && this.#socket.localAddresses && isFromLocal(packet, this.#socket.family)) {
      for (let i = start; i < end; i++) clearLocal(packets[i]!);
      for (const endpoint of this.#endpoints) endpoint.fill(0, Endpoint.Local);
      return true;
    }
    if (!UNREACHABLE.has(code) || this.#isAddressed(packet)) return false;
    this.#tellOnce(code);
    if (this.#addresses?.unreachable(true) !== true) return false;
    this.#use(this.#addresses.index);
    for (let i = start; i < end; i++) {
      if (!this.#isAddressed(packets[i]!)) packets[i]!.endpoint.set(this.#endpoints[this.#current]!);
    }
    return true;
  }

  #tellOnce(code: string): void {
    const at = this.peer ?? this.name;
    if (this.#told.size >= MAX_TOLD || this.#told.has(`${at} ${code}`)) return;
    this.#told.add(`${at} ${code}`);
    const isLast = this.#addresses === undefined || this.#addresses.list.length === 1;
    this.#tell(
      `Cannot reach ${at} over UDP: ${code}${isLast ? "" : ": trying the peer's other addresses"}`,
    );
  }

  /** Looks after the peer's addresses. */
  #check(): void {
    const addresses = this.#addresses!;
    const isLookUpDue = addresses.check();
    this.#use(addresses.index);
    if (!isLookUpDue || this.#isLookingUp) return;
    this.#isLookingUp = true;
    this.#lookUp!().then((list) => {
      // Once closed, nothing is to leave beside the tunnel any more.
      if (list.length === 0 || this.#socket.waitable === undefined) return;
      addresses.update(list);
      this.#setEndpoints(addresses.list);
      this.#current = -1;
      this.#use(addresses.index);
    }, () => {
      // The addresses that are known may work again before the name does.
    }).finally(() => this.#isLookingUp = false);
  }

  #setEndpoints(peer: readonly AddressPort[] | undefined): void {
    const { family, local } = this.#socket;
    this.#endpoints = peer?.map(({ host, port }) => {
      const address = parseAddress(host);
      this.#bypass(address);
      return this.#socket.endpoint(mapAddress(address, family), port);
    }) ?? [local.slice()];
    this.#views = this.#endpoints.map((bytes) => new DataView(bytes.buffer));
  }
}

function hostPortOf({ host, port }: AddressPort): string {
  return formatHostPort(host, port);
}

/** Tells whether two endpoints have the same address and port. */
function isSameEndpoint(one: EndpointBytes, other: EndpointBytes, family: 4 | 6): boolean {
  if (portOf(one) !== portOf(other)) return false;
  const [a, b] = [addressOf(one, family).bytes, addressOf(other, family).bytes];
  return a.every((byte, i) => byte === b[i]);
}
