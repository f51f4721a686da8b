/** Fair sharing by quota, for NAT: flows of a host beyond its fixed share of ports or flows are evicted first. */

import { CountedKeys } from "./counted_keys.ts";
import type { FlowKey } from "./flow_key.ts";

// Implementation
/** Divisor of a host's share: one eighth of the flows or ports. */
const SHARE = 8;

/** Numbers of flows that hosts have within their shares. */
export class HostShares {
  readonly #share: number;
  readonly #keys: CountedKeys;

  /**
   * Creates shares of `room` flows or ports.
   *
   * @param capacity Maximum number of flows.
   * @param times Factor of the shares, such as for a whole network instead of a host.
   */
  constructor(room: number, capacity: number, times = 1) {
    this.#share = Math.max(1, Math.floor(room * times / SHARE));
    // A flow is counted before the one that it replaces is removed.
    this.#keys = new CountedKeys(capacity + 1);
  }

  /** Tells whether a host has used its share. */
  isUsed(key: FlowKey): boolean {
    const host = this.#keys.find(key);
    return host >= 0 && this.#keys.countOf(host) >= this.#share;
  }

  /** Counts a flow of a host; returns the host's number, for `release`. */
  take(key: FlowKey): number {
    return this.#keys.take(key);
  }

  /** Subtracts a flow from a host's count. */
  release(host: number): void {
    this.#keys.release(host);
  }
}
