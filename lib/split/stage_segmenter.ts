/** Segments super-packets within a stage, for which each segment is a packet of its own. */

import type { Packet } from "../core/packet.ts";
import type { StageContext } from "../core/stage.ts";
import { Segmenter } from "./segmenter.ts";
import { Tcp } from "../wire/tcp.ts";
import { Udp } from "../wire/udp.ts";

// Implementation
const NO_SLOT = "pool empty";

/**
 * `start`, then `next` until there is none. Segments belong to the stage, as a packet from `take` does. A super-packet that
 * cannot be segmented is dropped, and so is the rest of one when the pool has no slot; one that was segmented is consumed.
 */
export class StageSegmenter {
  readonly #segmenter = new Segmenter();
  #packet: Packet | undefined;

  /** Looks at a super-packet of the stage's. */
  start(packet: Packet, context: StageContext): void {
    const objection = this.#segmenter.start(packet);
    this.#packet = objection === undefined ? packet : undefined;
    if (objection !== undefined) context.drop(packet, objection);
  }

  /** The next segment. After the last one, the stage is done with the super-packet. */
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

/** How many bytes a packet is on a wire: a super-packet counts as its segments, each of which has the headers. */
export function wireLength(packet: Packet): number {
  const { length, segmentSize } = packet;
  if (segmentSize === 0) return length;
  const header = Tcp.of(packet) ?? Udp.of(packet);
  if (header === undefined || !(segmentSize > 0)) return length;
  const segments = Math.ceil(header.payloadLength / segmentSize);
  return segments <= 1 ? length : length + (segments - 1) * (header.payloadOffset - packet.offset);
}
