/** Waiting without descriptors, for a loop whose ends all call `wake`. */

import type { Waiter } from "../../driver/mod.ts";
import { ParkTimer } from "../../driver/waiter.ts";
import type { Waitable } from "../../lib/core/mod.ts";

/** A waiter that uses promises instead of descriptors. */
export class WakeWaiter implements Waiter {
  readonly #timer = new ParkTimer();

  clear(): void {
  }

  add(): number {
    return 0;
  }

  isReady(): boolean {
    return true;
  }

  async forget(): Promise<void> {
  }

  watch(waitable: Waitable): never {
    throw new TypeError(`Cannot wait for descriptor ${waitable}: no end of the loop has a descriptor`);
  }

  look(): void {
  }

  wait(): boolean {
    return true;
  }

  park(milliseconds: number): Promise<boolean> {
    this.#timer.start();
    return this.#timer.wait(milliseconds);
  }

  wake(): void {
    this.#timer.wake();
  }

  [Symbol.dispose](): void {
  }
}
