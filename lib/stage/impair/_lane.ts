/**
 * One direction of an impaired link, in netem's order:
 *
 *     packet ─► duplicate? ─► loss? ─► corrupt? ─► reorder? ─► delay and rate ─► queue full? ─► released when due
 *                   └─► the copy: loss? ...
 */

import { copyPacket } from "../../core/copy_packet.ts";
import { checkInteger, checkMin, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import type { Direction, Packet, StageContext } from "../../core/mod.ts";
import { Chance, checkProbability, type Likelihood } from "./_chance.ts";
import { type DelayDistribution, delayTable } from "./_distribution.ts";
import { ReleaseQueue } from "./_release_queue.ts";

// Implementation
const NAMES: OptionKinds<Impairments> = {
  delay: "number",
  jitter: "number",
  delayCorrelation: "number",
  distribution: ["uniform", "normal", "pareto", "paretonormal"],
  loss: "any",
  gilbertElliott: "object",
  duplicate: "any",
  corrupt: "any",
  reorder: "any",
  gap: "number",
  rateBitsPerSecond: "number",
  limit: "number",
};
const BURSTS: OptionKinds<GilbertElliott> = {
  toBad: "number",
  toGood: "number",
  lossInBad: "number",
  lossInGood: "number",
};
const LIMIT = 1000;
/** Packets due within a microsecond leave now: milliseconds in a double are hardly more precise. */
const SLACK = 0.001;
const LOST = "loss";
const FULL = "queue full";
const BITS_PER_BYTE = 8;
const MILLISECONDS = 1000;
/** Streams of random numbers of a direction. */
const STREAMS = { loss: 0, duplicate: 1, corrupt: 2, bit: 3, reorder: 4, delay: 5, count: 6 } as const;

/** Bursty loss: a link that is good or bad (E. N. Gilbert 1960, E. O. Elliott 1963); netem's `gemodel`. */
export interface GilbertElliott {
  /** Probability, per packet, that a good link turns bad: netem's p. */
  readonly toBad: number;
  /** Probability, per packet, that a bad link turns good: netem's r. */
  readonly toGood: number;
  /** Loss on a bad link: netem's 1-h. @default {1} */
  readonly lossInBad?: number;
  /** Loss on a good link: netem's 1-k. @default {0} */
  readonly lossInGood?: number;
}

/** Impairments of one direction, named as in tc-netem(8). */
export interface Impairments {
  /** Mean delay (milliseconds). @default {0} */
  readonly delay?: number;
  /** Deviation of the delay, for `uniform` its maximum (milliseconds). @default {0} */
  readonly jitter?: number;
  /** Share of the previous delay's random part in the next delay, from 0 to 1. @default {0} */
  readonly delayCorrelation?: number;
  /** Distribution of the delay. @default {"uniform"} */
  readonly distribution?: DelayDistribution;
  /** Probability of loss. @default {0} */
  readonly loss?: Likelihood;
  /** Bursty loss, instead of `loss`. @default {none} */
  readonly gilbertElliott?: GilbertElliott;
  /** Probability that a packet is sent twice. @default {0} */
  readonly duplicate?: Likelihood;
  /** Probability that one bit is flipped; checksums are not corrected. @default {0} */
  readonly corrupt?: Likelihood;
  /** Probability that a packet skips the delay and overtakes those that wait. Needs a delay. @default {0} */
  readonly reorder?: Likelihood;
  /** Only every nth packet may overtake. @default {1} */
  readonly gap?: number;
  /** Link rate (bits per second). @default {Infinity} */
  readonly rateBitsPerSecond?: number;
  /** Maximum packets in the queue. @default {1000} */
  readonly limit?: number;
}

/** Counters of one direction. */
export interface ImpairStats {
  /** Packets received; each segment of a super-packet counts. */
  packets: number;
  /** Packets lost by chance. */
  lost: number;
  /** Packets sent twice. */
  duplicated: number;
  /** Packets with a flipped bit. */
  corrupted: number;
  /** Packets that overtook others. */
  reordered: number;
  /** Packets dropped because the queue was full. */
  overflowed: number;
  /** Packets in the queue now. */
  queued: number;
}

/** One direction of an impaired link. */
export class Lane {
  readonly #direction: Direction;
  readonly #queue = new ReleaseQueue();
  readonly #stats = { packets: 0, lost: 0, duplicated: 0, corrupted: 0, reordered: 0, overflowed: 0 };
  readonly #loss: Chance;
  readonly #duplicate: Chance;
  readonly #corrupt: Chance;
  readonly #bit: Chance;
  readonly #reorder: Chance;
  readonly #spread: Chance;
  #delay = 0;
  #jitter = 0;
  #table = delayTable("uniform");
  #bursts: Required<GilbertElliott> | undefined;
  #gap = 1;
  #millisecondsPerByte = 0;
  #limit = LIMIT;
  #isBad = false;
  /** Packets since one last overtook others. */
  #counter = 0;
  /** Time at which the link is free: it has then sent the last packet. */
  #free = -Infinity;

  constructor(direction: Direction, seed: number) {
    const stream = (number: number) => new Chance(seed, direction * STREAMS.count + number);
    this.#direction = direction;
    this.#loss = stream(STREAMS.loss);
    this.#duplicate = stream(STREAMS.duplicate);
    this.#corrupt = stream(STREAMS.corrupt);
    this.#bit = stream(STREAMS.bit);
    this.#reorder = stream(STREAMS.reorder);
    this.#spread = stream(STREAMS.delay);
  }

  get stats(): ImpairStats {
    return { ...this.#stats, queued: this.#queue.length };
  }

  /**
   * Replaces all options; packets in the queue keep their release time.
   *
   * @throws {RangeError} when a number is out of its range.
   * @throws {TypeError} when two options contradict each other.
   */
  set(options: Impairments): void {
    checkOptions("impair packets", options, NAMES);
    const { delay = 0, jitter = 0, delayCorrelation = 0, distribution = "uniform", gilbertElliott } = options;
    const { loss = 0, duplicate = 0, corrupt = 0, reorder = 0, gap = 1 } = options;
    const { rateBitsPerSecond = Infinity, limit = LIMIT } = options;
    for (const [name, value] of Object.entries({ delay, jitter })) {
      check(value >= 0 && value < Infinity, `${name} must be a finite number of ms of at least 0`, value);
    }
    check(rateBitsPerSecond > 0, "rateBitsPerSecond must be above 0", rateBitsPerSecond);
    checkMin("impair packets", "limit", limit, 1);
    checkInteger("impair packets", "gap", gap, 1, Infinity);
    if (gilbertElliott !== undefined && options.loss !== undefined) {
      throw new TypeError(
        "Cannot impair packets: loss and gilbertElliott exclude each other: set one of them",
      );
    }
    const table = delayTable(distribution);
    if (gilbertElliott !== undefined) {
      checkOptions("impair packets", gilbertElliott, BURSTS, ["toBad", "toGood"], "gilbertElliott");
    }
    const { toBad = 0, toGood = 0, lossInBad = 1, lossInGood = 0 } = gilbertElliott ?? {};
    for (const [name, value] of Object.entries({ toBad, toGood, lossInBad, lossInGood })) {
      checkProbability(name, value);
    }
    for (
      const [name, chance, likelihood] of [
        ["loss", this.#loss, loss],
        ["duplicate", this.#duplicate, duplicate],
        ["corrupt", this.#corrupt, corrupt],
        ["reorder", this.#reorder, reorder],
        ["delay", this.#spread, { probability: 0, correlation: delayCorrelation }],
      ] as const
    ) chance.set(name, likelihood);
    if (this.#reorder.isPossible && delay === 0) {
      throw new TypeError(
        "Cannot impair packets: reorder needs a delay, got 0: a packet overtakes those that wait",
      );
    }
    this.#delay = delay;
    this.#jitter = jitter;
    this.#table = table;
    this.#bursts = gilbertElliott && { toBad, toGood, lossInBad, lossInGood };
    this.#gap = gap;
    this.#millisecondsPerByte = BITS_PER_BYTE * MILLISECONDS / rateBitsPerSecond;
    this.#limit = limit;
  }

  /** Receives a packet that is not a super-packet. */
  enter(packet: Packet, context: StageContext): void {
    this.#stats.packets++;
    const isTwice = this.#duplicate.happens();
    const isLost = this.#isLost();
    // As in netem: a packet that is both duplicated and lost is sent once.
    if (isLost && !isTwice) return this.#lose(packet, context);
    if (isTwice && !isLost) this.#enterCopy(packet, context);
    this.#send(packet, context);
  }

  /** Emits all packets that are due; returns the time at which the next packet is due (monotonic milliseconds). */
  release(context: StageContext): number {
    const queue = this.#queue;
    while (queue.due <= context.now + SLACK) context.emit(queue.shift(), this.#direction);
    return queue.due;
  }

  /** Returns the positions in the streams of random numbers, and the link's state. */
  save(): unknown {
    return { rows: this.#streams.map((stream) => stream.save()), isBad: this.#isBad, counter: this.#counter };
  }

  /** @throws {TypeError} when the state does not come from {@linkcode Lane.save}. */
  restore(state: unknown): void {
    const { rows, isBad, counter } = (state ?? {}) as { rows?: unknown; isBad?: unknown; counter?: unknown };
    const isState = Array.isArray(rows) && rows.length === STREAMS.count && typeof isBad === "boolean" &&
      Number.isInteger(counter) && counter as number >= 0;
    if (!isState) {
      throw new TypeError(`Cannot restore impairments: state must come from save(), ${gotValue(state)}`);
    }
    this.#streams.forEach((stream, i) => stream.restore(rows[i]));
    this.#isBad = isBad;
    this.#counter = counter as number;
  }

  get #streams(): Chance[] {
    return [this.#loss, this.#duplicate, this.#corrupt, this.#bit, this.#reorder, this.#spread];
  }

  #isLost(): boolean {
    const bursts = this.#bursts;
    if (bursts === undefined) return this.#loss.happens();
    // The link's state on arrival decides; the transition follows.
    const wasBad = this.#isBad;
    if (this.#loss.next() < (wasBad ? bursts.toGood : bursts.toBad)) this.#isBad = !wasBad;
    return this.#loss.next() < (wasBad ? bursts.lossInBad : bursts.lossInGood);
  }

  #lose(packet: Packet, context: StageContext): void {
    this.#stats.lost++;
    context.drop(packet, LOST);
  }

  /** Sends a copy, impaired but not duplicated again, unless the pool is empty. */
  #enterCopy(packet: Packet, context: StageContext): void {
    const copy = copyPacket(packet, context);
    if (copy === undefined) return;
    this.#stats.duplicated++;
    if (this.#isLost()) this.#lose(copy, context);
    else this.#send(copy, context);
  }

  #send(packet: Packet, context: StageContext): void {
    if (this.#corrupt.happens()) this.#flip(packet);
    const { now } = context;
    const time = this.#timeFor(packet, now);
    // All packets that wait are due later.
    if (time <= now) return context.emit(packet, this.#direction);
    if (this.#queue.length >= this.#limit) {
      this.#stats.overflowed++;
      return context.drop(packet, FULL);
    }
    if (this.#millisecondsPerByte > 0) this.#free = time;
    context.hold(packet);
    this.#queue.push(packet, time);
  }

  /** Flips one bit. A partial checksum is completed first, or the receiver would find it correct. */
  #flip(packet: Packet): void {
    if (!packet.isInSlot) return;
    packet.finish();
    const bit = Math.floor(this.#bit.next() * packet.length * BITS_PER_BYTE);
    packet.bytes[packet.offset + (bit >> 3)]! ^= 1 << (bit & 7);
    this.#stats.corrupted++;
  }

  /** Returns the release time of a packet. */
  #timeFor(packet: Packet, now: number): number {
    if (this.#reorder.isPossible && this.#counter >= this.#gap - 1 && this.#reorder.happens()) {
      this.#counter = 0;
      this.#stats.reordered++;
      return now;
    }
    this.#counter++;
    let delay = this.#delay;
    if (this.#jitter > 0) {
      delay += this.#jitter * this.#table[Math.floor(this.#spread.next() * this.#table.length)]!;
    }
    if (this.#millisecondsPerByte === 0) return now + delay;
    // As in netem: waiting for the link counts towards the delay.
    const start = Math.max(now, this.#free);
    return start + Math.max(0, delay - (start - now)) + packet.length * this.#millisecondsPerByte;
  }
}

/** @throws {RangeError} when the value does not follow the rule. */
function check(isRight: boolean, rule: string, value: unknown): void {
  if (!isRight) throw new RangeError(`Cannot impair packets: ${rule}, ${gotValue(value)}`);
}
