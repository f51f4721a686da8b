/** Tables of fragmented packets whose first fragment has passed, by which later ones are known. */

import type { FlowKey } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";
import { Shares } from "./shares.ts";

// Implementation
/** The first word of the source address in a key, and the number of words in a key of IPv4. */
const SRC = 1;
const IPV4_WORDS = 4;

/**
 * Fragmented packets, by keys in which the source stands first. A full table forgets the oldest of the source with the
 * most.
 */
export class FirstFragments extends FlowTable {
  readonly #shares: Shares;

  /**
   * @param timeout How long a packet may be idle before it is forgotten (milliseconds).
   * @param hashKey The key of the hashes (two 32-bit numbers): for tests. @default {random}
   */
  constructor(capacity: number, timeout: number, hashKey?: readonly [number, number]) {
    super({
      timeouts: [timeout],
      capacity,
      forget: (packet) => this.#shares.remove(packet),
      ...hashKey && { hashKey },
    });
    this.#shares = new Shares(capacity, 1, hashKey);
  }

  /** Notes a packet that is not known. */
  note(key: FlowKey, now: number): number {
    if (this.size === this.capacity) this.remove(this.#shares.oldestOf(this.#shares.largest()));
    const packet = this.add(key, 0, now);
    this.#shares.add(packet, this.#shares.holderIn(key.words, SRC, key.length === IPV4_WORDS ? 4 : 6));
    return packet;
  }
}
