/** Routes and policy rules in rtnetlink: changes with their undo, requests, and readers of the kernel's messages. */

import type { LinkId } from "./links.ts";
import {
  type Attribute,
  attribute,
  Attributes,
  CHANGE,
  type Change,
  CREATE,
  DUMP,
  encodeMessage,
  GET,
  MessageType,
  viewOf,
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
const RTA_MARK = 16;
const RTA_VIA = 18;
const RTM_F_CLONED = 0x200;
// Also in rtm_flags: the gateway is on the link, although no other route covers it.
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
// In the one-byte field of the headers: the table's number is in an attribute.
const RT_TABLE_UNSPEC = 0;
const SUPPRESS_NOTHING = 0xffffffff;

/** Main routing table (`RT_TABLE_MAIN`). */
export const MAIN_TABLE = 254;
/** Route types (`RTN_*`): the fate of packets that take a route. */
export const RouteType = {
  Unicast: 1,
  Local: 2,
  Broadcast: 3,
  Anycast: 4,
  Multicast: 5,
  Blackhole: 6,
  Unreachable: 7,
  Prohibit: 8,
} as const;
/** One of {@linkcode RouteType}'s values. */
export type RouteType = typeof RouteType[keyof typeof RouteType];

// Implementation
/**
 * Protocol number of routes and rules that Warren adds (`proto 87` in `ip route`), which rtnetlink.h and iproute2 leave
 * free. Warren removes only routes and rules with this number, never those of other programs.
 */
export const ROUTE_PROTOCOL = 87;

/** A route: through a link, or of a type that needs none. */
export interface RouteOptions {
  /** Destination prefix. */
  readonly destination: RawPrefix;
  /** Type: the fate of packets that take it. @default {RouteType.Unicast} */
  readonly type?: RouteType;
  /** Next hop; without one the destination is on the link. */
  readonly gateway?: Uint8Array;
  /** Source address of locally generated packets. @default the kernel chooses */
  readonly source?: Uint8Array;
  /** Next hop with an address of the other family, as `struct rtvia` (RFC 5549). */
  readonly via?: Uint8Array;
  /** True if the next hop is on the link, although no other route covers it. @default {false} */
  readonly onLink?: boolean;
  /** Metric; lower wins. @default 0, and 1024 for IPv6 */
  readonly metric?: number;
  /** Routing table. @default {MAIN_TABLE} */
  readonly table?: number;
  /** Protocol number, which names the program that added it. @default {ROUTE_PROTOCOL} */
  readonly protocol?: number;
}

/** A route of the kernel. */
export interface Route extends RouteOptions {
  /** Index of the outgoing link; `undefined` for none and for several (multipath). */
  readonly index: number | undefined;
  /** Routing table. */
  readonly table: number;
  /** {@linkcode RouteType}. */
  readonly type: RouteType;
}

/** A policy rule that looks up a routing table (ip-rule(8)). */
export interface Rule {
  /** IPv4 or IPv6. */
  readonly family: Family;
  /** Priority; lower goes first. Required, as it identifies a rule that is removed. */
  readonly priority: number;
  /** Routing table that it looks up. */
  readonly table: number;
  /** Matches packets from this prefix. */
  readonly from?: RawPrefix;
  /** Matches packets to this prefix. */
  readonly to?: RawPrefix;
  /** Matches packets that arrived by this link; `lo` matches locally generated packets. */
  readonly iif?: string;
  /** Matches packets of sockets that are bound to this link. */
  readonly oif?: string;
  /** Matches packets with this mark. */
  readonly fwmark?: number;
  /** Bits of the mark that are compared. @default all */
  readonly mask?: number;
  /** True to match the packets that the selectors do not match. @default {false} */
  readonly not?: boolean;
  /** Ignores routes whose prefix length is at most this (bits). */
  readonly suppressPrefixLength?: number;
  /** Protocol number, which names the program that added it; 0 for none. @default {ROUTE_PROTOCOL} */
  readonly protocol?: number;
}

function optional(type: number, value: number | string | undefined): Attribute[] {
  return value === undefined ? [] : [attribute(type, value)];
}

/** Reports whether a table's number fits the one-byte field of the headers; else it is an attribute. */
function fitsHeader(table: number): boolean {
  return table === (table & 0xff);
}

function encodeRoute(link: LinkId | undefined, route: RouteOptions): Uint8Array<ArrayBuffer> {
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
  return encodeMessage(MessageType.RTM_NEWROUTE, CREATE, bytes, [
    ...(destination.length === 0 ? [] : [[RTA_DST, destination.address] as const]),
    ...(gateway === undefined ? [] : [[RTA_GATEWAY, gateway] as const]),
    ...(via === undefined ? [] : [[RTA_VIA, via] as const]),
    ...(source === undefined ? [] : [[RTA_PREFSRC, source] as const]),
    ...optional(RTA_PRIORITY, metric),
    ...optional(RTA_TABLE, fitsHeader(table) ? undefined : table),
    ...optional(RTA_OIF, link?.index),
  ]);
}

function formatRoute(route: RouteOptions): string {
  const { destination, gateway, metric, table } = route;
  const kind = route.type === RouteType.Unreachable ? "unreachable " : "";
  return `${kind}route ${formatRawPrefix(destination)}` +
    (gateway === undefined ? "" : ` via ${formatRawAddress(gateway)}`) +
    (metric === undefined ? "" : ` metric ${metric}`) +
    (table === undefined || table === MAIN_TABLE ? "" : ` in table ${table}`);
}

/** Adds a route through a link, or without one for types that need none. Fails when the route exists already. */
export function addRoute(link: LinkId | undefined, route: RouteOptions): Change {
  const request = encodeRoute(link, route);
  return {
    description: `add the ${formatRoute(route)}${link === undefined ? "" : ` to ${link.name}`}`,
    request,
    undo: withType(request, MessageType.RTM_DELROUTE, CHANGE),
  };
}

/** Removes a route; that of another program only when `protocol` is that program's number. */
export function removeRoute(link: LinkId | undefined, route: RouteOptions): Change {
  const undo = encodeRoute(link, route);
  return {
    description: `remove the ${formatRoute(route)}${link === undefined ? "" : ` from ${link.name}`}`,
    request: withType(undo, MessageType.RTM_DELROUTE, CHANGE),
    undo,
  };
}

function encodeRule(rule: Rule): Uint8Array<ArrayBuffer> {
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
  return encodeMessage(MessageType.RTM_NEWRULE, CREATE, bytes, [
    ...(from === undefined ? [] : [[FRA_SRC, from.address] as const]),
    ...(to === undefined ? [] : [[FRA_DST, to.address] as const]),
    ...optional(FRA_FWMARK, rule.fwmark),
    ...optional(FRA_FWMASK, rule.mask),
    ...optional(FRA_IIFNAME, rule.iif),
    ...optional(FRA_OIFNAME, rule.oif),
    ...optional(FRA_TABLE, fitsHeader(table) ? undefined : table),
    ...optional(FRA_SUPPRESS_PREFIXLEN, rule.suppressPrefixLength),
    attribute(FRA_PRIORITY, rule.priority),
    ...(protocol === 0 ? [] : [[FRA_PROTOCOL, Uint8Array.of(protocol)] as const]),
  ]);
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

/** Adds a policy rule. Fails when the same rule exists already. */
export function addRule(rule: Rule): Change {
  const request = encodeRule(rule);
  return {
    description: `add the ${formatRule(rule)}`,
    request,
    undo: withType(request, MessageType.RTM_DELRULE, CHANGE),
  };
}

/** Removes a policy rule. */
export function removeRule(rule: Rule): Change {
  const undo = encodeRule(rule);
  return {
    description: `remove the ${formatRule(rule)}`,
    request: withType(undo, MessageType.RTM_DELRULE, CHANGE),
    undo,
  };
}

/** Encodes the request for all routes, or for those through one link where the kernel can filter (Linux 4.20). */
export function dumpRoutes(family: Family, index: number | undefined): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RTMSG.size);
  bytes[RTMSG.family] = family;
  return encodeMessage(MessageType.RTM_GETROUTE, DUMP, bytes, optional(RTA_OIF, index));
}

/** Encodes the request for the route of a locally generated packet to `address`, by one link if `index` is given. */
export function getRoute(
  address: Uint8Array,
  mark: number | undefined,
  index: number | undefined,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RTMSG.size);
  bytes[RTMSG.family] = familyOf(address);
  bytes[RTMSG.dst_len] = address.length * 8;
  return encodeMessage(MessageType.RTM_GETROUTE, GET, bytes, [
    [RTA_DST, address],
    ...optional(RTA_MARK, mark),
    ...optional(RTA_OIF, index),
  ]);
}

/** Encodes the request for all policy rules of a family. */
export function dumpRules(family: Family): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FIB_RULE_HDR.size);
  bytes[FIB_RULE_HDR.family] = family;
  return encodeMessage(MessageType.RTM_GETRULE, DUMP, bytes, []);
}

/** Reads a prefix, whose address is zeros when it is missing; `undefined` when a length is invalid. */
function readPrefix(family: number, length: number, bytes: Uint8Array | undefined): RawPrefix | undefined {
  const size = family === Family.Ipv4 ? 4 : 16;
  if (length > size * 8 || (bytes !== undefined && bytes.length !== size)) return undefined;
  return { address: bytes === undefined ? new Uint8Array(size) : new Uint8Array(bytes), length };
}

/** Reads the body of an `RTM_NEWROUTE`; `undefined` when it is truncated or neither IPv4 nor IPv6. */
export function readRoute(body: Uint8Array): Route | undefined {
  if (body.length < RTMSG.size) return undefined;
  const family = body[RTMSG.family]!;
  if (family !== Family.Ipv4 && family !== Family.Ipv6) return undefined;
  const attributes = new Attributes(body, RTMSG.size);
  const destination = readPrefix(family, body[RTMSG.dst_len]!, attributes.bytes(RTA_DST));
  if (destination === undefined) return undefined;
  const gateway = attributes.bytes(RTA_GATEWAY);
  const via = attributes.bytes(RTA_VIA);
  const source = attributes.bytes(RTA_PREFSRC);
  return {
    destination,
    type: body[RTMSG.type]! as RouteType,
    gateway: gateway === undefined ? undefined : new Uint8Array(gateway),
    ...(via === undefined ? {} : { via: new Uint8Array(via) }),
    source: source === undefined ? undefined : new Uint8Array(source),
    metric: attributes.u32(RTA_PRIORITY),
    table: attributes.u32(RTA_TABLE) ?? body[RTMSG.table]!,
    protocol: body[RTMSG.protocol]!,
    index: attributes.u32(RTA_OIF),
  };
}

/** Reports whether the body of an `RTM_NEWROUTE` is a cached entry for one destination (RTM_F_CLONED). */
export function isClonedRoute(body: Uint8Array): boolean {
  return body.length >= RTMSG.size && (viewOf(body).getUint32(RTMSG.flags, true) & RTM_F_CLONED) !== 0;
}

/** Reads the body of an `RTM_NEWRULE`; `undefined` when it is truncated or does not look up a table. */
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
