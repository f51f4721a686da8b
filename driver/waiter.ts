/** How a loop waits for the descriptors of all its ends at once. */

import type { Waitable } from "../lib/core/mod.ts";

/** Waits until a descriptor is readable or writable: `wait` on this thread, `park` on another. */
export interface Waiter extends Disposable {
  /** Removes all descriptors from the next wait. */
  clear(): void;
  /**
   * Adds a descriptor to the next wait and returns its place; without `read` and `write`, waits only for its errors.
   */
  add(waitable: Waitable, read: boolean, write: boolean): number;
  /** Returns true if the last `wait` found the descriptor at this place ready, or if the system cannot tell. */
  isReady(place: number): boolean;
  /** Removes a descriptor that is about to be closed; resolves when no wait includes it any longer. */
  forget(waitable: Waitable): Promise<void>;
  /** Calls `readable` from `park` and `look` whenever a descriptor is readable. Returns a function that ends this. */
  watch(waitable: Waitable, readable: () => void): () => void;
  /** Blocks this thread until a descriptor is ready (returns true) or the time is over (returns false). */
  wait(milliseconds: number): boolean;
  /**
   * Resolves to true when a descriptor is ready, and to false when the time is over or `wake` is called. Does not block
   * this thread.
   */
  park(milliseconds: number): Promise<boolean>;
  /** Ends a `park`. */
  wake(): void;
  /** Calls `readable` for each watched descriptor that is ready, for a loop too busy to `park`. */
  look(): void;
}
