/** The explanation of a firewall's decision. */

import { Direction, type Packet } from "../../core/mod.ts";
import { inspect } from "../../wire/inspect.ts";
import type { FirewallDrop } from "./_firewall_drop.ts";
import type { CompiledRule } from "./_rule_set.ts";
import type { Finding, Tracker } from "./_tracker.ts";
import { STATE_NAMES } from "./flow_state.ts";
import type { ConnectionState, FirewallVerdict } from "./rule.ts";

/** Reason for a decision: a rule, the packet's flow, its kind, or the default. */
export type Decision =
  | "rule"
  | "flow"
  | "fragment"
  | "neighbors"
  | "default"
  | Exclude<FirewallDrop, "no rule">;

const STATES: readonly (ConnectionState | undefined)[] = ["new", "established", "related", "invalid"];
const WHYS: Record<Exclude<Decision, "rule" | "flow" | "invalid">, string> = {
  fragment: "its first fragment has passed",
  neighbors: "no rule matches, and it is neighbor or multicast listener discovery",
  default: "no rule matches",
  "no first fragment": "its first fragment has not passed",
  malformed: "a header is truncated or has a wrong length",
};

/** Further parts of an {@linkcode Explanation}. */
export interface ExplanationParts {
  readonly rule: CompiledRule | undefined;
  readonly why: string;
  readonly tracker: Tracker | undefined;
  readonly allowedBy: string | undefined;
}

/** A firewall's decision about a packet, with its reason. All fields can be held by JSON. */
export class Explanation {
  /** Verdict about the packet. */
  readonly verdict: FirewallVerdict;
  /** Reason for the verdict. */
  readonly by: Decision;
  /** Connection state of the packet; `undefined` for packets that no rule decides about. */
  readonly state: ConnectionState | undefined;
  /** The rule that decides: its number from 1, its name and its text. */
  readonly rule:
    | { readonly number: number; readonly name: string | undefined; readonly text: string }
    | undefined;
  /** The flow of the packet: direction of its first packet, state, and the rule or default that allowed it. */
  readonly flow:
    | { readonly opened: "outbound" | "inbound"; readonly state: string; readonly allowedBy: string }
    | undefined;
  /** Reason as text. */
  readonly why: string;
  /** Packet, verdict and reason in one line. */
  readonly text: string;

  /** Called by {@linkcode Firewall.explain}. */
  constructor(
    packet: Packet,
    direction: Direction,
    finding: Finding,
    verdict: FirewallVerdict,
    by: Decision,
    { rule, why, tracker, allowedBy }: ExplanationParts,
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
        allowedBy: allowedBy!,
      };
    }
    this.why = this.#why(why);
    const way = direction === Direction.Outbound ? "outbound" : "inbound";
    const { malformed } = packet;
    this.text = `${way} ${inspect(packet)}: ${verdict}: ${this.why}`;
    packet.malformed = malformed;
  }

  /** Returns {@linkcode Explanation.text}. */
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
      const what = state === "related" ? "it is an error about" : "it belongs to";
      return `${what} a flow opened ${flow.opened} by ${flow.allowedBy}, now ${flow.state}`;
    }
    if (by === "invalid") return why;
    return WHYS[by as keyof typeof WHYS];
  }
}
