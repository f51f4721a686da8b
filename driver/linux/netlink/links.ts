/** rtnetlink messages about links and addresses: encoded changes and requests, parsed replies. */

import type { DeviceStatistics } from "../../../lib/core/mod.ts";
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
import { Family, formatRawPrefix, prefixFamily, type RawPrefix } from "./prefix.ts";
import { viewOf } from "../../native_memory.ts";

// Specification: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, if_tun.h
/**
 * ```c
 * struct ifinfomsg {
 *   unsigned char ifi_family;   // and a byte of padding
 *   unsigned short ifi_type;
 *   int ifi_index;
 *   unsigned ifi_flags;
 *   unsigned ifi_change;        // mask of the flags to change
 * };
 * ```
 */
const IFINFOMSG = { family: 0, type: 2, index: 4, flags: 8, change: 12, size: 16 } as const;
/**
 * ```c
 * struct ifaddrmsg {
 *   __u8 ifa_family;
 *   __u8 ifa_prefixlen;
 *   __u8 ifa_flags;
 *   __u8 ifa_scope;
 *   __u32 ifa_index;
 * };
 * ```
 */
const IFADDRMSG = { family: 0, prefixlen: 1, flags: 2, scope: 3, index: 4, size: 8 } as const;
/**
 * ```c
 * struct rtnl_link_stats64 {
 *   __u64 rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped;
 *   ...
 * };
 * ```
 */
const STATS64 = {
  rx_packets: 0,
  tx_packets: 8,
  rx_bytes: 16,
  tx_bytes: 24,
  rx_dropped: 48,
  tx_dropped: 56,
} as const;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_TXQLEN = 13;
const IFLA_LINKINFO = 18;
const IFLA_STATS64 = 23;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_TUN_PERSIST = 6;
const IFLA_TUN_NUM_QUEUES = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES = 9;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
// Skips duplicate address detection: it would delay the address, and a tunnel has no neighbors.
const IFA_F_NODAD = 0x02;
const IFF_UP = 0x1;
const IFF_RUNNING = 0x40;
const AF_UNSPEC = 0;
// IFNAMSIZ without the terminating zero.
const NAME_BYTES = 15;

/** Identity of a link. */
export interface LinkId {
  /** Interface index, constant while the link exists in its network namespace. */
  readonly index: number;
  /** Name, such as `tun0`. */
  readonly name: string;
}

/** State of a link. */
export interface Link extends LinkId {
  /** MTU (bytes). */
  readonly mtu: number;
  /** True if the link is up (IFF_UP). */
  readonly up: boolean;
  /** True if the link is up and has a carrier (IFF_RUNNING). A TUN device has one while a program has it open. */
  readonly running: boolean;
  /** Maximum number of packets in the transmit queue, which a program reads from a TUN device (`qlen` in `ip link`). */
  readonly txQueueLength: number;
  /** Kind, such as `tun` or `veth`; `undefined` for hardware. */
  readonly kind: string | undefined;
  /** True for a persistent TUN device, which outlives the program that opened it; `undefined` for other links. */
  readonly persistent: boolean | undefined;
  /** Number of queues that programs have attached to a multi-queue TUN device; 0 for other links. */
  readonly queues: number;
  /** Packet and byte counters. */
  readonly statistics: DeviceStatistics | undefined;
}

/** New settings of a link; omitted ones do not change. */
export interface LinkSettings {
  /** MTU (bytes). */
  readonly mtu?: number;
  /** True to set the link up, false to set it down. */
  readonly up?: boolean;
  /** Maximum number of packets in the transmit queue. */
  readonly txQueueLength?: number;
}

/** An address of a link. */
export interface LinkAddress extends RawPrefix {
  /** Index of the link. */
  readonly index: number;
}

function ifinfomsg(index: number, flags = 0, change = 0): Uint8Array {
  const bytes = new Uint8Array(IFINFOMSG.size);
  const view = viewOf(bytes);
  view.setInt32(IFINFOMSG.index, index, true);
  view.setUint32(IFINFOMSG.flags, flags, true);
  view.setUint32(IFINFOMSG.change, change, true);
  return bytes;
}

function encodeSettings(index: number, settings: LinkSettings): Uint8Array<ArrayBuffer> {
  const { mtu, up, txQueueLength } = settings;
  return encodeMessage(
    MessageType.RTM_NEWLINK,
    CHANGE,
    ifinfomsg(index, up === true ? IFF_UP : 0, up === undefined ? 0 : IFF_UP),
    [
      ...attribute(IFLA_MTU, mtu),
      ...attribute(IFLA_TXQLEN, txQueueLength),
    ],
  );
}

/**
 * Changes settings of a link; the undo message restores those of `before`. It does not restore the routes and IPv6
 * addresses that a link loses when it goes down.
 */
export function setLink(before: Link, settings: LinkSettings): Change {
  const wanted = [
    ...(settings.mtu === undefined ? [] : [`MTU ${settings.mtu}`]),
    ...(settings.txQueueLength === undefined ? [] : [`queue length ${settings.txQueueLength}`]),
    ...(settings.up === undefined ? [] : [settings.up ? "up" : "down"]),
  ];
  return {
    description: `set ${before.name} to ${wanted.join(", ")}`,
    request: encodeSettings(before.index, settings),
    undo: encodeSettings(before.index, {
      mtu: settings.mtu === undefined ? undefined : before.mtu,
      up: settings.up === undefined ? undefined : before.up,
      txQueueLength: settings.txQueueLength === undefined ? undefined : before.txQueueLength,
    }),
  };
}

/** Adds an address to a link, and with it the route to its prefix. An IPv6 address is usable at once. */
export function addAddress(link: LinkId, prefix: RawPrefix): Change {
  const { address, length } = prefix;
  const family = prefixFamily(prefix);
  const bytes = new Uint8Array(IFADDRMSG.size);
  bytes[IFADDRMSG.family] = family;
  bytes[IFADDRMSG.prefixlen] = length;
  bytes[IFADDRMSG.flags] = family === Family.Ipv6 ? IFA_F_NODAD : 0;
  viewOf(bytes).setUint32(IFADDRMSG.index, link.index, true);
  const request = encodeMessage(MessageType.RTM_NEWADDR, CREATE, bytes, [
    ...attribute(IFA_LOCAL, address),
    ...attribute(IFA_ADDRESS, address),
  ]);
  return {
    description: `add the address ${formatRawPrefix(prefix)} to ${link.name}`,
    request,
    undo: withType(request, MessageType.RTM_DELADDR, CHANGE),
  };
}

/** Encodes the request for the link with this index or name; `undefined` for an invalid name. */
export function getLink(which: number | string): Uint8Array<ArrayBuffer> | undefined {
  if (typeof which === "number") return encodeMessage(MessageType.RTM_GETLINK, GET, ifinfomsg(which), []);
  const length = new TextEncoder().encode(which).length;
  if (length === 0 || length > NAME_BYTES || which.includes("\0")) return undefined;
  return encodeMessage(MessageType.RTM_GETLINK, GET, ifinfomsg(0), attribute(IFLA_IFNAME, which));
}

/** Encodes the request for a link's addresses. */
export function dumpAddresses(index: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(IFADDRMSG.size);
  bytes[IFADDRMSG.family] = AF_UNSPEC;
  viewOf(bytes).setUint32(IFADDRMSG.index, index, true);
  return encodeMessage(MessageType.RTM_GETADDR, DUMP, bytes, []);
}

/** Parses the body of an `RTM_NEWLINK` or `RTM_DELLINK`; `undefined` when it is truncated or about a bridge port. */
export function readLink(body: Uint8Array): Link | undefined {
  // When a port leaves its bridge, the kernel sends an RTM_DELLINK of the family AF_BRIDGE.
  if (body.length < IFINFOMSG.size || body[IFINFOMSG.family] !== AF_UNSPEC) return undefined;
  const view = viewOf(body);
  const attributes = new Attributes(body, IFINFOMSG.size);
  const flags = view.getUint32(IFINFOMSG.flags, true);
  const info = attributes.nested(IFLA_LINKINFO);
  const kind = info.text(IFLA_INFO_KIND);
  const tun = kind === "tun" ? info.nested(IFLA_INFO_DATA) : undefined;
  const persistent = tun?.u8(IFLA_TUN_PERSIST);
  return {
    index: view.getInt32(IFINFOMSG.index, true),
    name: attributes.text(IFLA_IFNAME) ?? "",
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0,
    txQueueLength: attributes.u32(IFLA_TXQLEN) ?? 0,
    kind,
    persistent: persistent === undefined ? undefined : persistent !== 0,
    queues: (tun?.u32(IFLA_TUN_NUM_QUEUES) ?? 0) + (tun?.u32(IFLA_TUN_NUM_DISABLED_QUEUES) ?? 0),
    statistics: readStatistics(attributes),
  };
}

function readStatistics(attributes: Attributes): DeviceStatistics | undefined {
  const bytes = attributes.bytes(IFLA_STATS64);
  if (bytes === undefined || bytes.length < STATS64.tx_dropped + 8) return undefined;
  const view = viewOf(bytes);
  const counter = (offset: number) => Number(view.getBigUint64(offset, true));
  return {
    rxPackets: counter(STATS64.rx_packets),
    rxBytes: counter(STATS64.rx_bytes),
    rxDropped: counter(STATS64.rx_dropped),
    txPackets: counter(STATS64.tx_packets),
    txBytes: counter(STATS64.tx_bytes),
    txDropped: counter(STATS64.tx_dropped),
  };
}

/** Parses the body of an `RTM_NEWADDR`; `undefined` when it is truncated or neither IPv4 nor IPv6. */
export function readAddress(body: Uint8Array): LinkAddress | undefined {
  if (body.length < IFADDRMSG.size) return undefined;
  const attributes = new Attributes(body, IFADDRMSG.size);
  // On a point-to-point link, IFA_ADDRESS is the peer's address. IPv6 without a peer has no IFA_LOCAL.
  const address = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS);
  if (address === undefined || (address.length !== 4 && address.length !== 16)) return undefined;
  return {
    address,
    length: body[IFADDRMSG.prefixlen]!,
    index: viewOf(body).getUint32(IFADDRMSG.index, true),
  };
}

/** Returns the link index in the body of a link or address message; `undefined` when the body is truncated. */
export function linkIndexOf(body: Uint8Array): number | undefined {
  // ifinfomsg and ifaddrmsg have it at the same offset.
  return body.length < IFADDRMSG.size ? undefined : viewOf(body).getUint32(IFADDRMSG.index, true);
}

/** Reports whether the body of an `RTM_NEWLINK` changes nothing but {@linkcode LinkSettings}. */
export function onlySettings(body: Uint8Array): boolean {
  if (body.length < IFINFOMSG.size) return false;
  const attributes = new Attributes(body, IFINFOMSG.size);
  return (viewOf(body).getUint32(IFINFOMSG.change, true) & ~IFF_UP) === 0 &&
    attributes.types.every((type) => type === IFLA_MTU || type === IFLA_TXQLEN);
}
