/** A table of fragmented packets whose first fragment was translated, by which later ones are known. */

import type { FlowKey } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";
import { Shares } from "./_shares.ts";

// Implementation
/** Where the source address starts in a key. */
const SRC = 1;

/** Packets with a number each, for the caller's own arrays. A full table forgets the oldest of the source with the most. */
export class FirstFragments {
  readonly #table: FlowTable;
  readonly #shares: Shares;

  /** @param timeout How long a packet may be idle before it is forgotten (milliseconds). */
  constructor(capacity: number, timeout: number) {
    this.#table = new FlowTable({
      timeouts: [timeout],
      capacity,
      forget: (packet) => this.#shares.remove(packet),
    });
    this.#shares = new Shares(capacity);
  }

  /** How many are known. */
  get size(): number {
    return this.#table.size;
  }

  /** The packet with this key; -1 when it is not known. */
  find(key: FlowKey, now: number): number {
    return this.#table.find(key, now);
  }

  /** Notes a packet, which may be known; its source's address stands first in the key. */
  note(key: FlowKey, now: number): number {
    const table = this.#table;
    const known = table.find(key, now);
    if (known >= 0) return known;
    if (table.size === table.capacity) table.remove(this.#shares.oldestOf(this.#shares.largest()));
    const packet = table.add(key, 0, now);
    this.#shares.add(packet, this.#shares.holderIn(key.words, SRC, key.version));
    return packet;
  }

  /** Notes that another fragment of a packet came. */
  touch(packet: number, now: number): void {
    this.#table.touch(packet, now);
  }

  /** Forgets some that have been idle for too long. */
  expire(now: number): void {
    this.#table.expire(now);
  }
}
