/** Transport checksums of packets: offset of the field, coverage, incremental update and complete computation. */

import { adjust, checksum, fold, sum } from "../core/checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { Protocol } from "./protocol.ts";

// Specification
const { ICMP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } = field;

/** Returns the offset of the checksum in a protocol's header; -1 for a protocol that is not known here. */
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

/** Tells whether the packet's partial checksum is that of the transport header at `start` of `packet.bytes`. */
export function isPartial(packet: Packet, start: number): boolean {
  return packet.checksumStart !== 0 && packet.offset + packet.checksumStart === start;
}

/**
 * Updates a transport checksum after an address changed, full or partial. UDP without a checksum, ICMPv4, which has no
 * pseudo-header, and a field beyond `end` are unchanged. Not for later fragments, which have no transport header.
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
  const offset = checksumField(protocol);
  if (offset < 0 || protocol === Protocol.Icmp || start + offset + 2 > end) return;
  if (isPartial(packet, start)) {
    packet.view.setUint16(start + offset, fold(packet.view.getUint16(start + offset) + difference));
  } else {
    adjustField(packet, start + offset, protocol, difference);
  }
}

/**
 * Updates a transport checksum after a word of the transport header or payload changed; parameters as for
 * {@linkcode adjustPseudoHeader}. A partial checksum needs no update: it does not cover these words yet.
 */
export function adjustTransport(
  packet: Packet,
  start: number,
  end: number,
  protocol: number,
  difference: number,
): void {
  const offset = checksumField(protocol);
  if (offset < 0 || start + offset + 2 > end || isPartial(packet, start)) return;
  adjustField(packet, start + offset, protocol, difference);
}

function adjustField(packet: Packet, field: number, protocol: number, difference: number): void {
  const stored = packet.view.getUint16(field);
  // RFC 768, and RFC 6935 section 5 for IPv6: zero means no checksum, so a checksum of zero is stored as 0xffff.
  if (stored === 0 && protocol === Protocol.Udp) return;
  const adjusted = adjust(stored, difference);
  packet.view.setUint16(field, adjusted === 0 && storesZeroAsOnes(protocol) ? 0xffff : adjusted);
}

function storesZeroAsOnes(protocol: number): boolean {
  return protocol === Protocol.Udp || protocol === Protocol.UdpLite;
}

/**
 * Returns the complete checksum of the transport header at `start` with an IP payload to `end`: the stored field, or the
 * completion of a partial checksum; 0 when the field lies beyond `end`.
 */
export function transportChecksum(packet: Packet, start: number, end: number, protocol: number): number {
  const offset = checksumField(protocol);
  if (offset < 0 || start + offset + 2 > end) return 0;
  if (!isPartial(packet, start)) return packet.view.getUint16(start + offset);
  const complete = checksum(packet.bytes, start, end - start);
  return complete === 0 && storesZeroAsOnes(protocol) ? 0xffff : complete;
}

/** Returns how many bytes from `start` a transport checksum covers: to `end`, or UDP's Length field if it is less. */
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
  // Once complete, the bytes that a partial checksum covers add up to the complement of its field, so they need not be
  // read. At an odd distance, the two bytes change places.
  let rest = ~packet.view.getUint16(innerField) & 0xffff;
  if ((inner - start) % 2 === 1) rest = rest << 8 & 0xff00 | rest >> 8;
  return sum(packet.bytes, start, inner - start, initial + rest);
}

/**
 * Writes the complete checksum of the UDP, TCP, ICMPv4 or ICMPv6 header at `start` over a pseudo-header, given as its sum
 * (0 for ICMPv4), and all bytes to `end`. It replaces the packet's partial checksum; that of an inner packet stays
 * partial, and counts as complete. Another protocol, and a field beyond `end`, are unchanged.
 */
export function writeTransportChecksum(
  packet: Packet,
  start: number,
  end: number,
  protocol: number,
  pseudoHeaderSum: number,
): void {
  const offset = checksumField(protocol);
  if (offset < 0 || protocol === Protocol.UdpLite || protocol === Protocol.Dccp || start + offset + 2 > end) {
    return;
  }
  if (isPartial(packet, start)) {
    packet.checksumStart = 0;
    packet.checksumOffset = 0;
  }
  packet.view.setUint16(start + offset, 0);
  const complete = ~completeSum(packet, start, end, pseudoHeaderSum) & 0xffff;
  packet.view.setUint16(start + offset, complete === 0 && storesZeroAsOnes(protocol) ? 0xffff : complete);
}
