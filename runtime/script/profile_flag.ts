/** The flag `--profile`, which stands before or after a script's name; it has its own file, as it is read before much is loaded. */

/** The end of a profile's name, by which DevTools knows it. */
export const PROFILE_SUFFIX = ".cpuprofile";
/** Its value, if any, stands behind "=": in `--profile my.ts` that is the script. */
export const PROFILE_FLAG = "profile";

/** Tells whether an argument asks for a profile. */
export function isProfileFlag(argument: string): boolean {
  return argument.replace(/=.*/s, "") === `--${PROFILE_FLAG}`;
}

/** Describes a word that stands where only flags do. */
export function unexpectedWord(word: string): string {
  const remedy = word.endsWith(PROFILE_SUFFIX)
    ? `a profile's file is --${PROFILE_FLAG}=${word}`
    : "a script takes only flags";
  return `"${word}" is not expected here: ${remedy}`;
}
