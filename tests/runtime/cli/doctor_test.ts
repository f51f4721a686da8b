/** Checks of `warren doctor`; those of the system are in tests/system. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Check } from "../../../driver/check.ts";
import { checkPackageJson, formatCheck } from "../../../runtime/cli/doctor.ts";

Deno.test("formatCheck() returns one line with the remedy at its end", () => {
  assert.equal(
    formatCheck({ name: "Deno", state: "ok", text: "version 2.9.6" }),
    "ok    Deno: version 2.9.6",
  );
  assert.equal(
    formatCheck({ name: "TUN", state: "fail", text: "a\n  b", remedy: "modprobe tun" }),
    "fail  TUN: a b: modprobe tun",
  );
});

async function packageChecks(files: Record<string, string>, folder: string): Promise<Check[]> {
  const root = await Deno.makeTempDir();
  try {
    await Deno.mkdir(join(root, folder), { recursive: true });
    for (const [name, content] of Object.entries(files)) await Deno.writeTextFile(join(root, name), content);
    return await checkPackageJson(join(root, folder));
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("checkPackageJson() warns of a package.json that affects scripts, with a remedy", async () => {
  const [hides] = await packageChecks({ "deno.json": "{}", "a/package.json": "{}" }, "a");
  assert.match(hides!.text, /a[/\\]package\.json hides a deno\.json above it/);
  const [modules] = await packageChecks({ "a/deno.json": "{}", "a/package.json": "{}" }, "a");
  assert.match(modules!.remedy!, /"nodeModulesDir": "none"/);
  const [type] = await packageChecks({ "a/deno.json": "{}", "package.json": '{ "type": "commonjs" }' }, "a");
  assert.match(type!.text, /package\.json sets "type": "commonjs"/);
  for (const check of [hides, modules, type]) assert.equal(check!.state, "warn");
});

Deno.test("checkPackageJson() accepts a package.json next to a deno.json that allows it, and none", async () => {
  const settings = '{ "nodeModulesDir": "none" }';
  for (const files of [{ "a/deno.json": settings, "a/package.json": "{}" }, { "a/deno.json": "{}" }]) {
    const checks = await packageChecks(files as Record<string, string>, "a");
    assert.deepEqual(checks.map(({ state }) => state), ["ok"]);
  }
});
