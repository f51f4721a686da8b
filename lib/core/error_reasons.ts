/** Drop reasons for system errors. */

/**
 * Drop reasons of an end for packets that the system refused. Each text is built once.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ErrorReasons } from "@warren/tunnel/core";
 *
 * const reasons = new ErrorReasons();
 * assert.equal(reasons.of("EMSGSIZE"), "refused by the system: EMSGSIZE");
 * ```
 */
export class ErrorReasons {
  readonly #reasons = new Map<string, string>();

  /** Returns the drop reason for an error name. */
  of(code: string): string {
    let reason = this.#reasons.get(code);
    if (reason === undefined) {
      reason = `refused by the system: ${code}`;
      this.#reasons.set(code, reason);
    }
    return reason;
  }
}
