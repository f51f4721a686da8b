/** A loop's stand-in for tests of one end: it counts what the end says, and waits without sleeping. */

import { type EndHost, type Packet, PacketPool, type Waitable } from "../../lib/core/mod.ts";

/** How long a test waits for what must come (milliseconds). */
const DEADLINE = 20_000;

/** What an end under test is attached to. */
export class TestHost implements EndHost {
  /** Where packets live. */
  readonly pool: PacketPool;
  /** Packets that the end dropped after it took them, by reason. */
  readonly dropped: Record<string, number> = {};
  /** Packets that the end refused on arrival, by reason. */
  readonly refused: Record<string, number> = {};
  /** The bytes of those. */
  refusedBytes = 0;
  /** How often the end asked for a breath. */
  wakes = 0;
  /** Start time of the breath that the test plays. */
  time = 0;
  readonly #watches = new Set<() => void>();

  /** A host with a pool of its own, pre-filled with 0xa5. */
  constructor(pool: PacketPool = new PacketPool({ small: 512, large: 16 })) {
    this.pool = pool;
    pool.bytes.fill(0xa5);
  }

  /** How many packets the end dropped or refused. */
  get lost(): number {
    return sum(this.dropped) + sum(this.refused);
  }

  now(): number {
    return this.time;
  }

  /** Counts. */
  wake(): void {
    this.wakes++;
  }

  /** Gives the packet back, and counts it with a reason. */
  finish(packet: Packet, reason?: string): void {
    if (reason !== undefined) this.dropped[reason] = (this.dropped[reason] ?? 0) + 1;
    packet.pool.give(packet);
  }

  /** Counts. */
  refuse(bytes: number, reason: string): void {
    if (!(bytes >= 0)) throw new TypeError(`Cannot refuse ${bytes} bytes`);
    this.refusedBytes += bytes;
    this.refused[reason] = (this.refused[reason] ?? 0) + 1;
  }

  /** Keeps what is to be called back, for {@linkcode TestHost.look}. */
  watch(_waitable: Waitable, readable: () => void): () => void {
    this.#watches.add(readable);
    return () => this.#watches.delete(readable);
  }

  /** Calls back every watch, as if all were ready. */
  look(): void {
    for (const readable of this.#watches) readable();
  }
}

/** Gives the event loop turns until something is so; fails after 20 s. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const start = performance.now();
  while (!(await condition())) {
    if (performance.now() - start > DEADLINE) throw new Error(`Waited in vain until ${what}`);
    await turn();
  }
}

/** One turn of the event loop, in which Deno looks at its sockets; by `setImmediate` it does every 61st time. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
