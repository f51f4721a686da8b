/** iphlpapi.dll (IP Helper): symbol table, and offsets of its structures. */

import { libraryError } from "../ffi.ts";
import { environment } from "./kernel32.ts";
import { checkMachine, checkNamedHash, loadError, openNamed, sha256Of, systemLibrary } from "./library.ts";

// Functions return their error number (NETIO_STATUS) and leave GetLastError() alone.
const SYMBOLS = {
  // void InitializeUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *Row);
  InitializeUnicastIpAddressEntry: { parameters: ["buffer"], result: "void" },
  // NETIO_STATUS CreateUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *Row);
  CreateUnicastIpAddressEntry: { parameters: ["buffer"], result: "u32" },
  // NETIO_STATUS DeleteUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *Row);
  DeleteUnicastIpAddressEntry: { parameters: ["buffer"], result: "u32" },
  // void InitializeIpForwardEntry(MIB_IPFORWARD_ROW2 *Row);
  InitializeIpForwardEntry: { parameters: ["buffer"], result: "void" },
  // NETIO_STATUS CreateIpForwardEntry2(const MIB_IPFORWARD_ROW2 *Row);
  CreateIpForwardEntry2: { parameters: ["buffer"], result: "u32" },
  // NETIO_STATUS DeleteIpForwardEntry2(const MIB_IPFORWARD_ROW2 *Row);
  DeleteIpForwardEntry2: { parameters: ["buffer"], result: "u32" },
  // void InitializeIpInterfaceEntry(MIB_IPINTERFACE_ROW *Row);
  InitializeIpInterfaceEntry: { parameters: ["buffer"], result: "void" },
  // NETIO_STATUS GetIpInterfaceEntry(MIB_IPINTERFACE_ROW *Row);
  GetIpInterfaceEntry: { parameters: ["buffer"], result: "u32" },
  // NETIO_STATUS SetIpInterfaceEntry(MIB_IPINTERFACE_ROW *Row);
  SetIpInterfaceEntry: { parameters: ["buffer"], result: "u32" },
  // NETIO_STATUS NotifyIpInterfaceChange(ADDRESS_FAMILY Family, PIPINTERFACE_CHANGE_CALLBACK Callback,
  //   PVOID CallerContext, BOOLEAN InitialNotification, HANDLE *NotificationHandle);
  NotifyIpInterfaceChange: { parameters: ["u16", "usize", "usize", "u8", "buffer"], result: "u32" },
  // NETIO_STATUS CancelMibChangeNotify2(HANDLE NotificationHandle);
  CancelMibChangeNotify2: { parameters: ["usize"], result: "u32" },
  // NETIO_STATUS GetIfEntry2(MIB_IF_ROW2 *Row);
  GetIfEntry2: { parameters: ["buffer"], result: "u32" },
  // NETIO_STATUS ConvertInterfaceAliasToLuid(const WCHAR *InterfaceAlias, NET_LUID *InterfaceLuid);
  ConvertInterfaceAliasToLuid: { parameters: ["buffer", "buffer"], result: "u32" },
  // NETIO_STATUS ConvertInterfaceLuidToGuid(const NET_LUID *InterfaceLuid, GUID *InterfaceGuid);
  ConvertInterfaceLuidToGuid: { parameters: ["buffer", "buffer"], result: "u32", optional: true },
  // NETIO_STATUS ConvertInterfaceLuidToIndex(const NET_LUID *InterfaceLuid, NET_IFINDEX *InterfaceIndex);
  ConvertInterfaceLuidToIndex: { parameters: ["buffer", "buffer"], result: "u32" },
  // NETIO_STATUS SetInterfaceDnsSettings(GUID Interface, const DNS_INTERFACE_SETTINGS *Settings);
  // The GUID is a struct of two words because it is passed by value: as a hidden pointer on x64, in registers on arm64.
  SetInterfaceDnsSettings: {
    parameters: [{ struct: ["u64", "u64"] }, "buffer"],
    result: "u32",
    optional: true, // since Windows 10 version 2004 (build 19041)
  },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification: the tables hold the fields in use. Fields are little-endian, at the same offsets on x64 and arm64.
/** ws2def.h: both IP versions. */
export const AF_UNSPEC = 0;
/** ws2def.h: ADDRESS_FAMILY. */
export const Family = { Ipv4: 2, Ipv6: 23 } as const;
/** A value of {@linkcode Family}. */
export type Family = typeof Family[keyof typeof Family];

/** ws2ipdef.h: `union SOCKADDR_INET`, a SOCKADDR_IN or SOCKADDR_IN6. Port and address are big-endian. */
export const SockaddrInet = { Family: 0, Port: 2, Ipv4Address: 4, Ipv6Address: 8, Size: 28 } as const;

/** netioapi.h: `struct MIB_UNICASTIPADDRESS_ROW` */
export const UnicastRow = {
  Address: 0,
  InterfaceLuid: 32,
  PrefixOrigin: 44,
  SuffixOrigin: 48,
  ValidLifetime: 52,
  PreferredLifetime: 56,
  OnLinkPrefixLength: 60,
  DadState: 64,
  Size: 80,
} as const;

/** netioapi.h: `struct MIB_IPFORWARD_ROW2` */
export const ForwardRow = {
  InterfaceLuid: 0,
  DestinationPrefix: 12,
  DestinationPrefixLength: 40,
  NextHop: 44,
  SitePrefixLength: 72,
  ValidLifetime: 76,
  PreferredLifetime: 80,
  Metric: 84,
  Protocol: 88,
  Loopback: 92,
  AutoconfigureAddress: 93,
  Publish: 94,
  Immortal: 95,
  Size: 104,
} as const;

/** netioapi.h: `struct MIB_IPINTERFACE_ROW` */
export const InterfaceRow = {
  Family: 0,
  InterfaceLuid: 8,
  UseAutomaticMetric: 44,
  ManagedAddressConfigurationSupported: 46,
  OtherStatefulConfigurationSupported: 47,
  RouterDiscoveryBehavior: 52,
  DadTransmits: 56,
  SitePrefixLength: 144,
  Metric: 148,
  NlMtu: 152,
  Connected: 156,
  Size: 168,
} as const;

/** netioapi.h: `struct MIB_IF_ROW2`; the counters have 64 bits. */
export const IfRow = {
  InterfaceLuid: 0,
  InOctets: 1208,
  InUcastPkts: 1216,
  InNUcastPkts: 1224,
  InDiscards: 1232,
  InErrors: 1240,
  OutOctets: 1280,
  OutUcastPkts: 1288,
  OutNUcastPkts: 1296,
  OutDiscards: 1304,
  OutErrors: 1312,
  Size: 1352,
} as const;

/** netioapi.h: `struct DNS_INTERFACE_SETTINGS`, version 1; `NameServer` is a PWSTR. */
export const DnsSettings = { Version: 0, Flags: 8, NameServer: 24, Size: 64 } as const;
/** netioapi.h: DNS_INTERFACE_SETTINGS_VERSION1. */
export const DNS_INTERFACE_SETTINGS_VERSION1 = 1;
/** netioapi.h: DNS_SETTING_IPV6, DNS_SETTING_NAMESERVER. */
export const DnsSetting = { Ipv6: 1, NameServer: 2 } as const;
/** nldef.h: NL_DAD_STATE IpDadStatePreferred. */
export const DAD_STATE_PREFERRED = 4;
/** nldef.h: NL_ROUTER_DISCOVERY_BEHAVIOR RouterDiscoveryDisabled. */
export const ROUTER_DISCOVERY_DISABLED = 0;
/** nldef.h: NL_ROUTE_PROTOCOL MIB_IPPROTO_NETMGMT, for static routes. */
export const IPPROTO_NETMGMT = 3;
/** netioapi.h: lifetime of an address that never expires (seconds). */
export const INFINITE_LIFETIME = 0xffff_ffff;

// Implementation
/** Environment variable with the path of a DLL to use instead, for tests under Wine: its own lacks most functions. */
const VARIABLE = "WARREN_IPHLPAPI";

type Iphlpapi = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Iphlpapi | undefined;

function load(): Iphlpapi {
  const named = environment(VARIABLE);
  if (named === undefined) return open(systemLibrary("iphlpapi.dll"));
  // The checked file stays open until it is loaded, so that no process can replace it in between.
  using file = openNamed(VARIABLE, named);
  const remedy = `unset ${VARIABLE}`;
  checkMachine(named, file.bytes, remedy);
  const sha256 = sha256Of(file.bytes);
  const unconfirmed = loadError(named, `${VARIABLE}_SHA256 must be set to its SHA-256, ${sha256}`, remedy);
  checkNamedHash(named, VARIABLE, sha256, unconfirmed);
  console.warn(`warren: "${named}" replaces iphlpapi.dll: ${VARIABLE} and its SHA-256 allow it`);
  return open(file.path);
}

function open(path: string): Iphlpapi {
  try {
    return Deno.dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    throw libraryError(`"${path}"`, error, "Warren needs Windows 10");
  }
}

/**
 * Returns the functions of iphlpapi.dll, opened on the first call.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} when the DLL cannot be loaded, lacks a function, or fails a check.
 */
export function iphlpapi(): Iphlpapi {
  return opened ??= load();
}
