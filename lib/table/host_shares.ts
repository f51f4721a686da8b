/** Fairness by quota, for NAT, where a flow holds a port: a host's flows beyond its fixed share are evicted first. */

import { CountedKeys } from "./counted_keys.ts";
import type { FlowKey } from "./flow_key.ts";

// Implementation
/** A host's share, as a part of the room (flows or ports). */
const SHARE = 8;

/** Counts the flows that hosts have opened within their shares. */
export class HostShares {
  readonly #share: number;
  readonly #keys: CountedKeys;

  /** Shares of so much room, in a table of so many flows; `times` makes the shares larger, as for a whole network. */
  constructor(room: number, capacity: number, times = 1) {
    this.#share = Math.max(1, Math.floor(room * times / SHARE));
    // A flow is counted before the one that it replaces is forgotten.
    this.#keys = new CountedKeys(capacity + 1);
  }

  /** Tells whether a host has its share already. */
  isUsed(key: FlowKey): boolean {
    const host = this.#keys.find(key);
    return host >= 0 && this.#keys.countOf(host) >= this.#share;
  }

  /** Counts a flow of a host; returns the number to release it by. */
  take(key: FlowKey): number {
    return this.#keys.take(key);
  }

  /** Counts a flow no longer. */
  release(host: number): void {
    this.#keys.release(host);
  }
}
