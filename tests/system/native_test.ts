/**
 * A script on the driver of whatever system this is: on Linux in a namespace; elsewhere on the machine itself, which
 * somebody must have allowed.
 */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { command, type CommandResult, openNamespace, systemTest } from "../kit/system.ts";
import type { Round } from "./native_scenario.ts";

const NAME = "scripts/icmp_echo.ts answers this system's ping, three times over, and nothing is left";
/** What allows a test to give a device to this machine's own network. */
const CONSENT = "WARREN_TEST_HOST";
const ARGS = [
  "run",
  "--quiet",
  "--no-prompt",
  "--allow-ffi",
  "--allow-run",
  "--allow-sys",
  "--allow-env",
  fileURLToPath(new URL("native_scenario.ts", import.meta.url)),
];

function check({ stdout }: CommandResult): void {
  const round: Round = {
    answered: { "10.9.0.77": 5, "fd09::77": 5, "198.18.7.7": 5 },
    shown: { open: true, closed: false },
    balanced: true,
  };
  assert.deepEqual(JSON.parse(stdout), [round, round, round]);
}

if (Deno.build.os === "linux") {
  systemTest(NAME, { programs: ["ip", "ping"] }, async () => {
    await using namespace = await openNamespace();
    check(await namespace.command(Deno.execPath(), ARGS));
  });
} else {
  const ignore = Deno.env.get(CONSENT) !== "1";
  if (ignore) console.log(`skipped: ${NAME}: ${CONSENT}=1 would let it use this machine's own network`);
  Deno.test({ name: NAME, ignore, fn: async () => check(await command(Deno.execPath(), ARGS)) });
}
