/** Windows' structures and constants against mingw's headers: what its compiler says is what Warren's tables say. */

import { deepStrictEqual } from "node:assert/strict";
import {
  DAD_STATE_PREFERRED,
  Family,
  ForwardRow,
  IfRow,
  InterfaceRow,
  IpAddressPrefix,
  IPPROTO_NETMGMT,
  ROUTER_DISCOVERY_DISABLED,
  SockaddrInet,
  UnicastRow,
} from "../../driver/windows/iphlpapi.ts";
import { Win32 } from "../../driver/windows/win32_error.ts";
import { command, systemTest } from "../kit/system.ts";

const COMPILER = "x86_64-w64-mingw32-gcc";
const HEADERS = ["winsock2.h", "ws2tcpip.h", "ws2ipdef.h", "windows.h", "iphlpapi.h", "netioapi.h"];

/** Where a table calls a member otherwise than C does. */
const MEMBERS: Record<string, string> = {
  "MIB_IPFORWARD_ROW2.DestinationPrefixLength": "DestinationPrefix.PrefixLength",
  "SOCKADDR_INET.Family": "si_family",
  "SOCKADDR_INET.Port": "Ipv4.sin_port",
  "SOCKADDR_INET.Ipv4Address": "Ipv4.sin_addr",
  "SOCKADDR_INET.Ipv6Flow": "Ipv6.sin6_flowinfo",
  "SOCKADDR_INET.Ipv6Address": "Ipv6.sin6_addr",
  "SOCKADDR_INET.Ipv6Scope": "Ipv6.sin6_scope_id",
};

const STRUCTURES: Record<string, Readonly<Record<string, number>>> = {
  SOCKADDR_INET: SockaddrInet,
  IP_ADDRESS_PREFIX: IpAddressPrefix,
  MIB_UNICASTIPADDRESS_ROW: UnicastRow,
  MIB_IPFORWARD_ROW2: ForwardRow,
  MIB_IPINTERFACE_ROW: InterfaceRow,
  MIB_IF_ROW2: IfRow,
};

const CONSTANTS: Record<string, number> = {
  ...Win32,
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

/** Numbers of C's, each under its name: those of constant expressions, from the data of an object file. */
async function numbersOf(expressions: Record<string, string>): Promise<Record<string, number>> {
  const folder = await Deno.makeTempDir();
  try {
    const source = HEADERS.map((header) => `#include <${header}>\n`).join("") +
      `#include <stddef.h>\nconst unsigned long long numbers[] __attribute__((section("numbers"))) = {\n` +
      Object.values(expressions).map((text) => `(unsigned long long)(${text}),\n`).join("") + "};\n";
    await Deno.writeTextFile(`${folder}/numbers.c`, source);
    await command(COMPILER, [
      "-D_WIN32_WINNT=0x0a00",
      "-c",
      "-o",
      `${folder}/numbers.o`,
      `${folder}/numbers.c`,
    ]);
    await command("x86_64-w64-mingw32-objcopy", [
      "-O",
      "binary",
      "-j",
      "numbers",
      `${folder}/numbers.o`,
      `${folder}/numbers.bin`,
    ]);
    const bytes = await Deno.readFile(`${folder}/numbers.bin`);
    const view = new DataView(bytes.buffer);
    return Object.fromEntries(
      Object.keys(expressions).map((name, i) => [name, Number(view.getBigUint64(i * 8, true))]),
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

systemTest(
  "Windows' structures and constants are where and what mingw's headers say",
  { root: false, programs: [COMPILER] },
  async () => {
    const expressions: Record<string, string> = {};
    const expected: Record<string, number> = {};
    for (const [structure, table] of Object.entries(STRUCTURES)) {
      for (const [key, value] of Object.entries(table)) {
        const name = `${structure}.${key}`;
        expressions[name] = key === "Size"
          ? `sizeof(${structure})`
          : `offsetof(${structure}, ${MEMBERS[name] ?? key})`;
        expected[name] = value;
      }
    }
    for (const [name, value] of Object.entries(CONSTANTS)) {
      expressions[name] = `(unsigned)${name}`;
      expected[name] = value;
    }
    deepStrictEqual(await numbersOf(expressions), expected);
  },
);
