/** What `deno task test` reads out of the output of `deno test`. */

import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { arrange, type Outcome, Report } from "../run.ts";

async function read(...lines: string[]): Promise<{ outcome: Outcome; complete: boolean }> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
  const report = new Report(outcome, () => {});
  await report.read(
    ReadableStream.from([new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""))]),
  );
  return { outcome, complete: report.complete };
}

Deno.test("Report counts what deno test counts, and knows who failed", async () => {
  const { outcome, complete } = await read(
    "a: b ... \x1b[32mok\x1b[0m (1ms)",
    "c fails ... \x1b[31mFAILED\x1b[0m (1ms)",
    "  a step ... FAILED (1ms)",
    "Uncaught error from ./b_test.ts FAILED",
    "\x1b[31mFAILED\x1b[0m | 1 passed (3 steps) | 2 failed (1 step) | 4 ignored | 7 filtered out (64ms)",
  );
  deepStrictEqual(outcome, {
    passed: 1,
    failed: 2,
    skipped: 4,
    failures: ["c fails", "./b_test.ts"],
    skips: [],
  });
  strictEqual(complete, true);
});

Deno.test("Report joins a skipped test to its reason, which may stand in a test's output", async () => {
  const { outcome, complete } = await read(
    "------- pre-test output -------",
    "skipped: a: ping: not root",
    "skipped: filtered out: no ip on PATH",
    "----- pre-test output end -----",
    "a: ping ... ignored (0ms)",
    "b ... ignored (0ms)",
  );
  deepStrictEqual(outcome.skips, ["a: ping: not root", "b: it does not say why"]);
  strictEqual(complete, false);
});

Deno.test("Report counts a test as skipped that says so on the way", async () => {
  const { outcome } = await read(
    "a ...",
    "------- output -------",
    "skipped: a: Wine does not start",
    "----- output end -----",
    "a ... ok (1ms)",
    "b ... ok (1ms)",
    "ok | 2 passed | 0 failed (1ms)",
  );
  deepStrictEqual(outcome, {
    passed: 1,
    failed: 0,
    skipped: 1,
    failures: [],
    skips: ["a: Wine does not start"],
  });
});

Deno.test("Report does not take what a test prints for a result", async () => {
  const { outcome, complete } = await read(
    "------- output -------",
    "x ... FAILED (1ms)",
    "ok | 9 passed | 0 failed (1ms)",
    "----- output end -----",
  );
  deepStrictEqual(outcome.failures, []);
  strictEqual(complete, false);
});

Deno.test("arrange() puts each file into the group that names it most closely, and refuses one that none names", () => {
  const files = [
    "cli/flags_test.ts",
    "engine/loop_test.ts",
    "transport/mod_test.ts",
    "transport/udp_test.ts",
  ];
  const arranged = arrange(files.map((file) => `tests/runtime/${file}`));
  deepStrictEqual([...arranged].map(([{ name }, its]) => [name, ...its]), [
    ["pure", "tests/runtime/engine/loop_test.ts", "tests/runtime/transport/mod_test.ts"],
    ["golden"],
    ["network", "tests/runtime/transport/udp_test.ts"],
    ["machine", "tests/runtime/cli/flags_test.ts"],
  ]);
  throws(() => arrange(["tests/elsewhere/a_test.ts"]), /Cannot run tests\/elsewhere\/a_test\.ts: no group/);
});
