/** The interface with which a loop waits for the descriptors of all its ends at once. */

import type { Waitable } from "../lib/core/mod.ts";

// Implementation
/** Longest delay that setTimeout() accepts (milliseconds). */
const MAX_TIMEOUT = 0x7fff_ffff;

/** Waits until a descriptor is readable or writable: `wait` on this thread, `park` on another. */
export interface Waiter extends Disposable {
  /** Removes all descriptors from the next wait. */
  clear(): void;
  /** Adds a descriptor to the next wait and returns its place; without `read` and `write`, only its errors count. */
  add(waitable: Waitable, read: boolean, write: boolean): number;
  /** Reports whether the last `wait` found the descriptor at this place ready; true if the system cannot tell. */
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

/** A descriptor that a waiter watches in addition to those of each wait. */
export interface Watch {
  readonly waitable: Waitable;
  readonly readable: () => void;
}

/** Timeout and early end of a waiter's `park`. */
export class ParkTimer {
  #end: (() => void) | undefined;
  #isWoken = false;

  /** Starts a `park`, which ends early if {@linkcode ParkTimer.wake} is called from now on. */
  start(): void {
    this.#isWoken = false;
  }

  /** Ends the `park`. */
  wake(): void {
    this.#isWoken = true;
    this.#end?.();
  }

  /**
   * Resolves to true when `ready` resolves, and to false when the time is over or the `park` is woken. A time that
   * setTimeout() does not accept counts as infinite.
   */
  async wait(milliseconds: number, ready?: Promise<void>): Promise<boolean> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const over = new Promise<boolean>((resolve) => {
      this.#end = () => resolve(false);
      if (this.#isWoken) resolve(false);
      else if (milliseconds <= MAX_TIMEOUT) timer = setTimeout(this.#end, milliseconds);
    });
    const isReady = await (ready === undefined ? over : Promise.race([ready.then(() => true), over]));
    clearTimeout(timer);
    return isReady;
  }
}
