/**
 * Super-packets on their way to an end or a stage that does not take them: segmented in their order, as fast as segments
 * are taken. When the pool has no slot for the next segment and none of them waits here, what is left is dropped: the
 * slots may be those of the packets behind it.
 */

import { LendingBatch } from "../../lib/core/batch.ts";
import type { Packet, PacketBatch } from "../../lib/core/mod.ts";
import { Segmenter } from "../../lib/split/segmenter.ts";
import type { Ledger } from "./ledger.ts";

/** Packets that wait for one end or stage: ordinary ones, and the rest of the super-packet that is being segmented. */
export class Segmenting {
  /** The packets to be taken next. */
  readonly segments: LendingBatch = new LendingBatch();
  readonly #ledger: Ledger;
  readonly #segmenter = new Segmenter();
  #packet: Packet | undefined;

  /** With nothing to be segmented. */
  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Packets that wait, those that are still to be made among them. */
  get queued(): number {
    return this.segments.length + (this.#packet === undefined ? 0 : this.#segmenter.remaining);
  }

  /** Takes packets off the front of a batch, and segments, until there are enough segments or the pool is empty. */
  fill(batch: PacketBatch): void {
    let taken = 0;
    while (this.#segment() && taken < batch.length && !this.segments.full) {
      const packet = batch.packets[taken++]!;
      if (packet.segmentSize === 0) this.segments.append(packet);
      else this.#start(packet);
    }
    batch.shift(taken);
  }

  /** Finishes the partial checksums of ordinary packets; returns whether there are super-packets, here or in the batch. */
  finish(batch: PacketBatch): boolean {
    const { packets, length } = batch;
    let isSuper = this.queued > 0;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.segmentSize !== 0) isSuper = true;
      else if (packet.checksumStart !== 0) packet.finish();
    }
    return isSuper;
  }

  /** Throws everything away. */
  clear(reason: string): void {
    this.#ledger.discardAll(this.segments, reason);
    this.#abandon(reason);
  }

  /** Throws away what is left of the super-packet; segments that were not made of it never were. */
  #abandon(reason: string): void {
    if (this.#packet === undefined) return;
    this.#ledger.counters.created += 1 - this.#segmenter.remaining;
    this.#ledger.discard(this.#packet, reason);
    this.#packet = undefined;
  }

  #start(packet: Packet): void {
    const objection = this.#segmenter.start(packet);
    if (objection !== undefined) return this.#ledger.discard(packet, objection);
    packet.owner = this;
    packet.isFixed = false;
    this.#packet = packet;
    this.#ledger.counters.created += this.#segmenter.remaining - 1;
  }

  /** Goes on with the super-packet; returns whether nothing is left of it. */
  #segment(): boolean {
    if (this.#packet === undefined) return true;
    while (this.#segmenter.remaining > 0) {
      if (this.segments.full) return false;
      const segment = this.#segmenter.next(this.#ledger.pool);
      if (segment === undefined) {
        if (this.segments.length > 0) return false;
        this.#abandon("pool empty");
        return true;
      }
      this.segments.push(segment);
    }
    this.#packet.pool.give(this.#packet);
    this.#packet = undefined;
    return true;
  }
}
