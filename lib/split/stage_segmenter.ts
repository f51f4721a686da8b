/** Segments super-packets within a stage that needs each segment as a separate packet. */

import type { Packet } from "../core/packet.ts";
import type { StageContext } from "../core/stage.ts";
import { Segmenter } from "./segmenter.ts";
import { Tcp } from "../wire/tcp.ts";
import { Udp } from "../wire/udp.ts";

// Implementation
const NO_SLOT = "pool empty";

/**
 * Segments a packet of the stage: `start`, then `next` until it returns `undefined`. Segments belong to the stage, as
 * packets from `take` do. The super-packet is consumed, or dropped if it cannot be segmented or the pool runs out.
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

/** Returns the bytes of a packet on the wire: for a super-packet, those of all segments with their headers. */
export function wireLength(packet: Packet): number {
  const { length, segmentSize } = packet;
  if (segmentSize === 0) return length;
  const header = Tcp.of(packet) ?? Udp.of(packet);
  if (header === undefined || !(segmentSize > 0)) return length;
  const segments = Math.ceil(header.payloadLength / segmentSize);
  return segments <= 1 ? length : length + (segments - 1) * (header.payloadOffset - packet.offset);
}
