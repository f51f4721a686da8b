/** utun devices over a stand-in for libSystem: conformance, calls of the system, and failures. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { withStandIn } from "./stand_in.ts";
import { command, systemTest } from "../../kit/system.ts";

const NEEDS = { root: false, programs: ["cc"] };
const CHECKS = fileURLToPath(new URL("./utun_checks.ts", import.meta.url));

async function check(defines: string[]): Promise<void> {
  await withStandIn(defines, async (path) => {
    // The gate checks the types.
    const { code, stdout, stderr } = await command(
      Deno.execPath(),
      ["test", "--no-check", "--no-prompt", "--allow-all", CHECKS],
      { check: false, env: { NO_COLOR: "1", WARREN_LIBSYSTEM: path } },
    );
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^ok \| 82 passed \| 0 failed/m);
    assert.match(stdout + stderr, /^warren: using ".*" instead of libSystem: WARREN_LIBSYSTEM is set$/m);
  });
}

systemTest(
  "a utun device with many packets per call makes the calls that the stand-in for libSystem expects",
  NEEDS,
  () => check([]),
);

systemTest(
  "a utun device does the same without recvmsg_x and sendmsg_x",
  NEEDS,
  () => check(["WITHOUT_BATCHES"]),
);
