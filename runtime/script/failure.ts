/** Exit codes of commands, and output of their errors. */

import { stripVTControlCharacters } from "node:util";
// @ts-types="./levenshtein_distance.d.ts"
import { levenshteinDistance } from "@std/text/levenshtein-distance";
import { explain } from "../tunnel/explain.ts";

// Specification
/** Exit codes of the command and of scripts. */
export const ExitCode = { Ended: 0, Failed: 1, WrongCommandLine: 2 } as const;

// Implementation
/** Maximum edit distance of a suggestion. */
const MAX_EDITS = 2;

/** Error in a command line, which is printed with a reference to `--help`; the exit code is 2. */
export class UsageError extends Error {
  /** @ignore */
  override readonly name = "UsageError";
}

/** Prints the error of a command and returns its exit code. */
export function report(error: unknown, command: string): number {
  if (error instanceof UsageError) {
    console.error(`warren: ${printable(error.message)}\nTry: ${command} --help`);
    return ExitCode.WrongCommandLine;
  }
  console.error(`warren: ${printable(explain(error))}`);
  return ExitCode.Failed;
}

/** Escapes control characters for a terminal; the text may contain untrusted parts. */
function printable(text: string): string {
  return stripVTControlCharacters(text).replace(
    /[^\P{Cc}\t\n]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Returns the candidate closest to a mistyped word; `undefined` if none is close.
 *
 * @example
 * ```ts no-eval
 * import assert from "node:assert/strict";
 * import { nearest } from "./failure.ts";
 *
 * assert.equal(nearest("docter", ["run", "doctor"]), "doctor");
 * ```
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates
    .map((candidate) => ({
      candidate,
      edits: candidate.startsWith(word) ? 1 : levenshteinDistance(word, candidate),
    }))
    .filter(({ candidate, edits }) => edits <= MAX_EDITS && edits < candidate.length)
    .sort((a, b) => a.edits - b.edits);
  return word === "" ? undefined : ranked[0]?.candidate;
}
