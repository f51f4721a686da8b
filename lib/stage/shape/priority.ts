/** Priority bands: strict priority, or shares of the rate by weight. */

import type { Packet } from "../../core/packet.ts";
import type { Direction, StageContext } from "../../core/stage.ts";
import { Ip } from "../../wire/ip.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";
import { wireLength } from "../../split/stage_segmenter.ts";
import type { Scheduler } from "./scheduler.ts";

// Specification: RFC 2474 section 3
const DSCPS = 64;

// Implementation
/** Bytes per turn of the band with the smallest weight. */
const QUANTUM = 1514;

/** Chooses the band of a packet; 0 is the most urgent. */
export type PacketClassifier = (packet: Packet, direction: Direction) => number;

/**
 * Classifies packets by DSCP (RFC 2474).
 *
 * @param bands Band of each DSCP listed.
 * @param otherwise Band of all other packets.
 * @throws {RangeError} when a DSCP is not from 0 to 63.
 * @example Expedited forwarding (RFC 3246) first, lower effort (RFC 8622) last
 * ```ts
 * import { bandByDscp, Fifo, FqCodel, Priority } from "@warren/tunnel/shape";
 *
 * const bands = [new Fifo({ packets: 32 }), new FqCodel(), new FqCodel()];
 * new Priority({ bands, classify: bandByDscp({ 46: 0, 1: 2 }, 1) });
 * ```
 */
export function bandByDscp(bands: Readonly<Record<number, number>>, otherwise: number): PacketClassifier {
  const table = new Int32Array(DSCPS).fill(otherwise);
  for (const [dscp, band] of Object.entries(bands)) {
    if (!(Number(dscp) in table)) {
      throw new RangeError(`Cannot classify packets: DSCP must be an integer from 0 to 63, got ${dscp}`);
    }
    table[Number(dscp)] = band;
  }
  return (packet) => {
    const ip = Ip.of(packet);
    return ip === undefined ? otherwise : table[ip.dscp]!;
  };
}

/**
 * Classifies packets by filters: the band is the index of the first filter that matches, or the number of filters if none
 * does.
 */
export function bandByFilter(
  filters: readonly ((packet: Packet, direction: Direction) => boolean)[],
): PacketClassifier {
  return (packet, direction) => {
    let band = 0;
    while (band < filters.length && !filters[band]!(packet, direction)) band++;
    return band;
  };
}

/** Options of {@linkcode Priority}. */
export interface PriorityOptions {
  /** Queue of each band, the most urgent band first. */
  readonly bands: readonly Scheduler[];
  /** Chooses the band of a packet; a band that does not exist means the last. */
  readonly classify: PacketClassifier;
  /** Relative shares of the rate while all bands have packets. @default {strict priority} */
  readonly weights?: readonly number[];
}

const NAMES: OptionKinds<PriorityOptions> = { bands: "list", classify: "function", weights: "numbers" };

/**
 * Priority bands. Without weights, a band is served when all bands before it are empty, so the last may starve. With
 * weights, each band gets at least its share (deficit round robin), and a part of unused shares.
 *
 * @example Calls first, all other flows share fairly
 * ```ts
 * import { bandByDscp, Fifo, FqCodel, Priority, Shaper } from "@warren/tunnel/shape";
 *
 * const bands = [new Fifo({ packets: 32 }), new FqCodel()];
 * const queue = new Priority({ bands, classify: bandByDscp({ 46: 0 }, 1) });
 * new Shaper({ outbound: { rateBitsPerSecond: 10e6, queue } });
 * ```
 */
export class Priority implements Scheduler {
  readonly #bands: readonly Scheduler[];
  readonly #classify: PacketClassifier;
  /** Bytes per turn of each band; `undefined` for strict priority. */
  readonly #quanta: Float64Array | undefined;
  readonly #credits: Float64Array;
  #turn = 0;

  /**
   * Creates bands with these queues.
   *
   * @throws {RangeError} without bands, and unless weights are one number above 0 per band.
   * @throws {TypeError} when two bands share a queue.
   */
  constructor(options: PriorityOptions) {
    checkOptions("create a Priority", options, NAMES, ["bands", "classify"]);
    const { bands, classify, weights } = options;
    if (bands.length === 0) {
      throw new RangeError("Cannot create a Priority: bands must be at least 1 queue, got none");
    }
    if (new Set(bands).size < bands.length) {
      throw new TypeError("Cannot create a Priority: two bands have the same queue: give each band a queue");
    }
    if (weights !== undefined) {
      if (weights.length !== bands.length || !weights.every((weight) => weight > 0 && weight < Infinity)) {
        throw new RangeError(
          `Cannot create a Priority: weights must be one number above 0 per band, got [${
            weights.join(", ")
          }]`,
        );
      }
      const min = Math.min(...weights);
      this.#quanta = Float64Array.from(weights, (weight) => QUANTUM * weight / min);
    }
    this.#bands = bands;
    this.#classify = classify;
    this.#credits = new Float64Array(bands.length);
  }

  /** Packets that wait in all bands. */
  get length(): number {
    let total = 0;
    for (let i = 0; i < this.#bands.length; i++) total += this.#bands[i]!.length;
    return total;
  }

  /** Appends a packet to its band's queue. */
  enqueue(packet: Packet, context: StageContext): void {
    const bands = this.#bands;
    const queue = bands[this.#classify(packet, context.direction)] ?? bands[bands.length - 1]!;
    queue.enqueue(packet, context);
  }

  /** Removes the next packet of the band whose turn it is. */
  dequeue(context: StageContext): Packet | undefined {
    return this.#quanta === undefined ? this.#mostUrgent(context) : this.#nextTurn(this.#quanta, context);
  }

  #mostUrgent(context: StageContext): Packet | undefined {
    for (let i = 0; i < this.#bands.length; i++) {
      const packet = this.#bands[i]!.length === 0 ? undefined : this.#bands[i]!.dequeue(context);
      if (packet !== undefined) return packet;
    }
    return undefined;
  }

  #nextTurn(quanta: Float64Array, context: StageContext): Packet | undefined {
    const credits = this.#credits;
    let empty = 0;
    while (empty < this.#bands.length) {
      const band = this.#turn;
      const packet = credits[band]! > 0 ? this.#bands[band]!.dequeue(context) : undefined;
      if (packet !== undefined) {
        credits[band]! -= wireLength(packet);
        return packet;
      }
      if (this.#bands[band]!.length === 0) {
        // An empty band loses its credit and keeps its debt.
        credits[band] = Math.min(0, credits[band]!);
        empty++;
      } else empty = 0;
      this.#turn = band + 1 === this.#bands.length ? 0 : band + 1;
      credits[this.#turn]! += quanta[this.#turn]!;
    }
    return undefined;
  }
}
