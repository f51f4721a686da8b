/** Lengths of super-packets' segments, and fields to rewrite when a packet or an extension header is replaced. */

import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import type { Ip } from "./ip.ts";
import { extensionLength } from "./ipv6_extensions.ts";
import type { Ipv6 } from "./ipv6.ts";
import { Tcp } from "./tcp.ts";
import { Udp } from "./udp.ts";

const { IPV6_HEADER, IPV6_NEXT_HEADER } = field;

/** Returns the length of the longest packet on the link (bytes): the first segment of a super-packet, or the packet. */
export function longestLength(packet: Packet, ip: Ip): number {
  const { segmentSize } = packet;
  if (segmentSize === 0) return ip.totalLength;
  const upper = Tcp.of(packet) ?? Udp.of(packet);
  if (upper === undefined) return ip.totalLength;
  return Math.min(ip.totalLength, upper.payloadOffset - ip.start + segmentSize);
}

/** Replaces a super-packet's bytes with those of one of its segments, and gives the segment back. */
export function replaceWithSegment(packet: Packet, segment: Packet): void {
  packet.bytes.copyWithin(packet.offset, segment.offset, segment.offset + segment.length);
  packet.length = segment.length;
  packet.segmentSize = 0;
  packet.checksumStart = 0;
  packet.checksumOffset = 0;
  packet.pool.give(segment);
}

/** Returns the offset of the Next Header field with the type of the extension header or upper layer at `place`. */
export function nextHeaderField({ packet: { bytes }, start, nextHeader }: Ipv6, place: number): number {
  let field = start + IPV6_NEXT_HEADER;
  let at = start + IPV6_HEADER;
  for (let type = nextHeader; at < place;) {
    field = at;
    at += extensionLength(bytes, at, type);
    type = bytes[field]!;
  }
  return field;
}
