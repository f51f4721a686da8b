/** Flow table: flows by key, with a maximum number, idle timeouts and memory that is allocated once. */

import { sipHash } from "../core/sip_hash.ts";
import { FlowKey } from "./flow_key.ts";
import { MAX_CAPACITY, MAX_EXPIRED } from "./flow_limits.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../core/options.ts";

// Implementation
const ATTEMPT = "create a flow table";
const CAPACITY = 65_536;
/** No flow, in the index and in the lists. */
const NONE = -1;
/** Reused for keys that are read back from the table. */
const scratch = new FlowKey();

/** Options for {@linkcode FlowTable}. */
export interface FlowTableOptions {
  /** Idle times after which flows are removed (milliseconds), by state. The caller numbers states from 0. */
  readonly timeouts: readonly number[];
  /**
   * Eviction priorities by state: the lowest is evicted first, and of equal ones the longest idle flow.
   * @default {the state's number}
   */
  readonly evictionPriorities?: readonly number[];
  /** Maximum number of flows, up to 2^24. @default {65536} */
  readonly capacity?: number;
  /** Called with the number of a flow before it is removed, except by {@linkcode FlowTable.clear}. */
  readonly forget?: (flow: number) => void;
  /** Key of the hash (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionKinds<FlowTableOptions> = {
  timeouts: "numbers",
  evictionPriorities: "numbers",
  capacity: "number",
  forget: "function",
  hashKey: "numbers",
};

/**
 * Flows by key. A flow has a number below {@linkcode FlowTable.capacity}, which can index arrays of the caller; a state
 * with a timeout; and the time of its last packet. A full table evicts the longest idle flow of the lowest eviction priority.
 * Only the constructor allocates: 90 bytes per flow.
 *
 * @example Counting packets by flow
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { FlowKey } from "@warren/tunnel/flow_key";
 * import { FlowTable } from "@warren/tunnel/flow_table";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const flows = new FlowTable({ timeouts: [30_000] });
 * const packets = new Uint32Array(flows.capacity);
 * const key = new FlowKey();
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 253 });
 * for (const now of [0, 10]) {
 *   key.read(packet);
 *   let flow = flows.find(key, now);
 *   if (flow < 0) packets[flow = flows.add(key, 0, now)] = 0;
 *   flows.touch(flow, now);
 *   packets[flow]!++;
 * }
 * assert(flows.size === 1 && packets[0] === 2);
 * ```
 */
export class FlowTable {
  /** Maximum number of flows. */
  readonly capacity: number;
  readonly #timeouts: Float64Array;
  readonly #evictionPriorities: Float64Array;
  readonly #forget: ((flow: number) => void) | undefined;
  readonly #key0: number;
  readonly #key1: number;

  /** Open addressing with linear probing: pairs of a flow's number and the hash of its key. */
  readonly #index: Int32Array;
  readonly #mask: number;
  readonly #words: Uint32Array;
  /** Length of each key plus 1; 0 for no flow. */
  readonly #lengths: Uint8Array;
  readonly #states: Uint8Array;
  readonly #seen: Float64Array;
  /** One ring per state, in the order of last packets. */
  readonly #newer: Int32Array;
  readonly #older: Int32Array;
  /** First free number; the others follow in `#older`. */
  #free = 0;
  #size = 0;

  /**
   * Creates an empty table.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(options: FlowTableOptions) {
    checkOptions(ATTEMPT, options, NAMES, ["timeouts"]);
    const { timeouts, capacity = CAPACITY, forget, hashKey = crypto.getRandomValues(new Uint32Array(2)) } =
      options;
    const { evictionPriorities = timeouts.map((_, state) => state) } = options;
    const { length: states } = timeouts;
    checkInteger(ATTEMPT, "capacity", capacity, 1, MAX_CAPACITY);
    if (states < 1 || states > 256 || !timeouts.every((timeout) => timeout > 0)) {
      throw new RangeError(
        `Cannot ${ATTEMPT}: timeouts must be 1 to 256 numbers above 0, got [${timeouts.join(", ")}]`,
      );
    }
    if (evictionPriorities.length !== states || !evictionPriorities.every(Number.isFinite)) {
      throw new RangeError(
        `Cannot ${ATTEMPT}: evictionPriorities must be ${states} finite numbers, one for each timeout, ` +
          `got [${evictionPriorities.join(", ")}]`,
      );
    }
    this.capacity = capacity;
    this.#timeouts = Float64Array.from(timeouts);
    this.#evictionPriorities = Float64Array.from(evictionPriorities);
    this.#forget = forget;
    [this.#key0, this.#key1] = hashKey as [number, number];
    const { length } = scratch.words;
    const places = 2 ** Math.ceil(Math.log2(capacity * 2));
    this.#index = new Int32Array(2 * places).fill(NONE);
    this.#mask = places - 1;
    this.#words = new Uint32Array(capacity * length);
    this.#lengths = new Uint8Array(capacity);
    this.#states = new Uint8Array(capacity);
    this.#seen = new Float64Array(capacity);
    this.#newer = new Int32Array(capacity + timeouts.length);
    this.#older = new Int32Array(capacity + timeouts.length);
    this.clear();
  }

  /** Number of flows. */
  get size(): number {
    return this.#size;
  }

  /** Returns a key's flow; -1 if it is absent or has timed out, which removes it. */
  find(key: FlowKey, now: number): number {
    const flow = this.#index[2 * this.#place(key, this.#hash(key))]!;
    if (flow === NONE || !this.#isOver(flow, now)) return flow;
    this.remove(flow);
    return NONE;
  }

  /** Returns a key's flow; -1 if it is absent or has timed out. Changes nothing. */
  peek(key: FlowKey, now: number): number {
    const flow = this.#index[2 * this.#place(key, this.#hash(key))]!;
    return flow === NONE || this.#isOver(flow, now) ? NONE : flow;
  }

  /** Adds a flow, in place of one with the same key; returns its number. A full table evicts another flow. */
  add(key: FlowKey, state: number, now: number): number {
    const known = this.#index[2 * this.#place(key, this.#hash(key))]!;
    if (known !== NONE) this.remove(known);
    if (this.#free === NONE) this.remove(this.#lowestPriority());
    const flow = this.#free;
    this.#free = this.#older[flow]!;
    const hash = this.#hash(key);
    const place = this.#place(key, hash);
    this.#index[2 * place] = flow;
    this.#index[2 * place + 1] = hash;
    const { words, length } = key;
    const start = flow * words.length;
    for (let i = 0; i < length; i++) this.#words[start + i] = words[i]!;
    this.#lengths[flow] = length + 1;
    this.#size++;
    this.#link(flow, state, now);
    return flow;
  }

  /** Records a packet of a flow, and the flow's new state. */
  touch(flow: number, now: number, state: number = this.#states[flow]!): void {
    const isNewest = this.#newer[flow] === this.capacity + state;
    if (this.#states[flow] === state && (isNewest || this.#seen[flow] === now)) {
      this.#seen[flow] = now;
      return;
    }
    this.#unlink(flow);
    this.#link(flow, state, now);
  }

  /** Removes a flow if it is present. */
  remove(flow: number): void {
    if (!this.has(flow)) return;
    this.#forget?.(flow);
    this.#vacate(this.#placeOf(flow));
    this.#unlink(flow);
    this.#lengths[flow] = 0;
    this.#older[flow] = this.#free;
    this.#free = flow;
    this.#size--;
  }

  /** Flow that a full table evicts next; -1 for none. */
  get victim(): number {
    return this.#lowestPriority();
  }

  /** Returns the longest idle flow in a state; -1 for none. */
  oldestIn(state: number): number {
    const flow = this.#newer[this.capacity + state]!;
    return flow < this.capacity ? flow : NONE;
  }

  /** Returns the flow that is next in its state, from the longest idle one on; -1 for none. */
  newerThan(flow: number): number {
    const newer = this.#newer[flow]!;
    return newer < this.capacity ? newer : NONE;
  }

  /** Removes flows that have timed out, at most 1024; returns their number. */
  expire(now: number): number {
    let count = 0;
    for (let state = 0; state < this.#timeouts.length; state++) {
      const ring = this.capacity + state;
      for (
        let flow = this.#newer[ring]!;
        flow !== ring && this.#isOver(flow, now);
        flow = this.#newer[ring]!
      ) {
        if (count === MAX_EXPIRED) return count;
        this.remove(flow);
        count++;
      }
    }
    return count;
  }

  /** Returns the time until the next flow times out (milliseconds); `Infinity` for none. */
  due(now: number): number {
    let due = Infinity;
    for (let state = 0; state < this.#timeouts.length; state++) {
      const flow = this.#newer[this.capacity + state]!;
      if (flow < this.capacity) due = Math.min(due, this.#seen[flow]! + this.#timeouts[state]! - now);
    }
    return Math.max(0, due);
  }

  /** Reports whether a flow with this number is present. */
  has(flow: number): boolean {
    return this.#lengths[flow]! > 0;
  }

  /** Returns a flow's state. */
  stateOf(flow: number): number {
    return this.#states[flow]!;
  }

  /** Returns the time of a flow's last packet (monotonic milliseconds). */
  seenAt(flow: number): number {
    return this.#seen[flow]!;
  }

  /** Copies a flow's key into `key`. */
  readKey(flow: number, key: FlowKey): void {
    const { words } = key;
    const start = flow * words.length;
    key.length = this.#lengths[flow]! - 1;
    for (let i = 0; i < key.length; i++) words[i] = this.#words[start + i]!;
  }

  /** Iterates over the numbers of all flows, by state, from the longest idle one. Allocates. */
  *[Symbol.iterator](): Generator<number, void, void> {
    for (let state = 0; state < this.#timeouts.length; state++) {
      const ring = this.capacity + state;
      for (let flow = this.#newer[ring]!; flow !== ring; flow = this.#newer[flow]!) yield flow;
    }
  }

  /** Removes all flows, without calls of `forget`. */
  clear(): void {
    const { capacity } = this;
    this.#index.fill(NONE);
    this.#lengths.fill(0);
    for (let flow = 0; flow < capacity; flow++) this.#older[flow] = flow + 1 < capacity ? flow + 1 : NONE;
    for (let ring = capacity; ring < this.#older.length; ring++) this.#newer[ring] = this.#older[ring] = ring;
    this.#free = 0;
    this.#size = 0;
  }

  #hash(key: FlowKey): number {
    return sipHash(key.words, key.length, this.#key0, this.#key1);
  }

  /** Finds the place of a key in the index, or the place to add it. */
  #place(key: FlowKey, hash: number): number {
    const index = this.#index;
    let place = hash & this.#mask;
    for (;;) {
      const flow = index[2 * place]!;
      if (flow === NONE || index[2 * place + 1] === hash && this.#matches(flow, key)) return place;
      place = place + 1 & this.#mask;
    }
  }

  #matches(flow: number, { words, length }: FlowKey): boolean {
    const start = flow * words.length;
    for (let i = 0; i < length; i++) {
      if (this.#words[start + i] !== words[i]) return false;
    }
    return true;
  }

  #placeOf(flow: number): number {
    this.readKey(flow, scratch);
    let place = this.#hash(scratch) & this.#mask;
    while (this.#index[2 * place] !== flow) place = place + 1 & this.#mask;
    return place;
  }

  /** Empties a place and moves up the entries after it that belong further up. */
  #vacate(place: number): void {
    const index = this.#index;
    const mask = this.#mask;
    for (let next = place + 1 & mask; index[2 * next] !== NONE; next = next + 1 & mask) {
      const hash = index[2 * next + 1]!;
      if ((next - hash & mask) < (next - place & mask)) continue;
      index[2 * place] = index[2 * next]!;
      index[2 * place + 1] = hash;
      place = next;
    }
    index[2 * place] = NONE;
  }

  #isOver(flow: number, now: number): boolean {
    return now - this.#seen[flow]! >= this.#timeouts[this.#states[flow]!]!;
  }

  #lowestPriority(): number {
    let lowest = NONE;
    let minPriority = Infinity;
    for (let state = 0; state < this.#evictionPriorities.length; state++) {
      const flow = this.#newer[this.capacity + state]!;
      const priority = this.#evictionPriorities[state]!;
      if (flow >= this.capacity || priority > minPriority) continue;
      if (priority === minPriority && this.#seen[flow]! >= this.#seen[lowest]!) continue;
      lowest = flow;
      minPriority = priority;
    }
    return lowest;
  }

  #link(flow: number, state: number, now: number): void {
    const ring = this.capacity + state;
    const last = this.#older[ring]!;
    this.#states[flow] = state;
    this.#seen[flow] = now;
    this.#older[flow] = last;
    this.#newer[flow] = ring;
    this.#newer[last] = flow;
    this.#older[ring] = flow;
  }

  #unlink(flow: number): void {
    const newer = this.#newer[flow]!;
    const older = this.#older[flow]!;
    this.#newer[older] = newer;
    this.#older[newer] = older;
  }
}
