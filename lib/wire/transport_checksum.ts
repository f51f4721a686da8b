/** Transport checksums of packets: offset of the field, pseudo-header, coverage, update and computation. */

import { adjust, checksum, fold, sum } from "../core/checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { Protocol } from "./protocol.ts";

// Specification
const { ICMP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } = field;

/** Returns the offset of the checksum in a protocol's header; -1 for an unknown protocol. */
export function checksumField(protocol: number): number {
  switch (protocol) {
    case Protocol.Tcp:
      return TCP_CHECKSUM;
    case Protocol.Udp:
    case Protocol.UdpLite:
    case Protocol.Dccp:
      return UDP_CHECKSUM;
    case Protocol.Icmp:
    case Protocol.Icmpv6:
      return ICMP_CHECKSUM;
    default:
      return -1;
  }
}

/** Reports whether the transport header at `start` of `packet.bytes` has a partial checksum. */
export function isPartial(packet: Packet, start: number): boolean {
  return packet.checksumStart !== 0 && packet.offset + packet.checksumStart === start;
}

/** Returns the sum of an IPv4 pseudo-header (RFC 9293 section 3.1); `length` covers transport header and payload. */
export function pseudoHeaderSumIpv4(src: number, dst: number, protocol: number, length: number): number {
  return fold((src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + length);
}

/**
 * Returns the sum of an IPv6 pseudo-header (RFC 8200 section 8.1); `length` covers transport header and payload.
 *
 * @param srcStart Offset of the source address in `bytes`; `dstStart` likewise.
 * @throws {RangeError} when an address is not in the memory of `bytes`.
 */
export function pseudoHeaderSumIpv6(
  bytes: Uint8Array,
  srcStart: number,
  dstStart: number,
  protocol: number,
  length: number,
): number {
  const lengthWords = (length >>> 16) + (length & 0xffff);
  return sum(bytes, dstStart, 16, sum(bytes, srcStart, 16, protocol + lengthWords));
}

/**
 * Updates a transport checksum, complete or partial, after a change of an address. UDP without a checksum, ICMPv4, which
 * has no pseudo-header, and a field beyond `end` are unchanged. Not for later fragments, which have no transport header.
 *
 * @param start Offset of the transport header in `packet.bytes`.
 * @param end End of the IP payload in `packet.bytes`.
 * @param difference Result of `difference` or `difference32`.
 */
export function adjustPseudoHeader(
  packet: Packet,
  start: number,
  end: number,
  protocol: number,
  difference: number,
): void {
  const field = fieldAt(start, end, protocol);
  if (field < 0 || protocol === Protocol.Icmp) return;
  if (!isPartial(packet, start)) return adjustField(packet, field, protocol, difference);
  packet.view.setUint16(field, fold(packet.view.getUint16(field) + difference));
}

/**
 * Updates a transport checksum after a change of a word of the transport header or payload; parameters as for
 * {@linkcode adjustPseudoHeader}. A partial checksum needs no update: it does not cover these words yet.
 */
export function adjustTransport(
  packet: Packet,
  start: number,
  end: number,
  protocol: number,
  difference: number,
): void {
  const field = fieldAt(start, end, protocol);
  if (field >= 0 && !isPartial(packet, start)) adjustField(packet, field, protocol, difference);
}

function adjustField(packet: Packet, field: number, protocol: number, difference: number): void {
  const stored = packet.view.getUint16(field);
  if (stored === 0 && protocol === Protocol.Udp) return;
  packet.view.setUint16(field, storedAs(adjust(stored, difference), protocol));
}

/** Returns the offset of a checksum in `packet.bytes`; -1 for an unknown protocol or a field beyond `end`. */
function fieldAt(start: number, end: number, protocol: number): number {
  const offset = checksumField(protocol);
  return offset < 0 || start + offset + 2 > end ? -1 : start + offset;
}

/** RFC 768, and RFC 6935 section 5 for IPv6: zero means no checksum, so a checksum of zero is stored as 0xffff. */
function storedAs(checksum: number, protocol: number): number {
  const isUdp = protocol === Protocol.Udp || protocol === Protocol.UdpLite;
  return checksum === 0 && isUdp ? 0xffff : checksum;
}

/**
 * Returns the complete checksum of the transport header at `start` with an IP payload to `end`: the stored field, or the
 * completion of a partial checksum; 0 when the field lies beyond `end`.
 */
export function transportChecksum(packet: Packet, start: number, end: number, protocol: number): number {
  const field = fieldAt(start, end, protocol);
  if (field < 0) return 0;
  if (!isPartial(packet, start)) return packet.view.getUint16(field);
  return checksum(packet.bytes, start, end - start) || 0xffff; // as finishChecksum() stores it
}

/** Returns the number of bytes that a transport checksum covers: to `end`, or UDP's Length field if it is less. */
export function coveredLength(packet: Packet, start: number, end: number, protocol: number): number {
  const length = end - start;
  if (protocol !== Protocol.Udp || length < UDP_HEADER) return length;
  const stated = packet.view.getUint16(start + UDP_LENGTH);
  return stated >= UDP_HEADER && stated < length ? stated : length;
}

/** Returns the {@linkcode sum} from `start` to `end`, as if the partial checksum of an inner packet were complete. */
export function completeSum(packet: Packet, start: number, end: number, initial: number): number {
  const inner = packet.offset + packet.checksumStart;
  const innerField = inner + packet.checksumOffset;
  if (packet.checksumStart === 0 || inner <= start || innerField + 2 > end) {
    return sum(packet.bytes, start, end - start, initial);
  }
  // Once its checksum is complete, the inner packet adds up to the complement of the present field, so it need not be
  // read. At an odd distance, the two bytes change places.
  let rest = ~packet.view.getUint16(innerField) & 0xffff;
  if ((inner - start) % 2 === 1) rest = rest << 8 & 0xff00 | rest >> 8;
  return sum(packet.bytes, start, inner - start, initial + rest);
}

/**
 * Writes the complete checksum of the UDP, TCP, ICMPv4 or ICMPv6 header at `start`, over the pseudo-header's sum (0 for
 * ICMPv4) and all bytes to `end`. It replaces the packet's partial checksum; that of an inner packet stays partial, and
 * counts as complete. Other protocols, and a field beyond `end`, are unchanged.
 */
export function writeTransportChecksum(
  packet: Packet,
  start: number,
  end: number,
  protocol: number,
  pseudoHeaderSum: number,
): void {
  const field = fieldAt(start, end, protocol);
  if (field < 0 || protocol === Protocol.UdpLite || protocol === Protocol.Dccp) return;
  if (isPartial(packet, start)) {
    packet.checksumStart = 0;
    packet.checksumOffset = 0;
  }
  packet.view.setUint16(field, 0);
  const complete = ~completeSum(packet, start, end, pseudoHeaderSum) & 0xffff;
  packet.view.setUint16(field, storedAs(complete, protocol));
}
