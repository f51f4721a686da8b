/** Deno flags that `warren run` passes on to the script's process. */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

// Specification: `deno run --help`, except flags for permissions, configuration, lock file and type checks, which
// Warren sets itself.
const PASSED_ON = new RegExp(
  [
    "--(?:cert|v8-flags|env-file|seed|location)=.+",
    "--unsafely-ignore-certificate-errors(?:=.+)?",
    "--inspect(?:-brk|-wait)?(?:=.+)?",
    "--unstable-[a-z-]+",
    "--(?:cached-only|no-remote|no-npm)",
  ].map((flag) => `^${flag}$`).join("|"),
);
/** Flags whose value may be in the next word. */
const WITH_VALUE: readonly string[] = ["--cert", "--v8-flags", "--seed", "--location"];

/** Reports whether a word is a Deno flag that is passed on to the script, such as `--cert=authority.pem`. */
export function isDenoFlag(word: string): boolean {
  return PASSED_ON.test(word);
}

/**
 * Returns the flags to pass on from a command line of Deno, such as `deno run -A --cert ca.pem runtime/cli/main.ts run
 * my.ts`. Only flags before the main module belong to Deno.
 */
export function denoFlagsOf(words: readonly string[], mainModule: string): string[] {
  const end = words.findIndex((word) =>
    word === mainModule || pathToFileURL(resolve(word)).href === mainModule
  );
  const own = words.slice(0, Math.max(0, end));
  return own.map((word, i) =>
    WITH_VALUE.includes(word) && i + 1 < own.length ? `${word}=${own[i + 1]}` : word
  )
    .filter(isDenoFlag);
}

/** Returns the flags to pass on from this process's command line, which is known only on Linux. */
export async function ownDenoFlags(): Promise<string[]> {
  try {
    const words = (await Deno.readTextFile("/proc/self/cmdline")).split("\0").slice(1, -1);
    return denoFlagsOf(words, Deno.mainModule);
  } catch {
    return [];
  }
}
