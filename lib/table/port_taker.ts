/** Takes ports for new flows of a NAT: free ones, or those of evicted flows. */

import type { FlowTable } from "./flow_table.ts";
import type { PortPool } from "./port_pool.ts";

// Implementation
/** Maximum number of flows to evict for one port, and to consider, in each state. */
const MAX_EVICTIONS = 16;
const MAX_CANDIDATES = 256;

/** Ports of a NAT, and the flows that hold them. */
export interface NatPorts {
  /** Flows of the NAT. */
  readonly flows: FlowTable;
  /** Ports of each outside address. */
  readonly pools: readonly PortPool[];
  /** States of flows that may be evicted for their port, in order of eviction. */
  readonly givesPort: readonly number[];
  /** Lowest state of flows within their host's share, which a surplus flow does not evict. */
  readonly firstWithinShare: number;
  /** Returns the number of the pool of a flow's port; -1 for none. */
  readonly poolOf: (flow: number) => number;
  /** Returns 32 random bits. */
  readonly random: () => number;
}

/**
 * Takes a port of a pool: the inside port if it is free (RFC 4787 section 4.2.1), otherwise a similar one. If no
 * port is free, evicts the longest idle flows. Returns -1 for none.
 *
 * @param isSurplus The new flow is beyond its host's share.
 */
export function takePort(nat: NatPorts, pool: number, insidePort: number, isSurplus: boolean): number {
  const { flows, pools, givesPort, firstWithinShare, poolOf, random } = nat;
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
      // Ports of other pools do not help.
      if (poolOf(candidate) !== pool) continue;
      flows.remove(candidate);
      port = ports.takeLike(insidePort, random());
      if (++evicted === MAX_EVICTIONS) break;
    }
  }
  return port;
}
