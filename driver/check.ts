/** Results of the checks that `warren doctor` makes. */

import { errorMessage } from "./error.ts";

/** Result of one check. */
export interface Check {
  /** Subject of the check. */
  readonly name: string;
  /** `fail`: Warren cannot open devices. `warn`: it may lack a feature. */
  readonly state: "ok" | "warn" | "fail";
  /** Finding, as a sentence. */
  readonly text: string;
  /** Remedy, if anything needs one. */
  readonly remedy?: string;
}

/** Runs a check; if it throws, returns a warning. */
export async function check(name: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [{ name, state: "warn", text: `the check failed: ${errorMessage(error)}` }];
  }
}

/** Checks that a system library can be opened and has every function that Warren calls. */
export function checkLibrary(name: string, open: () => unknown): Check[] {
  try {
    open();
    return [{ name, state: "ok", text: "it loads, with every function that Warren calls" }];
  } catch (error) {
    return [{ name, state: "fail", text: errorMessage(error) }];
  }
}
