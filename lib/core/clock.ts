/** Time as the loop sees it: monotonic milliseconds, handed in, so that tests own it. */

/** A source of monotonic time. */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back. */
  now(): number;
}

/**
 * A clock that moves only when it is told to.
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

  /** Milliseconds advanced so far. */
  now(): number {
    return this.#now;
  }

  /**
   * Moves time on (milliseconds).
   *
   * @throws {RangeError} when asked to go back.
   */
  advance(milliseconds: number): void {
    if (!(milliseconds >= 0)) throw new RangeError(`Cannot advance a clock by ${milliseconds} ms`);
    this.#now += milliseconds;
  }
}
