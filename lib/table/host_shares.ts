/** Fixed shares of a NAT's ports or flows for each host: flows beyond a host's share are evicted first. */

import { CountedKeys } from "./counted_keys.ts";
import type { FlowKey } from "./flow_key.ts";

// Implementation
/** A host's share is one eighth of the flows or ports. */
const SHARE = 8;

/** Counts of the flows that hosts have within their shares. */
export class HostShares extends CountedKeys {
  readonly #share: number;

  /**
   * Creates shares of `room` flows or ports.
   *
   * @param capacity Maximum number of flows.
   * @param times Factor of the shares, above 1 for networks of several hosts.
   */
  constructor(room: number, capacity: number, times = 1) {
    // A flow is counted before the one that it replaces is removed.
    super(capacity + 1);
    this.#share = Math.max(1, Math.floor(room * times / SHARE));
  }

  /** Reports whether a host has used its share. */
  isUsed(key: FlowKey): boolean {
    const host = this.find(key);
    return host >= 0 && this.countOf(host) >= this.#share;
  }
}
