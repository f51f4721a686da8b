/** What packets share with those that they are cut into: their properties, and the longest length. */

import { ENDPOINT_LENGTH, type Packet } from "./core/packet.ts";
import type { Ip } from "./ip.ts";
import { Tcp } from "./tcp.ts";
import { Udp } from "./udp.ts";

/** The bytes of the longest ordinary packet that a packet stands for: a super-packet's first segment, or all. */
export function longestLength(packet: Packet, ip: Ip): number {
  const { segmentSize } = packet;
  if (segmentSize === 0) return ip.totalLength;
  const upper = Tcp.of(packet) ?? Udp.of(packet);
  if (upper === undefined) return ip.totalLength;
  return Math.min(ip.totalLength, upper.payloadOffset - ip.start + segmentSize);
}

/** Gives a new packet the properties of the one that it is a part of, or is made of. */
export function inherit(packet: Packet, from: Packet): void {
  packet.from = from.from;
  packet.to = from.to;
  packet.mark = from.mark;
  packet.time = from.time;
  for (let i = 0; i < ENDPOINT_LENGTH; i += 4) {
    packet.view.setInt32(packet.slotEnd + i, from.view.getInt32(from.slotEnd + i));
  }
}

/** Makes a super-packet one of its segments, which is given back. */
export function become(packet: Packet, segment: Packet): void {
  packet.bytes.copyWithin(packet.offset, segment.offset, segment.offset + segment.length);
  packet.length = segment.length;
  packet.segmentSize = 0;
  packet.checksumStart = 0;
  packet.checksumOffset = 0;
  packet.pool.give(segment);
}
