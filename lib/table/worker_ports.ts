/** Ports for new flows of a NAT: free ones, else those of flows that make room. */

import type { FlowTable } from "./flow_table.ts";
import type { PortPool } from "./port_pool.ts";

// Implementation
/** The most flows of each state that are evicted for one that finds no free port, and the most that are considered. */
const MAX_EVICTIONS = 16;
const MAX_CANDIDATES = 256;

/** The parts of a NAT that {@linkcode PortTaker} works on. */
export interface PortTakerOptions {
  readonly flows: FlowTable;
  readonly pools: readonly PortPool[];
  /** The states of flows that give their port to a new one, in the order in which they do. */
  readonly givesPort: readonly number[];
  /** The lowest state of flows within their host's share: they make no room for a surplus flow. */
  readonly firstWithinShare: number;
  /** The number of the pool that a flow has its port from; -1 for none. */
  readonly poolOf: (flow: number) => number;
  /** 32 random bits. */
  readonly random: () => number;
}

/** Takes ports from the pools of a NAT's outside addresses. */
export class PortTaker {
  readonly #options: PortTakerOptions;

  /** A taker of these pools' ports. */
  constructor(options: PortTakerOptions) {
    this.#options = options;
  }

  /**
   * Takes a port of a pool: the inside one if it is free (RFC 4787 section 4.2.1), else one like it, which the flows that
   * have been idle for longest give up when none is free. Returns -1 when there is none.
   */
  take(pool: number, insidePort: number, isSurplus: boolean): number {
    const { flows, pools, givesPort, firstWithinShare, poolOf, random } = this.#options;
    const ports = pools[pool]!;
    if (ports.take(insidePort)) return insidePort;
    let port = ports.takeLike(insidePort, random());
    for (let i = 0; port < 0 && i < givesPort.length; i++) {
      const state = givesPort[i]!;
      if (isSurplus && state >= firstWithinShare) break;
      let flow = flows.oldestIn(state);
      for (let seen = 0, evicted = 0; port < 0 && flow >= 0 && seen < MAX_CANDIDATES; seen++) {
        const candidate = flow;
        flow = flows.newerThan(flow);
        // The port of another pool is of no use.
        if (poolOf(candidate) !== pool) continue;
        flows.remove(candidate);
        port = ports.takeLike(insidePort, random());
        if (++evicted === MAX_EVICTIONS) break;
      }
    }
    return port;
  }
}
