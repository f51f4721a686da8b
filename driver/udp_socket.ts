/** UDP sockets of the operating system: the interface that each platform implements, and the layout of endpoints. */

import { type Address, formatAddress } from "../lib/wire/address.ts";
import type { Packet, PacketBatch, PacketPool, Waitable } from "../lib/core/mod.ts";

// Specification
/**
 * Layout of an endpoint ({@linkcode Packet.endpoint}). It starts with the peer's address and port, as a `struct
 * sockaddr_in` or `struct sockaddr_in6` of the system, padded to 28 bytes. With
 * {@linkcode UdpSocketOptions.localAddresses}, two more fields are defined: the local address of the datagram (network
 * byte order), and the index of its interface (host byte order), which link-local addresses need. In a datagram to be
 * sent, zeros let the system choose.
 *
 * ```c
 * struct sockaddr_in  { sa_family_t sin_family;  in_port_t sin_port;  struct in_addr sin_addr; char sin_zero[8]; };
 * struct sockaddr_in6 { sa_family_t sin6_family; in_port_t sin6_port; uint32_t sin6_flowinfo;
 *                       struct in6_addr sin6_addr; uint32_t sin6_scope_id; };
 * ```
 *
 * All systems have the same layout, except that on BSD a length byte precedes a one-byte family. The number of AF_INET6
 * differs. Ports and addresses are big-endian.
 */
export const Endpoint = {
  Family: 0,
  Port: 2,
  Ipv4Address: 4,
  Ipv4Size: 16,
  Ipv6Flow: 4,
  Ipv6Address: 8,
  Ipv6Scope: 24,
  Ipv6Size: 28,
  /** Local address: 4 bytes (IPv4) or 16 (IPv6). */
  Local: 28,
  /** Interface index. */
  Interface: 44,
  /** Size of an endpoint of either family. */
  Size: 48,
} as const;

/** Maximum UDP payload over IPv4 (bytes; RFC 791 section 3.1, RFC 768). Over IPv6, 20 bytes more are possible. */
export const MAX_DATAGRAM = 65_507;

/** Bytes of an endpoint; see {@linkcode Endpoint}. */
export type EndpointBytes = Uint8Array<ArrayBuffer>;

/** Options for {@linkcode openUdpSocket}. */
export interface UdpSocketOptions {
  /** Local address; all zeros mean all addresses of the family. */
  address: Address;
  /** Local port; 0 lets the system choose. @default {0} */
  port?: number;
  /** Limits an IPv6 socket to IPv6; otherwise it also has IPv4 peers, as `::ffff:a.b.c.d`. @default {false} */
  ipv6Only?: boolean;
  /**
   * Name of the interface that datagrams leave through, whatever the routes are, so that a tunnel's own packets stay
   * out of the tunnel. On Linux and macOS, the socket also receives only from this interface.
   * @default {chosen by routes}
   */
  interface?: string;
  /**
   * Reports the local address of each received datagram in its endpoint, and sends each datagram from the local address
   * in its endpoint (RFC 1122 section 4.1.3.5). For sockets bound to all addresses. @default {false}
   */
  localAddresses?: boolean;
  /**
   * Called from `receive` and `send` for each ICMP error about a sent datagram, with the endpoint of that datagram and
   * the name of the error, such as `ECONNREFUSED` (Linux). ICMP errors can be forged.
   * @default {ICMP errors are ignored}
   */
  onUnreachable?: (endpoint: EndpointBytes, code: string) => void;
  /** Receive buffer (bytes); the system may have a lower limit. @default {4194304} */
  receiveBuffer?: number;
  /** Send buffer (bytes); the system may have a lower limit. @default {4194304} */
  sendBuffer?: number;
}

// Implementation
/** Prefix of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2). */
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/** Range of an endpoint's address; for IPv6, with its scope. */
const IPV4_ADDRESS = [Endpoint.Ipv4Address, Endpoint.Ipv4Address + 4] as const;
const IPV6_ADDRESS = [Endpoint.Ipv6Address, Endpoint.Ipv6Size] as const;
/** Default size of the buffers (bytes): 33 ms of traffic at 1 Gbit/s. */
export const SOCKET_BUFFER: number = 4 * 1024 * 1024;

/** A non-blocking UDP socket. Once open, it does not throw. */
export interface UdpSocket extends Disposable {
  /** Descriptor or event to wait for; `undefined` when closed. Once it is ready, receive until nothing is left. */
  readonly waitable: Waitable | undefined;
  /** Local endpoint: the requested address and the actual port. */
  readonly local: EndpointBytes;
  /** IP version of the socket's endpoints. */
  readonly family: 4 | 6;
  /** True if endpoints contain local addresses, because they were requested and the system supports them. */
  readonly localAddresses: boolean;
  /** Error that made the socket unusable. ICMP errors are not failures. */
  readonly failure: Error | undefined;
  /** Name of the error that stopped the last `send`; `undefined` if it sent everything or the send buffer is full. */
  readonly refusal: string | undefined;
  /** Resolves when all resources are released, after `close`. */
  readonly closed: Promise<void>;
  /**
   * Sets the pool for received datagrams and the maximum packet length; called once, before the first `receive`.
   * Longer datagrams are truncated to `maxLength + 1` bytes, which shows the receiver that they are too long.
   */
  attach(pool: PacketPool, maxLength: number): void;
  /** Creates an endpoint; the address must be of the socket's family. */
  endpoint(address: Address, port: number): EndpointBytes;
  /**
   * Appends received datagrams to a batch, each with its sender in {@linkcode Packet.endpoint}, until the batch is
   * full, the pool is empty or no datagram is left. Returns their number. An empty datagram becomes an empty packet.
   */
  receive(batch: PacketBatch): number;
  /**
   * Sends the packets from index `start` up to `end`, each to its {@linkcode Packet.endpoint}, until the system refuses
   * one (see {@linkcode UdpSocket.refusal}). Returns the number of packets sent; their memory may be reused.
   */
  send(packets: readonly Packet[], start: number, end: number): number;
  /** Closes the socket, which then neither receives nor sends. Further calls do nothing. */
  close(): void;
}

/** Returns the address in an endpoint. */
export function addressOf(endpoint: Uint8Array, family: 4 | 6): Address {
  const start = family === 4 ? Endpoint.Ipv4Address : Endpoint.Ipv6Address;
  return { family, bytes: endpoint.slice(start, start + (family === 4 ? 4 : 16)) };
}

/** Converts an IPv4 address to `::ffff:a.b.c.d` if the socket's `family` is 6; returns other addresses unchanged. */
export function mapAddress(address: Address, family: 4 | 6): Address {
  if (address.family === family || family === 4) return address;
  return { family, bytes: Uint8Array.of(...MAPPED, ...address.bytes) };
}

/** Converts `::ffff:a.b.c.d` to an IPv4 address; returns other addresses unchanged. */
export function unmapAddress(address: Address): Address {
  const { family, bytes } = address;
  if (family === 4 || !MAPPED.every((byte, i) => bytes[i] === byte)) return address;
  return { family: 4, bytes: bytes.slice(MAPPED.length) };
}

/** Returns the port in an endpoint. */
export function portOf(endpoint: Uint8Array): number {
  return endpoint[Endpoint.Port]! << 8 | endpoint[Endpoint.Port + 1]!;
}

/** Formats an endpoint: `192.0.2.1:4500`, `[2001:db8::1]:4500`. */
export function formatEndpoint(endpoint: Uint8Array, family: 4 | 6): string {
  const address = formatAddress(addressOf(endpoint, family));
  return `${family === 4 ? address : `[${address}]`}:${portOf(endpoint)}`;
}

/** Returns the remedy for a failed `bind`; `code` is the name of the error. */
export function bindRemedy(code: string): string | undefined {
  switch (code.replace(/^WSA/, "")) {
    case "EADDRINUSE":
      return "another program has this port: use another one";
    case "EACCES":
    case "EPERM":
      return "use a port above 1023";
    case "EADDRNOTAVAIL":
      return "use an address of this machine, or a port alone";
  }
}

/** Reports whether a packet's endpoint contains a local address. */
export function isFromLocal({ view, slotEnd }: Packet, family: 4 | 6): boolean {
  const end = family === 4 ? Endpoint.Local + 4 : Endpoint.Interface;
  for (let at = Endpoint.Local; at < end; at += 4) {
    if (view.getUint32(slotEnd + at) !== 0) return true;
  }
  return false;
}

/** Clears the local address and interface in a packet's endpoint, so that the system chooses them. */
export function clearLocal({ view, slotEnd }: Packet): void {
  for (let at = Endpoint.Local; at < Endpoint.Size; at += 4) view.setUint32(slotEnd + at, 0);
}

/** Reports whether a packet's endpoint and the one at `start` have the same local address and interface. */
export function hasLocal(packet: Packet, view: DataView, start: number, family: 4 | 6): boolean {
  const from = packet.slotEnd + Endpoint.Local;
  const end = family === 4 ? Endpoint.Local + 4 : Endpoint.Size;
  for (let offset = Endpoint.Local, at = from; offset < end; offset += 4, at += 4) {
    if (packet.view.getUint32(at) !== view.getUint32(start + offset)) return false;
  }
  return true;
}

/** Reports whether a packet's endpoint and the one at `start` have the same peer; IPv6 flow labels are ignored. */
export function isAt(packet: Packet, endpoint: DataView, start: number, family: 4 | 6): boolean {
  const { view, slotEnd } = packet;
  if (view.getUint32(slotEnd) !== endpoint.getUint32(start)) return false;
  const [first, end] = family === 4 ? IPV4_ADDRESS : IPV6_ADDRESS;
  for (let offset = first; offset < end; offset += 4) {
    if (view.getUint32(slotEnd + offset) !== endpoint.getUint32(start + offset)) return false;
  }
  return true;
}
