/** The flag `--profile`, allowed before and after a script's name; in its own file, which loads early and imports nothing. */

/** Extension of profiles that DevTools recognizes. */
export const PROFILE_SUFFIX = ".cpuprofile";
/** Flag whose optional value follows "=": in `--profile my.ts`, `my.ts` is the script. */
export const PROFILE_FLAG = "profile";

/** Returns true for `--profile` with or without a value. */
export function isProfileFlag(argument: string): boolean {
  return argument.replace(/=.*/s, "") === `--${PROFILE_FLAG}`;
}

/** Returns the error message for a word where only flags are allowed. */
export function unexpectedWord(word: string): string {
  const remedy = word.endsWith(PROFILE_SUFFIX)
    ? `to name the profile, write --${PROFILE_FLAG}=${word}`
    : "a script takes only flags";
  return `"${word}" is not expected here: ${remedy}`;
}
