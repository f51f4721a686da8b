/** Keys that several flows share, for as long as one of them has it. */

import type { FlowKey } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";

/** Keys with a number each, which others' arrays go by, and how many hold it. */
export class CountedKeys {
  readonly #table: FlowTable;
  readonly #counts: Uint32Array;

  /** Room for as many keys as there can be holders. */
  constructor(capacity: number) {
    this.#table = new FlowTable({ timeouts: [Infinity], capacity });
    this.#counts = new Uint32Array(capacity);
  }

  /** How many keys are held. */
  get size(): number {
    return this.#table.size;
  }

  /** A key's number; -1 when nobody holds it. */
  find(key: FlowKey): number {
    return this.#table.find(key, 0);
  }

  /** How many hold a key, by its number. */
  countOf(number: number): number {
    return this.#counts[number]!;
  }

  /** Holds a key that nobody holds; returns its number. */
  add(key: FlowKey): number {
    const number = this.#table.add(key, 0, 0);
    this.#counts[number] = 1;
    return number;
  }

  /** Holds a key that others hold. */
  hold(number: number): void {
    this.#counts[number]!++;
  }

  /** Holds a key; returns its number. */
  take(key: FlowKey): number {
    const number = this.find(key);
    if (number < 0) return this.add(key);
    this.hold(number);
    return number;
  }

  /** Holds it no more; returns whether nobody does. */
  release(number: number): boolean {
    if (--this.#counts[number]! > 0) return false;
    this.#table.remove(number);
    return true;
  }
}
