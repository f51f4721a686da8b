/** Stage that impairs a link as netem does: delay, jitter, loss, duplication, corruption, reordering, rate. */

import { Direction, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";
import { StageSegmenter } from "../../split/stage_segmenter.ts";
import { type Impairments, type ImpairStats, Lane } from "./_lane.ts";

/** Impairments of each direction. */
export interface ImpairedDirections {
  /** Impairments of packets from this machine. */
  readonly outbound?: Impairments;
  /** Impairments of packets to this machine. */
  readonly inbound?: Impairments;
}

/** Options of {@linkcode Impairment}. */
export interface ImpairmentOptions extends ImpairedDirections {
  /** Seed of the random numbers, an integer. @default {random, see {@linkcode Impairment.seed}} */
  readonly seed?: number;
}

const DIRECTIONS: OptionKinds<ImpairedDirections> = { outbound: "object", inbound: "object" };
const NAMES: OptionKinds<ImpairmentOptions> = { seed: "number", ...DIRECTIONS };

/**
 * Impairs a link like Linux' netem (tc-netem(8)), from a seed: the same seed, packets and times give the same result. Each
 * impairment has its own random numbers: the same packets are lost when only the delay changes.
 *
 * **Outbound**, **inbound**: each packet is, in this order, duplicated, lost, corrupted, sent ahead of others or delayed.
 * Super-packets (GSO) are segmented first, and each segment is impaired separately.
 * **Options**: {@linkcode ImpairmentOptions}. **Counters**: {@linkcode Impairment.stats}. **Drops**: `loss`, `queue full`.
 * **Limits**: packets leave up to 1 ms late and wait in the loop's pool (2048 small slots for all tunnels). No copy is made
 * when the pool is empty. Each worker has the whole rate and limit, and the same random numbers.
 *
 * @example A delay of 50 ms
 * ```ts
 * import assert from "node:assert/strict";
 * import { type Packet, PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Impairment } from "@warren/tunnel/impair";
 *
 * const sent: Packet[] = [];
 * const context = { now: 0, hold() {}, wake() {}, emit: (packet: Packet) => sent.push(packet) };
 * const impairment = new Impairment({ seed: 7, outbound: { delay: 50 } }); // tunnel.use(impairment)
 * const batch = new PacketBatch();
 * batch.push(new PacketPool().from(new Uint8Array(100))!);
 * impairment.outbound(batch, context as unknown as StageContext);
 * assert.equal(sent.length, 0);
 * context.now = 50;
 * impairment.tick(context as unknown as StageContext);
 * assert.equal(sent.length, 1);
 * ```
 */
export class Impairment implements Stage {
  readonly name = "impair";
  /** Seed of the random numbers. */
  readonly seed: number;
  readonly #lanes: readonly [outbound: Lane, inbound: Lane];
  /** Directions with impairments; in others, packets pass. */
  readonly #isOn = [false, false];
  readonly #segmenter = new StageSegmenter();
  /** Time of the next call of `tick` (monotonic milliseconds). */
  #tickAt = Infinity;

  /**
   * Creates a stage for one tunnel.
   *
   * @throws {RangeError} when a number is out of range.
   * @throws {TypeError} when two options contradict each other.
   */
  constructor(options: ImpairmentOptions = {}) {
    checkOptions("impair packets", options, NAMES);
    const { seed = crypto.getRandomValues(new Uint32Array(1))[0]!, ...directions } = options;
    this.seed = seed;
    this.#lanes = [new Lane(Direction.Outbound, seed), new Lane(Direction.Inbound, seed)];
    this.set(directions);
  }

  /**
   * Replaces all options of the directions given. Packets in the queue keep their release time.
   *
   * @throws {RangeError} when a number is out of range.
   * @throws {TypeError} when two options contradict each other.
   */
  set(directions: ImpairedDirections): void {
    checkOptions("impair packets", directions, DIRECTIONS);
    const { outbound, inbound } = directions;
    for (const [direction, options] of [outbound, inbound].entries()) {
      if (options === undefined) continue;
      this.#lanes[direction]!.set(options);
      this.#isOn[direction] = true;
    }
  }

  /** Returns the counters of a direction. */
  stats(direction: Direction): ImpairStats {
    return this.#lanes[direction].stats;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(Direction.Outbound, batch, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(Direction.Inbound, batch, context);
  }

  /** Emits packets that are due. */
  tick(context: StageContext): number | undefined {
    const [outbound, inbound] = this.#lanes;
    this.#tickAt = Math.min(outbound.release(context), inbound.release(context));
    return this.#tickAt === Infinity ? undefined : this.#tickAt - context.now;
  }

  /** Returns the positions in the random numbers, and whether the links are bad; packets in the queue are not saved. */
  save(): unknown {
    const [outbound, inbound] = this.#lanes;
    return { outbound: outbound.save(), inbound: inbound.save() };
  }

  /**
   * Continues a saved sequence of random numbers; options are not restored.
   *
   * @throws {TypeError} when the state does not come from {@linkcode Impairment.save}.
   */
  restore(state: unknown): void {
    const { outbound, inbound } = (state ?? {}) as { outbound?: unknown; inbound?: unknown };
    this.#lanes[Direction.Outbound].restore(outbound);
    this.#lanes[Direction.Inbound].restore(inbound);
  }

  #pass(direction: Direction, batch: PacketBatch, context: StageContext): void {
    if (!this.#isOn[direction]) return;
    const lane = this.#lanes[direction];
    const segmenter = this.#segmenter;
    lane.release(context);
    for (let i = 0; i < batch.length; i++) {
      const packet = batch.packets[i]!;
      if (packet.segmentSize === 0) {
        lane.enter(packet, context);
        continue;
      }
      segmenter.start(packet, context);
      for (let segment = segmenter.next(context); segment !== undefined; segment = segmenter.next(context)) {
        lane.enter(segment, context);
      }
    }
    const due = lane.release(context);
    if (due >= this.#tickAt) return;
    this.#tickAt = context.now;
    context.wake();
  }
}
