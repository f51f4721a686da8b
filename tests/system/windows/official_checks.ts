/** The official wintun.dll, as `warren driver install` has put it where it belongs; device_test.ts runs it under Wine. */

import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { DriverError, openDevice } from "../../../driver/mod.ts";
import { iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { isAdministrator } from "../../../driver/windows/shell32.ts";
import { collectErrors, findWintun, wintun } from "../../../driver/windows/wintun.ts";

/** Functions that the driver calls. */
const EXPORTS = [
  "WintunAllocateSendPacket",
  "WintunCloseAdapter",
  "WintunCreateAdapter",
  "WintunEndSession",
  "WintunGetAdapterLUID",
  "WintunGetReadWaitEvent",
  "WintunOpenAdapter",
  "WintunReceivePacket",
  "WintunReleaseReceivePacket",
  "WintunSendPacket",
  "WintunSetLogger",
  "WintunStartSession",
];

Deno.test("findWintun() finds the installed DLL and recognises it as official", () => {
  const { path, named, official, file } = findWintun();
  file[Symbol.dispose]();
  match(path, /^C:\\.*\\warren\\wintun-0\.14\.1\\amd64\\wintun\.dll$/);
  deepStrictEqual([named, official], [false, true]);
});

iphlpapi();
isAdministrator();
await collectErrors(() => Promise.resolve());

Deno.test("the official DLL has every function that the driver calls", () => {
  deepStrictEqual(Object.keys(wintun()).sort(), EXPORTS);
});

Deno.test("the error of a failed start holds the log lines of the official DLL", async () => {
  await rejects(openDevice({ name: "official" }), (error) => {
    ok(error instanceof DriverError);
    match(
      error.message,
      /^Cannot open device "official": ERROR_GEN_FAILURE \(31\): Wintun reports: \w.*: look at /,
    );
    strictEqual(error.operation, "WintunCreateAdapter");
    // Wine has none of the namespaces that Wintun keeps its mutexes in.
    match((error.cause as Error).message, /^Failed to create boundary descriptor/);
    return true;
  });
});
