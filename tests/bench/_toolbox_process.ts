/**
 * The process in which `toolbox` measures: without any permission, and with `--v8-flags=--expose-gc`. It prints
 * {@linkcode ToolboxFigures} as JSON.
 *
 *     templates ─ copied, 32 at a batch ─► outbound() ─► inbound() of 32 answers ─► copied again ...
 *
 * A stage is called by itself, as a pipeline calls it, with packets of many flows in random order, whose bytes are written
 * anew each time. What that alone costs is measured beside it, and taken off.
 */

import { cpuUsage } from "node:process";
import {
  Direction,
  type Packet,
  PacketBatch,
  PacketPool,
  type Stage,
  type StageContext,
} from "../../lib/core/mod.ts";
import { Random } from "../../lib/core/random.ts";
import { type Part, parts, type Traffic } from "./_toolbox_parts.ts";

// Implementation
const BATCH = 32;
/** So that not each batch has the flows of the one before. */
const BATCHES = 64;
const WARM_UP_PACKETS = 500_000;

/** What the process prints. */
export interface ToolboxFigures {
  /** Nanoseconds that a packet costs with a part, or a call; one figure a round. */
  readonly cost: Record<string, number[]>;
  /** How much the heap grew for each (bytes). */
  readonly heap: Record<string, number>;
}

/** Something that is done many times; returns what was done. */
type Work = (count: number) => number;

/** The context that a stage sees; what it does not pass is counted, and so is what nobody expects. */
class Context implements StageContext {
  now = 1;
  direction: Direction = Direction.Outbound;
  readonly worker = { index: 0, count: 1 };
  claimed = 0;

  take(): undefined {
    return undefined;
  }
  emit(): void {
    this.claimed++;
  }
  hold(): void {
    this.claimed++;
  }
  drop(_packet: Packet, reason: string): void {
    throw new Error(`Cannot measure: a packet was dropped: ${reason}`);
  }
  done(): void {
    this.claimed++;
  }
  handOver(): void {
    this.claimed++;
  }
  wake(): void {
  }
}

/** Packets of one direction: those of a batch, and what their bytes are in each batch. */
class Feed {
  readonly #pool = new PacketPool({ small: BATCH, large: 0 });
  readonly #packets: Packet[] = Array.from({ length: BATCH }, () => this.#pool.take(1)!);
  readonly #words: Uint32Array[] = [];
  readonly #lengths: number[] = [];
  readonly #batch = new PacketBatch();

  constructor(packets: readonly Uint8Array[], order: readonly number[]) {
    for (const flow of order) {
      const bytes = packets[flow]!;
      const words = new Uint8Array(bytes.length + 3 & ~3);
      words.set(bytes);
      this.#words.push(new Uint32Array(words.buffer));
      this.#lengths.push(bytes.length);
    }
  }

  /** The batch of this number, as new. */
  batch(number: number): PacketBatch {
    const batch = this.#batch;
    batch.clear();
    const first = number % BATCHES * BATCH;
    for (let i = 0; i < BATCH; i++) {
      const packet = this.#packets[i]!;
      const words = this.#words[first + i]!;
      packet.reset(this.#lengths[first + i]!);
      packet.owner = undefined;
      const { view, offset } = packet;
      for (let j = 0; j < words.length; j++) view.setUint32(offset + 4 * j, words[j]!, true);
      batch.push(packet);
    }
    return batch;
  }
}

/** A stage's work on its traffic, or none's: the copying. */
function work(traffic: Traffic, stage: Stage | undefined): Work {
  const random = new Random(1);
  const order = Array.from({ length: BATCH * BATCHES }, () => random.below(traffic.outbound.length));
  const outbound = new Feed(traffic.outbound, order);
  const inbound = new Feed(traffic.inbound, order);
  const context = new Context();
  let number = 0;
  // Every flow is known before its answers come.
  for (const bytes of traffic.outbound) {
    const batch = new PacketBatch();
    batch.push(new PacketPool({ small: 1, large: 0 }).from(bytes)!);
    stage?.outbound?.(batch, context);
  }
  for (const bytes of stage === undefined ? [] : traffic.inbound) {
    const batch = new PacketBatch();
    batch.push(new PacketPool({ small: 1, large: 0 }).from(bytes)!);
    context.direction = Direction.Inbound;
    stage?.inbound?.(batch, context);
  }
  return (count) => {
    let done = 0;
    for (; done < count; done += 2 * BATCH) {
      context.now += 0.01;
      context.direction = Direction.Outbound;
      const out = outbound.batch(number);
      stage?.outbound?.(out, context);
      context.direction = Direction.Inbound;
      const back = inbound.batch(number++);
      stage?.inbound?.(back, context);
    }
    return done;
  };
}

/** Processor time of this process (nanoseconds): what others do on this machine is not in it. */
function processorTime(): number {
  const { user, system } = cpuUsage();
  return (user + system) * 1000;
}

function costOf(work: Work, count: number): number {
  const start = processorTime();
  const done = work(count);
  return (processorTime() - start) / done;
}

function heapOf(work: Work, count: number): number {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) throw new Error("Cannot measure the heap: start deno with --v8-flags=--expose-gc");
  gc();
  const before = Deno.memoryUsage().heapUsed;
  const done = work(count);
  gc();
  return Math.max(0, Deno.memoryUsage().heapUsed - before) / done;
}

function worksOf(part: Part): { measured: Work; base: Work | undefined } {
  if (part.lookUps !== undefined) return { measured: part.lookUps(), base: undefined };
  return { measured: work(part.traffic, part.stage()), base: work(part.traffic, undefined) };
}

const [rounds = 1, packets = 1_000_000, heapPackets = 10_000_000] = Deno.args.map(Number);
const works = new Map(parts().map((part) => [part.name, worksOf(part)]));
for (const { measured, base } of works.values()) {
  measured(WARM_UP_PACKETS);
  base?.(WARM_UP_PACKETS);
}
const cost: Record<string, number[]> = Object.fromEntries(Array.from(works.keys(), (name) => [name, []]));
for (let round = 0; round < rounds; round++) {
  for (const [name, { measured, base }] of works) {
    const copying = base === undefined ? 0 : costOf(base, packets);
    cost[name]!.push(costOf(measured, packets) - copying);
  }
  const latest = Array.from(works.keys(), (name) => `${name} ${cost[name]!.at(-1)!.toFixed(0)}`);
  console.error(`bench: round ${round + 1} of ${rounds}: ${latest.join(", ")} ns`);
}
const heap: Record<string, number> = {};
for (const [name, { measured }] of works) heap[name] = heapOf(measured, heapPackets);
const figures: ToolboxFigures = { cost, heap };
console.log(JSON.stringify(figures));
