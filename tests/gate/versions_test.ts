/** The version of Deno, which is written down in five places. */

import { deepStrictEqual } from "node:assert/strict";
import workflow from "../../.github/workflows/ci.yml" with { type: "text" };
import run from "../../.ci/run" with { type: "text" };
import readme from "../../README.md" with { type: "text" };
import { DENO_VERSION } from "../../runtime/cli/version.ts";

/** What stands before it, and how often it stands there. */
const PLACES: readonly (readonly [string, string, RegExp, number])[] = [
  ["ci.yml", workflow, /\bDENO: (\S+)/g, 1],
  [".ci/run", run, /\bdeno@([\w.]+)/g, 1],
  ["README.md", readme, /\bdeno@([\w.]+)/g, 2],
];

Deno.test("DENO_VERSION is what ci.yml, .ci/run and the README run", () => {
  for (const [name, text, pattern, count] of PLACES) {
    const versions = Array.from(text.matchAll(pattern), ([, version]) => version);
    deepStrictEqual([name, ...versions], [name, ...Array(count).fill(DENO_VERSION)]);
  }
});
