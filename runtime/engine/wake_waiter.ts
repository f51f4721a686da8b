/** Waiting without descriptors, for a loop whose ends all call `wake`. */

import type { Waiter } from "../../driver/mod.ts";
import type { Waitable } from "../../lib/core/mod.ts";

// Implementation
/** Longest delay that setTimeout() accepts (milliseconds); a tick that is due later runs with the next packet. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/** A waiter that uses promises instead of descriptors. */
export class WakeWaiter implements Waiter {
  #wake: (() => void) | undefined;

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

  async park(milliseconds: number): Promise<boolean> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (milliseconds <= MAX_TIMEOUT) timer = setTimeout(resolve, milliseconds);
    });
    clearTimeout(timer);
    return false;
  }

  wake(): void {
    this.#wake?.();
  }

  [Symbol.dispose](): void {
  }
}
