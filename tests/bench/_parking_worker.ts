/** The worker of `parking`: polls a descriptor, wakes the other thread, and polls again when that has read it. */

import { posix } from "../../driver/linux/libc.ts";
import { type Watch, Watching } from "./_parking_watching.ts";

// Specification
// struct pollfd { int fd; short events; short revents; };   poll.h
const POLLIN = 0x001;

/** What the global scope of a worker has; the types are those of a window. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Watch>) => void;
  postMessage(message: null): void;
  close(): void;
};

/** Its first message says that it starts, its last one that it ended. */
scope.onmessage = ({ data: { descriptor, cell, byMessage } }) => {
  const { poll } = posix().functions;
  const fds = Int32Array.of(descriptor, POLLIN);
  scope.postMessage(null);
  for (;;) {
    poll(fds, 1n, -1);
    if (Atomics.compareExchange(cell, 0, Watching.Polls, Watching.Readable) === Watching.Ended) break;
    if (byMessage) scope.postMessage(null);
    else Atomics.notify(cell, 0);
    Atomics.wait(cell, 0, Watching.Readable);
    if (Atomics.load(cell, 0) === Watching.Ended) break;
  }
  scope.postMessage(null);
  scope.close();
};
