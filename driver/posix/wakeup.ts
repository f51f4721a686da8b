/** A pipe that ends a wait on another thread. */

import type { WakeupEnds } from "../share.ts";
import { guard, type Posix } from "./libc.ts";

// Implementation
/** Maximum signals that one drain takes; the next one takes the rest. */
const MAX_SIGNALS = 64;
const MAX_SIGNALS_64 = BigInt(MAX_SIGNALS);

/** A pipe that any thread signals and that a wait includes. */
export class Wakeup {
  /** End that a wait includes. */
  readonly waitable: number;
  readonly #functions: Posix["functions"];
  readonly #to: number;
  readonly #bytes = new Uint8Array(MAX_SIGNALS);

  /** Wraps the ends of an open pipe. */
  constructor(posix: Posix, { from, to }: WakeupEnds) {
    this.#functions = posix.functions;
    this.waitable = from;
    this.#to = to;
  }

  /** Makes the waitable readable. */
  signal(): void {
    // The write may fail with EAGAIN: a full pipe is readable already.
    this.#functions.writeFrom(this.#to, this.#bytes, 1n);
  }

  /** Makes the waitable unreadable, until the next signal. */
  drain(): void {
    this.#functions.readInto(this.waitable, this.#bytes, MAX_SIGNALS_64);
  }

  /** Closes both ends, for all threads. */
  close(): void {
    this.#functions.close(this.waitable);
    this.#functions.close(this.#to);
  }
}

/**
 * Opens the pipe of a wakeup.
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
