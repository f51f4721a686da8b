/** A pipe that ends a wait: another thread's, or one beside this thread. */

import type { WakeupEnds } from "../share.ts";
import { guard, type Posix } from "./libc.ts";

// Implementation
/** Signals that one drain takes; the rest is drained next time. */
const MAX_SIGNALS = 64;
const MAX_SIGNALS_64 = BigInt(MAX_SIGNALS);

/** One side of a wakeup: a pipe that any thread signals, and that a wait looks at. */
export class Wakeup {
  /** What a wait looks at. */
  readonly waitable: number;
  readonly #functions: Posix["functions"];
  readonly #to: number;
  readonly #bytes = new Uint8Array(MAX_SIGNALS);

  /** For these ends. */
  constructor(posix: Posix, { from, to }: WakeupEnds) {
    this.#functions = posix.functions;
    this.waitable = from;
    this.#to = to;
  }

  /** Makes the waitable readable. */
  signal(): void {
    // A full pipe is readable already.
    this.#functions.writeFrom(this.#to, this.#bytes, 1n);
  }

  /** Makes the waitable unreadable, until the next signal. */
  drain(): void {
    this.#functions.readInto(this.waitable, this.#bytes, MAX_SIGNALS_64);
  }

  /** Frees both ends: for every thread. */
  close(): void {
    this.#functions.close(this.waitable);
    this.#functions.close(this.#to);
  }
}

/**
 * Makes the ends of a wakeup.
 *
 * @throws {DriverError} when the process has no descriptor left.
 */
export function openWakeupEnds(posix: Posix): WakeupEnds {
  const ends = new Int32Array(2);
  if (posix.functions.pipe(ends) < 0) {
    throw posix.systemError("make a pipe that ends waits", "pipe", posix.errno());
  }
  for (const end of ends) guard(posix, end);
  return { from: ends[0]!, to: ends[1]! };
}
