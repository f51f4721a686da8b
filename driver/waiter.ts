/** The single wait of a loop, over the descriptors of all its ends. */

import type { Waitable } from "../lib/core/mod.ts";

/** Waits until a descriptor is readable or writable, on this thread or on another one. */
export interface Waiter extends Disposable {
  /** Clears the set of descriptors. */
  clear(): void;
  /** Adds a descriptor to the next wait; with neither `read` nor `write`, only for its end. Returns its place. */
  add(waitable: Waitable, read: boolean, write: boolean): number;
  /** True if the last `wait` found the descriptor at a place ready, or if the system cannot tell. */
  isReady(place: number): boolean;
  /**
   * Removes a descriptor that is about to be closed. Resolves when no wait holds it any more; until then the system
   * keeps its object alive.
   */
  forget(waitable: Waitable): Promise<void>;
  /** Calls back from `park` and `look` when a descriptor is readable. Returns a function that ends the watch. */
  watch(waitable: Waitable, readable: () => void): () => void;
  /** Blocks the thread until a descriptor is ready (returns true) or the time is over (false). */
  wait(milliseconds: number): boolean;
  /**
   * Waits without blocking the thread until a descriptor is ready (resolves to true), the time is over (`Infinity`:
   * never), or `wake` is called (both false).
   */
  park(milliseconds: number): Promise<boolean>;
  /** Ends a `park`. */
  wake(): void;
  /** Calls back the watches that are ready, without waiting: for a loop that is busy with packets. */
  look(): void;
}
