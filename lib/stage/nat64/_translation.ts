/**
 * Translation between IPv6 and IPv4 within a packet's slot (RFC 7915): its types, and the headers that it writes.
 *
 *     │ IPv6 │ extensions │ upper layer ...      ─► toIpv4 ─►            │ IPv4 │ upper layer ...
 *     │ IPv4 │ options │ upper layer ...         ─► toIpv6 ─►   │ IPv6 │ fragment │ upper layer ...
 *
 * The upper layer stays in place, and new headers are written in front of it. The same holds for the packet that an ICMP
 * error quotes; the ICMP header in front of it moves as well.
 */

import { fold } from "../../core/checksum.ts";
import type { Packet } from "../../core/mod.ts";
import * as field from "../../wire/header_fields.ts";
import { Protocol } from "../../wire/protocol.ts";

// Specification
const {
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  FRAGMENT_WORD,
  IPV4_CHECKSUM,
  IPV4_DST,
  IPV4_FLAGS,
  IPV4_ID,
  IPV4_SRC,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SRC,
} = field;
/** RFC 7915 section 5.1: up to this length, routers may fragment a translated packet. */
export const MAX_FRAGMENTABLE = 1260;

/** Reasons for which a packet cannot be translated, for `drop`. */
export const Untranslatable = {
  /** A header is truncated or states a wrong length. */
  Malformed: "malformed",
  /** The checksum of an IPv4 header or of an ICMP error is wrong; a new one would hide that. */
  Checksum: "wrong checksum",
  /** A source route with hops left (RFC 7915 sections 4.1 and 5.1). */
  SourceRoute: "source route",
  /** A protocol without a counterpart: an authentication header, ICMP of the other version. */
  Protocol: "protocol not translated",
  /** An ICMP message without a counterpart. */
  Message: "ICMP message not translated",
  /** A fragmented ICMP message: its checksum covers the other fragments (RFC 7915 sections 4.2 and 5.2). */
  FragmentedIcmp: "fragmented ICMP",
  /** Extension headers in a fragment: without them, the offsets of the other fragments would be wrong. */
  FragmentedHeaders: "extension headers in a fragment",
  /** A fragment of a UDP datagram without a checksum (RFC 7915 section 4.5). */
  NoChecksum: "fragment without a checksum",
  /** The packet does not fit the other version, or its slot. */
  TooLong: "too long to translate",
} as const;
/** One of {@linkcode Untranslatable}'s values. */
export type Untranslatable = typeof Untranslatable[keyof typeof Untranslatable];

/** Addresses of a translated IPv4 packet, and of the packet that it quotes (unsigned 32 bits). */
export interface Ipv4Addresses {
  /** Source. */
  src: number;
  /** Destination. */
  dst: number;
  /** Source of the quoted packet, in ICMP errors. */
  quotedSrc: number;
  /** Destination of the quoted packet. */
  quotedDst: number;
}

/** Addresses of a translated IPv6 packet, and of the packet that it quotes (16 bytes each). */
export interface Ipv6Addresses {
  /** Source. */
  readonly src: Uint8Array;
  /** Destination. */
  readonly dst: Uint8Array;
  /** Source of the quoted packet, in ICMP errors. */
  readonly quotedSrc: Uint8Array;
  /** Destination of the quoted packet. */
  readonly quotedDst: Uint8Array;
}

/** Moves the start of a packet to `length` bytes before `at`, where new headers are written. */
export function replaceHeaders(packet: Packet, at: number, length: number): void {
  const moved = at - length - packet.offset;
  packet.offset += moved;
  packet.length -= moved;
  if (packet.checksumStart !== 0) packet.checksumStart = Math.max(0, packet.checksumStart - moved);
}

/** Length of an IPv6 header, with a Fragment header unless `fragmentId` is negative. */
export function headersLength(fragmentId: number): number {
  return fragmentId < 0 ? IPV6_HEADER : IPV6_HEADER + FRAGMENT_HEADER;
}

export function writeIpv4(
  { view }: Packet,
  at: number,
  length: number,
  service: number,
  id: number,
  flags: number,
  ttl: number,
  protocol: number,
  src: number,
  dst: number,
): void {
  const total = (0x4500 | service) + length + (id & 0xffff) + flags + (ttl << 8 | protocol) +
    (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff);
  view.setUint16(at, 0x4500 | service);
  view.setUint16(at + IPV4_TOTAL_LENGTH, length);
  view.setUint16(at + IPV4_ID, id);
  view.setUint16(at + IPV4_FLAGS, flags);
  view.setUint16(at + IPV4_TTL, ttl << 8 | protocol);
  view.setUint16(at + IPV4_CHECKSUM, ~fold(total));
  view.setUint32(at + IPV4_SRC, src);
  view.setUint32(at + IPV4_DST, dst);
}

/** Writes an IPv6 header, with a Fragment header unless `fragmentId` is negative. */
export function writeIpv6(
  { bytes, view }: Packet,
  at: number,
  length: number,
  service: number,
  hopLimit: number,
  protocol: number,
  src: Uint8Array,
  dst: Uint8Array,
  fragmentId: number,
  fragmentOffset: number,
  more: boolean,
): void {
  view.setUint32(at, 6 << 28 | service << 20);
  view.setUint16(at + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
  view.setUint16(at + IPV6_NEXT_HEADER, (fragmentId < 0 ? protocol : Protocol.Fragment) << 8 | hopLimit);
  for (let i = 0; i < 16; i++) {
    bytes[at + IPV6_SRC + i] = src[i]!;
    bytes[at + IPV6_DST + i] = dst[i]!;
  }
  if (fragmentId < 0) return;
  view.setUint16(at + IPV6_HEADER, protocol << 8);
  view.setUint16(at + IPV6_HEADER + FRAGMENT_WORD, fragmentOffset | (more ? 1 : 0));
  view.setUint32(at + IPV6_HEADER + FRAGMENT_ID, fragmentId);
}

/** Sum of two addresses in one's complement. */
export function sumOfAddresses(src: Uint8Array, dst: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < 16; i += 2) {
    total += (src[i]! << 8 | src[i + 1]!) + (dst[i]! << 8 | dst[i + 1]!);
  }
  return foldOnce(foldOnce(total));
}

/** Adds the carries of a sum in one's complement. */
export function foldOnce(total: number): number {
  return (total & 0xffff) + (total >>> 16);
}
