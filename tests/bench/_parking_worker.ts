/** A thread of `parking` that polls for another one, and polls again when that one says so. */

import { posix } from "../../driver/linux/libc.ts";
import { PollWaiter } from "../../driver/posix/waiter.ts";

/** What stands in the cell that both threads share. */
export const Cell = { Polling: 0, Ready: 1 } as const;

/** What the worker is told. */
export interface Order {
  /** What to poll. */
  readonly descriptor: number;
  /** A {@linkcode Cell}, in memory that is shared. */
  readonly cell: Int32Array<SharedArrayBuffer>;
  /** Whether it also wakes the other thread by a message. */
  readonly posts: boolean;
}

// Implementation
const LONG = 0x7fff_ffff;

/** What a worker has of its own. */
interface Scope {
  onmessage: ((event: MessageEvent<Order>) => void) | null;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as Scope;

function poll({ descriptor, cell, posts }: Order): never {
  const waiter = new PollWaiter(posix());
  for (;;) {
    waiter.clear();
    waiter.add(descriptor, true, false);
    waiter.wait(LONG);
    Atomics.store(cell, 0, Cell.Ready);
    if (posts) scope.postMessage(undefined);
    else Atomics.notify(cell, 0);
    Atomics.wait(cell, 0, Cell.Ready);
  }
}

// Only as a worker is it one.
if (import.meta.main) {
  scope.onmessage = ({ data }) => poll(data);
  scope.postMessage(undefined);
}
