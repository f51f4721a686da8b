/** Kinds of ICMP messages: errors, and queries and replies that share an identifier (RFC 792, RFC 4443). */

import { Icmpv4 } from "./icmpv4.ts";
import { Icmpv6 } from "./icmpv6.ts";

// Specification
/** Types that are not errors (RFC 792, 950, 1256, 1393, 8335); any other may be one. */
const IPV4_QUERIES: ReadonlySet<number> = new Set([0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43]);
/** First type that is not an error: RFC 4443 section 2.1. */
const IPV6_FIRST_QUERY = 128;
/** Types of Multicast Listener Discovery: RFC 2710 section 3, RFC 3810 section 5. */
export const LISTENER_QUERY = 130;
export const LISTENER_REPORT = 131;
export const LISTENER_DONE = 132;
export const LISTENER_REPORT_2 = 143;

/** Reports whether a message of a type, over an IP version, is or may be an error or a redirect. */
export function isIcmpError(version: number, type: number): boolean {
  return version === 4 ? !IPV4_QUERIES.has(type) : type < IPV6_FIRST_QUERY || type === Icmpv6.Redirect;
}

/** Reports whether a message of a type, over an IP version, is a query with an identifier. */
export function isQuery(version: number, type: number): boolean {
  return version === 4
    ? type === Icmpv4.EchoRequest || type === Icmpv4.TimestampRequest
    : type === Icmpv6.EchoRequest;
}

/** Reports whether a message of a type, over an IP version, is a reply with an identifier. */
export function isReply(version: number, type: number): boolean {
  return version === 4
    ? type === Icmpv4.EchoReply || type === Icmpv4.TimestampReply
    : type === Icmpv6.EchoReply;
}
