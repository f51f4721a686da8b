/** What `warren doctor` looks at on FreeBSD. */

import { checkRoot } from "../bsd/examine.ts";
import { type Check, check, checkLibrary } from "../check.ts";
import { freebsd } from "./libc.ts";

/** Makes the checks. A crash leaves an interface without addresses, which the next device uses. */
export async function examine(): Promise<Check[]> {
  const library = checkLibrary("C library", freebsd);
  if (library.some(({ state }) => state === "fail")) return library;
  return [...library, ...await check("privileges", () => checkRoot(freebsd()))];
}
