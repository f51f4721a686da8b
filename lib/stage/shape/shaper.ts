/**
 * Traffic shaper: packets leave at a rate; packets that arrive faster wait in a queue, or are dropped by a policer.
 *
 *     packet ─┬─ queue empty and tokens in the bucket ─────────────────────────────► onward
 *             └─► queue (Fifo, FqCodel, Priority) ─► when the bucket has tokens ─► onward
 */

import { checkOption, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { StageSegmenter, wireLength } from "../../split/stage_segmenter.ts";
import { Fifo } from "./fifo.ts";
import { FqCodel } from "./fq_codel.ts";
import type { Scheduler } from "./scheduler.ts";
import { TokenBucket, type TokenBucketOptions } from "../../core/token_bucket.ts";

// Implementation
const DIRECTIONS: OptionKinds<ShaperOptions> = { outbound: "object", inbound: "object" };
const DIRECTION: OptionKinds<ShapeOptions> = {
  rateBitsPerSecond: "number",
  burst: "number",
  queue: "object",
  police: "boolean",
};
const OVER = "rate limit";
const DIRECTION_NAMES = ["outbound", "inbound"] as const;
const NOTHING: ShapeStats = { packets: 0, bytes: 0, delayed: 0 };

/** Options of one direction of a {@linkcode Shaper}. */
export interface ShapeOptions extends TokenBucketOptions {
  /** Queue of packets that wait, for this direction only. @default {new FqCodel()} */
  readonly queue?: Scheduler;
  /** Drops packets over the rate instead of queueing them. @default {false} */
  readonly police?: boolean;
}

/** Options of {@linkcode Shaper}. */
export interface ShaperOptions {
  /** Packets from this machine. @default {they pass} */
  readonly outbound?: ShapeOptions;
  /** Packets to this machine. @default {they pass} */
  readonly inbound?: ShapeOptions;
}

/** New rates for the directions that a {@linkcode Shaper} shapes. */
export interface ShapeRates {
  /** Rate of packets from this machine. @default {as before} */
  readonly outbound?: TokenBucketOptions;
  /** Rate of packets to this machine. @default {as before} */
  readonly inbound?: TokenBucketOptions;
}

/** Counters of one direction of a {@linkcode Shaper}. */
export interface ShapeStats {
  /** Packets sent, with or without waiting. */
  packets: number;
  /** Bytes sent, counted from the IP header on. */
  bytes: number;
  /** Packets that found the bucket empty, or others waiting. */
  delayed: number;
}

/**
 * Limits the rate of each direction with a token bucket; packets over the rate wait in a queue.
 *
 * **Outbound**, **inbound**: each with its own options; without options, packets pass.
 * **Options**: {@linkcode ShapeOptions}; {@linkcode Shaper.set} changes rates.
 * **Counters**: {@linkcode Shaper.stats}. **Drops**: `rate limit` (policer), `queue full` and `codel` (queues).
 * **Accuracy**: exact in the long run, if the burst covers the time between two ticks (1 ms, several on a busy machine).
 * **Limits**: packets wait in the loop's pool (2048 small slots for all tunnels); headers below IP are not counted; workers
 * have equal shares of the rate.
 *
 * @example A policer of 8 kbit/s, which is one byte per millisecond
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction, type Packet, PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Shaper } from "@warren/tunnel/shape";
 *
 * const shaper = new Shaper({ outbound: { rateBitsPerSecond: 8000, burst: 100, police: true } }); // tunnel.use(shaper)
 * const drops: string[] = [];
 * const drop = (_: Packet, reason: string) => drops.push(reason);
 * const context = { now: 0, worker: { index: 0, count: 1 }, emit() {}, drop };
 * const pool = new PacketPool();
 * const batch = new PacketBatch();
 * for (const _ of [1, 2]) batch.push(pool.take(100)!);
 * shaper.outbound(batch, context as unknown as StageContext);
 * assert.deepEqual(drops, ["rate limit"]);
 * assert.deepEqual(shaper.stats(Direction.Outbound), { packets: 1, bytes: 100, delayed: 0 });
 * ```
 */
export class Shaper implements Stage {
  readonly name = "shape";
  readonly #lanes: readonly [outbound: Lane | undefined, inbound: Lane | undefined];
  /** Time of the next call of `tick` (monotonic milliseconds). */
  #tickAt = Infinity;
  /** The last context, to wake the loop when a rate changes. */
  #context: StageContext | undefined;

  /**
   * Creates a shaper with full buckets.
   *
   * @throws {RangeError} when a rate or burst is out of range.
   * @throws {TypeError} when both directions have the same queue, or a policer has one.
   */
  constructor(options: ShaperOptions) {
    checkOptions("shape packets", options, DIRECTIONS);
    const { outbound, inbound } = options;
    for (const [name, direction] of Object.entries({ outbound, inbound })) {
      if (direction === undefined) continue;
      checkOptions("shape packets", direction, DIRECTION, ["rateBitsPerSecond"], name);
      if (direction.queue !== undefined) {
        checkOption("shape packets", `${name}.queue.enqueue`, direction.queue.enqueue, "function");
      }
    }
    if (outbound?.queue !== undefined && outbound.queue === inbound?.queue) {
      throw new TypeError("Cannot shape packets: both directions have the same queue: give each a queue");
    }
    this.#lanes = [
      outbound && new Lane(Direction.Outbound, outbound),
      inbound && new Lane(Direction.Inbound, inbound),
    ];
  }

  /**
   * Changes rates from now on, including for packets that wait.
   *
   * @throws {RangeError} when a rate or burst is out of range.
   * @throws {TypeError} when the shaper does not shape that direction.
   */
  set(rates: ShapeRates): void {
    checkOptions("change rates", rates, DIRECTIONS);
    const { outbound, inbound } = rates;
    for (const [direction, options] of [outbound, inbound].entries()) {
      if (options === undefined) continue;
      const lane = this.#lanes[direction];
      if (lane === undefined) {
        throw new TypeError(
          `Cannot change rates: the shaper does not shape ${DIRECTION_NAMES[direction]} packets`,
        );
      }
      lane.setRate(options);
    }
    this.#context?.wake();
  }

  /** Returns the counters of a direction. */
  stats(direction: Direction): ShapeStats {
    return { ...this.#lanes[direction]?.stats ?? NOTHING };
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(this.#lanes[Direction.Outbound], batch, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(this.#lanes[Direction.Inbound], batch, context);
  }

  /** Sends packets for which there are tokens. */
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

  /** Returns the tokens of the buckets; packets that wait are not saved. */
  save(): unknown {
    const [outbound, inbound] = this.#lanes.map((lane) => lane?.bucket.tokens);
    return { outbound, inbound };
  }

  /**
   * Continues with the saved tokens; a bucket that the state lacks stays full.
   *
   * @throws {TypeError} when the state does not come from {@linkcode Shaper.save}.
   */
  restore(state: unknown): void {
    if (typeof state !== "object" || state === null) {
      throw new TypeError(`Cannot restore a shaper: state must come from save(), ${gotValue(state)}`);
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

/** One direction of a shaper. */
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
      throw new TypeError(
        `Cannot shape packets: ${DIRECTION_NAMES[direction]} has police and queue: a policer has no queue`,
      );
    }
    this.bucket = new TokenBucket(options);
    this.#direction = direction;
    this.#rate = options;
    this.#queue = queue ?? (police ? new Fifo() : new FqCodel());
    this.#police = police;
  }

  /** Passes or queues a batch; returns the time until the next packet may leave (ms); `Infinity` when none waits. */
  pass(batch: PacketBatch, context: StageContext): number {
    if (context.worker.count !== this.#workers) this.#share(context.worker.count);
    const { packets, length } = batch;
    let i = 0;
    if (this.#queue.length === 0 && !this.#police) {
      while (i < length && this.#passFreely(packets[i]!, context)) i++;
    }
    // Emitted packets overtake those left in the batch: if any is left, the rest waits for a tick.
    const isFree = i > 0;
    for (; i < length; i++) this.#take(packets[i]!, context);
    if (!isFree) return this.release(context);
    return this.#queue.length === 0 ? Infinity : this.bucket.wait(context.now);
  }

  /** Sends packets for which there are tokens; returns the time until the next packet may leave (ms). */
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

  /** Leaves a packet in its batch if there are tokens and it need not be segmented; returns whether it did. */
  #passFreely(packet: Packet, context: StageContext): boolean {
    const size = wireLength(packet);
    if (this.bucket.wait(context.now) > 0 || this.#isTooLong(packet, size)) return false;
    this.#spend(size);
    return true;
  }

  /** Takes a packet, or the segments of a super-packet. */
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

  /** Reports whether a super-packet exceeds the burst and must be segmented. */
  #isTooLong(packet: Packet, size: number): boolean {
    return packet.segmentSize !== 0 && size > this.bucket.burst;
  }

  /** Sets the rate of all workers, of which this one takes its share. */
  setRate(options: TokenBucketOptions): void {
    const { rateBitsPerSecond, burst } = options;
    this.bucket.set({ rateBitsPerSecond: rateBitsPerSecond / this.#workers, burst });
    this.#rate = options;
  }

  #share(workers: number): void {
    this.#workers = workers;
    this.setRate(this.#rate);
  }
}
