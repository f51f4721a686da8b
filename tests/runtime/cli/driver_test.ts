/** `warren driver`: extraction from a zip, installation, and errors. */

import { deepStrictEqual, rejects, throws } from "node:assert/strict";
import { zipSync } from "fflate";
import * as builds from "../../../driver/windows/builds.ts";
import { driver, extract, keep } from "../../../runtime/cli/driver.ts";

Deno.test("extract() rejects other files, and a zip without the DLL", () => {
  throws(() => extract(new Uint8Array(100).fill(0xa5), builds, "x86_64"), {
    name: "SyntaxError",
    message: /^Cannot install Wintun: the file is not a zip archive/,
  });
  const other = zipSync({ "wintun/bin/arm64/wintun.dll": Uint8Array.of(1), "LICENSE.txt": Uint8Array.of(2) });
  throws(() => extract(other, builds, "x86_64"), {
    name: "NotFound",
    message: "Cannot install Wintun: the zip has no bin/amd64/wintun.dll",
  });
});

Deno.test("extract() rejects a DLL that is not an official build, with both hashes", () => {
  const forged = zipSync({ "wintun/bin/amd64/wintun.dll": Uint8Array.of(1) });
  throws(() => extract(forged, builds, "x86_64"), {
    name: "NotSupported",
    message: /SHA-256 of .* must be e5da8447[0-9a-f]{56}, got 4bf5122f[0-9a-f]{56}$/,
  });
});

Deno.test("keep() replaces existing files atomically", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await keep(`${folder}/a/b`, [{ name: "wintun.dll", bytes: Uint8Array.of(1) }]);
    await keep(`${folder}/a/b`, [{ name: "wintun.dll", bytes: Uint8Array.of(2) }]);
    deepStrictEqual(await Deno.readFile(`${folder}/a/b/wintun.dll`), Uint8Array.of(2));
    deepStrictEqual((await Array.fromAsync(Deno.readDir(`${folder}/a/b`))).length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("keep() throws errors of the system's class, and leaves no partial file", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const files = [{ name: "wintun.dll", bytes: Uint8Array.of(1) }];
    await Deno.writeTextFile(`${folder}/file`, "");
    await rejects(keep(`${folder}/file/a`, files), {
      name: "NotADirectory",
      message: `Cannot install Wintun in ${folder}/file/a: a part of the path is not a folder`,
    });
    await Deno.mkdir(`${folder}/wintun.dll`);
    await rejects(keep(folder, files), { message: /^Cannot install Wintun in .*: it is a folder$/ });
    const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
    deepStrictEqual(names.toSorted(), ["file", "wintun.dll"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("warren driver reports errors in its command line", async () => {
  await rejects(async () => await driver([]), { name: "UsageError" });
  await rejects(async () => await driver(["instal"]), { name: "UsageError" });
  await rejects(async () => await driver(["install", "--form", "x.zip"]), /did you mean --from\?/);
  await rejects(async () => await driver(["install", "x.zip"]), { name: "UsageError" });
});
