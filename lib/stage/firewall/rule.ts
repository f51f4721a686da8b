/** Firewall rules as data, and as text. */

import type { Direction, Packet } from "../../core/mod.ts";

/** Decision about a packet: pass, drop silently, or drop and answer with a TCP reset or ICMP error. */
export type FirewallVerdict = "allow" | "drop" | "reject";

/** Relation of a packet to the known flows. */
export type ConnectionState = "new" | "established" | "related" | "invalid";

/** A port, or a range such as `"1024-65535"`. */
export type PortRange = number | string;

/** Rate limit of a rule. */
export interface RuleRate {
  /** Average rate. */
  readonly packetsPerSecond: number;
  /** Maximum burst (packets). @default {packetsPerSecond, and at least 1} */
  readonly burst?: number;
  /** Applies the rate to each source: an IPv4 address or IPv6 /64. @default {false} */
  readonly perSource?: boolean;
  /** Maximum number of sources; the longest idle one is evicted. @default {4096} */
  readonly sources?: number;
}

/**
 * A firewall rule. It matches packets that meet every given field; a list is met by any of its values. JSON can hold all
 * fields except `match`.
 */
export interface FirewallRule {
  /** Decision about packets that match. */
  readonly verdict: FirewallVerdict;
  /** Name in explanations, counters and drop reasons. @default {its number, from 1} */
  readonly name?: string;
  /** Direction of the packet. @default {both} */
  readonly direction?: "outbound" | "inbound";
  /** Source prefixes or addresses, IPv4 or IPv6. @default {any} */
  readonly src?: string | readonly string[];
  /** Destination prefixes or addresses. @default {any} */
  readonly dst?: string | readonly string[];
  /** Protocol: a name of `Protocol` in lower case, such as `"tcp"`, or a number. @default {any} */
  readonly protocol?: string | number | readonly (string | number)[];
  /** Source port of TCP, UDP, UDP-Lite, DCCP or SCTP. @default {any} */
  readonly srcPort?: PortRange | readonly PortRange[];
  /** Destination port. @default {any} */
  readonly dstPort?: PortRange | readonly PortRange[];
  /** Type of ICMP messages; `protocol` must be `"icmp"` or `"icmpv6"`. @default {any} */
  readonly icmpType?: number | readonly number[];
  /**
   * TCP flags that are set, a slash, and the flags that are compared, as letters of `FSRPAUEW`: `"S/SA"` is SYN without
   * ACK. @default {any}
   */
  readonly tcpFlags?: string;
  /** State of the packet: see {@linkcode Firewall}. @default {"new"} */
  readonly state?: ConnectionState | readonly ConnectionState[];
  /** Rate limit; packets beyond it do not match. @default {none} */
  readonly rate?: RuleRate;
  /**
   * Further condition, such as a compiled filter; called last, must be fast and change nothing. @default {none}
   */
  readonly match?: (packet: Packet, direction: Direction) => boolean;
}

/** The values of {@linkcode FirewallVerdict}. */
export const VERDICTS: readonly string[] = ["allow", "drop", "reject"];

/**
 * Formats a rule as one line of text.
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
    const limit = packetsPerSecond < 1
      ? `${round(packetsPerSecond * 60)} a minute`
      : `${round(packetsPerSecond)} a second`;
    words.push(`up to ${limit}${burst === undefined ? "" : `, ${burst} at once`}`);
    if (perSource) words.push("from each source");
  }
  if (match !== undefined) words.push(`where ${match.name === "" ? "a function returns true" : match.name}`);
  return words.join(" ");
}

/** Formats rules as text: a line for each, with its number from 1 and its name. */
export function formatRules(rules: readonly FirewallRule[]): string {
  const width = String(rules.length).length;
  return rules.map((rule, i) => {
    const number = String(i + 1).padStart(width);
    return `${number}  ${formatRule(rule)}${rule.name === undefined ? "" : `  # ${rule.name}`}`;
  }).join("\n");
}

/** Returns one value or several as an array, in which gaps are `undefined`. */
export function asList<Value>(values: Value | readonly Value[] | undefined): readonly Value[] {
  if (values === undefined) return [];
  return Array.isArray(values) ? [...values] : [values as Value];
}

/** Rounds to four significant digits. */
function round(value: number): number {
  return Number(value.toPrecision(4));
}

function list(values: number | string | readonly (number | string)[]): string {
  return asList<number | string>(values).join(", ");
}
