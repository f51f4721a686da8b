/** Keys that several flows share, each counted and numbered until the last one lets go. */

import type { FlowKey } from "../flow_key.ts";
import { FlowTable } from "../flow_table.ts";

/** A set of keys with counts. */
export class CountedFlows {
  readonly #table: FlowTable;
  readonly #counts: Uint32Array;

  constructor(capacity: number) {
    this.#table = new FlowTable({ timeouts: [Infinity], capacity });
    this.#counts = new Uint32Array(capacity);
  }

  /** How many keys there are. */
  get size(): number {
    return this.#table.size;
  }

  /** A key's number; -1 for none. */
  find(key: FlowKey): number {
    return this.#table.find(key, 0);
  }

  /** Counts one more, of a key that may be new; returns its number. */
  take(key: FlowKey): number {
    let number = this.#table.find(key, 0);
    if (number < 0) {
      number = this.#table.add(key, 0, 0);
      this.#counts[number] = 0;
    }
    this.#counts[number]!++;
    return number;
  }

  /** Counts one less; returns whether it was the last one. */
  release(number: number): boolean {
    if (--this.#counts[number]! > 0) return false;
    this.#table.remove(number);
    return true;
  }
}
