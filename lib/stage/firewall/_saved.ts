/** The saved state of a firewall, and its check. */

import { Protocol } from "../../wire/protocol.ts";
import { SIDE } from "./_tcp_tracker.ts";
import type { SavedFlow } from "./_tracker.ts";
import { STATE_NAMES, TIMEOUTS } from "./flow_state.ts";

// Implementation
/** Format of the state. */
export const FORMAT = "warren firewall 2";

/** State of a firewall, as {@linkcode Firewall.save} returns it. */
export interface SavedFirewall {
  /** Format, which tells it from the states of other stages. */
  readonly format: "warren firewall 2";
  /** Rules and defaults that allowed the flows, as text; see {@linkcode SavedFlow.allowedBy}. */
  readonly labels: readonly string[];
  /** Flows, the longest idle first. */
  readonly flows: readonly SavedFlow[];
}

/**
 * Checks a saved state.
 *
 * @throws {TypeError} when it is not the state of a firewall.
 */
export function readSaved(state: unknown): SavedFirewall {
  const { format, labels, flows } = (state ?? {}) as Partial<SavedFirewall>;
  if (format !== FORMAT || !Array.isArray(labels) || !Array.isArray(flows)) {
    throw new TypeError(`Cannot restore a firewall: the state must have format "${FORMAT}"`);
  }
  if (!labels.every((label) => typeof label === "string")) {
    throw new TypeError("Cannot restore a firewall: labels must be strings");
  }
  const wrong = flows.findIndex((flow) => !isFlow(flow, labels.length));
  if (wrong >= 0) throw new TypeError(`Cannot restore a firewall: flow ${wrong} is invalid`);
  return { format, labels, flows };
}

function isFlow(value: unknown, labels: number): value is SavedFlow {
  const { key, state, opener, allowedBy, idle, age, tcp } = (value ?? {}) as Partial<SavedFlow>;
  if (!Array.isArray(key) || !key.every((word) => isBelow(word, 2 ** 32))) return false;
  const [first = 0] = key;
  if (!(first >>> 8 === 4 && key.length === 4 || first >>> 8 === 6 && key.length === 10)) return false;
  if (!isBelow(state, STATE_NAMES.length) || !isBelow(opener, 2) || !isBelow(allowedBy, labels)) return false;
  if (!isDuration(idle) || idle >= TIMEOUTS[state]! || !isDuration(age)) return false;
  if ((first & 0xff) !== Protocol.Tcp) return tcp === undefined;
  return Array.isArray(tcp) && tcp.length === 2 * SIDE && tcp.every((number) => (number | 0) === number);
}

function isBelow(value: unknown, limit: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < limit;
}

function isDuration(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value < Infinity;
}
