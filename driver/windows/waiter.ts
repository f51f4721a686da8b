/** Waiting for handles on Windows, with WaitForMultipleObjects and an event that ends it early. */

import type { Waitable } from "../../lib/core/mod.ts";
import { ParkTimer, type Waiter, type Watch } from "../waiter.ts";
import { kernel32 } from "./kernel32.ts";
import { win32Error } from "./win32_error.ts";

// Specification
/** winnt.h, winbase.h */
const MAXIMUM_WAIT_OBJECTS = 64;
const WAIT_OBJECT_0 = 0;
const INFINITE = 0xffff_ffff;
/** Size of a HANDLE (32-bit words); only the first word is significant. */
const HANDLE_WORDS = 2;

// Implementation
/** Number of times that a write to a full ring is retried without delay, other than yielding to other threads. */
const QUICK_RETRIES = 64;
/** Interval between later retries (milliseconds); Windows' clock resolution may extend it to 16. */
const RETRY_INTERVAL = 1;

/** The waiters of this thread. */
const waiters = new Set<EventWaiter>();

/** Removes a handle from all waits; resolves when it may be closed. The caller does not add it again. */
export async function awaitUnused(waitable: Waitable): Promise<void> {
  await Promise.all(Array.from(waiters, (waiter) => waiter.forget(waitable)));
}

/**
 * Waits for handles with WaitForMultipleObjects: `wait` on this thread, `park` on another. A handle cannot report that
 * there is room to write, so waits are short while packets wait to be written.
 *
 * The events of Wintun and of sockets are auto-reset: the wait on another thread may reset an event when no `park` is
 * waiting. The next `wait` or `park` then returns at once.
 */
export class EventWaiter implements Waiter {
  readonly #kernel32 = kernel32();
  readonly #stop: bigint;
  readonly #watches = new Set<Watch>();
  /** Handles for the next wait, after the stop event. */
  readonly #wanted = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  /** The same handles without the stop event, for `wait`. */
  readonly #wantedHere = this.#wanted.subarray(HANDLE_WORDS);
  #wantedCount = 1;
  /** Handles for the wait on another thread, which may read this memory until it ends. */
  readonly #parked = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  #parkedCount = 0;
  #parking: Promise<void> | undefined;
  /** True if the wait on another thread has ended and the loop has not read from its ends since. */
  #hasSignal = false;
  /** True if packets wait to be written. */
  #hasWrites = false;
  #retries = 0;
  readonly #timer = new ParkTimer();
  #closed = false;

  /** Creates the stop event. @throws {DriverError} when the process has too many handles. */
  constructor() {
    const { CreateEventW, GetLastError } = this.#kernel32;
    const stop = CreateEventW(null, 0, 0, null);
    if (stop === 0) throw win32Error("create the loop's event", "CreateEventW", GetLastError());
    this.#stop = BigInt(stop);
    this.#wanted[0] = stop;
    waiters.add(this);
  }

  clear(): void {
    this.#wantedCount = 1;
    if (!this.#hasWrites) this.#retries = 0;
    this.#hasWrites = false;
    // Before the ends' handles: a wait reports only the first that is set, and packets may arrive all the time.
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
  }

  /** Makes the next wait short if `write` is true. @throws {RangeError} when the wait already has 63 handles. */
  add(waitable: Waitable, read: boolean, write: boolean): number {
    if (write) this.#hasWrites = true;
    if (!read) return 0;
    if (this.#wantedCount >= MAXIMUM_WAIT_OBJECTS) {
      const max = MAXIMUM_WAIT_OBJECTS - 1;
      throw new RangeError(`Cannot add a handle to a wait: it must have at most ${max}, got ${max + 1}`);
    }
    this.#wanted[this.#wantedCount++ * HANDLE_WORDS] = waitable;
    return 0;
  }

  /** Always true: a wait reports a single handle, but others may also be set. */
  isReady(): boolean {
    return true;
  }

  /** Includes the handle in each wait that follows a later {@linkcode EventWaiter.clear}. */
  watch(waitable: Waitable, readable: () => void): () => void {
    const watch = { waitable, readable };
    this.#watches.add(watch);
    return () => this.#watches.delete(watch);
  }

  look(): void {
    if (this.#watches.size === 0) return;
    this.clear();
    this.wait(0);
  }

  wait(milliseconds: number): boolean {
    // The wait on another thread would reset events that this wait needs.
    if (this.#parking !== undefined) this.#kernel32.SetEvent(this.#stop);
    if (this.#takeSignal()) return true;
    const limit = Math.ceil(this.#hasWrites ? Math.min(milliseconds, this.#retryAfter()) : milliseconds);
    const count = this.#wantedCount - 1;
    if (count === 0) {
      this.#kernel32.Sleep(limit);
      return false;
    }
    const index = this.#kernel32.WaitForMultipleObjects(count, this.#wantedHere, 0, limit) - WAIT_OBJECT_0;
    if (index >= count) return false;
    this.#callWatch(this.#wantedHere[index * HANDLE_WORDS]!);
    return true;
  }

  async park(milliseconds: number): Promise<boolean> {
    this.#timer.start();
    if (this.#takeSignal()) return true;
    // A running wait for the same handles is reused; a wait for different ones has to end first.
    if (this.#parking !== undefined && !this.#sameSet()) {
      this.#kernel32.SetEvent(this.#stop);
      await this.#parking;
      if (this.#takeSignal()) return true;
    }
    this.#parking ??= this.#waitOffThread();
    const limit = this.#hasWrites ? Math.min(milliseconds, this.#retryAfter()) : milliseconds;
    const ready = await this.#timer.wait(limit, this.#parking);
    // The loop now reads from all its ends.
    this.#hasSignal = false;
    return ready;
  }

  wake(): void {
    this.#timer.wake();
  }

  /** Also ends the handle's watches. */
  async forget(waitable: Waitable): Promise<void> {
    for (const watch of this.#watches) if (watch.waitable === waitable) this.#watches.delete(watch);
    for (let i = 1; i < this.#wantedCount; i++) {
      if (this.#wanted[i * HANDLE_WORDS] !== waitable) continue;
      this.#wanted[i * HANDLE_WORDS] = this.#wanted[--this.#wantedCount * HANDLE_WORDS]!;
    }
    for (let i = 1; i < this.#parkedCount && this.#parking !== undefined; i++) {
      if (this.#parked[i * HANDLE_WORDS] !== waitable) continue;
      this.#kernel32.SetEvent(this.#stop);
      await this.#parking;
    }
  }

  /** Closes the stop event, after the wait on another thread has ended. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    const free = () => {
      waiters.delete(this);
      this.#kernel32.CloseHandle(this.#stop);
    };
    if (this.#parking === undefined) return free();
    this.#kernel32.SetEvent(this.#stop);
    this.#parking.then(free);
  }

  #takeSignal(): boolean {
    const hasSignal = this.#hasSignal;
    this.#hasSignal = false;
    return hasSignal;
  }

  #retryAfter(): number {
    if (this.#retries >= QUICK_RETRIES) return RETRY_INTERVAL;
    this.#retries++;
    this.#kernel32.SwitchToThread();
    return 0;
  }

  #sameSet(): boolean {
    if (this.#wantedCount !== this.#parkedCount) return false;
    for (let word = 0; word < this.#wantedCount * HANDLE_WORDS; word++) {
      if (this.#wanted[word] !== this.#parked[word]) return false;
    }
    return true;
  }

  async #waitOffThread(): Promise<void> {
    this.#parked.set(this.#wanted);
    this.#parkedCount = this.#wantedCount;
    const count = this.#parkedCount;
    const index = await this.#kernel32.waitOffThread(count, this.#parked, 0, INFINITE) - WAIT_OBJECT_0;
    this.#parking = undefined;
    if (index === 0) return;
    // Also after a failed wait: an end may have failed, which the loop learns when it reads.
    this.#hasSignal = true;
    if (index < count) this.#callWatch(this.#parked[index * HANDLE_WORDS]!);
  }

  #callWatch(handle: Waitable): void {
    for (const watch of this.#watches) if (watch.waitable === handle) watch.readable();
  }
}
