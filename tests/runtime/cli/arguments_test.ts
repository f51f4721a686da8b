/** Arguments of subcommands. */

import assert from "node:assert/strict";
import { parseCommand } from "../../../runtime/cli/arguments.ts";

const FORM = { usage: "", strings: ["from"], booleans: ["json"], maxWords: 1 };

Deno.test("parseCommand() separates words, values and flags", () => {
  assert.deepEqual(parseCommand(["12", "--from=a b", "--json"], FORM), {
    words: ["12"],
    values: { from: "a b" },
    flags: new Set(["json"]),
  });
  assert.deepEqual(parseCommand([], FORM), { words: [], values: {}, flags: new Set() });
});

Deno.test("parseCommand() rejects unknown arguments, with a suggestion", () => {
  const refusals: [string[], string][] = [
    [["--jsno=1"], "--jsno=1 is not a flag: did you mean --json?"],
    [["-x"], "-x is not a flag"],
    [["--from"], "--from needs a value"],
    [["--json=yes"], "--json=yes has a value: --json takes none"],
    [["--json=false"], "--json=false has a value: --json takes none"],
    [["-h=1"], "-h=1 has a value: -h takes none"],
    [["a", "b"], '"b" is not expected here'],
  ];
  for (const [args, message] of refusals) {
    assert.throws(() => parseCommand(args, FORM), { name: "UsageError", message });
  }
});
