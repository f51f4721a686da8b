/**
 * IPv6 packets become IPv4 packets and the other way round, in their slots (RFC 7915).
 *
 *     │ IPv6 │ extensions │ upper layer ...      ─► toIpv4 ─►            │ IPv4 │ upper layer ...
 *     │ IPv4 │ options │ upper layer ...         ─► toIpv6 ─►   │ IPv6 │ fragment │ upper layer ...
 *
 * The upper layer stays where it is, and what stands in front is written anew. So it is in the packet that an ICMP error
 * quotes: the ICMP header then moves, too.
 */

import {
  DONT_FRAGMENT,
  END_OF_OPTIONS,
  FRAGMENT_BITS,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  FRAGMENT_WORD,
  ICMP_CHECKSUM,
  ICMP_HEADER,
  ICMPV4_MAX_ERROR,
  IPV4_CHECKSUM,
  IPV4_DST,
  IPV4_FLAGS,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_MAX_LENGTH,
  IPV4_SRC,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_MIN_MTU,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SRC,
  MORE_FRAGMENTS,
  NO_OPERATION,
  ROUTING_SEGMENTS_LEFT,
  UDP_CHECKSUM,
  UDP_HEADER,
} from "../../wire/header_fields.ts";
import { longestLength } from "../../wire/packet_parts.ts";
import { QuotedPacket } from "../../wire/quoted_packet.ts";
import { checksum, difference, pseudoHeaderSumIpv4, pseudoHeaderSumIpv6, sum } from "../../core/checksum.ts";
import {
  adjustPseudoHeader,
  adjustTransport,
  coveredLength,
  isPartial,
  writeTransportChecksum,
} from "../../wire/transport_checksum.ts";
import type { Packet } from "../../core/mod.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { messageToIpv4, messageToIpv6, NONE, restToIpv4, restToIpv6 } from "./_icmp_messages.ts";

// Specification
/** RFC 4884 section 4: the least length of the quoted packet, with padding, in front of extensions (bytes). */
const MIN_EXTENDED_QUOTE = 128;
/** RFC 4884 section 7: the version of extensions, and the length of their header (bytes). */
const EXTENSION_VERSION = 2;
const EXTENSION_HEADER = 4;
/** RFC 7915 section 5.1: up to this length, routers may divide what was translated. */
const MAY_BE_DIVIDED = 1260;
// Specification: options, RFC 791 section 3.1
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;

// Implementation

/** Why a packet cannot be translated, for `drop`. */
export const Untranslatable = {
  /** A header is cut short or lies about its length. */
  Malformed: "malformed",
  /** The sum of an IPv4 header or of an ICMP error is wrong, and writing it anew would hide that. */
  Checksum: "wrong checksum",
  /** A route that has not been travelled to its end (RFC 7915 sections 4.1 and 5.1). */
  SourceRoute: "source route",
  /** What has no counterpart: an authentication header, ICMP of the other version. */
  Protocol: "protocol not translated",
  /** An ICMP message without a counterpart. */
  Message: "ICMP message not translated",
  /** The checksum of a divided ICMP message covers what is not here (RFC 7915 sections 4.2 and 5.2). */
  FragmentedIcmp: "fragmented ICMP",
  /** Extension headers within a divided packet: without them, its other fragments would stand elsewhere. */
  DividedHeaders: "extension headers in a fragment",
  /** UDP without a checksum, divided (RFC 7915 section 4.5). */
  NoChecksum: "fragment without a checksum",
  /** It does not fit the other version, or its slot. */
  TooLong: "too long to translate",
} as const;
/** One of the reasons in {@linkcode Untranslatable}. */
export type Untranslatable = typeof Untranslatable[keyof typeof Untranslatable];

/** Where an IPv4 packet comes from and goes, and one that it quotes (unsigned 32 bits). */
export interface Ipv4Addresses {
  /** Its source. */
  src: number;
  /** Its destination. */
  dst: number;
  /** The source of the packet that it quotes, if it is an ICMP error. */
  quotedSrc: number;
  /** The destination of that packet. */
  quotedDst: number;
}

/** Where an IPv6 packet comes from and goes, and one that it quotes (16 bytes each). */
export interface Ipv6Addresses {
  /** Its source. */
  readonly src: Uint8Array;
  /** Its destination. */
  readonly dst: Uint8Array;
  /** The source of the packet that it quotes, if it is an ICMP error. */
  readonly quotedSrc: Uint8Array;
  /** The destination of that packet. */
  readonly quotedDst: Uint8Array;
}

/** The packet that an ICMP error quotes, and what else is read of it before other headers stand in its place. */
const quoted = new QuotedPacket();
const quotedFields = {
  /** The end of the quotation without padding. */
  end: 0,
  /** The length that its header states, after translation to IPv6 (bytes). */
  length: 0,
  /** Its identification; -1 for a packet that is no fragment and may not become one. */
  id: -1,
  /** Its traffic class, and its hop limit. */
  service: 0,
  ttl: 0,
};

/** The extensions of an ICMP error, before others stand in their place; of length 0 when there are none. */
const extensions = { start: 0, length: 0 };

/** RFC 4884 section 4: the length of the quoted packet in an ICMP error's second word: its unit (bytes), and its place. */
const LengthField = { Ipv4: { unit: 4, shift: 16 }, Ipv6: { unit: 8, shift: 24 } } as const;
type LengthField = typeof LengthField[keyof typeof LengthField];

/**
 * Makes an IPv6 packet an IPv4 packet with other addresses; a right checksum stays right and a wrong one wrong. `id` is
 * for a packet that routers may divide. Returns why it cannot be done; the packet is then to be dropped. Super-packets and
 * partly summed packets stay what they are.
 *
 * An ICMP error is cut to 576 bytes (RFC 1812 section 4.3.2.3) and keeps its extensions (RFC 4884), unless they are longer
 * than 420 bytes or do not fit the slot. The hop limit is kept.
 */
export function toIpv4(packet: Packet, addresses: Ipv4Addresses, id: number): Untranslatable | undefined {
  const ip = Ipv6.of(packet);
  if (ip === undefined) return Untranslatable.Malformed;
  const { bytes, view } = packet;
  const { start, payloadOffset: upper, payloadLength: length, trafficClass, hopLimit } = ip;
  let { protocol } = ip;
  if (protocol === Protocol.Icmp || ip.extension(Protocol.Ah) >= 0) return Untranslatable.Protocol;
  const routing = ip.extension(Protocol.Routing);
  if (routing >= 0 && bytes[routing + ROUTING_SEGMENTS_LEFT] !== 0) return Untranslatable.SourceRoute;
  if (length + IPV4_HEADER > IPV4_MAX_LENGTH) return Untranslatable.TooLong;
  packet.length = upper + length - packet.offset;
  const { src, dst } = addresses;
  const ownId = id;
  let flags = 0;
  const fragment = ip.fragmentHeader;
  if (ip.isFragment && upper !== fragment + FRAGMENT_HEADER) return Untranslatable.DividedHeaders;
  if (fragment >= 0) {
    const word = view.getUint16(fragment + FRAGMENT_WORD);
    flags = word >> 3 | (word & 1 ? MORE_FRAGMENTS : 0);
    id = view.getUint16(fragment + FRAGMENT_ID + 2);
  } else if (longestLength(packet, ip) - (upper - start) + IPV4_HEADER > MAY_BE_DIVIDED) {
    flags = DONT_FRAGMENT;
    id = 0;
  }
  let at = upper;
  if (protocol === Protocol.Icmpv6) {
    if (ip.isFragment) return Untranslatable.FragmentedIcmp;
    packet.finish();
    const icmp = Icmpv6.of(packet);
    if (icmp === undefined) return Untranslatable.Malformed;
    const message = messageToIpv4(icmp.type, icmp.code);
    if (message === NONE) return Untranslatable.Message;
    if (icmp.quotedOffset < 0) {
      echoToIpv4(packet, start, upper, upper + length, length, message);
    } else {
      const rest = restToIpv4(message, icmp.rest);
      if (rest === NONE) return Untranslatable.Message;
      if (!icmp.checksumValid) return Untranslatable.Checksum;
      readExtensions(icmp);
      const reason = quotedToIpv4(packet, icmp, addresses);
      if (reason !== undefined) return reason;
      at = quoted.upperOffset - IPV4_HEADER - ICMP_HEADER;
      finishError(packet, at, at + ICMPV4_MAX_ERROR - IPV4_HEADER, message, rest, LengthField.Ipv4);
      writeTransportChecksum(packet, at, packet.offset + packet.length, Protocol.Icmp, 0);
      if (fragment < 0) {
        flags = 0;
        id = ownId;
      }
    }
    protocol = Protocol.Icmp;
  } else if (ip.fragmentOffset === 0) {
    const change = difference(sum(bytes, start + IPV6_SRC, 32), pseudoHeaderSumIpv4(src, dst, 0, 0));
    adjustPseudoHeader(packet, upper, upper + length, protocol, change);
  }
  replaceHeaders(packet, at, IPV4_HEADER);
  writeIpv4(packet, packet.offset, packet.length, trafficClass, id, flags, hopLimit, protocol, src, dst);
  return undefined;
}

/**
 * Makes an IPv4 packet an IPv6 packet with other addresses, as {@linkcode toIpv4} does. A UDP packet without a checksum
 * gets one. What routers may divide gets a Fragment header where it becomes longer than 1280 bytes: it is now to be divided
 * (RFC 7915 section 4.1).
 *
 * An ICMP error is cut to 1280 bytes and keeps its extensions (RFC 4884) where ICMPv6 has room for them: in destination
 * unreachable and time exceeded. The time to live is kept.
 *
 * **Limits**: super-packets get no Fragment header.
 */
export function toIpv6(packet: Packet, addresses: Ipv6Addresses): Untranslatable | undefined {
  const ip = Ipv4.of(packet);
  if (ip === undefined) return Untranslatable.Malformed;
  const { bytes, view } = packet;
  const { start, payloadOffset: upper, payloadLength: length, isFragment, fragmentOffset, ttl, id } = ip;
  let { protocol } = ip;
  const more = ip.moreFragments;
  const isDivisible = !ip.dontFragment && packet.segmentSize === 0;
  const service = bytes[start + 1]!;
  if (sum(bytes, start, upper - start) !== 0xffff) return Untranslatable.Checksum;
  if (protocol === Protocol.Icmpv6 || protocol === Protocol.Ah) return Untranslatable.Protocol;
  if (upper - start > IPV4_HEADER && isRouted(bytes, start + IPV4_HEADER, upper)) {
    return Untranslatable.SourceRoute;
  }
  const end = upper + length;
  packet.length = end - packet.offset;
  const { src, dst } = addresses;
  let at = upper;
  if (protocol === Protocol.Icmp) {
    if (isFragment) return Untranslatable.FragmentedIcmp;
    packet.finish();
    const icmp = Icmpv4.of(packet);
    if (icmp === undefined) return Untranslatable.Malformed;
    const message = messageToIpv6(icmp.type, icmp.code);
    if (message === NONE) return Untranslatable.Message;
    if (icmp.quotedOffset < 0) echoToIpv6(packet, upper, end, length, message, src, dst);
    else {
      if (!icmp.checksumValid) return Untranslatable.Checksum;
      const { rest } = icmp;
      readExtensions(icmp);
      const reason = quotedToIpv6(packet, icmp, addresses);
      if (reason !== undefined) return reason;
      const told = restToIpv6(message, rest, quotedFields.length - IPV6_HEADER + IPV4_HEADER);
      if (told === NONE) return Untranslatable.Message;
      at = quoted.upperOffset - headersLength(quotedFields.id) - ICMP_HEADER;
      const isExtensible = message >> 8 === Icmpv6.DestinationUnreachable ||
        message >> 8 === Icmpv6.TimeExceeded;
      if (!isExtensible) extensions.length = 0;
      finishError(packet, at, at + IPV6_MIN_MTU - IPV6_HEADER, message, told, LengthField.Ipv6);
    }
    protocol = Protocol.Icmpv6;
  } else if (fragmentOffset === 0) {
    const change = difference(pseudoHeaderSumIpv4(ip.src, ip.dst, 0, 0), sumOf(src, dst));
    if (protocol !== Protocol.Udp) adjustPseudoHeader(packet, upper, end, protocol, change);
    else if (length < UDP_HEADER) return Untranslatable.Malformed;
    else if (view.getUint16(upper + UDP_CHECKSUM) !== 0 || isPartial(packet, upper)) {
      adjustPseudoHeader(packet, upper, end, protocol, change);
    } else if (isFragment) return Untranslatable.NoChecksum;
    else sumUp(packet, upper, end, src, dst);
  }
  const isTooLong = packet.offset + packet.length - at + IPV6_HEADER > IPV6_MIN_MTU;
  const fragmentId = isFragment || isDivisible && isTooLong ? id : -1;
  if (at - packet.offset + packet.headroom < headersLength(fragmentId)) return Untranslatable.TooLong;
  replaceHeaders(packet, at, headersLength(fragmentId));
  writeIpv6(
    packet,
    packet.offset,
    packet.length,
    service,
    ttl,
    protocol,
    src,
    dst,
    fragmentId,
    fragmentOffset,
    more,
  );
  if (at !== upper) {
    const covered = packet.length - IPV6_HEADER;
    const pseudoHeader = pseudoHeaderSumIpv6(
      bytes,
      packet.offset + IPV6_SRC,
      packet.offset + IPV6_DST,
      protocol,
      covered,
    );
    writeTransportChecksum(packet, at, at + covered, protocol, pseudoHeader);
  }
  return undefined;
}

/** Puts room for other headers in front of the bytes from `at` on. */
function replaceHeaders(packet: Packet, at: number, length: number): void {
  const moved = at - length - packet.offset;
  packet.offset += moved;
  packet.length -= moved;
  if (packet.checksumStart !== 0) packet.checksumStart = Math.max(0, packet.checksumStart - moved);
}

/** Finds the extensions of an ICMP error, before others stand in its place. */
function readExtensions(icmp: Icmpv4 | Icmpv6): void {
  const { packet, quotedOffset, quotedLength, payloadOffset, payloadLength } = icmp;
  extensions.start = quotedOffset + quotedLength;
  extensions.length = payloadOffset + payloadLength - extensions.start;
  const isThere = quotedLength >= MIN_EXTENDED_QUOTE && extensions.length >= EXTENSION_HEADER &&
    packet.bytes[extensions.start]! >> 4 === EXTENSION_VERSION;
  if (!isThere) extensions.length = 0;
}

/**
 * Moves the header of an ICMP error to `at`, with another message, and ends the packet before `limit`, behind what it
 * quotes and its extensions (RFC 7915 sections 4.2 and 5.2).
 */
function finishError(
  packet: Packet,
  at: number,
  limit: number,
  message: number,
  rest: number,
  { unit, shift }: LengthField,
): void {
  const { bytes, view } = packet;
  const start = at + ICMP_HEADER;
  const { start: from, length } = extensions;
  // The quoted packet in whole units, as long as it may be; what is missing is zeros.
  const wanted = Math.max(MIN_EXTENDED_QUOTE, quotedFields.end - start + unit - 1);
  const padded = Math.min(wanted, limit - start - length, packet.slotEnd - start - length) & -unit;
  let end = Math.min(quotedFields.end, limit);
  if (length > 0 && padded >= MIN_EXTENDED_QUOTE) {
    const to = start + padded;
    bytes.copyWithin(to, from, from + length);
    if (quotedFields.end < to) bytes.fill(0, quotedFields.end, to);
    end = to + length;
    rest |= padded / unit << shift;
  }
  packet.length = end - packet.offset;
  view.setUint16(at, message);
  view.setUint16(at + ICMP_CHECKSUM, 0);
  view.setUint32(at + 4, rest >>> 0);
}

/** RFC 7915 section 5.2: the pseudo-header goes out of the sum. */
function echoToIpv4(
  packet: Packet,
  start: number,
  upper: number,
  end: number,
  length: number,
  message: number,
): void {
  const { bytes, view } = packet;
  const pseudo = pseudoHeaderSumIpv6(bytes, start + IPV6_SRC, start + IPV6_DST, Protocol.Icmpv6, length);
  const change = difference(pseudo, 0) + difference(view.getUint16(upper), message);
  view.setUint16(upper, message);
  adjustTransport(packet, upper, end, Protocol.Icmp, change);
  // Both are the same sum, but a message of zeros alone has the other one.
  if (view.getUint16(upper + ICMP_CHECKSUM) === 0) view.setUint16(upper + ICMP_CHECKSUM, 0xffff);
}

/** RFC 7915 section 4.2: the pseudo-header comes into the sum. */
function echoToIpv6(
  packet: Packet,
  upper: number,
  end: number,
  length: number,
  message: number,
  src: Uint8Array,
  dst: Uint8Array,
): void {
  const { view } = packet;
  const pseudo = sumOf(src, dst) + Protocol.Icmpv6 + length;
  const change = pseudo + difference(view.getUint16(upper), message);
  view.setUint16(upper, message);
  adjustTransport(packet, upper, end, Protocol.Icmpv6, change);
}

/** Translates the packet that an error quotes. */
function quotedToIpv4(packet: Packet, icmp: Icmpv6, addresses: Ipv4Addresses): Untranslatable | undefined {
  const { bytes } = packet;
  const start = icmp.quotedOffset;
  if (!quoted.read(icmp)) return Untranslatable.Malformed;
  readQuotedFields(packet);
  const { upperOffset: upper, totalLength: length, fragmentOffset: offset, moreFragments: more } = quoted;
  const { end, service, ttl, id } = quotedFields;
  let { protocol } = quoted;
  const upperLength = length - (upper - start);
  const total = upperLength + IPV4_HEADER;
  if (total > IPV4_MAX_LENGTH) return Untranslatable.TooLong;
  const { quotedSrc, quotedDst } = addresses;
  if (protocol === Protocol.Icmpv6) {
    const message = upper + 4 <= end && offset === 0 ? echoMessage(messageToIpv4(bytes[upper]!, 0)) : NONE;
    if (message === NONE) return Untranslatable.Message;
    echoToIpv4(packet, start, upper, end, upperLength, message);
    protocol = Protocol.Icmp;
  } else if (offset === 0) {
    const change = difference(
      sum(bytes, start + IPV6_SRC, 32),
      pseudoHeaderSumIpv4(quotedSrc, quotedDst, 0, 0),
    );
    adjustPseudoHeader(packet, upper, end, protocol, change);
  }
  let flags = offset >> 3 | (more ? MORE_FRAGMENTS : 0);
  if (id < 0 && total > MAY_BE_DIVIDED) flags = DONT_FRAGMENT;
  const at = upper - IPV4_HEADER;
  writeIpv4(packet, at, total, service, Math.max(0, id) & 0xffff, flags, ttl, protocol, quotedSrc, quotedDst);
  return undefined;
}

/** Translates the packet that an error quotes. */
function quotedToIpv6(packet: Packet, icmp: Icmpv4, addresses: Ipv6Addresses): Untranslatable | undefined {
  const { bytes, view } = packet;
  const start = icmp.quotedOffset;
  if (!quoted.read(icmp) || quoted.totalLength < quoted.upperOffset - start) return Untranslatable.Malformed;
  readQuotedFields(packet);
  const { upperOffset: upper, totalLength: length, fragmentOffset: offset, moreFragments: more } = quoted;
  const { end, service, ttl, id } = quotedFields;
  let { protocol } = quoted;
  const upperLength = length - (upper - start);
  const { quotedSrc, quotedDst } = addresses;
  const headers = headersLength(id);
  if (upper - headers - ICMP_HEADER - IPV6_HEADER < packet.slotStart) return Untranslatable.TooLong;
  if (protocol === Protocol.Icmp) {
    const message = upper + 4 <= end && offset === 0 ? echoMessage(messageToIpv6(bytes[upper]!, 0)) : NONE;
    if (message === NONE) return Untranslatable.Message;
    echoToIpv6(packet, upper, end, upperLength, message, quotedSrc, quotedDst);
    protocol = Protocol.Icmpv6;
  } else if (offset === 0) {
    const before = pseudoHeaderSumIpv4(
      view.getUint32(start + IPV4_SRC),
      view.getUint32(start + IPV4_DST),
      0,
      0,
    );
    adjustPseudoHeader(packet, upper, end, protocol, difference(before, sumOf(quotedSrc, quotedDst)));
  }
  quotedFields.length = upperLength + IPV6_HEADER;
  const total = upperLength + headers;
  writeIpv6(packet, upper - headers, total, service, ttl, protocol, quotedSrc, quotedDst, id, offset, more);
  return undefined;
}

/** Only echo messages are quoted and translated: no error is about an error (RFC 7915 sections 4.2 and 5.2). */
function echoMessage(message: number): number {
  const type = message >> 8;
  const isEcho = type === Icmpv4.EchoRequest || type === Icmpv4.EchoReply || type === Icmpv6.EchoRequest ||
    type === Icmpv6.EchoReply;
  return isEcho ? message : NONE;
}

function readQuotedFields({ bytes, view }: Packet): void {
  const { version, start, totalLength, fragmentHeader } = quoted;
  quotedFields.end = Math.min(quoted.end, start + totalLength);
  if (version === 4) {
    const isFragment = (view.getUint16(start + IPV4_FLAGS) & FRAGMENT_BITS) !== 0;
    quotedFields.service = bytes[start + 1]!;
    quotedFields.ttl = bytes[start + IPV4_TTL]!;
    quotedFields.id = isFragment ? view.getUint16(start + IPV4_ID) : -1;
  } else {
    quotedFields.service = view.getUint16(start) >> 4 & 0xff;
    quotedFields.ttl = bytes[start + IPV6_HOP_LIMIT]!;
    quotedFields.id = fragmentHeader < 0 ? -1 : view.getUint32(fragmentHeader + FRAGMENT_ID);
  }
}

/** Whether the options have a route with addresses that are still to be visited. */
function isRouted(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end && bytes[at] !== END_OF_OPTIONS;) {
    const type = bytes[at]!;
    if (type === NO_OPERATION) {
      at++;
      continue;
    }
    const length = at + 1 < end ? bytes[at + 1]! : 0;
    if (length < 2 || at + length > end) return false;
    const isRoute = type === LOOSE_SOURCE_ROUTE || type === STRICT_SOURCE_ROUTE;
    if (isRoute && length > 2 && bytes[at + 2]! <= length) return true;
    at += length;
  }
  return false;
}

/** Gives a UDP packet its checksum; what is cut into segments is left to whoever cuts it. */
function sumUp(packet: Packet, upper: number, end: number, src: Uint8Array, dst: Uint8Array): void {
  const length = packet.segmentSize === 0 ? coveredLength(packet, upper, end, Protocol.Udp) : end - upper;
  const pseudo = foldOnce(foldOnce(sumOf(src, dst) + Protocol.Udp + length));
  if (packet.segmentSize === 0) {
    return writeTransportChecksum(packet, upper, upper + length, Protocol.Udp, pseudo);
  }
  packet.view.setUint16(upper + UDP_CHECKSUM, pseudo);
  packet.checksumStart = upper - packet.offset;
  packet.checksumOffset = UDP_CHECKSUM;
}

function sumOf(src: Uint8Array, dst: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < 16; i += 2) {
    total += (src[i]! << 8 | src[i + 1]!) + (dst[i]! << 8 | dst[i + 1]!);
  }
  return foldOnce(foldOnce(total));
}

function foldOnce(total: number): number {
  return (total & 0xffff) + (total >>> 16);
}

function headersLength(fragmentId: number): number {
  return fragmentId < 0 ? IPV6_HEADER : IPV6_HEADER + FRAGMENT_HEADER;
}

function writeIpv4(
  { bytes, view }: Packet,
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
  view.setUint16(at, 0x4500 | service);
  view.setUint16(at + IPV4_TOTAL_LENGTH, length);
  view.setUint16(at + IPV4_ID, id);
  view.setUint16(at + IPV4_FLAGS, flags);
  view.setUint16(at + IPV4_TTL, ttl << 8 | protocol);
  view.setUint16(at + IPV4_CHECKSUM, 0);
  view.setUint32(at + IPV4_SRC, src);
  view.setUint32(at + IPV4_DST, dst);
  view.setUint16(at + IPV4_CHECKSUM, checksum(bytes, at, IPV4_HEADER));
}

function writeIpv6(
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
