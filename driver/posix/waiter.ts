/** Waiting for descriptors on Linux, macOS and FreeBSD, with poll(2) and a pipe that ends it early. */

import type { Waitable } from "../../lib/core/mod.ts";
import { ParkTimer, type Waiter, type Watch } from "../waiter.ts";
import { openWakeupEnds, Wakeup } from "./wakeup.ts";
import type { Posix } from "./libc.ts";

// Specification
// struct pollfd { int fd; short events; short revents; };   poll.h
const POLLFD_WORDS = 2;
const POLLIN = 0x001;
const POLLOUT = 0x004;

// Implementation
const MAX_DESCRIPTORS = 256;
const COUNTS = Array.from({ length: MAX_DESCRIPTORS + 1 }, (_, count) => BigInt(count));

/** Waits for descriptors with poll(2): `wait` on this thread, `park` on another. */
export class PollWaiter implements Waiter {
  readonly #functions: Posix["functions"];
  /** Pipe that ends a poll on another thread. */
  readonly #wakeup: Wakeup;
  readonly #watches = new Set<Watch>();
  /** Descriptors for the next wait, as `struct pollfd[]`. */
  readonly #wanted = new Int32Array(MAX_DESCRIPTORS * POLLFD_WORDS);
  #wantedCount = 0;
  /** Descriptors for the poll on another thread, which may read and write this memory until it ends. */
  readonly #parked = new Int32Array(MAX_DESCRIPTORS * POLLFD_WORDS);
  #parkedCount = 0;
  #parking: Promise<void> | undefined;
  /** True if the poll on another thread includes a descriptor that is about to be closed. */
  #stale = false;
  readonly #timer = new ParkTimer();
  #closed = false;

  /** Opens the pipe. @throws {DriverError} when the process has too many open descriptors. */
  constructor(posix: Posix) {
    this.#functions = posix.functions;
    this.#wakeup = new Wakeup(posix, openWakeupEnds(posix));
  }

  clear(): void {
    this.#wantedCount = 0;
  }

  /** @throws {RangeError} when the wait already has 255 descriptors. */
  add(waitable: Waitable, read: boolean, write: boolean): number {
    if (this.#wantedCount >= MAX_DESCRIPTORS - 1) {
      const max = MAX_DESCRIPTORS - 1;
      throw new RangeError(`Cannot add a descriptor to a wait: it must have at most ${max}, got ${max + 1}`);
    }
    const word = this.#wantedCount++ * POLLFD_WORDS;
    this.#wanted[word] = waitable;
    this.#wanted[word + 1] = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    return word;
  }

  isReady(place: number): boolean {
    return this.#wanted[place + 1]! >>> 16 !== 0;
  }

  watch(waitable: Waitable, readable: () => void): () => void {
    const watch = { waitable, readable };
    this.#watches.add(watch);
    return () => this.#watches.delete(watch);
  }

  /** Ends the poll on another thread if it includes the descriptor. */
  async forget(waitable: Waitable): Promise<void> {
    if (this.#parking === undefined) return;
    for (let word = 0; word < this.#parkedCount * POLLFD_WORDS; word += POLLFD_WORDS) {
      if (this.#parked[word] === waitable) this.#stale = true;
    }
    if (!this.#stale) return;
    this.#wakeup.signal();
    await this.#parking;
  }

  look(): void {
    if (this.#watches.size === 0) return;
    this.clear();
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
    if (this.wait(0)) this.#callWatches(this.#wanted, this.#wantedCount);
  }

  wait(milliseconds: number): boolean {
    return this.#functions.poll(this.#wanted, COUNTS[this.#wantedCount]!, Math.ceil(milliseconds)) > 0;
  }

  async park(milliseconds: number): Promise<boolean> {
    this.#timer.start();
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
    // A running poll of the same descriptors is reused; a poll of different ones has to end first.
    if (this.#parking !== undefined && !this.#sameSet()) {
      this.#wakeup.signal();
      await this.#parking;
    }
    this.#parking ??= this.#poll();
    return await this.#timer.wait(milliseconds, this.#parking);
  }

  wake(): void {
    this.#timer.wake();
  }

  /** Closes the pipe, after the poll on another thread has ended. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#parking === undefined) return this.#wakeup.close();
    this.#wakeup.signal();
    this.#parking.then(() => this.#wakeup.close());
  }

  #sameSet(): boolean {
    if (this.#stale || this.#wantedCount !== this.#parkedCount) return false;
    for (let word = 0; word < this.#wantedCount * POLLFD_WORDS; word++) {
      // The upper half of the second word is revents, which poll writes on the other thread.
      if (((this.#wanted[word]! ^ this.#parked[word]!) & (word % 2 === 0 ? -1 : 0xffff)) !== 0) return false;
    }
    return true;
  }

  async #poll(): Promise<void> {
    this.#parked.set(this.#wanted.subarray(0, this.#wantedCount * POLLFD_WORDS));
    this.#parkedCount = this.#wantedCount;
    this.#stale = false;
    const word = this.#parkedCount * POLLFD_WORDS;
    this.#parked[word] = this.#wakeup.waitable;
    this.#parked[word + 1] = POLLIN;
    await this.#functions.pollNonblocking(this.#parked, COUNTS[this.#parkedCount + 1]!, -1);
    this.#parking = undefined;
    const signaled = this.#parked[word + 1]! >>> 16 !== 0;
    if (signaled && !this.#closed) this.#wakeup.drain();
    this.#callWatches(this.#parked, this.#parkedCount);
  }

  #callWatches(fds: Int32Array, count: number): void {
    for (const watch of this.#watches) {
      for (let word = 0; word < count * POLLFD_WORDS; word += POLLFD_WORDS) {
        if (fds[word] === watch.waitable && fds[word + 1]! >>> 16 !== 0) {
          watch.readable();
          break;
        }
      }
    }
  }
}
