/** Why the system did not take a packet, as a reason for counters. */

/**
 * The reasons of one end, each text made once.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ErrorReasons } from "@warren/tunnel/core";
 *
 * assert.equal(new ErrorReasons().of("EMSGSIZE"), "refused by the system: EMSGSIZE");
 * ```
 */
export class ErrorReasons {
  readonly #reasons = new Map<string, string>();

  /** The reason for an error with this name. */
  of(code: string): string {
    let reason = this.#reasons.get(code);
    if (reason === undefined) {
      reason = `refused by the system: ${code}`;
      this.#reasons.set(code, reason);
    }
    return reason;
  }
}
