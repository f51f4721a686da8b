/** How a command fails: its exit code, and what it prints. */

import { stripVTControlCharacters } from "node:util";
// @ts-types="./levenshtein_distance.d.ts"
import { levenshteinDistance } from "@std/text/levenshtein-distance";
import { explain } from "../tunnel/explain.ts";

// Specification
/** Exit codes of the command and of scripts. */
export const ExitCode = { Ended: 0, Failed: 1, WrongCommandLine: 2 } as const;

// Implementation
/** The longest distance between a word and what it was meant to be. */
const MAX_EDITS = 2;

/** The command line makes no sense: shown with a hint at `--help`, exit code 2. */
export class UsageError extends Error {
  /** @ignore */
  override readonly name = "UsageError";
}

/** Prints why a command failed, and returns its exit code. */
export function report(error: unknown, command: string): number {
  if (error instanceof UsageError) {
    console.error(`warren: ${printable(error.message)}\nTry: ${command} --help`);
    return ExitCode.WrongCommandLine;
  }
  console.error(`warren: ${printable(explain(error))}`);
  return ExitCode.Failed;
}

/** Text that does nothing to a terminal: words of a command line, files and strangers are in it. */
function printable(text: string): string {
  return stripVTControlCharacters(text).replace(
    /[^\P{Cc}\t\n]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * What a mistyped word may have been meant to be; `undefined` when nothing is near.
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
