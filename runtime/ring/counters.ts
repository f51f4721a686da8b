/**
 * Counters of one worker's tunnel, in shared memory so that other workers can read them.
 *
 *     words:    generation (odd while the counters are being written), number of reasons
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
/** Index of the first number of each group. */
const PART = {
  outbound: 0,
  inbound: 4,
  handedOutbound: 8,
  handedInbound: 12,
  rest: 16,
  dropped: 20,
} as const;
/** Size of a reason (bytes); the first byte is its length. */
const TEXT = 256;
const TEXTS = NUMBERS + 8 * (PART.dropped + MAX_REASONS);
/** Maximum attempts to read the counters between two updates. */
const ATTEMPTS = 1000;

/** Counters of packets received from other workers (`packetsIn`) and sent to them (`packetsOut`). */
export interface HandOverStats {
  /** Packets from this machine. */
  readonly outbound: FlowStats;
  /** Packets to this machine. */
  readonly inbound: FlowStats;
}

/** Counters of one worker's tunnel. */
export interface WorkerStats {
  /** Counters of all packets. */
  readonly stats: TunnelStats;
  /** Counters of packets handed over, which `stats` includes. */
  readonly handed: HandOverStats;
}

/** Creates counters that are zero. */
export function noHandOvers(): HandOverStats {
  const none = () => ({ packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 });
  return { outbound: none(), inbound: none() };
}

/** Allocates the memory of one worker's counters. */
export function allocateCounters(): SharedArrayBuffer {
  return new SharedArrayBuffer(TEXTS + MAX_REASONS * TEXT);
}

/** The counters of one worker, as its own side writes them or another worker reads them. */
export class SharedCounters {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #texts: Uint8Array;
  /** Index of each reason; kept by the writer. */
  readonly #places = new Map<string, number>();

  /** Opens counters in memory from {@linkcode allocateCounters}. */
  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, NUMBERS / 4);
    this.#numbers = new Float64Array(memory, NUMBERS, PART.dropped + MAX_REASONS);
    this.#texts = new Uint8Array(memory, TEXTS);
  }

  /**
   * Number of updates begun and ended. A read is consistent if this is even, and the same before and after the read.
   */
  get generation(): number {
    // Unlike a load, adding 0 is a full barrier: earlier reads are not moved behind it.
    return Atomics.add(this.#words, GENERATION, 0);
  }

  /**
   * Writes the counters.
   *
   * @param inside Number of packets in the tunnel, including those that its ends have taken and not delivered yet.
   * @param forFar Number of packets that the far end has taken and not delivered yet.
   * @param forDevice Number of packets that the device has taken and not delivered yet.
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

  /** Reads the counters; {@linkcode SharedCounters.generation} tells whether they are consistent. */
  read(): WorkerStats {
    const numbers = this.#numbers;
    const dropped = new Map<string, number>();
    const decoder = new TextDecoder();
    for (let place = 0; place < this.#words[REASONS]!; place++) {
      const start = place * TEXT + 1;
      const text = decoder.decode(this.#texts.slice(start, start + this.#texts[start - 1]!));
      // Long reasons are truncated, so two of them may be equal.
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
      this.#numbers[PART.dropped + (this.#places.get(reason) ?? this.#addReason(reason))] = count;
    }
  }

  /** Stores a new reason and returns its index. */
  #addReason(reason: string): number {
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

/** Reads the counters of all workers as of one moment, or after 1,000 failed attempts, as of moments close together. */
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
 * Adds up the counters of all workers. A packet that was handed over counts once, and counts as queued on its way
 * between two workers. When the tunnel is closed in all workers, queued packets count as dropped.
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
