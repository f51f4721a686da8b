/** A script's own flags and words, however it is started. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { openNamespace, systemTest } from "../kit/system.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const NEEDS = { programs: ["ip"] };
const SCRIPT = `import { script, Verdict } from "@warren/tunnel";
export default script(import.meta, {
  address: "10.9.0.1/24",
  flags: { key: { type: "string", required: true, description: "a key" }, peers: { type: "number", default: 2 } },
}, async (tunnel, { flags, args }) => {
  console.log(JSON.stringify([tunnel.worker.index, flags, args]));
  setTimeout(() => tunnel.close(), 300);
  await tunnel.run(() => Verdict.Drop);
});`;

systemTest(
  "A script has its flags by deno run, by warren run, and in each of several workers",
  NEEDS,
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "warren-flags-" });
    try {
      await using namespace = await openNamespace();
      const path = `${folder}/my.ts`;
      await Deno.writeTextFile(path, SCRIPT);
      const starts = [
        ["run", "--quiet", "--allow-ffi", "--config", `${ROOT}deno.json`, path],
        ["run", "--quiet", "-A", `${ROOT}runtime/cli/main.ts`, "run", path],
      ];
      for (const start of starts) {
        const run = (...flags: string[]) =>
          namespace.command(Deno.execPath(), [...start, ...flags], { check: false, env: { NO_COLOR: "1" } });
        const given = await run("-q", "--key", "k", "--workers", "2", "--", "--mtu", "9");
        assert.equal(given.code, 0, given.stderr);
        const lines = given.stdout.trim().split("\n").sort().map((line) => JSON.parse(line));
        const flags = { key: "k", peers: 2 };
        assert.deepEqual(lines, [[0, flags, ["--mtu", "9"]], [1, flags, ["--mtu", "9"]]]);
        const missing = await run("--mtu", "1400");
        assert.equal(missing.code, 2);
        assert.match(missing.stderr, /^warren: --key is missing: a key$/m);
        assert.match((await run("--help")).stdout, /^ {2}--key TEXT +a key \(required\)$/m);
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);
