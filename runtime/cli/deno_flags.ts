/** Flags of Deno's own that `warren run` hands on to the script's process: those that were before SCRIPT or before Warren. */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

// Specification: `deno run --help`. Permissions, settings, lock file and checks are Warren's to say.
const HANDED_ON = new RegExp(
  [
    "--(?:cert|v8-flags|env-file|seed|location)=.+",
    "--unsafely-ignore-certificate-errors(?:=.+)?",
    "--inspect(?:-brk|-wait)?(?:=.+)?",
    "--unstable-[a-z-]+",
    "--(?:cached-only|no-remote|no-npm)",
  ].map((flag) => `^${flag}$`).join("|"),
);
/** Flags whose value may be a word of its own. */
const WITH_VALUE: readonly string[] = ["--cert", "--v8-flags", "--seed", "--location"];

/** Tells whether a word is a flag of Deno's that goes with the script, such as `--cert=authority.pem`. */
export function isDenoFlag(word: string): boolean {
  return HANDED_ON.test(word);
}

/**
 * The flags to hand on from a command line of Deno's, such as `deno run -A --cert ca.pem runtime/cli/main.ts run my.ts`.
 * What follows the main module is not Deno's.
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

/** The flags to hand on from this process's command line; none where the system does not tell it. */
export async function ownDenoFlags(): Promise<string[]> {
  try {
    const words = (await Deno.readTextFile("/proc/self/cmdline")).split("\0").slice(1, -1);
    return denoFlagsOf(words, Deno.mainModule);
  } catch {
    return [];
  }
}
