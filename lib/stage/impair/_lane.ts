/**
 * One direction of a bad road, in the order of netem's:
 *
 *     packet ─► twice? ─► lost? ─► a bit flipped? ─► first of all? ─► delay, and the rate ─► full? ─► until it is due
 *                 └─► the copy: lost? ...
 */

import { copyPacket } from "../../core/copy_packet.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import type { Direction, Packet, StageContext } from "../../core/mod.ts";
import { Chance, checkProbability, type Likelihood } from "./_chance.ts";
import { type DelayDistribution, delayTable } from "./_distribution.ts";
import { ReleaseQueue } from "./_release_queue.ts";

// Implementation
const NAMES: OptionNames<Impairments> = {
  delay: "number",
  jitter: "number",
  delayCorrelation: "number",
  distribution: "optional",
  loss: "optional",
  gilbertElliott: "optional",
  duplicate: "optional",
  corrupt: "optional",
  reorder: "optional",
  gap: "number",
  rateBitsPerSecond: "number",
  limit: "number",
};
const BURSTS: OptionNames<GilbertElliott> = {
  toBad: "needed number",
  toGood: "needed number",
  lossInBad: "number",
  lossInGood: "number",
};
const LIMIT = 1000;
/** What is due within a microsecond goes: the clock's milliseconds, in a double, are hardly finer. */
const SLACK = 0.001;
const LOST = "loss";
const FULL = "queue full";
const BITS_PER_BYTE = 8;
const MILLISECONDS = 1000;
const BITS_PER_BYTE_AND_MILLISECOND = BITS_PER_BYTE * MILLISECONDS;
/** The rows of random numbers of one direction. */
const ROWS = { loss: 0, duplicate: 1, corrupt: 2, place: 3, reorder: 4, delay: 5, count: 6 } as const;

/** Losses in bursts, by a road that is good or bad (E. N. Gilbert 1960, E. O. Elliott 1963); netem's `gemodel`. */
export interface GilbertElliott {
  /** How likely a good road becomes bad, at each packet: netem's p. */
  readonly toBad: number;
  /** How likely a bad road becomes good, at each packet: netem's r. */
  readonly toGood: number;
  /** How likely a packet is lost on a bad road: netem's 1-h. @default {1} */
  readonly lossInBad?: number;
  /** How likely a packet is lost on a good road: netem's 1-k. @default {0} */
  readonly lossInGood?: number;
}

/** What happens to the packets of one direction; tc-netem(8) has the same words. */
export interface Impairments {
  /** How long each packet waits (milliseconds). @default {0} */
  readonly delay?: number;
  /** How far delays are spread: the deviation, of `uniform` ones the largest (milliseconds). @default {0} */
  readonly jitter?: number;
  /** How much of a delay's random part is the one before: 0 to 1. @default {0} */
  readonly delayCorrelation?: number;
  /** How delays are spread. @default {"uniform"} */
  readonly distribution?: DelayDistribution;
  /** How many packets are lost, 0 to 1. @default {0} */
  readonly loss?: Likelihood;
  /** Losses in bursts, in place of `loss`. @default {none} */
  readonly gilbertElliott?: GilbertElliott;
  /** How many packets come twice, 0 to 1. @default {0} */
  readonly duplicate?: Likelihood;
  /** How many packets have a bit flipped, and wrong checksums, 0 to 1. @default {0} */
  readonly corrupt?: Likelihood;
  /** How many packets overtake those that wait, 0 to 1: they go at once. Needs a delay. @default {0} */
  readonly reorder?: Likelihood;
  /** Only each so many-th packet may overtake. @default {1} */
  readonly gap?: number;
  /** The road's rate (bits per second). @default {Infinity} */
  readonly rateBitsPerSecond?: number;
  /** How many packets may wait. @default {1000} */
  readonly limit?: number;
}

/** What happened in one direction. */
export interface ImpairStats {
  /** Packets that came, each segment of a super-packet for itself. */
  packets: number;
  /** Packets that were lost by chance. */
  lost: number;
  /** Packets that were copied. */
  duplicated: number;
  /** Packets with a bit flipped. */
  corrupted: number;
  /** Packets that overtook others. */
  reordered: number;
  /** Packets that found the queue full. */
  overflowed: number;
  /** Packets that wait now. */
  queued: number;
}

/** One direction. */
export class Lane {
  readonly #direction: Direction;
  readonly #queue = new ReleaseQueue();
  readonly #stats = { packets: 0, lost: 0, duplicated: 0, corrupted: 0, reordered: 0, overflowed: 0 };
  readonly #loss: Chance;
  readonly #duplicate: Chance;
  readonly #corrupt: Chance;
  readonly #place: Chance;
  readonly #reorder: Chance;
  readonly #spread: Chance;
  #delay = 0;
  #jitter = 0;
  #table = delayTable("uniform");
  #toBad = 0;
  #toGood = 0;
  #lossInBad = 0;
  #lossInGood = 0;
  #hasBursts = false;
  #gap = 1;
  #millisecondsPerByte = 0;
  #limit = LIMIT;
  #isBad = false;
  /** Packets since one has overtaken others. */
  #counter = 0;
  /** When the last packet that was sent onto the road is off it. */
  #free = -Infinity;

  /** A direction with random numbers of its own. */
  constructor(direction: Direction, seed: number) {
    const row = (number: number) => new Chance(seed, direction * ROWS.count + number);
    this.#direction = direction;
    this.#loss = row(ROWS.loss);
    this.#duplicate = row(ROWS.duplicate);
    this.#corrupt = row(ROWS.corrupt);
    this.#place = row(ROWS.place);
    this.#reorder = row(ROWS.reorder);
    this.#spread = row(ROWS.delay);
  }

  /** What happened. */
  get stats(): ImpairStats {
    return { ...this.#stats, queued: this.#queue.length };
  }

  /**
   * Makes it so from now on; packets that wait are not touched.
   *
   * @throws {RangeError} when a number is out of its range.
   * @throws {TypeError} when two options contradict each other.
   */
  set(options: Impairments): void {
    checkNames("impair", options, NAMES);
    const { delay = 0, jitter = 0, delayCorrelation = 0, distribution = "uniform", gilbertElliott } = options;
    const { loss = 0, duplicate = 0, corrupt = 0, reorder = 0, gap = 1 } = options;
    const { rateBitsPerSecond = Infinity, limit = LIMIT } = options;
    for (const [what, value] of Object.entries({ delay, jitter })) {
      if (!(value >= 0 && value < Infinity)) {
        throw new RangeError(`Cannot set ${what} to ${value} ms: 0 is the least`);
      }
    }
    if (!(rateBitsPerSecond > 0)) {
      throw new RangeError(`Cannot send at ${rateBitsPerSecond} bits per second: a rate above 0 can`);
    }
    if (!(limit >= 1)) throw new RangeError(`Cannot bound a queue at ${limit} packets`);
    if (!(Number.isInteger(gap) && gap >= 1)) {
      throw new RangeError(`Cannot reorder with a gap of ${gap}: 1 is the least`);
    }
    if (gilbertElliott !== undefined && options.loss !== undefined) {
      throw new TypeError("Cannot lose packets by loss and by gilbertElliott: one of them can");
    }
    const table = delayTable(distribution);
    if (gilbertElliott !== undefined) checkNames("lose packets in bursts", gilbertElliott, BURSTS);
    const { toBad = 0, toGood = 0, lossInBad = 1, lossInGood = 0 } = gilbertElliott ?? {};
    for (const [what, value] of Object.entries({ toBad, toGood, lossInBad, lossInGood })) {
      checkProbability(what, value);
    }
    for (
      const [what, chance, likelihood] of [
        ["loss", this.#loss, loss],
        ["duplicate", this.#duplicate, duplicate],
        ["corrupt", this.#corrupt, corrupt],
        ["reorder", this.#reorder, reorder],
        ["delay", this.#spread, { probability: 0, correlation: delayCorrelation }],
      ] as const
    ) chance.set(what, likelihood);
    if (this.#reorder.isPossible && delay === 0) {
      throw new TypeError("Cannot reorder without a delay: a packet overtakes those that wait");
    }
    this.#delay = delay;
    this.#jitter = jitter;
    this.#table = table;
    this.#hasBursts = gilbertElliott !== undefined;
    this.#toBad = toBad;
    this.#toGood = toGood;
    this.#lossInBad = lossInBad;
    this.#lossInGood = lossInGood;
    this.#gap = gap;
    this.#millisecondsPerByte = BITS_PER_BYTE_AND_MILLISECOND / rateBitsPerSecond;
    this.#limit = limit;
  }

  /** A packet comes: an ordinary one. */
  enter(packet: Packet, context: StageContext): void {
    this.#stats.packets++;
    const isTwice = this.#duplicate.happens();
    const isLost = this.#isLost();
    // As in netem: one that is to come twice and is lost comes once.
    if (isLost && !isTwice) return this.#lose(packet, context);
    if (isTwice && !isLost) this.#enterCopy(packet, context);
    this.#send(packet, context);
  }

  /** Sends on what is due; returns when the next packet is (monotonic milliseconds). */
  release(context: StageContext): number {
    const queue = this.#queue;
    while (queue.due <= context.now + SLACK) context.emit(queue.shift(), this.#direction);
    return queue.due;
  }

  /** Its random numbers, and the road's state. */
  save(): unknown {
    return {
      rows: this.#rows.map((row) => row.save()),
      isBad: this.#isBad,
      counter: this.#counter,
    };
  }

  /** @throws {TypeError} when it is not what {@linkcode Lane.save} gave. */
  restore(state: unknown): void {
    const { rows, isBad, counter } = (state ?? {}) as { rows?: unknown; isBad?: unknown; counter?: unknown };
    const isState = Array.isArray(rows) && rows.length === ROWS.count && typeof isBad === "boolean" &&
      Number.isInteger(counter) && counter as number >= 0;
    if (!isState) throw new TypeError(`Cannot restore impairments from ${JSON.stringify(state)}`);
    this.#rows.forEach((row, i) => row.restore(rows[i]));
    this.#isBad = isBad;
    this.#counter = counter as number;
  }

  get #rows(): Chance[] {
    return [this.#loss, this.#duplicate, this.#corrupt, this.#place, this.#reorder, this.#spread];
  }

  #isLost(): boolean {
    if (!this.#hasBursts) return this.#loss.happens();
    // The road's state when the packet comes decides; then it changes, or does not.
    const wasBad = this.#isBad;
    if (this.#loss.next() < (wasBad ? this.#toGood : this.#toBad)) this.#isBad = !wasBad;
    return this.#loss.next() < (wasBad ? this.#lossInBad : this.#lossInGood);
  }

  #lose(packet: Packet, context: StageContext): void {
    this.#stats.lost++;
    context.drop(packet, LOST);
  }

  /** A second packet, to which all but coming twice may happen; none when the pool has no slot. */
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
    // What was due before is gone: whatever else waits is due later.
    if (time <= now) return context.emit(packet, this.#direction);
    if (this.#queue.length >= this.#limit) {
      this.#stats.overflowed++;
      return context.drop(packet, FULL);
    }
    if (this.#millisecondsPerByte > 0) this.#free = time;
    context.hold(packet);
    this.#queue.push(packet, time);
  }

  /** Flips one of its bits. A sum that is still to be finished is finished before: it would be right else. */
  #flip(packet: Packet): void {
    if (!packet.isInSlot) return;
    packet.finish();
    const bit = Math.floor(this.#place.next() * packet.length * BITS_PER_BYTE);
    packet.bytes[packet.offset + (bit >> 3)]! ^= 1 << (bit & 7);
    this.#stats.corrupted++;
  }

  /** When a packet leaves. */
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
    // As in netem: waiting for the road is a part of the delay.
    const start = Math.max(now, this.#free);
    return start + Math.max(0, delay - (start - now)) + packet.length * this.#millisecondsPerByte;
  }
}
