/** Transport checksums of packets: where they are stored, what they cover, and how they are kept and written. */

import { adjust, checksum, fold, sum } from "../core/checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { Protocol } from "./protocol.ts";

// Specification
const { ICMP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } = field;

/** Where a protocol's header stores its checksum, from the header's start; -1 for a protocol not known here. */
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

/** Whether the packet's unfinished sum is that of the transport header at `start` of `packet.bytes`. */
export function isPartial(packet: Packet, start: number): boolean {
  return packet.checksumStart !== 0 && packet.offset + packet.checksumStart === start;
}

/**
 * Keeps a transport checksum right after an address in front of it has changed. The transport header starts at
 * `start` and the packet's IP payload ends at `end` of `packet.bytes`. The uncomplemented sum of a partly
 * summed packet changes as such; UDP without a checksum stays without; ICMPv4 has no pseudo-header; a field
 * beyond `end` is left alone. Not for a fragment other than the first, which has no transport header.
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
 * Keeps a transport checksum right after a word of its own header or payload has changed; parameters as for
 * {@linkcode adjustPseudoHeader}. A partly summed packet needs nothing: whoever finishes it sums what is there.
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
  // RFC 768, and RFC 6935 section 5 for IPv6: zero says that there is no checksum, so a sum of zero is 0xffff.
  if (stored === 0 && protocol === Protocol.Udp) return;
  const adjusted = adjust(stored, difference);
  packet.view.setUint16(field, adjusted === 0 && sparesZero(protocol) ? 0xffff : adjusted);
}

function sparesZero(protocol: number): boolean {
  return protocol === Protocol.Udp || protocol === Protocol.UdpLite;
}

/**
 * The finished checksum of the transport header at `start`, whose packet ends at `end`: the stored field, or in a
 * partly summed packet what it will be. 0 when the field lies beyond `end`.
 */
export function transportChecksum(packet: Packet, start: number, end: number, protocol: number): number {
  const offset = checksumField(protocol);
  if (offset < 0 || start + offset + 2 > end) return 0;
  if (!isPartial(packet, start)) return packet.view.getUint16(start + offset);
  const finished = checksum(packet.bytes, start, end - start);
  return finished === 0 && sparesZero(protocol) ? 0xffff : finished;
}

/**
 * How many bytes from `start` on a transport checksum covers: all to `end`, but of UDP what its own length says
 * (RFC 8200 section 8.1), as far as it can be true.
 */
export function coveredLength(packet: Packet, start: number, end: number, protocol: number): number {
  const length = end - start;
  if (protocol !== Protocol.Udp || length < UDP_HEADER) return length;
  const stated = packet.view.getUint16(start + UDP_LENGTH);
  return stated >= UDP_HEADER && stated < length ? stated : length;
}

/**
 * The {@linkcode sum} from `start` to `end`, to go on from `initial`; of an inner packet whose own sum is still
 * unfinished, as if it were finished.
 */
export function finishedSum(packet: Packet, start: number, end: number, initial: number): number {
  const inner = packet.offset + packet.checksumStart;
  const innerField = inner + packet.checksumOffset;
  if (packet.checksumStart === 0 || inner <= start || innerField + 2 > end) {
    return sum(packet.bytes, start, end - start, initial);
  }
  // What the unfinished sum covers will sum up to the complement of what its field holds now, so the rest need
  // not be read. At an odd distance, its bytes change places.
  let rest = ~packet.view.getUint16(innerField) & 0xffff;
  if ((inner - start) % 2 === 1) rest = rest << 8 & 0xff00 | rest >> 8;
  return sum(packet.bytes, start, inner - start, initial + rest);
}

/**
 * Writes the whole checksum of the UDP, TCP, ICMPv4 or ICMPv6 header at `start` over its pseudo-header, given
 * as its sum (0 for ICMPv4), and all bytes to `end`; the packet's sum is finished with it. Another protocol, or a
 * field beyond `end`, is left alone. Where the bytes hold an inner packet whose own sum is still unfinished, the
 * outer sum is that of the finished packet.
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
  const finished = ~finishedSum(packet, start, end, pseudoHeaderSum) & 0xffff;
  packet.view.setUint16(start + offset, finished === 0 && sparesZero(protocol) ? 0xffff : finished);
}
