/** Output of `warren new`. */

import assert from "node:assert/strict";
import config from "../../../deno.json" with { type: "json" };
import { settingsFor } from "../../../runtime/cli/new.ts";

const IMPORTS = { "@warren/tunnel": `jsr:@warren/tunnel@^${config.version}` };

Deno.test("settingsFor() links a checkout in place of the registry's package", () => {
  const [url, path] = Deno.build.os === "windows"
    ? ["file:///C:/a%20b/warren/", "C:\\a b\\warren"]
    : ["file:///home/a%20b/warren/", "/home/a b/warren"];
  const settings = settingsFor("my.ts", new URL(url));
  assert.deepEqual(settings.imports, IMPORTS);
  assert.deepEqual(settings.links, [path]);
  assert.deepEqual(settings.tasks, { start: "deno run --allow-ffi my.ts" });
});

Deno.test("settingsFor() uses the registry's package when Warren itself came from there", () => {
  const settings = settingsFor("my.ts", new URL("https://jsr.io/@warren/tunnel/0.1.0/"));
  assert.deepEqual(settings.imports, IMPORTS);
  assert.ok(!("links" in settings));
});
