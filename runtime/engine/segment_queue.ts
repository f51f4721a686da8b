/**
 * Segmentation of super-packets before an end or a stage that does not take them, in order and on demand.
 *
 * When the pool has no slot for the next segment and no segment waits here, the rest of the super-packet is dropped.
 * Waiting could last forever, because the packets behind it may hold the slots.
 */

import { LendingBatch } from "../../lib/core/batch.ts";
import type { Packet, PacketBatch } from "../../lib/core/mod.ts";
import { Segmenter } from "../../lib/split/segmenter.ts";
import type { Ledger } from "./ledger.ts";

/** Queue before one end or stage: packets, and the super-packet that is being segmented. */
export class SegmentQueue {
  /** Segments and ordinary packets, ready to be taken. */
  readonly segments: LendingBatch = new LendingBatch();
  readonly #ledger: Ledger;
  readonly #segmenter = new Segmenter();
  #packet: Packet | undefined;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Number of waiting packets, including future segments. */
  get queued(): number {
    return this.segments.length + (this.#packet === undefined ? 0 : this.#segmenter.remaining);
  }

  /** Takes packets from the front of a batch and segments them until the queue is full or the pool is empty. */
  fill(batch: PacketBatch): void {
    let taken = 0;
    while (this.#segment() && taken < batch.length && !this.segments.full) {
      const packet = batch.packets[taken++]!;
      if (packet.segmentSize === 0) this.segments.append(packet);
      else this.#start(packet);
    }
    batch.shift(taken);
  }

  /**
   * Completes the partial checksums of ordinary packets in a batch. Returns true if {@linkcode fill} must be used,
   * because the batch has super-packets or the queue is not empty.
   */
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

  /** Drops all packets. */
  clear(reason: string): void {
    this.#ledger.discardAll(this.segments, reason);
    this.#abandon(reason);
  }

  /** Drops the rest of the super-packet as one packet: the segments counted as created beforehand are subtracted. */
  #abandon(reason: string): void {
    if (this.#packet === undefined) return;
    this.#ledger.counters.created += 1 - this.#segmenter.remaining;
    this.#ledger.discard(this.#packet, reason);
    this.#packet = undefined;
  }

  #start(packet: Packet): void {
    const reason = this.#segmenter.start(packet);
    if (reason !== undefined) return this.#ledger.discard(packet, reason);
    packet.owner = this;
    packet.isFixed = false;
    this.#packet = packet;
    this.#ledger.counters.created += this.#segmenter.remaining - 1;
  }

  /** Creates segments of the super-packet; returns true if none are left. */
  #segment(): boolean {
    if (this.#packet === undefined) return true;
    while (this.#segmenter.remaining > 0) {
      if (this.segments.full) return false;
      const segment = this.#segmenter.next(this.#ledger);
      if (segment === undefined) {
        if (this.segments.length > 0) return false;
        this.#abandon("pool empty");
        return true;
      }
      this.segments.push(segment);
    }
    this.#ledger.giveBack(this.#packet);
    this.#packet = undefined;
    return true;
  }
}
