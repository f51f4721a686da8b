/** Checks of `warren doctor` on FreeBSD. */

import { checkRoot } from "../bsd/examine.ts";
import { type Check, check, checkLibrary } from "../check.ts";
import { freebsd } from "./libc.ts";

/** Runs the checks. Nothing needs repair after a crash, because the next device reuses the remaining interface. */
export async function examine(): Promise<Check[]> {
  const library = checkLibrary("C library", freebsd);
  if (library.some(({ state }) => state === "fail")) return library;
  return [...library, ...await check("privileges", () => checkRoot(freebsd()))];
}
