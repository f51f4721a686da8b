/** The loop's one wait on Windows: WaitForMultipleObjects, with an event of its own to end it early. */

import type { Waitable } from "../../lib/core/mod.ts";
import type { Waiter } from "../waiter.ts";
import { kernel32 } from "./kernel32.ts";
import { win32Error } from "./win32_error.ts";

// Specification
/** winnt.h: MAXIMUM_WAIT_OBJECTS. */
const MAXIMUM_WAIT_OBJECTS = 64;
const WAIT_OBJECT_0 = 0;
const INFINITE = 0xffff_ffff;
/** A HANDLE has 64 bits, of which the upper half is 0 (32 are significant). */
const HANDLE_WORDS = 2;

// Implementation
/** The longest timer (milliseconds). */
const MAX_TIMEOUT = 0x7fff_ffff;
/** How often a full ring is tried again at once, giving way to other threads, before it is tried by time. */
const QUICK_RETRIES = 64;
/** How long a wait takes then (milliseconds); Windows' clock makes up to 16 of it. */
const RETRY = 1;

interface Watch {
  readonly waitable: Waitable;
  readonly readable: () => void;
}

/** This thread's waiters: whose waits may look at a handle that is about to be closed. */
const waiters = new Set<EventWaiter>();

/** Settled when no wait looks at a handle any more, so that it may be closed. Nobody may add it again. */
export async function letGo(waitable: Waitable): Promise<void> {
  await Promise.all(Array.from(waiters, (waiter) => waiter.forget(waitable)));
}

/**
 * WaitForMultipleObjects over the handles of a loop. There is no waiting for room to write: while something is to
 * be written, waits are short.
 *
 * The events of Wintun and of sockets reset themselves when a wait ends with them. So what a wait beside this
 * thread has taken, while nobody awaited it, is remembered for the next wait, which ends at once.
 */
export class EventWaiter implements Waiter {
  readonly #kernel32 = kernel32();
  readonly #stop: bigint;
  readonly #watches = new Set<Watch>();
  /** The stop event, and the handles asked for behind it. */
  readonly #wanted = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  /** The same memory, without the stop event: what `wait` uses. */
  readonly #wantedHere = this.#wanted.subarray(HANDLE_WORDS);
  #wantedCount = 1;
  /** What a wait beside this thread is looking at; its memory belongs to it until it ends. */
  readonly #parked = new Uint32Array(MAXIMUM_WAIT_OBJECTS * HANDLE_WORDS);
  #parkedCount = 0;
  #parking: Promise<void> | undefined;
  /** Whether a wait has taken a handle's signal, and the loop has not looked since. */
  #taken = false;
  #writes = false;
  #retries = 0;
  #wake: (() => void) | undefined;
  #woken = false;
  #closed = false;

  /** @throws {DriverError} when the process can have no more handles. */
  constructor() {
    const { CreateEventW, GetLastError } = this.#kernel32;
    const stop = CreateEventW(null, 0, 0, null);
    if (stop === 0) throw win32Error("make the loop's event", "CreateEventW", GetLastError());
    this.#stop = BigInt(stop);
    this.#wanted[0] = stop;
    waiters.add(this);
  }

  /** Forgets which handles to look at. */
  clear(): void {
    this.#wantedCount = 1;
    if (!this.#writes) this.#retries = 0;
    this.#writes = false;
    // In front: a wait tells the first one that is set alone, and packets may come without end.
    for (const { waitable } of this.#watches) this.add(waitable, true, false);
  }

  /** Looks at a handle in the next wait; something to write makes that a short one. */
  add(waitable: Waitable, read: boolean, write: boolean): number {
    if (write) this.#writes = true;
    if (!read) return 0;
    if (this.#wantedCount >= MAXIMUM_WAIT_OBJECTS) {
      throw new RangeError(`Cannot wait for more than ${MAXIMUM_WAIT_OBJECTS - 1} handles`);
    }
    this.#wanted[this.#wantedCount++ * HANDLE_WORDS] = waitable;
    return 0;
  }

  /** A wait tells one handle alone, and others may be set. */
  isReady(): boolean {
    return true;
  }

  /** Looks at a handle in every wait, from the next {@linkcode EventWaiter.clear} on. */
  watch(waitable: Waitable, readable: () => void): () => void {
    const watch = { waitable, readable };
    this.#watches.add(watch);
    return () => this.#watches.delete(watch);
  }

  /** Calls back the watches that are ready. */
  look(): void {
    if (this.#watches.size === 0) return;
    this.clear();
    this.wait(0);
  }

  /** Blocks the thread. */
  wait(milliseconds: number): boolean {
    // A wait beside this thread would take the events that this one is for.
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

  /** Waits beside the thread. */
  async park(milliseconds: number): Promise<boolean> {
    this.#woken = false;
    if (this.#takeSignal()) return true;
    // A wait that still looks at the same handles goes on; another set has to replace it.
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
    // Whoever awaited this looks at everything now.
    this.#taken = false;
    return ready;
  }

  /** Ends a `park`. */
  wake(): void {
    this.#woken = true;
    this.#wake?.();
  }

  /** Looks at a handle no longer; settled when no wait does. */
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

  /** Ends the wait that may be under way and closes the event when it has ended. */
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
    if (this.#retries >= QUICK_RETRIES) return RETRY;
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
    const index = await this.#kernel32.waitElsewhere(count, this.#parked, 0, INFINITE) - WAIT_OBJECT_0;
    this.#parking = undefined;
    if (index === 0) return;
    // A wait that fails, too, has the loop look: an end may be gone.
    this.#taken = true;
    if (index < count) this.#callWatch(this.#parked[index * HANDLE_WORDS]!);
  }

  #callWatch(handle: Waitable): void {
    for (const watch of this.#watches) if (watch.waitable === handle) watch.readable();
  }
}
