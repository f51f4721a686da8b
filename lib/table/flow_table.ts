/** What is known of flows, by their keys: bounded in number and in time, in memory that is taken once. */

import { sipHash } from "../core/sip_hash.ts";
import { FlowKey } from "./flow_key.ts";
import { checkNames, type OptionNames } from "../core/options.ts";

// Implementation
const CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 24;
/** How many flows one call of {@linkcode FlowTable.expire} forgets at most: 64 packets' worth of work. */
const EXPIRED_LIMIT = 1024;
/** No flow, in the index and in the lists. */
const NONE = -1;
/** For keys that are read back. */
const scratch = new FlowKey();

/** What a {@linkcode FlowTable} is made of. */
export interface FlowTableOptions {
  /**
   * How long a flow may be idle before it is forgotten (milliseconds), by its state. States are the caller's
   * numbers, from 0: the lower, the sooner a flow makes room for another one.
   */
  readonly timeouts: readonly number[];
  /**
   * Eviction priority of a flow by its state: the lower, the sooner it makes room for another one, and of equal ones
   * the one that has been idle for longest. @default {each state's own number}
   */
  readonly evictionPriorities?: readonly number[];
  /** How many flows there is room for, up to 2 to the 24th. @default {65536} */
  readonly capacity?: number;
  /** Called with the number of each flow that is about to be forgotten, whyever. */
  readonly forget?: (flow: number) => void;
  /** The key of the hash (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionNames<FlowTableOptions> = {
  timeouts: "needed list",
  evictionPriorities: "list",
  capacity: "number",
  forget: "function",
  hashKey: "list",
};

/**
 * Flows by their keys. Each one has a number below {@linkcode FlowTable.capacity} while it is known, for the caller's
 * own arrays; a state, which has a timeout; and the time when it was last seen. A full table forgets the flow that
 * has been idle for longest among those in the lowest state, or in those of the lowest eviction priority. Nothing is allocated once
 * it is made: 90 bytes a flow.
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
  /** How many flows there is room for. */
  readonly capacity: number;
  readonly #timeouts: Float64Array;
  readonly #evictionPriorities: Float64Array;
  readonly #forget: ((flow: number) => void) | undefined;
  readonly #key0: number;
  readonly #key1: number;

  /** Open addressing with linear probing: a flow's number, and its key's hash beside it. */
  readonly #index: Int32Array;
  readonly #mask: number;
  readonly #words: Uint32Array;
  /** A key's length and 1; 0: no flow. */
  readonly #lengths: Uint8Array;
  readonly #states: Uint8Array;
  readonly #seen: Float64Array;
  /** A ring for each state, from the flow that was seen last to the one that has been idle for longest. */
  readonly #newer: Int32Array;
  readonly #older: Int32Array;
  /** The first number that is free; the others follow by `#older`. */
  #free = 0;
  #size = 0;

  /**
   * An empty table.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  constructor(options: FlowTableOptions) {
    checkNames("make a table of flows", options, NAMES);
    const { timeouts, capacity = CAPACITY, forget, hashKey = crypto.getRandomValues(new Uint32Array(2)) } =
      options;
    const { evictionPriorities = timeouts.map((_, state) => state) } = options;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
      throw new RangeError(`Cannot make a table of ${capacity} flows: 1 to ${MAX_CAPACITY} are possible`);
    }
    if (timeouts.length < 1 || timeouts.length > 256 || !timeouts.every((timeout) => timeout > 0)) {
      throw new RangeError(
        `Cannot make a table with timeouts of ${timeouts.join(", ")} ms: 1 to 256 above 0 are`,
      );
    }
    if (
      evictionPriorities.length !== timeouts.length ||
      !evictionPriorities.every((value) => Number.isFinite(value))
    ) {
      throw new RangeError(
        `Cannot make a table with evictionPriorities of ${
          evictionPriorities.join(", ")
        }: ${timeouts.length} numbers are needed`,
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

  /** How many flows are known. */
  get size(): number {
    return this.#size;
  }

  /** A key's flow; -1 when it is not known, or has been idle for too long, which ends it. */
  find(key: FlowKey, now: number): number {
    const flow = this.#index[2 * this.#place(key, this.#hash(key))]!;
    if (flow === NONE || !this.#isOver(flow, now)) return flow;
    this.remove(flow);
    return NONE;
  }

  /** The same, but what has been idle for too long stays until it is found, replaced or forgotten: changes nothing. */
  peek(key: FlowKey, now: number): number {
    const flow = this.#index[2 * this.#place(key, this.#hash(key))]!;
    return flow === NONE || this.#isOver(flow, now) ? NONE : flow;
  }

  /** Adds a flow, in place of one with this key, and returns its number; when there is no room, another one makes it. */
  add(key: FlowKey, state: number, now: number): number {
    const known = this.#index[2 * this.#place(key, this.#hash(key))]!;
    if (known !== NONE) this.remove(known);
    if (this.#free === NONE) this.remove(this.#leastPriority());
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

  /** Says that a flow was seen, and in which state it now is. */
  touch(flow: number, now: number, state: number = this.#states[flow]!): void {
    if (this.#seen[flow] === now && this.#states[flow] === state) return;
    this.#unlink(flow);
    this.#link(flow, state, now);
  }

  /** Forgets a flow; one that is not known is none. */
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

  /** The flow that makes room for the next one in a full table; -1 for none. */
  get victim(): number {
    return this.#leastPriority();
  }

  /** The flow that has been idle for longest among those in this state; -1 for none. */
  oldestIn(state: number): number {
    const flow = this.#newer[this.capacity + state]!;
    return flow < this.capacity ? flow : NONE;
  }

  /** The flow of the same state that was seen next after this one; -1 for none. */
  newerThan(flow: number): number {
    const newer = this.#newer[flow]!;
    return newer < this.capacity ? newer : NONE;
  }

  /** Forgets flows that have been idle for too long, 1024 at most, and returns how many. */
  expire(now: number): number {
    let count = 0;
    for (let state = 0; state < this.#timeouts.length; state++) {
      const ring = this.capacity + state;
      for (
        let flow = this.#newer[ring]!;
        flow !== ring && this.#isOver(flow, now);
        flow = this.#newer[ring]!
      ) {
        if (count === EXPIRED_LIMIT) return count;
        this.remove(flow);
        count++;
      }
    }
    return count;
  }

  /** In how many milliseconds the next flow will have been idle for too long; `Infinity` with none. */
  due(now: number): number {
    let due = Infinity;
    for (let state = 0; state < this.#timeouts.length; state++) {
      const flow = this.#newer[this.capacity + state]!;
      if (flow < this.capacity) due = Math.min(due, this.#seen[flow]! + this.#timeouts[state]! - now);
    }
    return Math.max(0, due);
  }

  /** Whether there is a flow of this number. */
  has(flow: number): boolean {
    return this.#lengths[flow]! > 0;
  }

  /** A flow's state. */
  stateOf(flow: number): number {
    return this.#states[flow]!;
  }

  /** When a flow was last seen (monotonic milliseconds). */
  seenAt(flow: number): number {
    return this.#seen[flow]!;
  }

  /** Fills in a flow's key. */
  readKey(flow: number, key: FlowKey): void {
    const { words } = key;
    const start = flow * words.length;
    key.length = this.#lengths[flow]! - 1;
    for (let i = 0; i < key.length; i++) words[i] = this.#words[start + i]!;
  }

  /** The numbers of all flows, by state, and in each from the longest idle one on. Allocates. */
  *[Symbol.iterator](): Generator<number, void, void> {
    for (let state = 0; state < this.#timeouts.length; state++) {
      const ring = this.capacity + state;
      for (let flow = this.#newer[ring]!; flow !== ring; flow = this.#newer[flow]!) yield flow;
    }
  }

  /** Forgets all flows, without a word. */
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

  /** Where a key stands in the index, or would. */
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

  /** Empties a place, and moves up what stands behind it for want of this one. */
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

  #leastPriority(): number {
    let least = NONE;
    let leastPriority = Infinity;
    for (let state = 0; state < this.#evictionPriorities.length; state++) {
      const flow = this.#newer[this.capacity + state]!;
      const priority = this.#evictionPriorities[state]!;
      if (flow >= this.capacity || priority > leastPriority) continue;
      if (priority === leastPriority && this.#seen[flow]! >= this.#seen[least]!) continue;
      least = flow;
      leastPriority = priority;
    }
    return least;
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
