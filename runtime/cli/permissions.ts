/** Permissions of Deno's: those that a script's own run line asks for, and those of a command line. */

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
/** Flags of a run line that change nothing of what a script may do, and are passed on. */
const HARMLESS = /^(?:-q|--(?:quiet|no-prompt|cached-only|no-remote|no-npm|no-code-cache|unstable-[a-z-]+))$/;
/** Flags that `warren run` has in any case. */
const IMPLIED = /^--(?:no-check|no-lock|no-config)$/;
/** Words that env(1) and shells read otherwise. */
const QUOTED = /["'\\$]/;
/** Comments, and what follows the end of the line, as env(1) has them behind -S. */
const COMMENT = /\s(?:#|\\c).*/s;
/** Characters that a terminal does not show as they are, and with which a line would hide what it asks for. */
const UNSEEN = /[^\P{C}\t]/u;
const DENIAL = /--(?:deny|ignore)-/;
const ALLOW_ALL = "--allow-all";

/** The flags of a script's first line. */
export interface RunLine {
  /** The flags that are taken from it, in Deno's long form. */
  readonly flags: readonly string[];
  /** Words that are not: they would change more than permissions. */
  readonly leftOut: readonly string[];
}

/** Tells whether a word is a flag that grants or denies permissions. */
export function isPermissionFlag(word: string): boolean {
  return PERMISSION.test(longForm(word));
}

/**
 * Reads the run line of a script, its `#!` line; `undefined` when it has none that runs Deno.
 *
 * @example
 * ```ts no-eval
 * import assert from "node:assert/strict";
 * import { parseRunLine } from "./permissions.ts";
 *
 * const line = parseRunLine("#!/usr/bin/env -S deno run --allow-ffi -N=192.0.2.1");
 * assert.deepEqual(line, { flags: ["--allow-ffi", "--allow-net=192.0.2.1"], leftOut: [] });
 * ```
 *
 * @throws {SyntaxError} when it denies something in words that cannot be taken from it, and when it has characters that a
 * terminal does not show.
 */
export function parseRunLine(line: string): RunLine | undefined {
  const words = /^\ufeff?#!(.*)/.exec(line)?.[1]?.replace(COMMENT, "").trim().split(/\s+/) ?? [];
  const program = words.findIndex((word) => /(?:^|\/)deno$/.test(word));
  if (program < 0) return undefined;
  if (UNSEEN.test(line.replace(/^\ufeff/, ""))) {
    throw new SyntaxError(
      "Cannot read the script's run line: it has characters that a terminal does not show: remove them",
    );
  }
  const rest = words.slice(program + 1);
  if (rest[0] === "run") rest.shift();
  const flags: string[] = [];
  const leftOut: string[] = [];
  for (const word of rest) {
    if (IMPLIED.test(word)) continue;
    const isKnown = HARMLESS.test(word) || isPermissionFlag(word);
    if (isKnown && !QUOTED.test(word)) flags.push(longForm(word));
    else leftOut.push(word);
  }
  // Without it, the script would have more than it asks for.
  const lostDenial = leftOut.find((word) => DENIAL.test(word));
  if (lostDenial !== undefined) {
    throw new SyntaxError(
      `Cannot read the script's run line: ${lostDenial} must be a flag of Deno's without quotes, backslashes and $`,
    );
  }
  return { flags, leftOut };
}

/** Flags as Deno takes them: it refuses a permission for everything beside one for some things. */
export function mergeFlags(flags: readonly string[]): string[] {
  const values = new Map<string, Set<string>>();
  for (const flag of flags.map(longForm)) {
    const [, name, value] = /^([^=]*)=?(.*)$/s.exec(flag)!;
    const found = values.get(name!);
    // An empty set stands for the flag without a value, which grants or denies all.
    if (value === "" || found?.size === 0) values.set(name!, new Set());
    else values.set(name!, (found ?? new Set()).add(value!));
  }
  const all = values.has(ALLOW_ALL);
  return Array.from(values, ([name, parts]) => parts.size === 0 ? name : `${name}=${[...parts].join(",")}`)
    .filter((flag) => !all || flag === ALLOW_ALL || !flag.startsWith("--allow-"));
}

/** Tells whether flags grant everything. */
export function grantsAll(flags: readonly string[]): boolean {
  return flags.includes(ALLOW_ALL);
}

/**
 * A flag that grants the use of one path, or of one host.
 *
 * @throws {UsageError} for a value with a comma: to Deno, it would be two.
 */
export function allow(kind: "read" | "write" | "net" | "import", value: string): string {
  if (!value.includes(",")) return `--allow-${kind}=${value}`;
  throw new UsageError(
    `Cannot grant --allow-${kind}: a path or host must have no comma, which separates them, got ${
      JSON.stringify(value)
    }: choose another one, or grant all by --allow-all before the script`,
  );
}

function longForm(word: string): string {
  const [, short, value] = /^(-[A-Z])(?=$|=)(.*)$/s.exec(word) ?? [];
  const long = short === undefined ? undefined : SHORT[short];
  return long === undefined ? word : long + value;
}
