/** What a firewall saves, and whether a value is that. */

import { SIDE } from "./_tcp_tracker.ts";
import type { SavedFlow } from "./_tracker.ts";
import { STATE_NAMES, TIMEOUTS } from "./flow_state.ts";

// Implementation
/** Tells a firewall's state from others. */
export const FORMAT = "warren firewall 1";
const PROTOCOL_TCP = 6;

/** What {@linkcode Firewall.save} gives. */
export interface SavedFirewall {
  /** Tells it from other stages' states. */
  readonly format: "warren firewall 1";
  /** What let flows pass; a flow's `note` is a place in it. */
  readonly labels: readonly string[];
  /** From the longest idle one on. */
  readonly flows: readonly SavedFlow[];
}

/**
 * Reads it back.
 *
 * @throws {TypeError} when it is anything else.
 */
export function readSaved(state: unknown): SavedFirewall {
  const { format, labels, flows } = (state ?? {}) as Partial<SavedFirewall>;
  if (format !== FORMAT || !Array.isArray(labels) || !Array.isArray(flows)) {
    throw new TypeError(`Cannot restore a firewall: its state is no "${FORMAT}"`);
  }
  if (!labels.every((label) => typeof label === "string")) {
    throw new TypeError("Cannot restore a firewall: a label is no text");
  }
  const wrong = flows.findIndex((flow) => !isFlow(flow, labels.length));
  if (wrong >= 0) throw new TypeError(`Cannot restore a firewall: flow ${wrong} is none`);
  return { format, labels, flows };
}

function isFlow(value: unknown, labels: number): value is SavedFlow {
  const { key, state, opener, note, idle, age, tcp } = (value ?? {}) as Partial<SavedFlow>;
  if (!Array.isArray(key) || !key.every((word) => isWhole(word, 2 ** 32))) return false;
  const [first = 0] = key;
  if (!(first >>> 8 === 4 && key.length === 4 || first >>> 8 === 6 && key.length === 10)) return false;
  if (!isWhole(state, STATE_NAMES.length) || !isWhole(opener, 2) || !isWhole(note, labels)) return false;
  if (!isDuration(idle) || idle >= TIMEOUTS[state]! || !isDuration(age)) return false;
  if ((first & 0xff) !== PROTOCOL_TCP) return tcp === undefined;
  return Array.isArray(tcp) && tcp.length === 2 * SIDE && tcp.every((number) => (number | 0) === number);
}

function isWhole(value: unknown, limit: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < limit;
}

function isDuration(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value < Infinity;
}
