/** Bands: packets of a more urgent one go first, or bands share the rate by their weights. */

import type { Packet } from "../../core/packet.ts";
import type { Direction, StageContext } from "../../core/stage.ts";
import { Ip } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { wireLength } from "../../split/stage_segmenter.ts";
import type { Scheduler } from "./scheduler.ts";

// Specification: RFC 2474 section 3
const DSCPS = 64;

// Implementation
/** The bytes of a turn of the band with the least weight. */
const QUANTUM = 1514;

/** Says in which band a packet waits: 0 is the first. */
export type PacketClassifier = (packet: Packet, direction: Direction) => number;

/**
 * A classifier by the DSCP of IP's traffic class (RFC 2474), from a table of the ones that count.
 *
 * @param bands The band of each DSCP that is told.
 * @param otherwise The band of every other packet.
 * @throws {RangeError} when a key is no DSCP: 0 to 63.
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
    if (!(Number(dscp) in table)) throw new RangeError(`Cannot classify by DSCP ${dscp}: 0 to 63 exist`);
    table[Number(dscp)] = band;
  }
  return (packet) => {
    const ip = Ip.of(packet);
    return ip === undefined ? otherwise : table[ip.dscp]!;
  };
}

/**
 * A classifier by filters: the band is the number of the first one that says `true` of the packet, or how many
 * filters there are.
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

/** Options for {@linkcode Priority}. */
export interface PriorityOptions {
  /** A queue of each band, the most urgent one first. */
  readonly bands: readonly Scheduler[];
  /** Says in which band a packet waits; one that there is not is the last. */
  readonly classify: PacketClassifier;
  /** The bands' shares of the rate while all have something to send, in any unit. @default {strict priority} */
  readonly weights?: readonly number[];
}

const NAMES: OptionNames<PriorityOptions> = { bands: "needed list", classify: "needed", weights: "list" };

/**
 * Bands. Without weights a band is served when all before it are empty: the last one may wait for ever. With weights
 * each band gets at least its share (deficit round robin), and what others leave.
 *
 * @example Calls first, all the rest fair
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
  /** The bytes of each band's turn; none: strict. */
  readonly #quanta: Float64Array | undefined;
  readonly #credits: Float64Array;
  #turn = 0;

  /**
   * Bands of these queues.
   *
   * @throws {RangeError} without bands, and when weights are not above 0 or not one for each band.
   * @throws {TypeError} when two bands are one queue.
   */
  constructor(options: PriorityOptions) {
    checkNames("make a Priority", options, NAMES);
    const { bands, classify, weights } = options;
    if (bands.length === 0) throw new RangeError("Cannot make 0 bands: 1 is the least");
    if (new Set(bands).size < bands.length) {
      throw new TypeError("Cannot make two bands of one queue: each has its own");
    }
    if (weights !== undefined) {
      const isWrong = weights.length !== bands.length ||
        !weights.every((weight) => weight > 0 && weight < Infinity);
      if (isWrong) {
        throw new RangeError(`Cannot share by ${weights.join(", ")}: one above 0 for each band can`);
      }
      const least = Math.min(...weights);
      this.#quanta = Float64Array.from(weights, (weight) => QUANTUM * weight / least);
    }
    this.#bands = bands;
    this.#classify = classify;
    this.#credits = new Float64Array(bands.length);
  }

  /** How many packets wait in all bands. */
  get length(): number {
    let sum = 0;
    for (let i = 0; i < this.#bands.length; i++) sum += this.#bands[i]!.length;
    return sum;
  }

  /** Hands a packet to its band's queue. */
  enqueue(packet: Packet, context: StageContext): void {
    const bands = this.#bands;
    const queue = bands[this.#classify(packet, context.direction)] ?? bands[bands.length - 1]!;
    queue.enqueue(packet, context);
  }

  /** The next packet of the band whose turn it is. */
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
        // Who has nothing to send saves nothing, and pays what it owes.
        credits[band] = Math.min(0, credits[band]!);
        empty++;
      } else empty = 0;
      this.#turn = band + 1 === this.#bands.length ? 0 : band + 1;
      credits[this.#turn]! += quanta[this.#turn]!;
    }
    return undefined;
  }
}
