/** The loop's one wait, over all descriptors of all its ends. */

import type { Waitable } from "../lib/core/mod.ts";

/** Waits until a descriptor can be read or written, on this thread or beside it. */
export interface Waiter extends Disposable {
  /** Forgets which descriptors to look at. */
  clear(): void;
  /** Looks at a descriptor in the next wait; with neither wish, only for its end. */
  add(waitable: Waitable, read: boolean, write: boolean): void;
  /** Looks at a descriptor in every wait, and calls back when it can be read. Returns what ends it. */
  watch(waitable: Waitable, readable: () => void): () => void;
  /** Blocks the thread; returns whether something is ready before so many milliseconds are over. */
  wait(milliseconds: number): boolean;
  /** Waits beside the thread, until something is ready, the time is over (`Infinity`: never), or `wake`. */
  park(milliseconds: number): Promise<void>;
  /** Ends a `park`. */
  wake(): void;
}
