/** The single wait of a loop on Windows: WaitForMultipleObjects, with an event that ends it early. */

import type { Waitable } from "../../lib/core/mod.ts";
import type { Waiter } from "../waiter.ts";
import { kernel32 } from "./kernel32.ts";
import { win32Error } from "./win32_error.ts";

// Specification
/** winnt.h: MAXIMUM_WAIT_OBJECTS. */
const MAXIMUM_WAIT_OBJECTS = 64;
const WAIT_OBJECT_0 = 0;
const INFINITE = 0xffff_ffff;
/** Size of a HANDLE (32-bit words); only the low 32 bits are significant. */
const HANDLE_WORDS = 2;

// Implementation
/** Longest delay of setTimeout (milliseconds). */
const MAX_TIMEOUT = 0x7fff_ffff;
/** Number of times a full ring is retried at once, after yielding to other threads, before it is retried by time. */
const QUICK_RETRIES = 64;
/** Interval of later retries (milliseconds); the clock of Windows may stretch it to 16. */
const RETRY_INTERVAL = 1;

interface Watch {
  readonly waitable: Waitable;
  readonly readable: () => void;
}

/** Waiters of this thread, whose waits may hold a handle that is about to be closed. */
const waiters = new Set<EventWaiter>();

/** Removes a handle from all waits; resolves when it may be closed. It must not be added again. */
export async function awaitUnused(waitable: Waitable): Promise<void> {
  await Promise.all(Array.from(waiters, (waiter) => waiter.forget(waitable)));
}

/**
 * WaitForMultipleObjects over the handles of a loop. It cannot wait for room to write: while packets wait to be
 * written, waits are short.
 *
 * The events of Wintun and of sockets are auto-reset. If a wait on another thread consumes a signal while nothing
 * awaits that wait, the next wait returns at once.
 */
export class EventWaiter implements Waiter {
  readonly #kernel32 = kernel32();
  readonly #stop: bigint;
  readonly #watches = new Set<Watch>();
  /** The stop event, followed by the requested handles. */
  readonly #wanted = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  /** The same memory without the stop event, used by `wait`. */
  readonly #wantedHere = this.#wanted.subarray(HANDLE_WORDS);
  #wantedCount = 1;
  /** Handles of the wait on another thread, which owns this memory until it ends. */
  readonly #parked = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  #parkedCount = 0;
  #parking: Promise<void> | undefined;
  /** True if a wait consumed a signal and the loop has not looked since. */
  #taken = false;
  #writes = false;
  #retries = 0;
  #wake: (() => void) | undefined;
  #woken = false;
  #closed = false;

  /** @throws {DriverError} when the process is out of handles. */
  constructor() {
    const { CreateEventW, GetLastError } = this.#kernel32;
    const stop = CreateEventW(null, 0, 0, null);
    if (stop === 0) throw win32Error("create the loop's event", "CreateEventW", GetLastError());
    this.#stop = BigInt(stop);
    this.#wanted[0] = stop;
    waiters.add(this);
  }

  /** Clears the set of handles. */
  clear(): void {
    this.#wantedCount = 1;
    if (!this.#writes) this.#retries = 0;
    this.#writes = false;
    // First: a wait reports only the first set handle, and packets may arrive without end.
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
  }

  /** Adds a handle to the next wait, which `write` makes a short one. */
  add(waitable: Waitable, read: boolean, write: boolean): number {
    if (write) this.#writes = true;
    if (!read) return 0;
    if (this.#wantedCount >= MAXIMUM_WAIT_OBJECTS) {
      throw new RangeError(
        `Cannot wait for another handle: ${MAXIMUM_WAIT_OBJECTS - 1} are the most for a wait`,
      );
    }
    this.#wanted[this.#wantedCount++ * HANDLE_WORDS] = waitable;
    return 0;
  }

  /** Always true: a wait reports one handle, and others may be set. */
  isReady(): boolean {
    return true;
  }

  /** Adds a handle to every wait after the next {@linkcode EventWaiter.clear}. */
  watch(waitable: Waitable, readable: () => void): () => void {
    const watch = { waitable, readable };
    this.#watches.add(watch);
    return () => this.#watches.delete(watch);
  }

  /** Calls back the watches that are ready, without waiting. */
  look(): void {
    if (this.#watches.size === 0) return;
    this.clear();
    this.wait(0);
  }

  /** Blocks the thread. */
  wait(milliseconds: number): boolean {
    // A wait on another thread would consume the signals meant for this one.
    if (this.#parking !== undefined) this.#kernel32.SetEvent(this.#stop);
    if (this.#takeSignal()) return true;
    const limit = Math.ceil(this.#writes ? Math.min(milliseconds, this.#retryAfter()) : milliseconds);
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

  /** Waits on another thread. */
  async park(milliseconds: number): Promise<boolean> {
    this.#woken = false;
    if (this.#takeSignal()) return true;
    // A pending wait for the same handles continues; for another set, it is replaced.
    if (this.#parking !== undefined && !this.#sameSet()) {
      this.#kernel32.SetEvent(this.#stop);
      await this.#parking;
      if (this.#takeSignal()) return true;
    }
    this.#parking ??= this.#wait();
    const limit = this.#writes ? Math.min(milliseconds, this.#retryAfter()) : milliseconds;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const woken = new Promise<boolean>((resolve) => {
      this.#wake = () => resolve(false);
      if (this.#woken) resolve(false);
      else if (limit <= MAX_TIMEOUT) timer = setTimeout(() => resolve(false), limit);
    });
    const ready = await Promise.race([this.#parking.then(() => true), woken]);
    clearTimeout(timer);
    this.#wake = undefined;
    this.#woken = false;
    // The caller now looks at all handles.
    this.#taken = false;
    return ready;
  }

  /** Ends a `park`. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Removes a handle; resolves when no wait holds it. */
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

  /** Ends a pending wait, then closes the event. */
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
    const taken = this.#taken;
    this.#taken = false;
    return taken;
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

  async #wait(): Promise<void> {
    this.#parked.set(this.#wanted);
    this.#parkedCount = this.#wantedCount;
    const count = this.#parkedCount;
    const index = await this.#kernel32.waitOffThread(count, this.#parked, 0, INFINITE) - WAIT_OBJECT_0;
    this.#parking = undefined;
    if (index === 0) return;
    // After a failed wait the loop looks as well: an end may be gone.
    this.#taken = true;
    if (index < count) this.#callWatch(this.#parked[index * HANDLE_WORDS]!);
  }

  #callWatch(handle: Waitable): void {
    for (const watch of this.#watches) if (watch.waitable === handle) watch.readable();
  }
}
