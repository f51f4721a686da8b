/** A stage that makes a road bad: packets come late, in another order, twice, with wrong bits, or not at all. */

import { Direction, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { StageSegmenter } from "../../split/stage_segmenter.ts";
import { type Impairments, type ImpairStats, Lane } from "./_lane.ts";

/** What happens in each direction. */
export interface ImpairedDirections {
  /** What happens to packets from this machine. */
  readonly outbound?: Impairments;
  /** What happens to packets to this machine. */
  readonly inbound?: Impairments;
}

/** Options for {@linkcode Impairment}. */
export interface ImpairmentOptions extends ImpairedDirections {
  /** Where random numbers start: any whole number. @default {random, and told by `seed`} */
  readonly seed?: number;
}

const DIRECTIONS: OptionNames<ImpairedDirections> = { outbound: "optional", inbound: "optional" };
const NAMES: OptionNames<ImpairmentOptions> = { seed: "number", ...DIRECTIONS };

/**
 * Impairs packets as Linux' netem (tc-netem(8)) does, from a seed: with the same seed, the same packets at the same times
 * have the same fate. Each thing that may happen has random numbers of its own, so that the same packets are lost when
 * another one of the options is changed.
 *
 * **Outbound**: each packet is, by chance and in this order, sent twice, lost, corrupted and sent at once, or delayed.
 *
 * **Inbound**: the same, with options and random numbers of its own.
 *
 * **Options**: `seed`; for each direction `delay` and `jitter` (0 ms), `delayCorrelation` (0), `distribution`
 * (`"uniform"`), `loss` (0) or `gilbertElliott`, `duplicate`, `corrupt`, `reorder` (0), `gap` (1),
 * `rateBitsPerSecond` (none), `limit` (1000 packets).
 *
 * **Counters**: {@linkcode Impairment.stats}; dropped as `loss`, and as `queue full` over the limit.
 *
 * What netem does, this does: `uniform` delays are from `delay - jitter` to `delay + jitter`, of the others `jitter`
 * is the deviation, by the same tables; jitter reorders packets, unless there is a rate; what waits for the rate does so in
 * its delay; a packet both lost and sent twice comes once; correlation makes each random number resemble the
 * one before, which also draws it to the middle, so that less happens than a small probability says.
 *
 * Super-packets are cut first, and each segment has a fate of its own; they are then counted as dropped, `cut into
 * segments`.
 *
 * **Limits**: packets leave at the first breath of the loop when they are due, which is up to a millisecond later. They wait in
 * the slots of the loop's pool (2048 small ones, for all tunnels). A copy for which there is no slot is not made.
 * Each of several workers has the whole rate and limit, and the same random numbers. netem's `loss state`, `slot`,
 * `ecn` and the overheads of `rate` are not here.
 *
 * @example A road of 50 ms on which one of a hundred packets is lost
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction } from "@warren/tunnel/core";
 * import { Impairment } from "@warren/tunnel/impair";
 *
 * const impairment = new Impairment({ seed: 7, outbound: { delay: 50, jitter: 5, loss: 0.01 } });
 * impairment.set({ outbound: { delay: 100 } });
 * assert.equal(impairment.stats(Direction.Outbound).lost, 0);
 * ```
 */
export class Impairment implements Stage {
  /** `impair`. */
  readonly name = "impair";
  /** Where random numbers started. */
  readonly seed: number;
  readonly #lanes: readonly [outbound: Lane, inbound: Lane];
  /** Whether anything happens in each direction: there is nothing to do else. */
  readonly #isOn = [false, false];
  readonly #segmenter = new StageSegmenter();
  /** When `tick` will be called (monotonic milliseconds). */
  #tickAt = Infinity;

  /**
   * A stage for a tunnel of its own.
   *
   * @throws {RangeError} when a number is out of its range.
   * @throws {TypeError} when two options contradict each other.
   */
  constructor(options: ImpairmentOptions = {}) {
    checkNames("impair", options, NAMES);
    const { seed = crypto.getRandomValues(new Uint32Array(1))[0]!, ...directions } = options;
    this.seed = seed;
    this.#lanes = [new Lane(Direction.Outbound, seed), new Lane(Direction.Inbound, seed)];
    this.set(directions);
  }

  /**
   * Sets what happens from now on, in the directions that are told: all options of one anew. Packets that wait leave when
   * they were to.
   *
   * @throws {RangeError} when a number is out of its range.
   * @throws {TypeError} when two options contradict each other.
   */
  set(directions: ImpairedDirections): void {
    checkNames("impair", directions, DIRECTIONS);
    const { outbound, inbound } = directions;
    for (const [direction, options] of [outbound, inbound].entries()) {
      if (options === undefined) continue;
      this.#lanes[direction]!.set(options);
      this.#isOn[direction] = true;
    }
  }

  /** What has happened in a direction. */
  stats(direction: Direction): ImpairStats {
    return this.#lanes[direction].stats;
  }

  /** Packets from this machine. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(Direction.Outbound, batch, context);
  }

  /** Packets to this machine. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(Direction.Inbound, batch, context);
  }

  /** Sends on what is due. */
  tick(context: StageContext): number | undefined {
    const [outbound, inbound] = this.#lanes;
    this.#tickAt = Math.min(outbound.release(context), inbound.release(context));
    return this.#tickAt === Infinity ? undefined : this.#tickAt - context.now;
  }

  /** Where the random numbers are, and the state of a Gilbert-Elliott road; packets that wait are not saved. */
  save(): unknown {
    const [outbound, inbound] = this.#lanes;
    return { outbound: outbound.save(), inbound: inbound.save() };
  }

  /**
   * Goes on with another one's random numbers, by its own options.
   *
   * @throws {TypeError} when it is not what {@linkcode Impairment.save} gave.
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
