/** Fair sharing by quota, for NAT: flows of a host beyond its fixed share of ports or flows are evicted first. */

import { CountedKeys } from "./counted_keys.ts";
import type { FlowKey } from "./flow_key.ts";

// Implementation
/** Divisor of a host's share: one eighth of the flows or ports. */
const SHARE = 8;

/** Numbers of flows that hosts have within their shares. */
export class HostShares extends CountedKeys {
  readonly #share: number;

  /**
   * Creates shares of `room` flows or ports.
   *
   * @param capacity Maximum number of flows.
   * @param times Factor of the shares, such as for a whole network instead of a host.
   */
  constructor(room: number, capacity: number, times = 1) {
    // A flow is counted before the one that it replaces is removed.
    super(capacity + 1);
    this.#share = Math.max(1, Math.floor(room * times / SHARE));
  }

  /** Tells whether a host has used its share. */
  isUsed(key: FlowKey): boolean {
    const host = this.find(key);
    return host >= 0 && this.countOf(host) >= this.#share;
  }
}
