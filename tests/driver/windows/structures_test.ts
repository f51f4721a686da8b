/** Structures of IP Helper, compared with bytes that a C compiler created with mingw's headers; builds and errors. */

import { ok, strictEqual } from "node:assert/strict";
import { parseAddress, parseCidr } from "../../../lib/wire/address.ts";
import {
  buildFor,
  cacheFolder,
  machineName,
  peMachine,
  WINTUN_BUILDS,
} from "../../../driver/windows/builds.ts";
import {
  DnsSettings,
  Family,
  ForwardRow,
  IfRow,
  InterfaceRow,
  SockaddrInet,
  UnicastRow,
} from "../../../driver/windows/iphlpapi.ts";
import {
  dnsSettings,
  forwardRow,
  ifRow,
  interfaceRow,
  type Row,
  unicastRow,
  writeSockaddr,
} from "../../../driver/windows/rows.ts";
import { fromHresult, Win32, win32Error, win32Name } from "../../../driver/windows/win32_error.ts";
import { DriverError } from "../../../driver/mod.ts";
import { viewOf } from "../../../driver/native_memory.ts";

/** NET_LUID of the seventh interface of type 53 (IF_TYPE_PROP_VIRTUAL). */
const LUID = 0x0035_0000_0700_0000n;
const LUID_BYTES = "0000000700003500";

function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}

/** Joins the expected bytes in hexadecimal; spaces and bars only separate fields. */
function golden(...parts: string[]): string {
  return parts.join("").replaceAll(/[\s|]/g, "");
}

/** Sets the defaults that InitializeUnicastIpAddressEntry sets. */
function initializeUnicast(row: Row): void {
  row.fill(0);
  viewOf(row).setInt32(UnicastRow.PrefixOrigin, 16, true);
  viewOf(row).setInt32(UnicastRow.SuffixOrigin, 16, true);
  viewOf(row).setUint8(UnicastRow.OnLinkPrefixLength, 255);
}

/** Sets the defaults that InitializeIpForwardEntry sets. */
function initializeForward(row: Row): void {
  row.fill(0);
  const view = viewOf(row);
  view.setUint8(ForwardRow.SitePrefixLength, 255);
  for (const offset of [ForwardRow.ValidLifetime, ForwardRow.PreferredLifetime, ForwardRow.Metric]) {
    view.setUint32(offset, 0xffff_ffff, true);
  }
  view.setInt32(ForwardRow.Protocol, 3, true);
  for (
    const offset of [
      ForwardRow.Loopback,
      ForwardRow.AutoconfigureAddress,
      ForwardRow.Publish,
      ForwardRow.Immortal,
    ]
  ) view.setUint8(offset, 1);
}

const ZEROS = (count: number) => "00".repeat(count);

Deno.test("unicastRow() creates a MIB_UNICASTIPADDRESS_ROW for IPv4", () => {
  strictEqual(
    hex(unicastRow(LUID, parseCidr("10.6.7.7/24"), initializeUnicast)),
    golden(
      "020000000a060707",
      ZEROS(24),
      LUID_BYTES,
      "00000000",
      "10000000 10000000 ffffffff ffffffff 18000000 04000000 00000000",
      ZEROS(8),
    ),
  );
});

Deno.test("unicastRow() creates a MIB_UNICASTIPADDRESS_ROW for IPv6", () => {
  strictEqual(
    hex(unicastRow(LUID, parseCidr("fd00::1/64"), initializeUnicast)),
    golden(
      "1700000000000000 fd000000000000000000000000000001",
      ZEROS(8),
      LUID_BYTES,
      "00000000 10000000 10000000 ffffffff ffffffff 40000000 04000000 00000000",
      ZEROS(8),
    ),
  );
});

const FORWARD = golden(
  LUID_BYTES,
  "00000000 | 020000000a010000",
  ZEROS(20),
  "| 10000000 | 02000000",
  ZEROS(24),
  "| 00000000 ffffffff ffffffff 05000000 03000000 01010101 00000000 00000000",
);

Deno.test("forwardRow() creates a MIB_IPFORWARD_ROW2 for an on-link route", () => {
  strictEqual(hex(forwardRow(LUID, parseCidr("10.1.0.0/16"), undefined, 5, initializeForward)), FORWARD);
});

Deno.test("forwardRow() clears the host bits of the destination", () => {
  strictEqual(hex(forwardRow(LUID, parseCidr("10.1.2.3/16"), undefined, 5, initializeForward)), FORWARD);
  const row = forwardRow(LUID, parseCidr("fd00:ffff::1/20"), undefined, 0, initializeForward);
  const address = ForwardRow.DestinationPrefix + SockaddrInet.Ipv6Address;
  strictEqual(hex(row.subarray(address, address + 16)), `fd00f0${ZEROS(13)}`);
});

Deno.test("forwardRow() writes the next hop with its address family", () => {
  const row = forwardRow(LUID, parseCidr("0.0.0.0/0"), parseAddress("10.9.0.2"), 0, initializeForward);
  strictEqual(hex(row.subarray(ForwardRow.NextHop, ForwardRow.NextHop + 8)), "020000000a090002");
  strictEqual(row[ForwardRow.DestinationPrefixLength], 0);
});

Deno.test("writeSockaddr() writes the port in network byte order and clears the other fields", () => {
  const row = new Uint8Array(SockaddrInet.Size).fill(0xa5);
  writeSockaddr(row, 0, Family.Ipv6, parseAddress("fe80::1"), 0x1234);
  strictEqual(hex(row), golden("1700 1234 00000000 fe800000000000000000000000000001 00000000"));
});

Deno.test("interfaceRow() and ifRow() write the look-up keys at Windows' offsets", () => {
  const row = interfaceRow(LUID, Family.Ipv6, (row) => row.fill(0xff, 40, 49));
  strictEqual(row.length, InterfaceRow.Size);
  strictEqual(hex(row.subarray(0, 16)), golden("17000000 00000000", LUID_BYTES));
  strictEqual(row[InterfaceRow.UseAutomaticMetric], 0xff, "a default is not overwritten");
  strictEqual(ifRow(LUID).length, IfRow.Size);
  strictEqual(hex(ifRow(LUID).subarray(0, 8)), LUID_BYTES);
});

Deno.test("dnsSettings() creates a DNS_INTERFACE_SETTINGS of version 1", () => {
  const row = dnsSettings(Family.Ipv6, 0x1122_3344_5566_7788n);
  strictEqual(row.length, DnsSettings.Size);
  strictEqual(
    hex(row),
    golden("01000000 00000000 0300000000000000", ZEROS(8), "8877665544332211", ZEROS(32)),
  );
  strictEqual(hex(dnsSettings(Family.Ipv4, 0n).subarray(8, 16)), "0200000000000000");
});

Deno.test("peMachine() returns the machine type of a DLL, and undefined for other files", () => {
  const dll = new Uint8Array(256);
  const view = viewOf(dll);
  view.setUint16(0, 0x5a4d, true);
  view.setUint32(60, 128, true);
  view.setUint32(128, 0x4550, true);
  view.setUint16(132, 0xaa64, true);
  strictEqual(peMachine(dll), 0xaa64);
  strictEqual(machineName(0xaa64), "arm64");
  for (let length = 0; length < 134; length++) strictEqual(peMachine(dll.subarray(0, length)), undefined);
  view.setUint32(60, 0xffff_ffff, true);
  strictEqual(peMachine(dll), undefined);
  strictEqual(peMachine(new Uint8Array(256).fill(0xa5)), undefined);
});

Deno.test("buildFor() returns the official build for Deno's architecture", () => {
  strictEqual(buildFor("x86_64").folder, "amd64");
  strictEqual(buildFor("aarch64").machine, 0xaa64);
  strictEqual(new Set(WINTUN_BUILDS.map(({ sha256 }) => sha256)).size, 4);
  strictEqual(
    cacheFolder("C:\\Users\\a\\AppData\\Local", buildFor("aarch64")),
    "C:\\Users\\a\\AppData\\Local\\warren\\wintun-0.14.1\\arm64",
  );
});

Deno.test("win32Error() chooses the error class by the error number", () => {
  const of = (code: number) => win32Error("open it", "Open", code, "do this").constructor;
  strictEqual(of(Win32.ERROR_ACCESS_DENIED), Deno.errors.PermissionDenied);
  strictEqual(of(Win32.ERROR_NOT_FOUND), Deno.errors.NotFound);
  strictEqual(of(Win32.ERROR_BAD_EXE_FORMAT), Deno.errors.NotSupported);
  const error = win32Error("open it", "Open", Win32.ERROR_ALREADY_INITIALIZED, "do this");
  strictEqual(error.message, "Cannot open it: ERROR_ALREADY_INITIALIZED (1247): do this");
  ok(error instanceof DriverError);
  strictEqual(error.operation, "Open");
  strictEqual(error.code, "ERROR_ALREADY_INITIALIZED");
  strictEqual(error.errno, 1247);
  strictEqual(win32Error("open it", "Open", 4711).message, "Cannot open it: error 4711");
});

Deno.test("fromHresult() extracts the error number from an HRESULT", () => {
  strictEqual(fromHresult(0x8007_0005), Win32.ERROR_ACCESS_DENIED);
  strictEqual(fromHresult(0x8000_4005), 0x8000_4005);
  strictEqual(fromHresult(259), 259);
  strictEqual(win32Name(0x8000_4005), "error 0x80004005");
});
