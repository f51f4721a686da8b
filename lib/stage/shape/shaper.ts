/**
 * Shaping: packets go on at a rate, and those that come faster wait in a queue that decides about their order.
 *
 *     packet ─┬─ nothing waits, and the bucket has something ────────────────► onward
 *             └─► queue (Fifo, FqCodel, Priority) ─► when the bucket has something ─► onward
 */

import { checkNames, type OptionNames } from "../../core/options.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { StageSegmenter, wireLength } from "../../split/stage_segmenter.ts";
import { Fifo } from "./fifo.ts";
import { FqCodel } from "./fq_codel.ts";
import type { Scheduler } from "./scheduler.ts";
import { TokenBucket, type TokenBucketOptions } from "./token_bucket.ts";

// Implementation
const DIRECTIONS: OptionNames<ShaperOptions> = { outbound: "optional", inbound: "optional" };
const DIRECTION: OptionNames<ShapeOptions> = {
  rateBitsPerSecond: "needed number",
  burst: "number",
  queue: "optional",
  police: "boolean",
};
const OVER = "rate limit";

/** Options for one direction of a {@linkcode Shaper}. */
export interface ShapeOptions extends TokenBucketOptions {
  /** Where packets wait. It serves this direction alone. @default {new FqCodel()} */
  readonly queue?: Scheduler;
  /** Drops what is over the rate, instead of letting it wait in a queue. @default {false} */
  readonly police?: boolean;
}

/** Options for {@linkcode Shaper}. */
export interface ShaperOptions {
  /** Packets from this machine. @default {they pass} */
  readonly outbound?: ShapeOptions;
  /** Packets to this machine. @default {they pass} */
  readonly inbound?: ShapeOptions;
}

/** Other rates for the directions that a {@linkcode Shaper} shapes. */
export interface ShapeRates {
  /** For packets from this machine. @default {as before} */
  readonly outbound?: TokenBucketOptions;
  /** For packets to this machine. @default {as before} */
  readonly inbound?: TokenBucketOptions;
}

/** What a {@linkcode Shaper} has counted in one direction. */
export interface ShapeStats {
  /** Packets that went on, those that did not wait among them. */
  packets: number;
  /** Their bytes, as on a wire. */
  bytes: number;
  /** Packets that found the bucket empty, or others waiting. */
  delayed: number;
}

/**
 * Sends packets on at a rate.
 *
 * **Outbound**: counts each packet's bytes, from its IP header on, and lets packets wait that are over the rate.
 *
 * **Inbound**: the same, with options of its own.
 *
 * **Options**: `rateBitsPerSecond`; `burst`, the bytes that may go at once (10 ms of the rate, at least 3028);
 * `queue`, where packets wait ({@linkcode FqCodel}); `police`, which drops instead (`false`). Rates can be
 * changed by {@linkcode Shaper.set}.
 *
 * **Counters**: {@linkcode Shaper.stats}; dropped as `rate limit` by a policer, as `queue full` and `codel` by queues.
 *
 * Over a long time the rate is exact: bytes that a packet had not in the bucket are owed, and time that has
 * passed counts when it has. A loop ticks in milliseconds: with a burst of at least as many bytes as the rate has in the
 * time between two ticks (1 ms, several on a busy machine), nothing of the rate is lost. A packet may be as long as
 * it wants; in any time, the burst, that time's bytes and one packet go on at most.
 *
 * Super-packets count as the segments that they stand for. One that is longer than the burst is cut, and each segment
 * waits by itself; the super-packet is then counted as consumed.
 *
 * **Limits**: packets wait in the slots of the loop's pool (2048 small ones, for all tunnels), so queues are bounded
 * by that, too. Headers below IP, which a wire has, are not counted. Each of several workers has its part of
 * the rate, whatever the others use: one flow gets no more than that part.
 *
 * @example 10 Mbit/s out, 50 Mbit/s in
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction } from "@warren/tunnel/core";
 * import { Shaper } from "@warren/tunnel/shape";
 *
 * const shaper = new Shaper({
 *   outbound: { rateBitsPerSecond: 10e6 },
 *   inbound: { rateBitsPerSecond: 50e6 },
 * });
 * assert.equal(shaper.stats(Direction.Outbound).packets, 0);
 * ```
 */
export class Shaper implements Stage {
  /** `shape`. */
  readonly name = "shape";
  readonly #lanes: readonly [outbound: Lane | undefined, inbound: Lane | undefined];
  /** When `tick` will be called (monotonic milliseconds). */
  #tickAt = Infinity;
  /** For a breath when a rate has changed. */
  #context: StageContext | undefined;

  /**
   * A shaper whose buckets are full.
   *
   * @throws {RangeError} when a rate or burst is out of its range.
   * @throws {TypeError} when both directions have the same queue, or a policer has one.
   */
  constructor(options: ShaperOptions) {
    checkNames("shape", options, DIRECTIONS);
    const { outbound, inbound } = options;
    for (const direction of [outbound, inbound]) {
      if (direction !== undefined) checkNames("shape", direction, DIRECTION);
    }
    if (outbound?.queue !== undefined && outbound.queue === inbound?.queue) {
      throw new TypeError("Cannot shape both directions by one queue: each has its own");
    }
    this.#lanes = [
      outbound && new Lane(Direction.Outbound, outbound),
      inbound && new Lane(Direction.Inbound, inbound),
    ];
  }

  /**
   * Changes rates from now on, for packets that wait, too.
   *
   * @throws {RangeError} when a rate or burst is out of its range.
   * @throws {TypeError} when it does not shape that direction.
   */
  set(rates: ShapeRates): void {
    checkNames("change rates", rates, DIRECTIONS);
    const { outbound, inbound } = rates;
    for (const [direction, options] of [outbound, inbound].entries()) {
      if (options === undefined) continue;
      const lane = this.#lanes[direction];
      if (lane === undefined) {
        throw new TypeError(`Cannot change the rate ${NAMES[direction]}: this shaper has none there`);
      }
      lane.setRate(options);
    }
    this.#context?.wake();
  }

  /** What it has counted in a direction. */
  stats(direction: Direction): ShapeStats {
    return { ...this.#lanes[direction]?.stats ?? NOTHING };
  }

  /** Packets from this machine. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(this.#lanes[Direction.Outbound], batch, context);
  }

  /** Packets to this machine. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(this.#lanes[Direction.Inbound], batch, context);
  }

  /** Sends on what may go by now. */
  tick(context: StageContext): number | undefined {
    this.#context = context;
    let wait = Infinity;
    for (let i = 0; i < this.#lanes.length; i++) {
      const lane = this.#lanes[i];
      if (lane !== undefined) wait = Math.min(wait, lane.release(context));
    }
    this.#tickAt = context.now + wait;
    return wait === Infinity ? undefined : wait;
  }

  /** What the buckets have; packets that wait are not saved. */
  save(): unknown {
    const [outbound, inbound] = this.#lanes.map((lane) => lane?.bucket.tokens);
    return { outbound, inbound };
  }

  /**
   * Goes on with what the buckets had; one of a direction that the state does not tell of is full.
   *
   * @throws {TypeError} when it is not what {@linkcode Shaper.save} gave.
   */
  restore(state: unknown): void {
    if (typeof state !== "object" || state === null) {
      throw new TypeError(`Cannot restore a shaper from ${JSON.stringify(state)}`);
    }
    const { outbound, inbound } = state as { outbound?: unknown; inbound?: unknown };
    if (outbound !== undefined) this.#lanes[Direction.Outbound]?.bucket.restore(outbound);
    if (inbound !== undefined) this.#lanes[Direction.Inbound]?.bucket.restore(inbound);
  }

  #pass(lane: Lane | undefined, batch: PacketBatch, context: StageContext): void {
    if (lane === undefined) return;
    const wait = lane.pass(batch, context);
    if (context.now + wait >= this.#tickAt) return;
    this.#tickAt = context.now;
    context.wake();
  }
}

const NAMES = ["outbound", "inbound"] as const;
const NOTHING: ShapeStats = { packets: 0, bytes: 0, delayed: 0 };

/** One direction. */
class Lane {
  readonly stats: ShapeStats = { ...NOTHING };
  readonly bucket: TokenBucket;
  readonly #direction: Direction;
  #rate: TokenBucketOptions;
  readonly #queue: Scheduler;
  readonly #police: boolean;
  readonly #segmenter = new StageSegmenter();
  #workers = 1;

  constructor(direction: Direction, options: ShapeOptions) {
    const { queue, police = false } = options;
    if (police && queue !== undefined) {
      throw new TypeError(`Cannot police ${NAMES[direction]} with a queue: what is over the rate is dropped`);
    }
    this.bucket = new TokenBucket(options);
    this.#direction = direction;
    this.#rate = options;
    this.#queue = queue ?? (police ? new Fifo() : new FqCodel());
    this.#police = police;
  }

  /** Lets a batch pass, or wait; returns in how many milliseconds packets may go; `Infinity`: none waits. */
  pass(batch: PacketBatch, context: StageContext): number {
    if (context.worker.count !== this.#workers) this.#share(context.worker.count);
    const { packets, length } = batch;
    let i = 0;
    if (this.#queue.length === 0 && !this.#police) {
      while (i < length && this.#passFreely(packets[i]!, context)) i++;
    }
    // What is emitted overtakes what is left in the batch: then the rest has to wait for a tick.
    const isFree = i > 0;
    for (; i < length; i++) this.#take(packets[i]!, context);
    if (!isFree) return this.release(context);
    return this.#queue.length === 0 ? Infinity : this.bucket.wait(context.now);
  }

  /** Sends on what may go by now; returns in how many milliseconds more may. */
  release(context: StageContext): number {
    const queue = this.#queue;
    const { bucket } = this;
    while (queue.length > 0) {
      const wait = bucket.wait(context.now);
      if (wait > 0) return wait;
      const packet = queue.dequeue(context);
      if (packet !== undefined) this.#send(packet, context);
    }
    return Infinity;
  }

  /** Leaves a packet in its batch when nothing is in its way; returns whether it did. */
  #passFreely(packet: Packet, context: StageContext): boolean {
    const size = wireLength(packet);
    if (this.bucket.wait(context.now) > 0 || this.#isTooLong(packet, size)) return false;
    this.#spend(size);
    return true;
  }

  /** Takes a packet, or the segments of one. */
  #take(packet: Packet, context: StageContext): void {
    if (!this.#isTooLong(packet, wireLength(packet))) return this.#admit(packet, context);
    const segmenter = this.#segmenter;
    segmenter.start(packet, context);
    for (let segment = segmenter.next(context); segment !== undefined; segment = segmenter.next(context)) {
      this.#admit(segment, context);
    }
  }

  #admit(packet: Packet, context: StageContext): void {
    if (!this.#police) {
      this.stats.delayed++;
      this.#queue.enqueue(packet, context);
    } else if (this.bucket.wait(context.now) > 0) context.drop(packet, OVER);
    else this.#send(packet, context);
  }

  #send(packet: Packet, context: StageContext): void {
    this.#spend(wireLength(packet));
    context.emit(packet, this.#direction);
  }

  #spend(size: number): void {
    this.bucket.spend(size);
    this.stats.packets++;
    this.stats.bytes += size;
  }

  /** Whether a super-packet is cut. */
  #isTooLong(packet: Packet, size: number): boolean {
    return packet.segmentSize !== 0 && size > this.bucket.burst;
  }

  /** Another rate, of which this worker takes its part. */
  setRate(options: TokenBucketOptions): void {
    const { rateBitsPerSecond, burst } = options;
    this.bucket.set({ rateBitsPerSecond: rateBitsPerSecond / this.#workers, burst });
    this.#rate = options;
  }

  /** Takes this worker's part of the rate. */
  #share(workers: number): void {
    this.#workers = workers;
    this.setRate(this.#rate);
  }
}
