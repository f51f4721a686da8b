/** A pipe that ends a wait: another thread's, or one beside this thread. */

import type { WakeupEnds } from "../share.ts";
import { guard, type Posix } from "./libc.ts";

// Implementation
/** Rings that are heard at once; what is left is heard next time. */
const MAX_RINGS = 64;
const MAX_RINGS_64 = BigInt(MAX_RINGS);

/** Either side of a wakeup. */
export class Wakeup {
  /** What a wait looks at. */
  readonly waitable: number;
  readonly #functions: Posix["functions"];
  readonly #to: number;
  readonly #rings = new Uint8Array(MAX_RINGS);

  /** For these ends. */
  constructor(posix: Posix, { from, to }: WakeupEnds) {
    this.#functions = posix.functions;
    this.waitable = from;
    this.#to = to;
  }

  /** The waitable can be read now. */
  ring(): void {
    // When the pipe is full, it rings already.
    this.#functions.writeFrom(this.#to, this.#rings, 1n);
  }

  /** It can be read no longer, unless it is rung again. */
  hear(): void {
    this.#functions.readInto(this.waitable, this.#rings, MAX_RINGS_64);
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
