/** ICMP messages in translation: echoes, errors with the packets that they quote, and their extensions. */

import { difference, sum } from "../../core/checksum.ts";
import type { Packet } from "../../core/mod.ts";
import * as field from "../../wire/header_fields.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { QuotedPacket } from "../../wire/quoted_packet.ts";
import {
  adjustPseudoHeader,
  adjustTransport,
  pseudoHeaderSumIpv4,
  pseudoHeaderSumIpv6,
} from "../../wire/transport_checksum.ts";
import { messageToIpv4, messageToIpv6, NONE } from "./_icmp_messages.ts";
import {
  headersLength,
  type Ipv4Addresses,
  type Ipv6Addresses,
  MAX_FRAGMENTABLE,
  sumOfAddresses,
  Untranslatable,
  writeIpv4,
  writeIpv6,
} from "./_translation.ts";

// Specification
const {
  DONT_FRAGMENT,
  FRAGMENT_BITS,
  FRAGMENT_ID,
  ICMP_CHECKSUM,
  ICMP_HEADER,
  IPV4_DST,
  IPV4_FLAGS,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_MAX_LENGTH,
  IPV4_SRC,
  IPV4_TTL,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_SRC,
  MORE_FRAGMENTS,
} = field;
/** RFC 4884 section 4: minimum length of the quoted packet, with padding, before extensions (bytes). */
const MIN_EXTENDED_QUOTE = 128;
/** RFC 4884 section 7: version of extensions, and length of their header (bytes). */
const EXTENSION_VERSION = 2;
const EXTENSION_HEADER = 4;

// Implementation
/** View of the packet that the current ICMP error quotes, and its fields, read before other headers overwrite them. */
export const quoted = new QuotedPacket();
export const quotedFields = {
  /** The end of the quotation without padding. */
  end: 0,
  /** The length that its header states, after translation to IPv6 (bytes). */
  length: 0,
  /** Its identification; -1 for a packet that is not a fragment and must not become one. */
  id: -1,
  /** Its traffic class and hop limit. */
  service: 0,
  ttl: 0,
};

/** Extensions of the current ICMP error (RFC 4884), found before other bytes overwrite them; length 0 for none. */
export const extensions = { start: 0, length: 0 };

/** Field of an ICMP error for the length of the quoted packet (RFC 4884 section 4): its unit (bytes) and bit offset. */
export const LengthField = { Ipv4: { unit: 4, shift: 16 }, Ipv6: { unit: 8, shift: 24 } } as const;
/** One of {@linkcode LengthField}'s values. */
export type LengthField = typeof LengthField[keyof typeof LengthField];

/** Finds the extensions of an ICMP error. */
export function readExtensions(icmp: Icmpv4 | Icmpv6): void {
  const { packet, quotedOffset, quotedLength, payloadOffset, payloadLength } = icmp;
  extensions.start = quotedOffset + quotedLength;
  extensions.length = payloadOffset + payloadLength - extensions.start;
  const isThere = quotedLength >= MIN_EXTENDED_QUOTE && extensions.length >= EXTENSION_HEADER &&
    packet.bytes[extensions.start]! >> 4 === EXTENSION_VERSION;
  if (!isThere) extensions.length = 0;
}

/**
 * Writes the header of an ICMP error at `at`, and truncates the packet behind the quotation and its extensions, at
 * `limit` at the latest (RFC 7915 sections 4.2 and 5.2).
 */
export function finishError(
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
  // The quotation in whole units, as long as possible, padded with zeros.
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

/** RFC 7915 section 5.2: removes the pseudo-header from the checksum. */
export function echoToIpv4(
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
  // Both zeros mean the same checksum, but only 0xffff is valid for a message of all zeros.
  if (view.getUint16(upper + ICMP_CHECKSUM) === 0) view.setUint16(upper + ICMP_CHECKSUM, 0xffff);
}

/** RFC 7915 section 4.2: adds the pseudo-header to the checksum. */
export function echoToIpv6(
  packet: Packet,
  upper: number,
  end: number,
  length: number,
  message: number,
  src: Uint8Array,
  dst: Uint8Array,
): void {
  const { view } = packet;
  const pseudo = sumOfAddresses(src, dst) + Protocol.Icmpv6 + length;
  const change = pseudo + difference(view.getUint16(upper), message);
  view.setUint16(upper, message);
  adjustTransport(packet, upper, end, Protocol.Icmpv6, change);
}

export function quotedToIpv4(
  packet: Packet,
  icmp: Icmpv6,
  addresses: Ipv4Addresses,
): Untranslatable | undefined {
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
  if (id < 0 && total > MAX_FRAGMENTABLE) flags = DONT_FRAGMENT;
  const at = upper - IPV4_HEADER;
  writeIpv4(packet, at, total, service, Math.max(0, id) & 0xffff, flags, ttl, protocol, quotedSrc, quotedDst);
  return undefined;
}

export function quotedToIpv6(
  packet: Packet,
  icmp: Icmpv4,
  addresses: Ipv6Addresses,
): Untranslatable | undefined {
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
    adjustPseudoHeader(
      packet,
      upper,
      end,
      protocol,
      difference(before, sumOfAddresses(quotedSrc, quotedDst)),
    );
  }
  quotedFields.length = upperLength + IPV6_HEADER;
  const total = upperLength + headers;
  writeIpv6(packet, upper - headers, total, service, ttl, protocol, quotedSrc, quotedDst, id, offset, more);
  return undefined;
}

/** Admits echo messages only: no error quotes another error (RFC 7915 sections 4.2 and 5.2). */
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
