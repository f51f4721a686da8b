/** Findings of `warren doctor`. */

import { errorMessage } from "./error.ts";

/** One finding. */
export interface Check {
  /** Subject of the check. */
  readonly name: string;
  /** `fail`: Warren cannot work. `warn`: a part of it cannot, or may not. */
  readonly state: "ok" | "warn" | "fail";
  /** Result as a sentence. */
  readonly text: string;
  /** Remedy, if there is one. */
  readonly remedy?: string;
}

/** Runs a check; an error thrown by it becomes a warning. */
export async function check(name: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [{ name, state: "warn", text: `the check failed: ${errorMessage(error)}` }];
  }
}

/** Opens a library of the system and reports whether it has every function that Warren calls. */
export function checkLibrary(name: string, open: () => unknown): Check[] {
  try {
    open();
    return [{ name, state: "ok", text: "it loads, with every function that Warren calls" }];
  } catch (error) {
    return [{ name, state: "fail", text: errorMessage(error) }];
  }
}
