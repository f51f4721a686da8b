/** A pipe through which one thread ends the wait of another. */

import type { WakeupEnds } from "../share.ts";
import { type Posix, setNonBlocking } from "./libc.ts";

// Implementation
/** Signals read by one `drain`; further signals keep the pipe readable until the next one. */
const MAX_SIGNALS = 64;
const MAX_SIGNALS_64 = BigInt(MAX_SIGNALS);

/** A pipe: any thread can write to it, and the wait of one thread includes its read end. */
export class Wakeup {
  /** Read end, for the wait. */
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

  /** Makes the waitable unreadable until the next signal. */
  drain(): void {
    this.#functions.readInto(this.waitable, this.#bytes, MAX_SIGNALS_64);
  }

  /** Closes both ends, for all threads. */
  close(): void {
    this.#functions.close(this.waitable);
    this.#functions.close(this.#to);
  }
}

/** Opens the pipe of a wakeup. @throws {DriverError} when the process has too many open descriptors. */
export function openWakeupEnds(posix: Posix): WakeupEnds {
  const ends = new Int32Array(2);
  if (posix.functions.pipe(ends) < 0) {
    throw posix.systemError("create the pipe of a wakeup", "pipe", posix.errno());
  }
  for (const end of ends) setNonBlocking(posix, end);
  return { from: ends[0]!, to: ends[1]! };
}
