/** rtnetlink messages about routes and policy rules: encoded changes and requests, parsed replies. */

import type { LinkId } from "./links.ts";
import {
  attribute,
  Attributes,
  CHANGE,
  type Change,
  CREATE,
  DUMP,
  encodeMessage,
  GET,
  MessageType,
  withType,
} from "./message.ts";
import {
  Family,
  familyOf,
  formatRawAddress,
  formatRawPrefix,
  prefixFamily,
  type RawPrefix,
} from "./prefix.ts";
import { viewOf } from "../../native_memory.ts";

// Specification: include/uapi/linux/rtnetlink.h, fib_rules.h
/**
 * ```c
 * struct rtmsg {
 *   unsigned char rtm_family, rtm_dst_len, rtm_src_len, rtm_tos;
 *   unsigned char rtm_table, rtm_protocol, rtm_scope, rtm_type;
 *   unsigned rtm_flags;
 * };
 * ```
 */
const RTMSG = {
  family: 0,
  dst_len: 1,
  src_len: 2,
  tos: 3,
  table: 4,
  protocol: 5,
  scope: 6,
  type: 7,
  flags: 8,
  size: 12,
} as const;
/**
 * ```c
 * struct fib_rule_hdr {
 *   __u8 family, dst_len, src_len, tos;
 *   __u8 table, res1, res2, action;
 *   __u32 flags;
 * };
 * ```
 */
const FIB_RULE_HDR = {
  family: 0,
  dst_len: 1,
  src_len: 2,
  tos: 3,
  table: 4,
  action: 7,
  flags: 8,
  size: 12,
} as const;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;

const RTA_VIA = 18;
const RTM_F_CLONED = 0x200;
// In rtm_flags. The gateway is directly reachable over the link, even if no route covers it.
const RTNH_F_ONLINK = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const FRA_DST = 1;
const FRA_SRC = 2;
const FRA_IIFNAME = 3;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_PROTOCOL = 21;
const FIB_RULE_INVERT = 2;
const FR_ACT_TO_TBL = 1;
// Value of the one-byte header field when the table number is in an attribute.
const RT_TABLE_UNSPEC = 0;
const SUPPRESS_NOTHING = 0xffffffff;

/** Main routing table (`RT_TABLE_MAIN`). */
export const MAIN_TABLE = 254;
/** Route types (`RTN_*`). */
export const RouteType = { Unicast: 1, Local: 2, Unreachable: 7 } as const;

// Implementation
/**
 * Protocol number of Warren's routes and rules (`proto 87` in `ip route`), which rtnetlink.h and iproute2 do not
 * assign. Warren removes only routes and rules with this number, never those of other programs.
 */
export const ROUTE_PROTOCOL = 87;

/** Properties of a route, except for its link. */
export interface RouteOptions {
  /** Destination prefix. */
  readonly destination: RawPrefix;
  /** {@linkcode RouteType}. @default {RouteType.Unicast} */
  readonly type?: number;
  /** Next hop; omitted when the destination is directly reachable over the link. */
  readonly gateway?: Uint8Array;
  /** Source address of local packets. @default the kernel chooses */
  readonly source?: Uint8Array;
  /** Next hop whose address has the other family, as `struct rtvia` (RFC 5549). */
  readonly via?: Uint8Array;
  /** True if the next hop is directly reachable over the link, even if no route covers it. @default {false} */
  readonly onLink?: boolean;
  /** Metric; the lowest wins. @default 0 for IPv4, 1024 for IPv6 */
  readonly metric?: number;
  /** Routing table. @default {MAIN_TABLE} */
  readonly table?: number;
  /** Protocol number, which identifies the program that added the route. @default {ROUTE_PROTOCOL} */
  readonly protocol?: number;
}

/** A route in the kernel's tables. */
export interface Route extends RouteOptions {
  /** Index of the outgoing link; `undefined` when the route has no link, or several (multipath). */
  readonly index: number | undefined;
  /** Routing table. */
  readonly table: number;
  /** {@linkcode RouteType}. */
  readonly type: number;
}

/** A policy rule that looks up a routing table (ip-rule(8)). */
export interface Rule {
  /** IPv4 or IPv6. */
  readonly family: Family;
  /** Priority; the rule with the lowest number is tried first. Required, as the undo message needs it. */
  readonly priority: number;
  /** Routing table. */
  readonly table: number;
  /** Matches packets from this prefix. */
  readonly from?: RawPrefix;
  /** Matches packets to this prefix. */
  readonly to?: RawPrefix;
  /** Matches packets that arrived on this link; `lo` matches local packets. */
  readonly iif?: string;
  /** Matches packets from sockets bound to this link. */
  readonly oif?: string;
  /** Matches packets with this mark. */
  readonly fwmark?: number;
  /** Mask of the mark. @default all bits */
  readonly mask?: number;
  /** True to invert the match. @default {false} */
  readonly not?: boolean;
  /** Ignores routes whose prefix length is at most this (bits). */
  readonly suppressPrefixLength?: number;
  /** Protocol number, which identifies the program that added the rule; 0 for none. @default {ROUTE_PROTOCOL} */
  readonly protocol?: number;
}

/** Reports whether a table number fits the one-byte header field; a larger one is sent as an attribute. */
function fitsHeader(table: number): boolean {
  return table === (table & 0xff);
}

/** Adds a route over a link; `undefined` for types without a link. The kernel rejects a route that already exists. */
export function addRoute(link: LinkId | undefined, route: RouteOptions): Change {
  const { destination, gateway, via, source, metric } = route;
  const family = prefixFamily(destination);
  for (const address of [gateway, source]) {
    if (address !== undefined && familyOf(address) !== family) {
      throw new TypeError(
        `Cannot encode the route ${
          formatRawPrefix(destination)
        }: next hop and source must be of its family, got ${formatRawAddress(address)}`,
      );
    }
  }
  const type = route.type ?? RouteType.Unicast;
  const table = route.table ?? MAIN_TABLE;
  const isDirect = family === Family.Ipv4 && type === RouteType.Unicast && gateway === undefined &&
    via === undefined;
  const bytes = new Uint8Array(RTMSG.size);
  bytes[RTMSG.family] = family;
  bytes[RTMSG.dst_len] = destination.length;
  bytes[RTMSG.table] = fitsHeader(table) ? table : RT_TABLE_UNSPEC;
  bytes[RTMSG.protocol] = route.protocol ?? ROUTE_PROTOCOL;
  bytes[RTMSG.scope] = isDirect ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  bytes[RTMSG.type] = type;
  if (route.onLink === true) viewOf(bytes).setUint32(RTMSG.flags, RTNH_F_ONLINK, true);
  const request = encodeMessage(MessageType.RTM_NEWROUTE, CREATE, bytes, [
    ...attribute(RTA_DST, destination.length === 0 ? undefined : destination.address),
    ...attribute(RTA_GATEWAY, gateway),
    ...attribute(RTA_VIA, via),
    ...attribute(RTA_PREFSRC, source),
    ...attribute(RTA_PRIORITY, metric),
    ...attribute(RTA_TABLE, fitsHeader(table) ? undefined : table),
    ...attribute(RTA_OIF, link?.index),
  ]);
  return {
    description: `add the ${formatRoute(route)}${link === undefined ? "" : ` to ${link.name}`}`,
    request,
    undo: withType(request, MessageType.RTM_DELROUTE, CHANGE),
  };
}

function formatRoute(route: RouteOptions): string {
  const { destination, gateway, metric, table } = route;
  const kind = route.type === RouteType.Unreachable ? "unreachable " : "";
  return `${kind}route ${formatRawPrefix(destination)}` +
    (gateway === undefined ? "" : ` via ${formatRawAddress(gateway)}`) +
    (metric === undefined ? "" : ` metric ${metric}`) +
    (table === undefined || table === MAIN_TABLE ? "" : ` in table ${table}`);
}

/** Adds a policy rule. The kernel rejects a rule that already exists. */
export function addRule(rule: Rule): Change {
  const { family, from, to, table } = rule;
  for (const prefix of [from, to]) {
    if (prefix !== undefined && prefixFamily(prefix) !== family) {
      const version = family === Family.Ipv6 ? 6 : 4;
      throw new TypeError(
        `Cannot encode a rule: its prefixes must be of IPv${version}, got ${formatRawPrefix(prefix)}`,
      );
    }
  }
  const protocol = rule.protocol ?? ROUTE_PROTOCOL;
  const bytes = new Uint8Array(FIB_RULE_HDR.size);
  bytes[FIB_RULE_HDR.family] = family;
  bytes[FIB_RULE_HDR.dst_len] = to?.length ?? 0;
  bytes[FIB_RULE_HDR.src_len] = from?.length ?? 0;
  bytes[FIB_RULE_HDR.table] = fitsHeader(table) ? table : RT_TABLE_UNSPEC;
  bytes[FIB_RULE_HDR.action] = FR_ACT_TO_TBL;
  viewOf(bytes).setUint32(FIB_RULE_HDR.flags, rule.not === true ? FIB_RULE_INVERT : 0, true);
  const request = encodeMessage(MessageType.RTM_NEWRULE, CREATE, bytes, [
    ...attribute(FRA_SRC, from?.address),
    ...attribute(FRA_DST, to?.address),
    ...attribute(FRA_FWMARK, rule.fwmark),
    ...attribute(FRA_FWMASK, rule.mask),
    ...attribute(FRA_IIFNAME, rule.iif),
    ...attribute(FRA_OIFNAME, rule.oif),
    ...attribute(FRA_TABLE, fitsHeader(table) ? undefined : table),
    ...attribute(FRA_SUPPRESS_PREFIXLEN, rule.suppressPrefixLength),
    ...attribute(FRA_PRIORITY, rule.priority),
    ...attribute(FRA_PROTOCOL, protocol === 0 ? undefined : Uint8Array.of(protocol)),
  ]);
  return {
    description: `add the ${formatRule(rule)}`,
    request,
    undo: withType(request, MessageType.RTM_DELRULE, CHANGE),
  };
}

function formatRule(rule: Rule): string {
  const { family, from, to, iif, oif, fwmark, mask } = rule;
  return `IPv${family === Family.Ipv6 ? 6 : 4} rule ${rule.priority}: ${rule.not === true ? "not " : ""}` +
    `from ${from === undefined ? "all" : formatRawPrefix(from)}` +
    (to === undefined ? "" : ` to ${formatRawPrefix(to)}`) +
    (fwmark === undefined ? "" : ` fwmark 0x${fwmark.toString(16)}`) +
    (mask === undefined ? "" : `/0x${mask.toString(16)}`) +
    (iif === undefined ? "" : ` iif ${iif}`) +
    (oif === undefined ? "" : ` oif ${oif}`) +
    ` lookup ${rule.table}`;
}

/** Encodes the request for all routes; with `index`, kernels since Linux 4.20 return only those over that link. */
export function dumpRoutes(family: Family, index: number | undefined): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RTMSG.size);
  bytes[RTMSG.family] = family;
  return encodeMessage(MessageType.RTM_GETROUTE, DUMP, bytes, attribute(RTA_OIF, index));
}

/** Encodes the request for the route that a local packet to `address` takes; `index` restricts it to one link. */
export function getRoute(address: Uint8Array, index: number | undefined): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RTMSG.size);
  bytes[RTMSG.family] = familyOf(address);
  bytes[RTMSG.dst_len] = address.length * 8;
  return encodeMessage(MessageType.RTM_GETROUTE, GET, bytes, [
    ...attribute(RTA_DST, address),

    ...attribute(RTA_OIF, index),
  ]);
}

/** Encodes the request for a family's policy rules. */
export function dumpRules(family: Family): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FIB_RULE_HDR.size);
  bytes[FIB_RULE_HDR.family] = family;
  return encodeMessage(MessageType.RTM_GETRULE, DUMP, bytes, []);
}

/** Returns a prefix, all zeros if `bytes` is missing; `undefined` when a length is invalid. */
function readPrefix(family: number, length: number, bytes: Uint8Array | undefined): RawPrefix | undefined {
  const size = family === Family.Ipv4 ? 4 : 16;
  if (length > size * 8 || (bytes !== undefined && bytes.length !== size)) return undefined;
  return { address: bytes ?? new Uint8Array(size), length };
}

/** Parses the body of an `RTM_NEWROUTE`; `undefined` when it is truncated or neither IPv4 nor IPv6. */
export function readRoute(body: Uint8Array): Route | undefined {
  if (body.length < RTMSG.size) return undefined;
  const family = body[RTMSG.family]!;
  if (family !== Family.Ipv4 && family !== Family.Ipv6) return undefined;
  const attributes = new Attributes(body, RTMSG.size);
  const destination = readPrefix(family, body[RTMSG.dst_len]!, attributes.bytes(RTA_DST));
  if (destination === undefined) return undefined;
  return {
    destination,
    type: body[RTMSG.type]!,
    gateway: attributes.bytes(RTA_GATEWAY),
    via: attributes.bytes(RTA_VIA),
    source: attributes.bytes(RTA_PREFSRC),
    metric: attributes.u32(RTA_PRIORITY),
    table: attributes.u32(RTA_TABLE) ?? body[RTMSG.table]!,
    protocol: body[RTMSG.protocol]!,
    index: attributes.u32(RTA_OIF),
  };
}

/** Reports whether the body of an `RTM_NEWROUTE` is a cached route to one destination (RTM_F_CLONED). */
export function isClonedRoute(body: Uint8Array): boolean {
  return body.length >= RTMSG.size && (viewOf(body).getUint32(RTMSG.flags, true) & RTM_F_CLONED) !== 0;
}

/** Parses the body of an `RTM_NEWRULE`; `undefined` when it is truncated or does not look up a table. */
export function readRule(body: Uint8Array): Rule | undefined {
  if (body.length < FIB_RULE_HDR.size || body[FIB_RULE_HDR.action] !== FR_ACT_TO_TBL) return undefined;
  const family = body[FIB_RULE_HDR.family]!;
  if (family !== Family.Ipv4 && family !== Family.Ipv6) return undefined;
  const attributes = new Attributes(body, FIB_RULE_HDR.size);
  const to = readPrefix(family, body[FIB_RULE_HDR.dst_len]!, attributes.bytes(FRA_DST));
  const from = readPrefix(family, body[FIB_RULE_HDR.src_len]!, attributes.bytes(FRA_SRC));
  if (to === undefined || from === undefined) return undefined;
  const suppressed = attributes.u32(FRA_SUPPRESS_PREFIXLEN);
  return {
    family,
    priority: attributes.u32(FRA_PRIORITY) ?? 0,
    table: attributes.u32(FRA_TABLE) ?? body[FIB_RULE_HDR.table]!,
    from: from.length === 0 ? undefined : from,
    to: to.length === 0 ? undefined : to,
    iif: attributes.text(FRA_IIFNAME),
    oif: attributes.text(FRA_OIFNAME),
    fwmark: attributes.u32(FRA_FWMARK),
    mask: attributes.u32(FRA_FWMASK),
    not: (viewOf(body).getUint32(FIB_RULE_HDR.flags, true) & FIB_RULE_INVERT) !== 0,
    suppressPrefixLength: suppressed === SUPPRESS_NOTHING ? undefined : suppressed,
    protocol: attributes.u8(FRA_PROTOCOL),
  };
}
