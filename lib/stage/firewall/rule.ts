/** Rules of a firewall as data: what they say, how they are read, and their text. */

import type { Direction, Packet } from "../../core/mod.ts";

/** What becomes of a packet: onward, away without a word, or away with an answer. */
export type FirewallVerdict = "allow" | "drop" | "reject";

/** What a packet is to the flows that are known. */
export type ConnectionState = "new" | "established" | "related" | "invalid";

/** A number, or a text: a number, a range such as `"1024-65535"`. */
export type PortRange = number | string;

/** How often a rule matches. */
export interface RuleRate {
  /** So many packets a second, on average. */
  readonly packetsPerSecond: number;
  /** So many at once. @default {packetsPerSecond, and at least 1} */
  readonly burst?: number;
  /** Whether each source address has its own rate; over IPv6, each /64. @default {false} */
  readonly perSource?: boolean;
  /** How many sources are remembered; the one that has been idle for longest goes first. @default {4096} */
  readonly sources?: number;
}

/**
 * One rule. It matches a packet of which every field that is there is true; a field that is a list is true when one
 * of its values is. All but `match` is data that JSON can hold.
 */
export interface FirewallRule {
  /** What becomes of a packet that matches. */
  readonly verdict: FirewallVerdict;
  /** What explanations, counters and drop reasons call it. @default {its number, from 1} */
  readonly name?: string;
  /** Which way the packet goes. @default {both} */
  readonly direction?: "outbound" | "inbound";
  /** Where it comes from: prefixes or addresses of either family. @default {anywhere} */
  readonly src?: string | readonly string[];
  /** Where it goes. @default {anywhere} */
  readonly dst?: string | readonly string[];
  /** What it carries: a name of `Protocol` in lower case, such as `"tcp"`, or a number. @default {anything} */
  readonly protocol?: string | number | readonly (string | number)[];
  /** The sender's port: of TCP, UDP, UDP-Lite, DCCP and SCTP. @default {any} */
  readonly srcPort?: PortRange | readonly PortRange[];
  /** The receiver's port. @default {any} */
  readonly dstPort?: PortRange | readonly PortRange[];
  /** The type of an ICMP message; `protocol` says of which version. @default {any} */
  readonly icmpType?: number | readonly number[];
  /**
   * Which TCP flags are set, and of which that is asked, as letters of `FSRPAUEW` around a slash: `"S/SA"` is SYN
   * without ACK. @default {any}
   */
  readonly tcpFlags?: string;
  /** What it is to the flows that are known; see {@linkcode Firewall}. @default {"new"} */
  readonly state?: ConnectionState | readonly ConnectionState[];
  /** Packets beyond it do not match. @default {any number} */
  readonly rate?: RuleRate;
  /**
   * Anything else, such as a compiled filter. It is asked last, must change nothing, and must be fast. @default {true}
   */
  readonly match?: (packet: Packet, direction: Direction) => boolean;
}

/** The fields in the order in which the text has them. */
const FIELDS: readonly (keyof FirewallRule)[] = [
  ...["verdict", "name", "direction", "src", "dst", "protocol", "srcPort", "dstPort"] as const,
  ...["icmpType", "tcpFlags", "state", "rate", "match"] as const,
];

/**
 * A rule as one line of text.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatRule } from "@warren/tunnel/firewall";
 *
 * const rule = { verdict: "allow", direction: "inbound", protocol: "tcp", dstPort: [22, "8000-8099"] } as const;
 * assert.equal(formatRule(rule), "allow inbound tcp to port 22, 8000-8099");
 * ```
 */
export function formatRule(rule: FirewallRule): string {
  const { verdict, direction, src, dst, protocol, srcPort, dstPort, icmpType, tcpFlags, state, rate, match } =
    rule;
  const words: string[] = [verdict, direction ?? "any direction"];
  if (state !== undefined) words.push(list(state));
  if (protocol !== undefined) words.push(list(protocol));
  if (icmpType !== undefined) words.push(`type ${list(icmpType)}`);
  if (tcpFlags !== undefined) words.push(`flags ${tcpFlags}`);
  if (src !== undefined) words.push(`from ${list(src)}`);
  if (srcPort !== undefined) words.push(src === undefined ? `from port` : `port`, list(srcPort));
  if (dst !== undefined) words.push(`to ${list(dst)}`);
  if (dstPort !== undefined) words.push(dst === undefined ? `to port` : `port`, list(dstPort));
  if (rate !== undefined) {
    const { packetsPerSecond, burst, perSource = false } = rate;
    const most = packetsPerSecond < 1
      ? `${round(packetsPerSecond * 60)} a minute`
      : `${round(packetsPerSecond)} a second`;
    words.push(`up to ${most}${burst === undefined ? "" : `, ${burst} at once`}`);
    if (perSource) words.push("from each source");
  }
  if (match !== undefined) words.push(`where ${match.name === "" ? "a function says so" : match.name}`);
  return words.join(" ");
}

/** A list of rules as text: a line for each, with its number from 1 on and its name. */
export function formatRules(rules: readonly FirewallRule[]): string {
  const width = String(rules.length).length;
  return rules.map((rule, i) => {
    const number = String(i + 1).padStart(width);
    return `${number}  ${formatRule(rule)}${rule.name === undefined ? "" : `  # ${rule.name}`}`;
  }).join("\n");
}

/** The fields that a rule may have, for messages. */
export function unknownField(rule: object): string | undefined {
  return Object.keys(rule).find((field) => !(FIELDS as readonly string[]).includes(field));
}

/** One value or several, as an array. */
export function asList<Value>(values: Value | readonly Value[] | undefined): readonly Value[] {
  if (values === undefined) return [];
  return Array.isArray(values) ? values : [values as Value];
}

/** At most four digits that count. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}

function list(values: number | string | readonly (number | string)[]): string {
  return asList<number | string>(values).join(", ");
}
