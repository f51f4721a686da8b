/** Packets in dirty slots, and a slow checksum oracle that shares no code with lib, for tests of header views. */

import { notEqual } from "node:assert/strict";
import { type Packet, PacketPool } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";

export const IPV4_SRC = 0x0a090001;
export const IPV4_DST = 0x0a09004d;
export const IPV6_SRC: Uint8Array = Uint8Array.from([
  0xfe,
  0x80,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0x01,
]);
export const IPV6_DST: Uint8Array = Uint8Array.from([
  0x20,
  0x01,
  0x0d,
  0xb8,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0x02,
]);

/** A packet in a slot whose other bytes are all 0xa5. */
export function packetOf(payload: Uint8Array | readonly number[]): Packet {
  return refill(new PacketPool({ small: 1, large: 0 }).take(0)!, payload);
}

/** Fills a packet with these bytes, and the rest of its slot with 0xa5. */
export function refill(packet: Packet, bytes: ArrayLike<number>): Packet {
  packet.bytes.fill(0xa5, packet.slotStart, packet.slotEnd);
  packet.reset(bytes.length);
  packet.bytes.set(bytes, packet.offset);
  return packet;
}

/** Calls every getter of a view, each of which must return a value. */
export function readAll(view: object): void {
  for (
    const [name, { get }] of Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(view)))
  ) {
    if (get !== undefined) notEqual(get.call(view), undefined, name);
  }
}

/** Prepends an IP header of either version. */
export function encodeIp(packet: Packet, version: 4 | 6, protocol: number): Packet {
  if (version === 4) Ipv4.encode(packet, { src: IPV4_SRC, dst: IPV4_DST, protocol });
  else Ipv6.encode(packet, { src: IPV6_SRC, dst: IPV6_DST, nextHeader: protocol });
  return packet;
}

/** Makes the transport checksum partial, as in packets from a kernel with checksum offload. */
export function makePartial(packet: Packet, start: number, field: number): void {
  const bytes = packet.data;
  const upper = locate(bytes);
  const stored = plainSum(pseudoHeader(bytes, upper));
  packet.view.setUint16(start + field, stored);
  packet.checksumStart = start - packet.offset;
  packet.checksumOffset = field;
}

/** Returns the wrong checksum of a packet with complete checksums, by RFC 1071's loop; "" for none. */
export function wrongChecksum(bytes: Uint8Array): string {
  if (bytes[0]! >> 4 === 4) {
    const header = bytes.subarray(0, (bytes[0]! & 0x0f) * 4);
    if (plainSum(header) !== 0xffff) return "IPv4 header";
  }
  const upper = locate(bytes);
  const field = upper.start + { 1: 2, 6: 16, 17: 6, 58: 2 }[upper.protocol]!;
  const stored = bytes[field]! * 256 + bytes[field + 1]!;
  if (upper.protocol === 17 && stored === 0) {
    return upper.version === 4 ? "" : "UDP without a checksum over IPv6";
  }
  const covered = bytes.subarray(upper.start, upper.end);
  const before = upper.protocol === 1 ? [] : pseudoHeader(bytes, upper);
  return plainSum([...before, ...covered]) === 0xffff
    ? ""
    : `protocol ${upper.protocol}: ${stored.toString(16)}`;
}

interface Upper {
  version: number;
  protocol: number;
  start: number;
  end: number;
  finalDst: Uint8Array;
}

function locate(bytes: Uint8Array): Upper {
  const version = bytes[0]! >> 4;
  let protocol = bytes[version === 4 ? 9 : 6]!;
  let start = version === 4 ? (bytes[0]! & 0x0f) * 4 : 40;
  let end = version === 4 ? bytes[2]! * 256 + bytes[3]! : 40 + bytes[4]! * 256 + bytes[5]!;
  let finalDst = version === 4 ? bytes.subarray(16, 20) : bytes.subarray(24, 40);
  while (version === 6 && [0, 43, 44, 60].includes(protocol)) {
    if (protocol === 43 && bytes[start + 3]! > 0) {
      const length = 8 + bytes[start + 1]! * 8;
      finalDst = bytes[start + 2] === 0
        ? bytes.subarray(start + length - 16, start + length)
        : bytes.subarray(start + 8, start + 24);
    }
    const next = bytes[start]!;
    start += protocol === 44 ? 8 : 8 + bytes[start + 1]! * 8;
    protocol = next;
  }
  if (protocol === 17) end = start + bytes[start + 4]! * 256 + bytes[start + 5]!;
  return { version, protocol, start, end, finalDst };
}

function pseudoHeader(bytes: Uint8Array, upper: Upper): Uint8Array {
  const length = upper.end - upper.start;
  const src = upper.version === 4 ? bytes.subarray(12, 16) : bytes.subarray(8, 24);
  return Uint8Array.from([...src, ...upper.finalDst, length >> 8, length & 0xff, 0, upper.protocol]);
}

/** RFC 1071's loop (section 4.1), without the complement. */
export function plainSum(bytes: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i++) total += i % 2 === 0 ? bytes[i]! * 256 : bytes[i]!;
  while (total > 0xffff) total = total % 0x10000 + Math.floor(total / 0x10000);
  return total;
}

/** Bytes as hexadecimal text, for comparing. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
