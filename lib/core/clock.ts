/** The loop's clock, replaceable so that tests control time. */

import { checkMin } from "./options.ts";

/** A source of monotonic time. */
export interface Clock {
  /** Returns milliseconds since an arbitrary moment; never decreases. */
  now(): number;
}

/**
 * A clock that only {@linkcode ManualClock.advance} moves.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { ManualClock } from "@warren/tunnel/core";
 *
 * const clock = new ManualClock();
 * clock.advance(1500);
 * assert(clock.now() === 1500);
 * ```
 */
export class ManualClock implements Clock {
  #now = 0;

  /** Returns the milliseconds advanced so far. */
  now(): number {
    return this.#now;
  }

  /**
   * Moves time forward (milliseconds).
   *
   * @throws {RangeError} when `milliseconds` is negative.
   */
  advance(milliseconds: number): void {
    checkMin("advance a clock", "milliseconds", milliseconds, 0);
    this.#now += milliseconds;
  }
}
