/** Windows' structures and constants against mingw's headers: what its compiler says is what Warren's tables say. */

import { deepStrictEqual } from "node:assert/strict";
import {
  DAD_STATE_PREFERRED,
  Family,
  ForwardRow,
  IfRow,
  InterfaceRow,
  IPPROTO_NETMGMT,
  ROUTER_DISCOVERY_DISABLED,
  SockaddrInet,
  UnicastRow,
} from "../../driver/windows/iphlpapi.ts";
import { Socket } from "../../driver/windows/udp_socket.ts";
import { Win32 } from "../../driver/windows/win32_error.ts";
import { type Compiler, expressionsOf, numbersOf } from "../kit/c_numbers.ts";
import { systemTest } from "../kit/system.ts";

const MINGW: Compiler = {
  compiler: "x86_64-w64-mingw32-gcc",
  objcopy: "x86_64-w64-mingw32-objcopy",
  flags: ["-D_WIN32_WINNT=0x0a00"],
  headers: ["winsock2.h", "ws2tcpip.h", "ws2ipdef.h", "windows.h", "iphlpapi.h", "netioapi.h"],
};

/** Where a table calls a member otherwise than C does. */
const MEMBERS: Record<string, string> = {
  "MIB_IPFORWARD_ROW2.DestinationPrefixLength": "DestinationPrefix.PrefixLength",
  "SOCKADDR_INET.Family": "si_family",
  "SOCKADDR_INET.Port": "Ipv4.sin_port",
  "SOCKADDR_INET.Ipv4Address": "Ipv4.sin_addr",
  "SOCKADDR_INET.Ipv6Address": "Ipv6.sin6_addr",
};

const STRUCTURES = {
  SOCKADDR_INET: SockaddrInet,
  MIB_UNICASTIPADDRESS_ROW: UnicastRow,
  MIB_IPFORWARD_ROW2: ForwardRow,
  MIB_IPINTERFACE_ROW: InterfaceRow,
  MIB_IF_ROW2: IfRow,
};

const CONSTANTS = {
  ...Win32,
  ...Socket,
  AF_INET: Family.Ipv4,
  AF_INET6: Family.Ipv6,
  IpDadStatePreferred: DAD_STATE_PREFERRED,
  RouterDiscoveryDisabled: ROUTER_DISCOVERY_DISABLED,
  MIB_IPPROTO_NETMGMT: IPPROTO_NETMGMT,
  MAXIMUM_WAIT_OBJECTS: 64,
  GENERIC_READ: 0x8000_0000,
  FILE_SHARE_READ: 1,
  OPEN_EXISTING: 3,
  FILE_ATTRIBUTE_NORMAL: 0x80,
  GET_MODULE_HANDLE_EX_FLAG_PIN: 1,
};

systemTest(
  "Windows' structures and constants are where and what mingw's headers say",
  { root: false, programs: [MINGW.compiler] },
  async () => {
    const { expressions, expected } = expressionsOf(STRUCTURES, MEMBERS, CONSTANTS);
    deepStrictEqual(await numbersOf(MINGW, expressions), expected);
  },
);
