/** The loop's one wait, over all descriptors of all its ends. */

import type { Waitable } from "../lib/core/mod.ts";

/** Waits until a descriptor can be read or written, on this thread or beside it. */
export interface Waiter extends Disposable {
  /** Forgets which descriptors to look at. */
  clear(): void;
  /** Looks at a descriptor in the next wait; with neither wish, only for its end. Returns its place. */
  add(waitable: Waitable, read: boolean, write: boolean): number;
  /** Whether the last `wait` found what stands at a place ready; where the system does not tell, it may be. */
  isReady(place: number): boolean;
  /**
   * Looks at a descriptor no longer, since it is about to be closed. Settled when no wait has it any more: until
   * then the system keeps what it stands for.
   */
  forget(waitable: Waitable): Promise<void>;
  /** Looks at a descriptor in every `park` and `look`, and calls back when it can be read. Returns what ends it. */
  watch(waitable: Waitable, readable: () => void): () => void;
  /** Blocks the thread; returns whether something is ready before so many milliseconds are over. */
  wait(milliseconds: number): boolean;
  /**
   * Waits beside the thread, until something is ready, the time is over (`Infinity`: never), or `wake`; returns
   * whether something is ready.
   */
  park(milliseconds: number): Promise<boolean>;
  /** Ends a `park`. */
  wake(): void;
  /** Calls back the watches that are ready, without waiting: for a loop to which packets come. */
  look(): void;
}
