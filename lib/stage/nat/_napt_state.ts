/** Saved state of a NAPT as JSON, and its check. */

import { gotValue } from "../../core/options.ts";
import type { SavedFlow } from "./_napt_table.ts";

// Implementation
const FORMAT = "napt44 2";
/** Maximum of each number of a flow except the last, its idle time. */
const MAX_VALUES = [0xffffffff, 0xffff, 0xffffffff, 0xffff, 0xffffffff, 0xffff, 0xff, 5];

/** State that `Napt44.save` returns. */
export interface SavedState {
  readonly format: typeof FORMAT;
  readonly tcp: readonly SavedFlow[];
  readonly udp: readonly SavedFlow[];
  readonly icmp: readonly SavedFlow[];
}

export function stateOf(
  tcp: readonly SavedFlow[],
  udp: readonly SavedFlow[],
  icmp: readonly SavedFlow[],
): SavedState {
  return { format: FORMAT, tcp, udp, icmp };
}

/**
 * Checks a saved state.
 *
 * @throws {TypeError} when it does not come from `Napt44.save`.
 */
export function checkState(state: unknown): SavedState {
  const { format, tcp, udp, icmp } = (state ?? {}) as Partial<SavedState>;
  const flows = [tcp, udp, icmp];
  if (format !== FORMAT || !flows.every((list) => Array.isArray(list) && list.every(isFlow))) {
    throw new TypeError(`Cannot restore a Napt44: state must come from save(), ${gotValue(state)}`);
  }
  return { format, tcp: tcp!, udp: udp!, icmp: icmp! };
}

function isFlow(flow: unknown): boolean {
  return Array.isArray(flow) && flow.length === MAX_VALUES.length + 1 &&
    flow.every((value, i) => {
      if (i === MAX_VALUES.length) return typeof value === "number" && value >= 0;
      return Number.isInteger(value) && value >= 0 && value <= MAX_VALUES[i]!;
    });
}
