/** Which wintun.dll the driver loads, and why it does not load another; device_test.ts runs it under Wine. */

import { match, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { createHash } from "node:crypto";
import { openDevice } from "../../../driver/mod.ts";
import { iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { isAdministrator } from "../../../driver/windows/shell32.ts";

const STAND_IN = Deno.env.get("WARREN_WINTUN")!;
const STAND_IN_SHA256 = Deno.env.get("WARREN_WINTUN_SHA256")!;
/** Where official builds are, in the folders of their architectures. */
const OFFICIAL = Deno.env.get("OFFICIAL_WINTUN")!;
/** What says not by itself which file it is, or is none. */
const NO_PATHS = [
  "library.dll",
  ".\\library.dll",
  "\\library.dll",
  "C:library.dll",
  "\\\\.\\C:\\library.dll",
  "//./pipe/library",
  "\\\\?\\GLOBALROOT\\Device\\library.dll",
];

/** Opening a device is what loads it. */
async function refusal(variables: Record<string, string | undefined>): Promise<Error> {
  for (const name of ["WARREN_WINTUN", "WARREN_WINTUN_SHA256"]) {
    const value = variables[name];
    if (value === undefined) Deno.env.delete(name);
    else Deno.env.set(name, value);
  }
  let refused: Error | undefined;
  await rejects(openDevice({ name: "unloaded" }), (error: Error) => {
    refused = error;
    return true;
  });
  return refused!;
}

/** The variables that name a file of these bytes, and its hash. The file goes with the Wine. */
async function asFile(bytes: Uint8Array): Promise<Record<string, string>> {
  const path = await Deno.makeTempFile({ suffix: ".dll" });
  await Deno.writeFile(path, bytes);
  return { WARREN_WINTUN: path, WARREN_WINTUN_SHA256: createHash("sha256").update(bytes).digest("hex") };
}

function assertRefused(error: Error, type: new (message: string) => Error, message: RegExp): void {
  ok(error instanceof type, `${error.name}: ${error.message}`);
  match(error.message, message);
}

const { NotFound, NotSupported } = Deno.errors;

// Libraries stay open, so they are opened outside the tests' leak checks.
iphlpapi();
isAdministrator();

Deno.test("openDevice() without wintun.dll lists the places searched, and the remedy", async () => {
  const error = await refusal({});
  assertRefused(
    error,
    NotFound,
    /^Cannot load wintun\.dll: there is no file Z:.*\\wintun\.dll or C:\\.*\\warren\\wintun-0\.14\.1\\amd64\\wintun\.dll: run `warren driver install`$/,
  );
});

Deno.test("openDevice() looks nowhere else when WARREN_WINTUN names a file", async () => {
  const error = await refusal({ WARREN_WINTUN: "C:\\nowhere\\wintun.dll" });
  assertRefused(error, NotFound, /^Cannot read "C:\\nowhere\\wintun\.dll": ERROR_PATH_NOT_FOUND \(3\)/);
});

Deno.test("openDevice() refuses a WARREN_WINTUN that is relative or a device, before it is read", async () => {
  for (const path of NO_PATHS) {
    assertRefused(
      await refusal({ WARREN_WINTUN: path }),
      NotSupported,
      /: WARREN_WINTUN must be the absolute path of a file$/,
    );
  }
  for (const path of ["\\\\?\\C:\\nowhere\\wintun.dll", "C:/nowhere/wintun.dll", "c:\\nowhere\\wintun.dll"]) {
    assertRefused(await refusal({ WARREN_WINTUN: path }), NotFound, /^Cannot read ".*wintun\.dll": ERROR_/);
  }
});

Deno.test("iphlpapi() loads only the library of System32, unless another one is given by absolute path and hash", async () => {
  const [path, sha256] = [Deno.env.get("WARREN_IPHLPAPI")!, Deno.env.get("WARREN_IPHLPAPI_SHA256")!];
  // A fresh copy of the module: the library that is loaded already is not replaced.
  const { iphlpapi } = await import("../../../driver/windows/iphlpapi.ts?unloaded");
  const refuses = (name: string, hash: string | undefined, message: RegExp) => {
    Deno.env.set("WARREN_IPHLPAPI", name);
    if (hash === undefined) Deno.env.delete("WARREN_IPHLPAPI_SHA256");
    else Deno.env.set("WARREN_IPHLPAPI_SHA256", hash);
    throws(iphlpapi, (error: Error) => {
      assertRefused(error, NotSupported, message);
      return true;
    });
  };
  try {
    for (const name of NO_PATHS) {
      refuses(name, sha256, /: WARREN_IPHLPAPI must be the absolute path of a file$/);
    }
    const unconfirmed =
      `: WARREN_IPHLPAPI_SHA256 must be set to its SHA-256, ${sha256}: unset WARREN_IPHLPAPI$`;
    refuses(path, undefined, new RegExp(unconfirmed));
    refuses(path, "0".repeat(64), /: its SHA-256 must be WARREN_IPHLPAPI_SHA256, 0{64}, got [0-9a-f]{64}$/);
    const text = await Deno.makeTempFile();
    await Deno.writeTextFile(text, "MZ, it says");
    refuses(text, sha256, /: it is not a DLL: unset WARREN_IPHLPAPI$/);
    // Wine's library lacks functions.
    Deno.env.delete("WARREN_IPHLPAPI");
    throws(
      iphlpapi,
      /^NotSupported: Cannot open "C:\\windows\\system32\\iphlpapi\.dll": Could not obtain symbol .*: Warren needs Windows 10$/is,
    );
  } finally {
    Deno.env.set("WARREN_IPHLPAPI", path);
    Deno.env.set("WARREN_IPHLPAPI_SHA256", sha256);
  }
});

Deno.test("openDevice() refuses a DLL that is not an official build, unless its hash is given", async () => {
  assertRefused(
    await refusal({ WARREN_WINTUN: STAND_IN }),
    NotSupported,
    new RegExp(
      `: it is not an official build of Wintun 0\\.14\\.1 \\(SHA-256 ${STAND_IN_SHA256}\\): unset WARREN_WINTUN$`,
    ),
  );
  const other = "0".repeat(64);
  assertRefused(
    await refusal({ WARREN_WINTUN: STAND_IN, WARREN_WINTUN_SHA256: other }),
    NotSupported,
    new RegExp(`: its SHA-256 must be WARREN_WINTUN_SHA256, ${other}, got ${STAND_IN_SHA256}$`),
  );
});

Deno.test("openDevice() refuses a file that is not a DLL, and a DLL for another machine, before loading it", async () => {
  const text = await refusal(await asFile(new TextEncoder().encode("MZ, it says")));
  assertRefused(text, NotSupported, /: it is not a DLL: unset WARREN_WINTUN$/);
  for (const folder of ["arm64", "arm", "x86"]) {
    assertRefused(
      await refusal({ WARREN_WINTUN: `${OFFICIAL}\\${folder}\\wintun.dll` }),
      NotSupported,
      new RegExp(
        `\\\\${folder}\\\\wintun\\.dll": it is built for ${folder}, and deno for amd64: unset WARREN_WINTUN$`,
      ),
    );
  }
});

Deno.test("openDevice() refuses a truncated DLL", async () => {
  const whole = await Deno.readFile(STAND_IN);
  const half = await refusal(await asFile(whole.subarray(0, 4096)));
  assertRefused(half, NotSupported, /^Cannot load ".*": Could not open library: /);
});

Deno.test("openDevice() refuses a DLL older than 0.14, which lacks WintunCloseAdapter", async () => {
  const bytes = await Deno.readFile(STAND_IN);
  // The exports must stay sorted by name.
  const name = new TextEncoder().encode("WintunCloseAdapter\0");
  const at = bytes.findIndex((_, at) => name.every((byte, i) => bytes[at + i] === byte));
  ok(at > 0);
  bytes[at + name.length - 2] = "q".charCodeAt(0);
  const old = await refusal(await asFile(bytes));
  assertRefused(
    old,
    NotSupported,
    /^Cannot load ".*": it lacks a function of Wintun 0\.14\.1 and may be older than 0\.14: unset WARREN_WINTUN$/,
  );
});

Deno.test({
  name: "openDevice() loads the right DLL after all of these",
  // The library and its logger stay open.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    Deno.env.set("WARREN_WINTUN", STAND_IN);
    Deno.env.set("WARREN_WINTUN_SHA256", STAND_IN_SHA256.toUpperCase());
    const device = await openDevice({ name: "loaded" });
    strictEqual(device.name, "loaded");
    device.close();
    await device.closed;
  },
});
