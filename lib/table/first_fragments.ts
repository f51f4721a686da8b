/** Table of fragmented packets whose first fragment was seen, for the ports of later fragments. */

import type { FlowKey } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";
import { Shares } from "./shares.ts";

// Implementation
/** Index of the source address in a key, and number of words of an IPv4 key. */
const SRC = 1;
const IPV4_WORDS = 4;

/**
 * Fragmented packets by keys that begin with the source address. A full table evicts the oldest packet of the source with
 * the most packets.
 */
export class FirstFragments extends FlowTable {
  readonly #shares: Shares;

  /**
   * @param timeout Idle time after which a packet is removed (milliseconds).
   * @param hashKey Key of the hashes (two 32-bit numbers), for tests. @default {random}
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

  /** Adds a packet that is absent; returns its number. */
  note(key: FlowKey, now: number): number {
    if (this.size === this.capacity) this.remove(this.#shares.oldestOf(this.#shares.largest()));
    const packet = this.add(key, 0, now);
    this.#shares.add(packet, this.#shares.holderIn(key.words, SRC, key.length === IPV4_WORDS ? 4 : 6));
    return packet;
  }
}
