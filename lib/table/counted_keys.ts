/** Reference-counted keys, shared by several flows. */

import type { FlowKey } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";

/** Numbered, reference-counted keys; the numbers are indexes for arrays of the caller. */
export class CountedKeys {
  readonly #table: FlowTable;
  readonly #counts: Uint32Array;

  /** @param capacity Maximum number of keys, at least the number of possible holders. */
  constructor(capacity: number) {
    this.#table = new FlowTable({ timeouts: [Infinity], capacity });
    this.#counts = new Uint32Array(capacity);
  }

  get size(): number {
    return this.#table.size;
  }

  /** Returns a key's number; -1 if it is absent. */
  find(key: FlowKey): number {
    return this.#table.find(key, 0);
  }

  /** Returns the reference count of a key, by its number. */
  countOf(number: number): number {
    return this.#counts[number]!;
  }

  /** Adds a key that is absent, with a count of 1; returns its number. */
  add(key: FlowKey): number {
    const number = this.#table.add(key, 0, 0);
    this.#counts[number] = 1;
    return number;
  }

  /** Adds 1 to the count of a key that is present. */
  hold(number: number): void {
    this.#counts[number]!++;
  }

  /** Adds a key with a count of 1, or increments its count; returns its number. */
  take(key: FlowKey): number {
    const number = this.find(key);
    if (number < 0) return this.add(key);
    this.hold(number);
    return number;
  }

  /** Subtracts 1 from a key's count and removes it at 0; returns whether it was removed. */
  release(number: number): boolean {
    if (--this.#counts[number]! > 0) return false;
    this.#table.remove(number);
    return true;
  }
}
