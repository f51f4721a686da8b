/** Parts of the Windows driver that run on any system: GUIDs, wide strings, and checks of options. */

import { deepStrictEqual, notDeepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { checkDeviceOptions } from "../../../driver/options.ts";
import { adapterGuid } from "../../../driver/windows/adapter.ts";
import { fromWide, wideString } from "../../../driver/windows/kernel32.ts";
import { checkSupported } from "../../../driver/windows/setup.ts";
import { Win32 } from "../../../driver/windows/win32_error.ts";
import { loggedError } from "../../../driver/windows/wintun.ts";

Deno.test("adapterGuid() depends on the name, regardless of case", () => {
  strictEqual(adapterGuid("tun0").length, 16);
  deepStrictEqual(adapterGuid("tun0"), adapterGuid("TUN0"));
  notDeepStrictEqual(adapterGuid("tun0"), adapterGuid("tun1"));
  // It must never change, because Windows stores network settings by GUID.
  strictEqual(adapterGuid("tun0").toHex(), GUID_OF_TUN0);
});

const GUID_OF_TUN0 = "9c2432036d8d58808e09c2d8b1e3e49c";

Deno.test("loggedError() returns the last error number that the DLL logged", () => {
  strictEqual(loggedError([]), undefined);
  strictEqual(loggedError(["Failed to take the mutex"]), undefined);
  strictEqual(loggedError(["a (Code 0x00000005)", "b (Code 0x00000000)"]), 5);
  strictEqual(loggedError(["Failed to create private namespace (Code 0x00000005)"]), 5);
  strictEqual(loggedError(["a (Code 0x00000005)", "b: Code 0x80070490", "c"]), Win32.ERROR_NOT_FOUND);
});

Deno.test("wideString() creates zero-terminated UTF-16, and fromWide() reverses it", () => {
  deepStrictEqual(wideString("a\u{1f600}"), Uint16Array.of(0x61, 0xd83d, 0xde00, 0));
  strictEqual(fromWide(wideString("Straße\u{1f600}")), "Straße\u{1f600}");
  strictEqual(fromWide(Uint16Array.of(0x61, 0, 0x62)), "a");
  deepStrictEqual(wideString(""), Uint16Array.of(0));
});

Deno.test("checkSupported() refuses options that Windows does not support", () => {
  const check = (options: Parameters<typeof checkDeviceOptions>[0]) =>
    checkSupported(checkDeviceOptions({ name: "tun0", ...options }));
  check({ address: ["10.9.0.1/24", "fd09::1/64"], route: "default via 10.9.0.2 metric 5", mtu: 65_535 });
  throws(() => check({ route: "10.0.0.0/8 table 7" }), {
    name: "NotSupported",
    message: 'Cannot open device "tun0": Windows has no routing tables',
  });
  throws(() => check({ rule: { table: 7 } }), { name: "NotSupported" });
  throws(() => check({ up: false }), { name: "NotSupported" });
  throws(() => check({ mtu: 500 }), RangeError);
});

Deno.test("checkDeviceOptions() accepts only the ring sizes of Wintun", () => {
  strictEqual(checkDeviceOptions({}).ringCapacity, 0x100_0000);
  for (let capacity = 0x2_0000; capacity <= 0x400_0000; capacity *= 2) {
    strictEqual(checkDeviceOptions({ windows: { ringCapacity: capacity } }).ringCapacity, capacity);
  }
  for (const ringCapacity of [0, 0x1_0000, 0x2_0001, 0x3_0000, 0x800_0000, 1e6, NaN]) {
    throws(() => checkDeviceOptions({ windows: { ringCapacity } }), RangeError);
  }
  throws(() => checkDeviceOptions({ windows: { dns: "1.1.1" } }), SyntaxError);
});
