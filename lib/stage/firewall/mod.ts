/** A stateful firewall with rules as data, which explains its decisions. */

export type { Decision, Explanation } from "./_explanation.ts";
export { FirewallDrop } from "./_firewall_drop.ts";
export type { SavedFirewall } from "./_saved.ts";
export type { SavedFlow } from "./_tracker.ts";
export { Firewall, type FirewallOptions, type RuleCounters, type RuleReport } from "./firewall.ts";
export { FlowState } from "./flow_state.ts";
export {
  type ConnectionState,
  type FirewallRule,
  type FirewallVerdict,
  formatRule,
  formatRules,
  type PortRange,
  type RuleRate,
} from "./rule.ts";
