/**
 * Counters of one worker's tunnel in shared memory, where another worker reads them.
 *
 *     words:    generation, number of reasons      odd while they are written
 *     numbers:  outbound, inbound; handed over outbound, inbound; created, malformed, queued, consumed; dropped by reason
 *     texts:    the reasons
 */

import type { FlowStats, TunnelStats } from "../../lib/core/mod.ts";
import { type Counters, MAX_REASONS } from "../../lib/core/stats.ts";

// Implementation
const GENERATION = 0;
const REASONS = 1;
/** Offset of the numbers (bytes). */
const NUMBERS = 8;
/** Index of the first number of each part. */
const PART = {
  outbound: 0,
  inbound: 4,
  handedOutbound: 8,
  handedInbound: 12,
  rest: 16,
  dropped: 20,
} as const;
/** Size of a reason, with its length in the first byte (bytes). */
const TEXT = 256;
const TEXTS = NUMBERS + 8 * (PART.dropped + MAX_REASONS);
/** Maximum attempts to read counters that change meanwhile. */
const ATTEMPTS = 1000;

/** Counters of packets handed over from other workers (`packetsIn`) and to them (`packetsOut`), by direction. */
export interface HandOverStats {
  /** From this machine. */
  readonly outbound: FlowStats;
  /** To this machine. */
  readonly inbound: FlowStats;
}

/** Counters of one worker's tunnel. */
export interface WorkerStats {
  /** All packets. */
  readonly stats: TunnelStats;
  /** The packets handed over, which `stats` includes. */
  readonly handed: HandOverStats;
}

/** Returns counters that are zero. */
export function noHandOvers(): HandOverStats {
  const none = () => ({ packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 });
  return { outbound: none(), inbound: none() };
}

/** Allocates the memory of one worker's counters. */
export function makeSharedCounters(): SharedArrayBuffer {
  return new SharedArrayBuffer(TEXTS + MAX_REASONS * TEXT);
}

/** One side's view of a worker's counters. */
export class SharedCounters {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #texts: Uint8Array;
  /** Places of the reasons, for the writer. */
  readonly #places = new Map<string, number>();

  /** Makes a view of the memory that {@linkcode makeSharedCounters} allocates. */
  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, NUMBERS / 4);
    this.#numbers = new Float64Array(memory, NUMBERS, PART.dropped + MAX_REASONS);
    this.#texts = new Uint8Array(memory, TEXTS);
  }

  /** Generation of the counters. A read is consistent if the generation is even and the same before and after it. */
  get generation(): number {
    // An addition of 0 is a full barrier: no earlier read moves behind it.
    return Atomics.add(this.#words, GENERATION, 0);
  }

  /**
   * Writes the counters.
   *
   * @param inside Packets inside the tunnel, including those that its ends have taken and not delivered.
   * @param forFar Those that the far end has taken; `forDevice`, the device.
   */
  publish(
    counters: Counters,
    handed: HandOverStats,
    inside: number,
    forFar: number,
    forDevice: number,
  ): void {
    const numbers = this.#numbers;
    Atomics.add(this.#words, GENERATION, 1);
    this.#putFlow(PART.outbound, counters.outbound);
    this.#putFlow(PART.inbound, counters.inbound);
    numbers[PART.outbound + 2]! -= forFar;
    numbers[PART.inbound + 2]! -= forDevice;
    this.#putFlow(PART.handedOutbound, handed.outbound);
    this.#putFlow(PART.handedInbound, handed.inbound);
    numbers[PART.rest] = counters.created;
    numbers[PART.rest + 1] = counters.malformed;
    numbers[PART.rest + 2] = inside;
    numbers[PART.rest + 3] = counters.consumed;
    if (counters.dropped.total > 0) this.#putReasons(counters.dropped.reasons);
    Atomics.add(this.#words, GENERATION, 1);
  }

  /** Reads the counters, consistently if {@linkcode SharedCounters.generation} allows it. */
  read(): WorkerStats {
    const numbers = this.#numbers;
    const dropped = new Map<string, number>();
    const decoder = new TextDecoder();
    for (let place = 0; place < this.#words[REASONS]!; place++) {
      const start = place * TEXT + 1;
      const text = decoder.decode(this.#texts.slice(start, start + this.#texts[start - 1]!));
      // Long reasons are truncated and may then be equal.
      addTo(dropped, text, numbers[PART.dropped + place]!);
    }
    return {
      stats: {
        outbound: this.#flow(PART.outbound),
        inbound: this.#flow(PART.inbound),
        created: numbers[PART.rest]!,
        consumed: numbers[PART.rest + 3]!,
        dropped: Object.fromEntries(dropped),
        queued: numbers[PART.rest + 2]!,
        malformed: numbers[PART.rest + 1]!,
        stages: [],
      },
      handed: { outbound: this.#flow(PART.handedOutbound), inbound: this.#flow(PART.handedInbound) },
    };
  }

  #putFlow(start: number, { packetsIn, bytesIn, packetsOut, bytesOut }: FlowStats): void {
    const numbers = this.#numbers;
    numbers[start] = packetsIn;
    numbers[start + 1] = bytesIn;
    numbers[start + 2] = packetsOut;
    numbers[start + 3] = bytesOut;
  }

  #flow(start: number): FlowStats {
    const [packetsIn, bytesIn, packetsOut, bytesOut] = this.#numbers.subarray(start, start + 4);
    return { packetsIn: packetsIn!, bytesIn: bytesIn!, packetsOut: packetsOut!, bytesOut: bytesOut! };
  }

  #putReasons(reasons: ReadonlyMap<string, number>): void {
    for (const [reason, count] of reasons) {
      this.#numbers[PART.dropped + (this.#places.get(reason) ?? this.#name(reason))] = count;
    }
  }

  /** Returns a place for a new reason. */
  #name(reason: string): number {
    const place = this.#places.size;
    this.#places.set(reason, place);
    const bytes = new Uint8Array(TEXT - 1);
    const { written } = new TextEncoder().encodeInto(reason, bytes);
    this.#texts[place * TEXT] = written;
    this.#texts.set(bytes, place * TEXT + 1);
    this.#words[REASONS] = place + 1;
    return place;
  }
}

/** Reads the counters of all workers at one moment; after 1,000 failed attempts, at moments close together. */
export function readAll(counters: readonly SharedCounters[]): WorkerStats[] {
  let read: WorkerStats[] = [];
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = counters.map(({ generation }) => generation);
    if (before.some((generation) => generation % 2 !== 0)) continue;
    read = counters.map((shared) => shared.read());
    if (counters.every(({ generation }, i) => generation === before[i])) return read;
  }
  return read.length === counters.length ? read : counters.map((shared) => shared.read());
}

/**
 * Adds up the counters of all workers. A packet that was handed over counts once, and is queued while it is between two
 * workers. When all workers are closed, packets still inside count as dropped.
 */
export function sum(all: readonly WorkerStats[], closed: boolean): TunnelStats {
  const { outbound, inbound } = noHandOvers();
  const stages = all[0]?.stats.stages ?? [];
  const total = { outbound, inbound, created: 0, consumed: 0, queued: 0, malformed: 0, stages };
  const dropped = new Map<string, number>();
  for (const { stats, handed } of all) {
    for (const direction of ["outbound", "inbound"] as const) {
      const flow = total[direction];
      flow.packetsIn += stats[direction].packetsIn - handed[direction].packetsIn;
      flow.bytesIn += stats[direction].bytesIn - handed[direction].bytesIn;
      flow.packetsOut += stats[direction].packetsOut - handed[direction].packetsOut;
      flow.bytesOut += stats[direction].bytesOut - handed[direction].bytesOut;
      total.queued += handed[direction].packetsOut - handed[direction].packetsIn;
    }
    total.created += stats.created;
    total.consumed += stats.consumed;
    total.queued += stats.queued;
    total.malformed += stats.malformed;
    for (const [reason, count] of Object.entries(stats.dropped)) addTo(dropped, reason, count);
  }
  if (closed && total.queued > 0) {
    addTo(dropped, "closed", total.queued);
    total.queued = 0;
  }
  return { ...total, dropped: Object.fromEntries(dropped) };
}

function addTo(dropped: Map<string, number>, reason: string, count: number): void {
  dropped.set(reason, (dropped.get(reason) ?? 0) + count);
}
