/** Parses and merges the Deno permissions in a script's first line and on a command line. */

import { UsageError } from "../script/failure.ts";

// Implementation
/** Deno's short flags. */
const SHORT: Readonly<Record<string, string>> = {
  "-A": "--allow-all",
  "-R": "--allow-read",
  "-W": "--allow-write",
  "-N": "--allow-net",
  "-E": "--allow-env",
  "-S": "--allow-sys",
  "-I": "--allow-import",
};
const PERMISSION =
  /^--(?:allow-all|(?:allow|deny|ignore)-(?:read|write|net|env|sys|run|ffi|import)(?:=.+)?)$/s;
/** Flags of a run line that are passed on because they grant nothing. */
const HARMLESS = /^(?:-q|--(?:quiet|no-prompt|cached-only|no-remote|no-npm|no-code-cache|unstable-[a-z-]+))$/;
/** Flags of a run line that are left out because `warren run` sets them itself. */
const IMPLIED = /^--(?:no-check|no-lock|no-config)$/;
/** Characters that env(1) and shells interpret. */
const QUOTED = /["'\\$]/;
/** A comment, or the `\c` escape of env(1) -S, which ends the line. */
const COMMENT = /\s(?:#|\\c).*/s;
/** Characters that a terminal does not display, which could hide permissions. */
const UNSEEN = /[^\P{C}\t]/u;
const DENIAL = /--(?:deny|ignore)-/;
const ALLOW_ALL = "--allow-all";

/** Parsed run line of a script. */
export interface RunLine {
  /** Accepted flags, in Deno's long form. */
  readonly flags: readonly string[];
  /** Words that are ignored because they could change more than permissions. */
  readonly ignored: readonly string[];
}

/** Reports whether a flag grants or denies permissions. */
export function isPermissionFlag(word: string): boolean {
  return PERMISSION.test(longForm(word));
}

/**
 * Parses a script's first line. Returns `undefined` if it is not a _run line_, which starts with `#!` and runs Deno.
 *
 * @example
 * ```ts no-eval
 * import assert from "node:assert/strict";
 * import { parseRunLine } from "./permissions.ts";
 *
 * const line = parseRunLine("#!/usr/bin/env -S deno run --allow-ffi -N=192.0.2.1");
 * assert.deepEqual(line, { flags: ["--allow-ffi", "--allow-net=192.0.2.1"], ignored: [] });
 * ```
 *
 * @throws {SyntaxError} when a `--deny-` or `--ignore-` flag is malformed, or the line has undisplayable characters.
 */
export function parseRunLine(line: string): RunLine | undefined {
  const words = /^\ufeff?#!(.*)/.exec(line)?.[1]?.replace(COMMENT, "").trim().split(/\s+/) ?? [];
  const program = words.findIndex((word) => /(?:^|\/)deno$/.test(word));
  if (program < 0) return undefined;
  if (UNSEEN.test(line.replace(/^\ufeff/, ""))) {
    throw new SyntaxError(
      "Cannot read the script's first line: it has characters that a terminal does not display: remove them",
    );
  }
  const rest = words.slice(program + 1);
  if (rest[0] === "run") rest.shift();
  const flags: string[] = [];
  const ignored: string[] = [];
  for (const word of rest) {
    if (IMPLIED.test(word)) continue;
    const isKnown = HARMLESS.test(word) || isPermissionFlag(word);
    if (isKnown && !QUOTED.test(word)) flags.push(longForm(word));
    else ignored.push(word);
  }
  // Without such a flag, the script would have more permissions than it requests.
  const lostDenial = ignored.find((word) => DENIAL.test(word));
  if (lostDenial !== undefined) {
    throw new SyntaxError(
      `Cannot read the script's first line: ${lostDenial} must be a Deno flag without quotes, backslashes and $`,
    );
  }
  return { flags, ignored };
}

/** Merges permission flags, because Deno rejects a flag that is given both with and without values. */
export function mergeFlags(flags: readonly string[]): string[] {
  const values = new Map<string, Set<string>>();
  for (const flag of flags.map(longForm)) {
    const [, name, value] = /^([^=]*)=?(.*)$/s.exec(flag)!;
    const found = values.get(name!);
    // An empty set stands for the flag without a value, which grants or denies everything.
    if (value === "" || found?.size === 0) values.set(name!, new Set());
    else values.set(name!, (found ?? new Set()).add(value!));
  }
  const all = values.has(ALLOW_ALL);
  return Array.from(values, ([name, parts]) => parts.size === 0 ? name : `${name}=${[...parts].join(",")}`)
    .filter((flag) => !all || flag === ALLOW_ALL || !flag.startsWith("--allow-"));
}

/** Reports whether the flags grant all permissions. */
export function grantsAll(flags: readonly string[]): boolean {
  return flags.includes(ALLOW_ALL);
}

/**
 * Returns a flag that grants access to one path or host.
 *
 * @throws {UsageError} when the value contains a comma, because Deno would split it there.
 */
export function allow(kind: "read" | "write" | "net" | "import", value: string): string {
  if (!value.includes(",")) return `--allow-${kind}=${value}`;
  throw new UsageError(
    `Cannot grant --allow-${kind}: the path or host must have no comma, got ${
      JSON.stringify(value)
    }: choose another one, or write --allow-all before the script`,
  );
}

function longForm(word: string): string {
  const [, short, value] = /^(-[A-Z])(?=$|=)(.*)$/s.exec(word) ?? [];
  const long = short === undefined ? undefined : SHORT[short];
  return long === undefined ? word : long + value;
}
