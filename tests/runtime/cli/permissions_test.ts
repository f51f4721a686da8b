/** Permissions in run lines and on command lines. */

import assert from "node:assert/strict";
import {
  allow,
  grantsAll,
  isPermissionFlag,
  mergeFlags,
  parseRunLine,
} from "../../../runtime/cli/permissions.ts";

const LINES: [line: string, flags: string[] | undefined, ignored?: string[]][] = [
  ["#!/usr/bin/env -S deno run --allow-ffi", ["--allow-ffi"]],
  ["#!/usr/bin/env -S deno run --allow-ffi --allow-net=192.0.2.1:80,b.example", [
    "--allow-ffi",
    "--allow-net=192.0.2.1:80,b.example",
  ]],
  ["#!/usr/bin/env -S deno -A", ["--allow-all"]],
  ["#!/usr/bin/env -S deno run", []],
  ["#!/root/.deno/bin/deno run -R=. -N", ["--allow-read=.", "--allow-net"]],
  ["#!/usr/bin/env -S deno run --deny-net --no-prompt --no-check --quiet", [
    "--deny-net",
    "--no-prompt",
    "--quiet",
  ]],
  ["\ufeff#! /usr/bin/env -S  deno\trun  --allow-ffi  ", ["--allow-ffi"]],
  ["#!/usr/bin/env -S deno run --allow-ffi --config=x.json --v8-flags=--x --env-file", ["--allow-ffi"], [
    "--config=x.json",
    "--v8-flags=--x",
    "--env-file",
  ]],
  // Words that env -S would change are not guessed at.
  [`#!/usr/bin/env -S deno run "--allow-ffi" --allow-read='/a b' --allow-read=$HOME`, [], [
    `"--allow-ffi"`,
    "--allow-read='/a",
    "b'",
    "--allow-read=$HOME",
  ]],
  ["#!/usr/bin/env -S deno run --allow-everything --allow-ffi= --allow-all=x", [], [
    "--allow-everything",
    "--allow-ffi=",
    "--allow-all=x",
  ]],
  ["#!/usr/bin/env -S deno run --allow-ffi # --allow-read", ["--allow-ffi"]],
  ["#!/usr/bin/env -S deno run --allow-ffi \\c -A", ["--allow-ffi"]],
  ["#!/usr/bin/env node", undefined],
  ["#!/bin/bash", undefined],
  ["#!", undefined],
  ["import x from 'y'; // deno run --allow-all", undefined],
  ["// #!/usr/bin/env -S deno run -A", undefined],
  ["", undefined],
];

Deno.test("parseRunLine() takes permissions from a run line, and ignores other flags", () => {
  for (const [line, flags, ignored = []] of LINES) {
    const expected = flags === undefined ? undefined : { flags, ignored };
    assert.deepEqual(parseRunLine(line), expected, line);
  }
});

Deno.test("parseRunLine() rejects a run line with a denial that it cannot accept", () => {
  for (
    const denial of [
      `--deny-read="/etc"`,
      "--deny-read='/a b'",
      `"--deny-net"`,
      "--deny-read=$HOME/.ssh",
      "--ignore-read=/a\\_b",
      "--deny-read=",
      "--deny-everything",
    ]
  ) {
    assert.throws(() => parseRunLine(`#!/usr/bin/env -S deno run -A ${denial}`), {
      name: "SyntaxError",
      message: /^Cannot read the script's first line: \S+ must be a Deno flag without quotes/,
    }, denial);
  }
});

Deno.test("parseRunLine() rejects a run line with invisible characters", () => {
  for (const hidden of ["\x1b[2K", "\x1b[1A", "\b\b", "\u202e", "\u200b", "\u009b2K", "\0", "\r"]) {
    assert.throws(() => parseRunLine(`#!/usr/bin/env -S deno run --allow-run=sh${hidden}`), {
      name: "SyntaxError",
      message:
        "Cannot read the script's first line: it has characters that a terminal does not display: remove them",
    }, JSON.stringify(hidden));
  }
  assert.deepEqual(parseRunLine("\ufeff#!/usr/bin/env\t-S deno run\t-R=/über"), {
    flags: ["--allow-read=/über"],
    ignored: [],
  });
});

Deno.test("isPermissionFlag() accepts only Deno's long and short flags", () => {
  for (const flag of ["-A", "--allow-all", "-N=a", "--allow-sys", "--deny-run=sh", "--ignore-env", "-I"]) {
    assert.ok(isPermissionFlag(flag), flag);
  }
  for (const flag of ["-q", "--allow", "--allow-", "-AN", "--mtu=5", "my.ts", "-X", "--allow-net=", ""]) {
    assert.ok(!isPermissionFlag(flag), flag);
  }
});

Deno.test("mergeFlags() merges permissions, keeps denials, and removes duplicates", () => {
  const merged = (...flags: string[]) => mergeFlags(flags).join(" ");
  assert.equal(merged("--allow-net=a", "--allow-ffi", "--allow-net=b"), "--allow-net=a,b --allow-ffi");
  assert.equal(merged("--allow-net=a", "--allow-net"), "--allow-net");
  assert.equal(merged("--allow-net", "-N=a"), "--allow-net");
  assert.equal(merged("--allow-ffi", "-A", "--allow-net=a", "--deny-run"), "--allow-all --deny-run");
  assert.equal(merged("--deny-net=a", "--allow-net"), "--deny-net=a --allow-net");
  assert.equal(merged(), "");
  assert.ok(grantsAll(mergeFlags(["-A"])));
  assert.ok(!grantsAll(mergeFlags(["--deny-all-things", "--allow-ffi"])));
});

Deno.test("allow() rejects a path with a comma, which Deno would take as two", () => {
  assert.equal(allow("write", "/tmp/a b"), "--allow-write=/tmp/a b");
  assert.throws(
    () => allow("write", "/tmp/a,b"),
    /^UsageError: Cannot grant --allow-write: the path or host must have no comma, got "\/tmp\/a,b"/,
  );
});
