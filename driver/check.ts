/** Findings of `warren doctor`. */

import { errorMessage } from "./error.ts";

/** One finding. */
export interface Check {
  /** Subject of the check. */
  readonly what: string;
  /** `fail`: Warren cannot work. `warn`: a part of it cannot, or may not. */
  readonly state: "ok" | "warn" | "fail";
  /** Result as a sentence. */
  readonly says: string;
  /** Remedy, if there is one. */
  readonly remedy?: string;
}

/** Runs a check; an error thrown by it becomes a warning. */
export async function check(what: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [{ what, state: "warn", says: `the check failed: ${errorMessage(error)}` }];
  }
}

/** Opens a library of the system and reports whether it has every function that Warren calls. */
export function checkLibrary(what: string, open: () => unknown): Check[] {
  try {
    open();
    return [{ what, state: "ok", says: "it loads, with every function that Warren calls" }];
  } catch (error) {
    return [{ what, state: "fail", says: errorMessage(error) }];
  }
}
