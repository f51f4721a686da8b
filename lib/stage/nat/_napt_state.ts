/** The flows of a NAPT as JSON has them, and what is refused as such. */

import type { SavedFlow } from "./_napt_table.ts";

// Implementation
const FORMAT = "napt44 2";
/** The most that each number of a flow can be, but for the last one, its idle time. */
const MOST = [0xffffffff, 0xffff, 0xffffffff, 0xffff, 0xffffffff, 0xffff, 0xff, 5];

/** What `Napt44.save` gives. */
export interface SavedState {
  readonly format: typeof FORMAT;
  readonly tcp: readonly SavedFlow[];
  readonly udp: readonly SavedFlow[];
  readonly icmp: readonly SavedFlow[];
}

/** The state that these flows are. */
export function stateOf(
  tcp: readonly SavedFlow[],
  udp: readonly SavedFlow[],
  icmp: readonly SavedFlow[],
): SavedState {
  return { format: FORMAT, tcp, udp, icmp };
}

/**
 * What a saved state says.
 *
 * @throws {TypeError} when it is none.
 */
export function checkState(state: unknown): SavedState {
  const { format, tcp, udp, icmp } = (state ?? {}) as Partial<SavedState>;
  const flows = [tcp, udp, icmp];
  if (format !== FORMAT || !flows.every((list) => Array.isArray(list) && list.every(isFlow))) {
    throw new TypeError("Cannot restore a NAT: the state is not one that it saved");
  }
  return { format, tcp: tcp!, udp: udp!, icmp: icmp! };
}

function isFlow(flow: unknown): boolean {
  return Array.isArray(flow) && flow.length === MOST.length + 1 &&
    flow.every((value, i) => {
      if (i === MOST.length) return typeof value === "number" && value >= 0;
      return Number.isInteger(value) && value >= 0 && value <= MOST[i]!;
    });
}
