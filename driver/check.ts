/** One finding of `warren doctor`, and how it is made. */

import { errorMessage } from "./error.ts";

/** What was found. */
export interface Check {
  /** What was looked at. */
  readonly what: string;
  /** `fail`: Warren does not work so. `warn`: something does not, or may not. */
  readonly state: "ok" | "warn" | "fail";
  /** What is so. */
  readonly says: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** Makes a check; what goes wrong in it is told as its result. */
export async function check(what: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [{ what, state: "warn", says: `it cannot be told: ${errorMessage(error)}` }];
  }
}

/** Opens a system's library: whether it is here, with every function that Warren calls. */
export function checkLibrary(what: string, open: () => unknown): Check[] {
  try {
    open();
    return [{ what, state: "ok", says: "it loads, with every function that Warren calls" }];
  } catch (error) {
    return [{ what, state: "fail", says: errorMessage(error) }];
  }
}
