/**
 * The UDP transport, which carries one packet per datagram without encryption, handshake or header.
 *
 *     write() ──► longer than the MTU, no peer: dropped ──► sendmmsg ═══ path ═══ recvmmsg
 *     read() ◄─── not from the peer, not an IP packet, longer than the MTU: dropped ◄─┘
 *
 * No packet waits here, because the socket of the system has a queue for each direction.
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
} from "../../driver/udp_socket.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import {
  type EndHost,
  type EndWait,
  ErrorReasons,
  type Packet,
  type PacketBatch,
  SMALL_ROOM,
  type Transport,
} from "../../lib/core/mod.ts";
import { type AddressPort, formatHostPort } from "./host_port.ts";
import { dropReason, type Payload } from "./_payload.ts";
import { KnownEndpoints } from "./known_endpoints.ts";
import { CHECK_INTERVAL, PeerAddresses } from "./peer_addresses.ts";

// Specification
/** RFC 791 section 3.1 and RFC 768: 20 and 8 bytes. */
const IPV4_OVERHEAD = 28;
/** RFC 8200 section 3 and RFC 768: 40 and 8 bytes. */
const IPV6_OVERHEAD = 48;

// Implementation
/** RFC 894: MTU of Ethernet (bytes). */
const ETHERNET_MTU = 1500;
/** Longest datagram that fits a small slot (bytes): 1,500 bytes, and room for the bytes that a stage adds. */
const ANY_MTU = SMALL_ROOM - 1;
/** Maximum errors reported; further ones are only counted. */
const MAX_REPORTED = 16;
/** Errors when this machine has no route or source address for a destination. */
const UNREACHABLE = new Set([
  "ENETUNREACH",
  "EHOSTUNREACH",
  "EADDRNOTAVAIL",
  "ENETDOWN",
  "EAFNOSUPPORT",
  "EINVAL",
]);
/** Errors when this machine no longer has the local address to send from. */
const NOT_LOCAL = new Set(["EINVAL", "EADDRNOTAVAIL", "ENODEV", "ENXIO", "ENETUNREACH"]);

/** Options of a {@linkcode UdpTransport}. */
export interface UdpTransportParts {
  /** Addresses of the remote side. @default {the sender of the last datagram with an IP packet} */
  peer?: readonly AddressPort[];
  /** See {@linkcode UdpOptions}. */
  mtu?: number;
  /** See {@linkcode UdpOptions}. */
  payload?: Payload;
  /** Routes datagrams to an address outside the tunnel. */
  bypass?: (address: Address) => void;
  /** Called once for each kind of error, with a message for the user. @default {none} */
  report?: (message: string) => void;
  /** Looks the peer's name up again. @default {none: the peer has no name} */
  lookUp?: () => Promise<readonly AddressPort[]>;
}

/** Far end over UDP, opened by `udp()`: one peer or, with `payload: "any"`, the peers of a stage. */
export class UdpTransport implements Transport {
  /** Name for messages: `udp 192.0.2.1:4500`, or `udp listening on 0.0.0.0:4500`. */
  readonly name: string;
  /** Maximum packet length (bytes). */
  readonly mtu: number;
  readonly payload: "ip" | "any";
  /** True without the address of a peer. */
  readonly listens: boolean;
  /** Always 0: the system takes over all accepted packets. */
  readonly queued = 0;
  /** Descriptor of the socket, until `close`. */
  readonly waits: readonly EndWait[];

  readonly #socket: UdpSocket;
  /** Addresses of the peer; `undefined` if the last sender is the peer, or a stage chooses the peer. */
  readonly #addresses: PeerAddresses | undefined;
  /** An endpoint for each address; without addresses, one for the peer. */
  #endpoints: EndpointBytes[] = [];
  #views: DataView<ArrayBuffer>[] = [];
  /** Index of the endpoint in use; -1 while there is no peer. */
  #current: number;
  readonly #bypass: (address: Address) => void;
  /** Recent endpoints of new peers and of stages, for which the bypass already has routes. */
  readonly #known: KnownEndpoints;
  readonly #lookUp: (() => Promise<readonly AddressPort[]>) | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #isLookingUp = false;
  #host: EndHost | undefined;
  readonly #errorReasons = new ErrorReasons();
  readonly #report: (message: string) => void;
  /** Errors that have been reported. */
  readonly #reported = new Set<string>();
  /** Drop reasons, by the name of the ICMP error. */
  readonly #icmpReasons = new Map<string, string>();

  /** Creates a transport that uses a bound socket. */
  constructor(socket: UdpSocket, parts: UdpTransportParts = {}) {
    const { peer, payload = "ip", bypass = () => {}, lookUp, report = () => {} } = parts;
    const { family, local } = socket;
    this.mtu = parts.mtu ?? (payload === "any" ? ANY_MTU : ETHERNET_MTU);
    this.payload = payload;
    this.listens = peer === undefined;
    this.#socket = socket;
    this.waits = [socket];
    this.#bypass = bypass;
    this.#known = new KnownEndpoints(family);
    this.#lookUp = lookUp;
    this.#report = report;
    this.#addresses = peer === undefined ? undefined : new PeerAddresses(peer);
    this.#current = peer === undefined ? -1 : 0;
    this.#setEndpoints(peer);
    const at = peer === undefined ? formatEndpoint(local, family) : hostPortOf(peer[0]!);
    this.name = `udp ${peer === undefined ? "listening on " : ""}${at}`;
    if (lookUp === undefined) return;
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL);
    Deno.unrefTimer(this.#timer);
  }

  /** Length of the outer IP and UDP headers (bytes). */
  get overhead(): number {
    const { family } = this.#socket;
    const peer = this.#endpoints[Math.max(this.#current, 0)]!;
    return unmapAddress(addressOf(peer, family)).family === 6 ? IPV6_OVERHEAD : IPV4_OVERHEAD;
  }

  /** Maximum packet length that passes Ethernet without IP fragmentation of the datagram (bytes). */
  get pathMtu(): number {
    return ETHERNET_MTU - this.overhead;
  }

  /** Failure of the socket, which ends the tunnel. */
  get failure(): Error | undefined {
    return this.#socket.failure;
  }

  /** Resolves when the socket is closed. */
  get closed(): Promise<void> {
    return this.#socket.closed;
  }

  /** Address of the peer, such as `192.0.2.1:4500`; `undefined` while there is none. */
  get peer(): string | undefined {
    if (this.#addresses !== undefined) return hostPortOf(this.#addresses.current);
    return this.#current < 0 ? undefined : formatEndpoint(this.#endpoints[0]!, this.#socket.family);
  }

  /** Local address, such as `0.0.0.0:4500`; `undefined` after `close`. */
  get local(): string | undefined {
    const { waitable, local, family } = this.#socket;
    return waitable === undefined ? undefined : formatEndpoint(local, family);
  }

  attach(host: EndHost): void {
    this.#host = host;
    this.#socket.attach(host.pool, this.mtu);
  }

  /** One byte more than the MTU, so that a longer datagram is recognized. */
  get maxRead(): number {
    return this.mtu + 1;
  }

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
      // Without this, the loop would wait after a breath that moved nothing, although more datagrams may have arrived.
      host.wake();
    }
    return count - refused;
  }

  /** Drops packets that the system refuses, with the name of the error as the reason. */
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
      if (this.#readdress(refusal, packets, done, length)) continue;
      this.#reportOnce(refusal);
      this.#host!.finish(packets[done++]!, this.#errorReasons.of(refusal));
    }
    if (done > 0) this.#addresses?.sent();
    batch.shift(done);
    return dropped + done;
  }

  /** Counts an ICMP error, and uses the next address of the peer if the error concerns the one in use. */
  unreachable(endpoint: EndpointBytes, code: string): void {
    const addresses = this.#addresses;
    const index = this.#endpoints.findIndex((other) => isSameEndpoint(other, endpoint, this.#socket.family));
    if (addresses === undefined || index < 0) return;
    let reason = this.#icmpReasons.get(code);
    if (reason === undefined) this.#icmpReasons.set(code, reason = `peer unreachable (ICMP): ${code}`);
    this.#host?.refuse(0, reason);
    this.#reportOnce(code);
    if (index === this.#current && addresses.unreachable(false)) this.#use(addresses.index);
  }

  /** Closes the socket. Accepted packets are sent; received packets that were not read are lost. */
  close(): void {
    clearInterval(this.#timer);
    this.#socket.close();
  }

  /** Calls {@linkcode UdpTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Returns the drop reason for a packet, if any. Otherwise the sender becomes the peer, unless the peer is fixed. */
  #admit(packet: Packet): string | undefined {
    const index = this.#indexOf(packet);
    if (index < 0 && this.#addresses !== undefined) return "not from the peer";
    // RFC 768: port 0 means that no reply is expected.
    if (portOf(packet.endpoint) === 0) return "from port 0";
    const reason = dropReason(this.payload, packet.bytes, packet.offset, packet.length, this.mtu);
    if (reason !== undefined) return reason;
    if (index >= 0) this.#noteSender(packet, index);
    else if (this.payload === "ip") this.#follow(packet);
    return undefined;
  }

  /** Returns the index of the peer's address from which a packet came; -1 for other senders. */
  #indexOf(packet: Packet): number {
    const views = this.#views;
    const { family } = this.#socket;
    if (this.#current < 0) return -1;
    if (isAt(packet, views[this.#current]!, 0, family)) return this.#current;
    for (let i = 0; i < views.length; i++) if (isAt(packet, views[i]!, 0, family)) return i;
    return -1;
  }

  /** Notes which address of the peer has sent a packet, and the local address from which replies must leave. */
  #noteSender(packet: Packet, index: number): void {
    if (this.#socket.localAddresses && !hasLocal(packet, this.#views[index]!, 0, this.#socket.family)) {
      this.#endpoints[index]!.set(packet.endpoint);
    }
    const addresses = this.#addresses;
    if (addresses === undefined) return;
    addresses.received(index);
    this.#use(addresses.index);
  }

  /** Selects the peer's address to send to. */
  #use(index: number): void {
    if (index === this.#current) return;
    this.#current = index;
    this.#bypassEndpoint(this.#endpoints[index]!);
  }

  /** Makes the sender of a packet the peer. */
  #follow(packet: Packet): void {
    this.#endpoints[0]!.set(packet.endpoint);
    this.#current = 0;
    if (!this.#known.note(packet)) this.#bypassEndpoint(packet.endpoint);
  }

  #bypassEndpoint(endpoint: Uint8Array): void {
    this.#bypass(unmapAddress(addressOf(endpoint, this.#socket.family)));
  }

  /** Drops packets that cannot be sent, and sets the endpoint of the others; returns the number of drops. */
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
        this.#host!.finish(packet, packet.length > this.mtu ? "longer than the MTU" : "no peer");
        dropped++;
      }
    }
    if (dropped > 0) batch.compact();
    return dropped;
  }

  /** Reports whether a stage has set the endpoint of a packet. */
  #isAddressed(packet: Packet): boolean {
    return this.payload === "any" && packet.hasEndpoint;
  }

  /**
   * Changes the endpoint of a refused packet and of the packets after it: clears the local address, or sets the next
   * address of the peer. Returns false if neither is possible.
   */
  #readdress(refusal: string, packets: readonly Packet[], start: number, end: number): boolean {
    const packet = packets[start]!;
    const code = refusal.replace(/^WSA/, "");
    if (NOT_LOCAL.has(code) && this.#socket.localAddresses && isFromLocal(packet, this.#socket.family)) {
      for (let i = start; i < end; i++) clearLocal(packets[i]!);
      for (const endpoint of this.#endpoints) endpoint.fill(0, Endpoint.Local);
      return true;
    }
    if (!UNREACHABLE.has(code) || this.#isAddressed(packet)) return false;
    this.#reportOnce(code);
    if (this.#addresses?.unreachable(true) !== true) return false;
    this.#use(this.#addresses.index);
    for (let i = start; i < end; i++) {
      if (!this.#isAddressed(packets[i]!)) packets[i]!.endpoint.set(this.#endpoints[this.#current]!);
    }
    return true;
  }

  #reportOnce(code: string): void {
    const at = this.peer ?? this.name;
    if (this.#reported.size >= MAX_REPORTED || this.#reported.has(`${at} ${code}`)) return;
    this.#reported.add(`${at} ${code}`);
    const isLast = this.#addresses === undefined || this.#addresses.list.length === 1;
    this.#report(
      `Cannot reach ${at} over UDP: ${code}${isLast ? "" : ": trying the peer's other addresses"}`,
    );
  }

  /** Leaves a silent address, and looks the name up again when that is due. */
  #check(): void {
    const addresses = this.#addresses!;
    const isLookUpDue = addresses.check();
    this.#use(addresses.index);
    if (!isLookUpDue || this.#isLookingUp) return;
    this.#isLookingUp = true;
    this.#lookUp!().then((list) => {
      // A closed transport must not add routes.
      if (list.length === 0 || this.#socket.waitable === undefined) return;
      addresses.update(list);
      this.#setEndpoints(addresses.list);
      this.#current = -1;
      this.#use(addresses.index);
    }, () => {
      // The failure is ignored: the known addresses may work again before name resolution does.
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

/** Reports whether two endpoints have the same address and port. */
function isSameEndpoint(one: EndpointBytes, other: EndpointBytes, family: 4 | 6): boolean {
  if (portOf(one) !== portOf(other)) return false;
  const [a, b] = [addressOf(one, family).bytes, addressOf(other, family).bytes];
  return a.every((byte, i) => byte === b[i]);
}
