/** Creates IP Helper's structures (rows) for addresses, routes, interfaces and DNS settings. */

import type { Address, Prefix } from "../../lib/wire/address.ts";
import {
  DAD_STATE_PREFERRED,
  DNS_INTERFACE_SETTINGS_VERSION1,
  DnsSetting,
  DnsSettings,
  Family,
  ForwardRow,
  IfRow,
  INFINITE_LIFETIME,
  InterfaceRow,
  IPPROTO_NETMGMT,
  SockaddrInet,
  UnicastRow,
} from "./iphlpapi.ts";
import { viewOf } from "../native_memory.ts";

/** Bytes of a structure. */
export type Row = Uint8Array<ArrayBuffer>;

/** A function that sets a row's defaults, such as `InitializeUnicastIpAddressEntry`. */
export type Initialize = (row: Row) => void;

/** Returns the ADDRESS_FAMILY of an address. */
export function familyOf(address: Address): Family {
  return address.family === 4 ? Family.Ipv4 : Family.Ipv6;
}

/** Writes a SOCKADDR_INET; `address` is all zeros by default. */
export function writeSockaddr(row: Row, offset: number, family: Family, address?: Address, port = 0): void {
  const view = viewOf(row);
  row.fill(0, offset, offset + SockaddrInet.Size);
  view.setUint16(offset + SockaddrInet.Family, family, true);
  view.setUint16(offset + SockaddrInet.Port, port);
  if (address === undefined) return;
  row.set(
    address.bytes,
    offset + (family === Family.Ipv4 ? SockaddrInet.Ipv4Address : SockaddrInet.Ipv6Address),
  );
}

/** Creates a MIB_UNICASTIPADDRESS_ROW; the address is usable at once, without duplicate address detection. */
export function unicastRow(luid: bigint, prefix: Prefix, initialize: Initialize): Row {
  const row = new Uint8Array(UnicastRow.Size);
  initialize(row);
  const view = viewOf(row);
  writeSockaddr(row, UnicastRow.Address, familyOf(prefix.address), prefix.address);
  view.setBigUint64(UnicastRow.InterfaceLuid, luid, true);
  view.setUint32(UnicastRow.ValidLifetime, INFINITE_LIFETIME, true);
  view.setUint32(UnicastRow.PreferredLifetime, INFINITE_LIFETIME, true);
  view.setUint8(UnicastRow.OnLinkPrefixLength, prefix.length);
  view.setInt32(UnicastRow.DadState, DAD_STATE_PREFERRED, true);
  return row;
}

/** Creates a MIB_IPFORWARD_ROW2 for a static route; without a next hop, the prefix is on-link. */
export function forwardRow(
  luid: bigint,
  to: Prefix,
  via: Address | undefined,
  metric: number,
  initialize: Initialize,
): Row {
  const row = new Uint8Array(ForwardRow.Size);
  initialize(row);
  const view = viewOf(row);
  const family = familyOf(to.address);
  view.setBigUint64(ForwardRow.InterfaceLuid, luid, true);
  // Windows refuses a destination with host bits set.
  writeSockaddr(row, ForwardRow.DestinationPrefix, family, to.network);
  view.setUint8(ForwardRow.DestinationPrefixLength, to.length);
  writeSockaddr(row, ForwardRow.NextHop, family, via);
  // InitializeIpForwardEntry sets 255, which Windows may refuse.
  view.setUint8(ForwardRow.SitePrefixLength, 0);
  view.setUint32(ForwardRow.Metric, metric, true);
  view.setInt32(ForwardRow.Protocol, IPPROTO_NETMGMT, true);
  return row;
}

/** Creates a MIB_IPINTERFACE_ROW that contains only its look-up keys. */
export function interfaceRow(luid: bigint, family: Family, initialize: Initialize): Row {
  const row = new Uint8Array(InterfaceRow.Size);
  initialize(row);
  viewOf(row).setUint16(InterfaceRow.Family, family, true);
  viewOf(row).setBigUint64(InterfaceRow.InterfaceLuid, luid, true);
  return row;
}

/** Creates a MIB_IF_ROW2 that contains only its look-up key. */
export function ifRow(luid: bigint): Row {
  const row = new Uint8Array(IfRow.Size);
  viewOf(row).setBigUint64(IfRow.InterfaceLuid, luid, true);
  return row;
}

/**
 * Creates a DNS_INTERFACE_SETTINGS that sets the DNS servers of one IP version. `servers` is the memory address of a
 * wide string with comma-separated IP addresses; an empty string removes all servers.
 */
export function dnsSettings(family: Family, servers: bigint): Row {
  const row = new Uint8Array(DnsSettings.Size);
  const view = viewOf(row);
  const flags = DnsSetting.NameServer | (family === Family.Ipv6 ? DnsSetting.Ipv6 : 0);
  view.setUint32(DnsSettings.Version, DNS_INTERFACE_SETTINGS_VERSION1, true);
  view.setBigUint64(DnsSettings.Flags, BigInt(flags), true);
  view.setBigUint64(DnsSettings.NameServer, servers, true);
  return row;
}
