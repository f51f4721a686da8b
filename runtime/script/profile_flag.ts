/** The flag `--profile`, allowed before and after the name of a script. Loaded early, this file imports nothing. */

/** File extension of profiles, which DevTools recognizes. */
export const PROFILE_SUFFIX = ".cpuprofile";
/** Name of the flag. Its optional value must follow "=", because in `--profile my.ts`, `my.ts` is the script. */
export const PROFILE_FLAG = "profile";

/** Reports whether an argument is `--profile`, with or without a value. */
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
