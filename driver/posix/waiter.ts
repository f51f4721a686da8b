/** The loop's one wait on Linux, macOS and FreeBSD: poll(2), with a pipe to end it early. */

import type { Waitable } from "../../lib/core/mod.ts";
import type { Waiter } from "../waiter.ts";
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
/** The longest timer (milliseconds). */
const MAX_TIMEOUT = 0x7fff_ffff;

interface Watch {
  readonly waitable: Waitable;
  readonly readable: () => void;
}

/** poll(2) over the descriptors of a loop. */
export class PollWaiter implements Waiter {
  readonly #functions: Posix["functions"];
  /** Ends a poll. */
  readonly #wakeup: Wakeup;
  readonly #watches = new Set<Watch>();
  /** Descriptors asked for, as `struct pollfd`s; what `wait` uses. */
  readonly #wanted = new Int32Array(MAX_DESCRIPTORS * POLLFD_WORDS);
  #wantedCount = 0;
  /** What a poll beside this thread is looking at; its memory belongs to it until it ends. */
  readonly #parked = new Int32Array(MAX_DESCRIPTORS * POLLFD_WORDS);
  #parkedCount = 0;
  #parking: Promise<void> | undefined;
  /** Whether what it looks at is to be looked at no longer. */
  #stale = false;
  #wake: (() => void) | undefined;
  #woken = false;
  #closed = false;

  /** @throws {DriverError} when the process has no descriptor left. */
  constructor(posix: Posix) {
    this.#functions = posix.functions;
    this.#wakeup = new Wakeup(posix, openWakeupEnds(posix));
  }

  /** Forgets which descriptors to look at. */
  clear(): void {
    this.#wantedCount = 0;
  }

  /** Looks at a descriptor in the next wait. */
  add(waitable: Waitable, read: boolean, write: boolean): number {
    if (this.#wantedCount >= MAX_DESCRIPTORS - 1) {
      throw new RangeError(`Cannot wait for more than ${MAX_DESCRIPTORS - 1} descriptors`);
    }
    const word = this.#wantedCount++ * POLLFD_WORDS;
    this.#wanted[word] = waitable;
    this.#wanted[word + 1] = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    return word;
  }

  /** Whether the last wait found it ready. */
  isReady(place: number): boolean {
    return this.#wanted[place + 1]! >>> 16 !== 0;
  }

  /** Looks at a descriptor in every wait beside the thread. */
  watch(waitable: Waitable, readable: () => void): () => void {
    const watch = { waitable, readable };
    this.#watches.add(watch);
    return () => this.#watches.delete(watch);
  }

  /** Ends a poll that looks at the descriptor. */
  async forget(waitable: Waitable): Promise<void> {
    if (this.#parking === undefined) return;
    for (let word = 0; word < this.#parkedCount * POLLFD_WORDS; word += POLLFD_WORDS) {
      if (this.#parked[word] === waitable) this.#stale = true;
    }
    if (!this.#stale) return;
    this.#wakeup.signal();
    await this.#parking;
  }

  /** Calls back the watches that are ready. */
  look(): void {
    if (this.#watches.size === 0) return;
    this.clear();
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
    if (this.wait(0)) this.#callWatches(this.#wanted, this.#wantedCount);
  }

  /** Blocks the thread. */
  wait(milliseconds: number): boolean {
    return this.#functions.poll(this.#wanted, COUNTS[this.#wantedCount]!, Math.ceil(milliseconds)) > 0;
  }

  /** Waits beside the thread. */
  async park(milliseconds: number): Promise<boolean> {
    this.#woken = false;
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
    // A poll that still looks at the same descriptors goes on; another set has to replace it.
    if (this.#parking !== undefined && !this.#sameSet()) {
      this.#wakeup.signal();
      await this.#parking;
    }
    this.#parking ??= this.#poll();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const woken = new Promise<boolean>((resolve) => {
      this.#wake = () => resolve(false);
      if (this.#woken) resolve(false);
      else if (milliseconds <= MAX_TIMEOUT) timer = setTimeout(() => resolve(false), milliseconds);
    });
    const ready = await Promise.race([this.#parking.then(() => true), woken]);
    clearTimeout(timer);
    this.#wake = undefined;
    this.#woken = false;
    return ready;
  }

  /** Ends a `park`. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Ends the poll that may be under way and closes the pipe when it has ended. */
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
      // The upper half of the second word is revents, which the other thread writes.
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
    await this.#functions.pollElsewhere(this.#parked, COUNTS[this.#parkedCount + 1]!, -1);
    this.#parking = undefined;
    const rang = this.#parked[word + 1]! >>> 16 !== 0;
    if (rang && !this.#closed) this.#wakeup.drain();
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
