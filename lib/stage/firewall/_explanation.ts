/** Why a firewall decides as it does. */

import { Direction, type Packet } from "../../core/mod.ts";
import { inspect } from "../../wire/inspect.ts";
import type { CompiledRule } from "./_rule_set.ts";
import type { Finding, Tracker } from "./_tracker.ts";
import { STATE_NAMES } from "./flow_state.ts";
import type { ConnectionState, FirewallVerdict } from "./rule.ts";

/** What decided about a packet: a rule, its flow, what it is, or the default. */
export type Decision =
  | "rule"
  | "flow"
  | "fragment"
  | "neighbors"
  | "default"
  | "invalid"
  | "no first fragment"
  | "malformed";

const STATES: readonly (ConnectionState | undefined)[] = ["new", "established", "related", "invalid"];
const WHYS: Record<Exclude<Decision, "rule" | "flow" | "invalid">, string> = {
  fragment: "its first fragment has passed",
  neighbors: "no rule matches, and it is what neighbors say to each other",
  default: "no rule matches",
  "no first fragment": "its first fragment has not passed",
  malformed: "a header is cut short, or lies about its length",
};

/** What is known besides, for {@linkcode Explanation}. */
export interface ExplanationParts {
  readonly rule: CompiledRule | undefined;
  readonly why: string;
  readonly tracker: Tracker | undefined;
  readonly letThrough: string | undefined;
}

/** What would become of a packet, and why; as text by `text` or `toString()`. JSON holds all of it. */
export class Explanation {
  /** What would become of it. */
  readonly verdict: FirewallVerdict;
  /** What decides: a rule, the flow that it belongs to or is about, what it is, or the default. */
  readonly by: Decision;
  /** What it is to the flows that are known; `undefined` for what rules are not asked about. */
  readonly state: ConnectionState | undefined;
  /** The rule that decides: its number from 1 on, its name, and its text. */
  readonly rule:
    | { readonly number: number; readonly name: string | undefined; readonly text: string }
    | undefined;
  /** The flow: which way it was opened, in which state it is, and what let it through. */
  readonly flow:
    | { readonly opened: "outbound" | "inbound"; readonly state: string; readonly letThrough: string }
    | undefined;
  /** Why, in words. */
  readonly why: string;
  /** All of it, in one line. */
  readonly text: string;

  /** For {@linkcode Firewall.explain}. */
  constructor(
    packet: Packet,
    direction: Direction,
    finding: Finding,
    verdict: FirewallVerdict,
    by: Decision,
    { rule, why, tracker, letThrough }: ExplanationParts,
  ) {
    this.verdict = verdict;
    this.by = by;
    this.state = STATES[finding];
    if (rule !== undefined) {
      this.rule = { number: rule.index + 1, name: rule.rule.name, text: rule.text };
    }
    if (tracker !== undefined) {
      const opener = tracker.openerOf(tracker.flow);
      this.flow = {
        opened: opener === Direction.Outbound ? "outbound" : "inbound",
        state: STATE_NAMES[tracker.stateOf(tracker.flow)]!,
        letThrough: letThrough!,
      };
    }
    this.why = this.#why(why);
    const way = direction === Direction.Outbound ? "outbound" : "inbound";
    const { malformed } = packet;
    this.text = `${way} ${inspect(packet)}: ${verdict}: ${this.why}`;
    packet.malformed = malformed;
  }

  /** {@linkcode Explanation.text}. */
  toString(): string {
    return this.text;
  }

  #why(why: string): string {
    const { by, rule, flow, state } = this;
    if (rule !== undefined) {
      const name = rule.name === undefined ? "" : ` "${rule.name}"`;
      return `rule ${rule.number}${name} matches this ${state} packet: ${rule.text}`;
    }
    if (flow !== undefined) {
      const what = state === "related" ? "it is an error about" : "it is of";
      return `${what} a flow opened ${flow.opened} by ${flow.letThrough}, now ${flow.state}`;
    }
    if (by === "invalid") return why;
    return WHYS[by as keyof typeof WHYS];
  }
}
