/** What the worker of `parking` and the thread that it wakes say to each other. */

/** The words in their shared cell. */
export const Watching = { Polls: 0, Readable: 1, Ended: 2 } as const;

/** What the worker is to do: the first message. */
export interface Watch {
  /** What it polls. */
  readonly descriptor: number;
  /** Where they speak. */
  readonly cell: Int32Array<SharedArrayBuffer>;
  /** Whether it wakes the other thread by a message, not by `Atomics.notify`. */
  readonly byMessage: boolean;
}
