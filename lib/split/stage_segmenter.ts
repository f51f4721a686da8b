/** Segments super-packets within a stage, and lengths of their segments. */

import type { Packet } from "../core/packet.ts";
import type { Ip } from "../wire/ip.ts";
import type { StageContext } from "../core/stage.ts";
import { Segmenter } from "./segmenter.ts";
import { Tcp } from "../wire/tcp.ts";
import { Udp } from "../wire/udp.ts";

// Implementation
const NO_SLOT = "pool empty";

/**
 * Segments a packet of the stage: `start`, then `next` until it returns `undefined`. Segments belong to the stage, like
 * packets from `take`. The super-packet is consumed, or dropped if it cannot be segmented or the pool runs out.
 */
export class StageSegmenter {
  readonly #segmenter = new Segmenter();
  #packet: Packet | undefined;

  /** Starts a super-packet of the stage. */
  start(packet: Packet, context: StageContext): void {
    const reason = this.#segmenter.start(packet);
    this.#packet = reason === undefined ? packet : undefined;
    if (reason !== undefined) context.drop(packet, reason);
  }

  /** Returns the next segment. After the last one, the super-packet is consumed. */
  next(context: StageContext): Packet | undefined {
    if (this.#packet === undefined) return undefined;
    const segment = this.#segmenter.next(context);
    if (segment !== undefined) return segment;
    if (this.#segmenter.remaining === 0) context.done(this.#packet);
    else context.drop(this.#packet, NO_SLOT);
    this.#packet = undefined;
    return undefined;
  }
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

/** Returns the length of the longest packet on the link (bytes): the first segment of a super-packet, or the packet. */
export function longestLength(packet: Packet, ip: Ip): number {
  const { segmentSize } = packet;
  const header = segmentSize === 0 ? undefined : Tcp.of(packet) ?? Udp.of(packet);
  if (header === undefined) return ip.totalLength;
  return Math.min(ip.totalLength, header.payloadOffset - ip.start + segmentSize);
}

/** Returns the bytes of a packet on the wire: for a super-packet, those of all segments with their headers. */
export function wireLength(packet: Packet): number {
  const { length, segmentSize } = packet;
  if (segmentSize === 0) return length;
  const header = Tcp.of(packet) ?? Udp.of(packet);
  if (header === undefined || !(segmentSize > 0)) return length;
  const segments = Math.ceil(header.payloadLength / segmentSize);
  return segments <= 1 ? length : length + (segments - 1) * (header.payloadOffset - packet.offset);
}
