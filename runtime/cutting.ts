/**
 * Super-packets on their way to an end that does not take them: cut in their order, as fast as segments are taken. When the
 * pool has no slot for the next segment and none of them waits here, what is left is dropped: the slots may be those of
 * the packets behind it.
 */

import { type Packet, PacketBatch, type PacketPool } from "../lib/core/mod.ts";
import { Cutter } from "../lib/segment.ts";

/** What becomes of packets that cannot go on, and of the number of those that can. */
export interface CuttingHost {
  /** Where segments are made. */
  readonly pool: PacketPool;
  /** Counts packets that were made. */
  create(count: number): void;
  /** Throws a packet away and counts it. */
  discard(packet: Packet, reason: string): void;
}

/** What waits for one end: ordinary packets, and what is left of the super-packet that is being cut. */
export class Cutting {
  /** What the end is to take next. */
  readonly segments: PacketBatch = new PacketBatch();
  readonly #host: CuttingHost;
  readonly #cutter = new Cutter();
  #packet: Packet | undefined;

  /** With nothing to be cut. */
  constructor(host: CuttingHost) {
    this.#host = host;
  }

  /** Packets that wait, those that are still to be cut among them. */
  get queued(): number {
    return this.segments.length + (this.#packet === undefined ? 0 : this.#cutter.remaining);
  }

  /** Takes packets off the front of a batch, and cuts, until there are enough segments or the pool is empty. */
  fill(batch: PacketBatch): void {
    let taken = 0;
    while (this.#cut() && taken < batch.length && !this.segments.full) {
      const packet = batch.packets[taken++]!;
      if (packet.segmentSize === 0) this.segments.push(packet);
      else this.#start(packet);
    }
    batch.shift(taken);
  }

  /** Throws everything away. */
  clear(reason: string): void {
    const { segments } = this;
    for (let i = 0; i < segments.length; i++) this.#host.discard(segments.packets[i]!, reason);
    segments.clear();
    this.#abandon(reason);
  }

  /** Throws away what is left of the super-packet; what was not cut out of it was never made. */
  #abandon(reason: string): void {
    if (this.#packet === undefined) return;
    this.#host.create(1 - this.#cutter.remaining);
    this.#host.discard(this.#packet, reason);
    this.#packet = undefined;
  }

  #start(packet: Packet): void {
    const objection = this.#cutter.start(packet);
    if (objection !== undefined) return this.#host.discard(packet, objection);
    packet.owner = this;
    this.#packet = packet;
    this.#host.create(this.#cutter.remaining - 1);
  }

  /** Goes on with the super-packet; returns whether none is left to be cut. */
  #cut(): boolean {
    if (this.#packet === undefined) return true;
    while (this.#cutter.remaining > 0) {
      if (this.segments.full) return false;
      const segment = this.#cutter.next(this.#host.pool);
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
