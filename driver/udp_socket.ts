/** A UDP socket of the operating system: datagrams straight into slots of the pool, and out of them. */

import { type Address, formatAddress } from "../lib/wire/address.ts";
import type { Packet, PacketBatch, PacketPool, Waitable } from "../lib/core/mod.ts";

// Specification
/**
 * An endpoint, an address with a port, is the system's own `struct sockaddr_in` or `struct sockaddr_in6`, padded to
 * 28 bytes. All of a socket's are of the socket's family. Behind it stand the local address, in network order, to which
 * a datagram came or from which it is to leave, and the index of its interface, in the system's order, which counts for
 * link-local addresses. Zeros mean that the system chooses. Both count only with
 * {@linkcode UdpSocketOptions.localAddresses}; else they are whatever was there. This is the layout of {@linkcode Packet.endpoint}.
 *
 * ```c
 * struct sockaddr_in  { sa_family_t sin_family;  in_port_t sin_port;  struct in_addr sin_addr; char sin_zero[8]; };
 * struct sockaddr_in6 { sa_family_t sin6_family; in_port_t sin6_port; uint32_t sin6_flowinfo;
 *                       struct in6_addr sin6_addr; uint32_t sin6_scope_id; };
 * ```
 *
 * The family's number, and on BSD the length before it, are the system's; everything else is at the same place on
 * every system. Port and address are big-endian.
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
  /** The local address: 4 bytes of IPv4, or 16. */
  Local: 28,
  /** The index of the interface. */
  Interface: 44,
  /** The room that an endpoint of either family has. */
  Size: 48,
} as const;

/** RFC 791 section 3.1 and RFC 768: the longest payload of a datagram over IPv4; IPv6's is 20 bytes longer. */
export const MAX_DATAGRAM = 65_507;

/** An endpoint's bytes. */
export type EndpointBytes = Uint8Array<ArrayBuffer>;

/** Options for `openUdpSocket`. */
export interface UdpSocketOptions {
  /** The address that it receives on; all zeros for every address of the family. */
  address: Address;
  /** The port that it receives on; 0: one that the system chooses. @default {0} */
  port?: number;
  /** Whether an IPv6 socket leaves IPv4 alone; else IPv4's endpoints are `::ffff:a.b.c.d`. @default {false} */
  ipv6Only?: boolean;
  /**
   * The interface, by its name, that packets leave by, whatever the routes say: what keeps a tunnel's own packets
   * out of the tunnel. On Linux and macOS, only packets that arrive by it are received. @default {the routes'}
   */
  interface?: string;
  /**
   * Has endpoints of received datagrams include the local address that each came to, and datagrams leave from the local
   * address in theirs (RFC 1122 section 4.1.3.5). For a socket that receives on every address. @default {false}
   */
  localAddresses?: boolean;
  /**
   * Called from `receive` and `send` when an ICMP error about a datagram sent to this endpoint has come, with the name
   * of the system's error, such as `ECONNREFUSED`. Anyone on the path can forge one. Only Linux reports them to
   * sockets with many peers. @default {ICMP errors are ignored}
   */
  onUnreachable?: (endpoint: EndpointBytes, code: string) => void;
  /** What may wait in the system for `receive` (bytes); the system may have a lower limit. @default {4194304} */
  receiveBuffer?: number;
  /** What may wait in the system to be sent (bytes); the system may have a lower limit. @default {4194304} */
  sendBuffer?: number;
}

// Implementation
/** RFC 4291 section 2.5.5.2: what stands before an IPv4 address. */
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/** Where an address, and with IPv6 its scope, starts and ends. */
const IPV4_ADDRESS = [Endpoint.Ipv4Address, Endpoint.Ipv4Address + 4] as const;
const IPV6_ADDRESS = [Endpoint.Ipv6Address, Endpoint.Ipv6Size] as const;
/** The buffers' default (bytes): at 1 Gbit/s, what comes in 33 ms. */
export const SOCKET_BUFFER: number = 4 * 1024 * 1024;

/** A socket that never waits and, once it is open, never throws. */
export interface UdpSocket extends Disposable {
  /** What the loop waits for; `undefined` when it is closed. After it, receive until nothing comes. */
  readonly waitable: Waitable | undefined;
  /** Where it receives: the address asked for, and the port that it has. */
  readonly local: EndpointBytes;
  /** 4 or 6: of all its endpoints. */
  readonly family: 4 | 6;
  /** True if endpoints have local addresses: it was asked for, and the system has such a thing. */
  readonly localAddresses: boolean;
  /** Why it can be used no longer; `undefined` while it can. ICMP errors are no such reason. */
  readonly failure: Error | undefined;
  /** What the system said when {@linkcode UdpSocket.send} stopped; `undefined` for "no room now". */
  readonly refusal: string | undefined;
  /** Settled when the system has everything back after `close`. */
  readonly closed: Promise<void>;
  /**
   * Says whose slots datagrams go into, once, before the first is received, and how long a packet may be. Of longer
   * datagrams come the first `longest + 1` bytes, so that they are seen to be longer.
   */
  attach(pool: PacketPool, longest: number): void;
  /** The endpoint of an address and a port. The address is of the socket's family. */
  endpoint(address: Address, port: number): EndpointBytes;
  /**
   * Appends datagrams to a batch until it is full, the pool is empty or nothing more is there, with their senders in
   * {@linkcode Packet.endpoint}; returns how many. A datagram without bytes is a packet of length 0.
   */
  receive(batch: PacketBatch): number;
  /**
   * Sends `packets[start]` to `packets[end - 1]`, each to its {@linkcode Packet.endpoint}, until the system refuses
   * one, which is what {@linkcode UdpSocket.refusal} is about; returns how many were sent. The bytes are free then.
   */
  send(packets: readonly Packet[], start: number, end: number): number;
  /** Closes it. Further calls do nothing; nothing is received or sent after it. */
  close(): void;
}

/** The address in an endpoint of this family. */
export function addressOf(endpoint: Uint8Array, family: 4 | 6): Address {
  const start = family === 4 ? Endpoint.Ipv4Address : Endpoint.Ipv6Address;
  return { family, bytes: endpoint.slice(start, start + (family === 4 ? 4 : 16)) };
}

/** An address as a socket of this family has it: an IPv6 socket's IPv4 peers are `::ffff:a.b.c.d` (RFC 4291). */
export function mapAddress(address: Address, family: 4 | 6): Address {
  if (address.family === family || family === 4) return address;
  return { family, bytes: Uint8Array.of(...MAPPED, ...address.bytes) };
}

/** The IPv4 address behind `::ffff:a.b.c.d`; any other address as it is. */
export function unmapAddress(address: Address): Address {
  const { family, bytes } = address;
  if (family === 4 || !MAPPED.every((byte, i) => bytes[i] === byte)) return address;
  return { family: 4, bytes: bytes.slice(MAPPED.length) };
}

/** The port in an endpoint. */
export function portOf(endpoint: Uint8Array): number {
  return endpoint[Endpoint.Port]! << 8 | endpoint[Endpoint.Port + 1]!;
}

/** An endpoint as text: `192.0.2.1:4500`, `[2001:db8::1]:4500`. */
export function formatEndpoint(endpoint: Uint8Array, family: 4 | 6): string {
  const address = formatAddress(addressOf(endpoint, family));
  return `${family === 4 ? address : `[${address}]`}:${portOf(endpoint)}`;
}

/** What to do when a socket cannot have its address, by the name of the system's error. */
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

/** Tells whether a packet is to leave from a local address of its own. */
export function isFromLocal({ view, slotEnd }: Packet, family: 4 | 6): boolean {
  const end = family === 4 ? Endpoint.Local + 4 : Endpoint.Interface;
  for (let at = Endpoint.Local; at < end; at += 4) {
    if (view.getUint32(slotEnd + at) !== 0) return true;
  }
  return false;
}

/** Has the system choose the local address for a packet. */
export function clearLocal({ view, slotEnd }: Packet): void {
  for (let at = Endpoint.Local; at < Endpoint.Size; at += 4) view.setUint32(slotEnd + at, 0);
}

/** Tells whether a packet is to leave from the same local address as another. */
export function hasLocal(packet: Packet, view: DataView, start: number, family: 4 | 6): boolean {
  const from = packet.slotEnd + Endpoint.Local;
  const end = family === 4 ? Endpoint.Local + 4 : Endpoint.Size;
  for (let offset = Endpoint.Local, at = from; offset < end; offset += 4, at += 4) {
    if (packet.view.getUint32(at) !== view.getUint32(start + offset)) return false;
  }
  return true;
}

/** Whether a packet's endpoint is the one that starts here. What IPv6 calls a flow has no part in it. */
export function isAt(packet: Packet, endpoint: DataView, start: number, family: 4 | 6): boolean {
  const { view, slotEnd } = packet;
  if (view.getUint32(slotEnd) !== endpoint.getUint32(start)) return false;
  const [first, end] = family === 4 ? IPV4_ADDRESS : IPV6_ADDRESS;
  for (let offset = first; offset < end; offset += 4) {
    if (view.getUint32(slotEnd + offset) !== endpoint.getUint32(start + offset)) return false;
  }
  return true;
}
