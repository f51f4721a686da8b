/**
 * A process of `parking`: it waits for messages in one of the {@linkcode WAYS}, which its argument names.
 *
 *     peers/parking.c, send ─► pipe ─► spin, poll, park, a worker, ... ─► inbox: how old is it?
 *
 * It prints the path of the pipe's end for writing, and at the end of each series of messages a {@linkcode Series}.
 */

import { setImmediate } from "node:timers";
import { libc, posix } from "../../driver/linux/libc.ts";
import { Uring } from "../../driver/linux/queue/uring.ts";
import { addressOf } from "../../driver/native_memory.ts";
import { openWakeupEnds } from "../../driver/posix/wakeup.ts";
import { PollWaiter } from "../../driver/posix/waiter.ts";
import { Breath, Loop } from "../../runtime/engine/loop.ts";
import type { Order } from "./_parking_worker.ts";
import { Cell } from "./_parking_worker.ts";
import { monotonicTime, processorTime } from "./measure.ts";

// Specification
/** A message is a struct timespec (time.h), in words of 32 bits. */
const Message = { Seconds: 0, Nanoseconds: 2, Words: 4 } as const;

// Implementation
/** Messages that are taken at once. */
const BATCH = 64;
/** Milliseconds between two turns of the event loop: runtime/engine/loop.ts's burst. */
const SLICE = 8;
/** How long "spin 50 us, poll" spins (milliseconds). */
const BRIEFLY = 0.05;

/** What came of a series of messages. */
export interface Series {
  /** From the write of each message to when it was taken, on the thread of the loop (nanoseconds). */
  readonly latencies: number[];
  /** The processor time of all threads between the first message and the end (nanoseconds). */
  readonly processor: number;
}

/** A pipe out of which messages are taken. */
class Inbox {
  /** What to wait for. */
  readonly descriptor: number;
  /** What was read last. */
  readonly messages = new Int32Array(BATCH * Message.Words);
  readonly #read = libc().readInto;
  readonly #size = BigInt(this.messages.byteLength);
  #latencies: number[] | undefined;
  #start = 0;

  constructor() {
    const { from, to } = openWakeupEnds(posix());
    this.descriptor = from;
    console.log(`/proc/${Deno.pid}/fd/${to}`);
  }

  /** Takes what is there; returns whether anything was. */
  take(latency?: number): boolean {
    const bytes = this.#read(this.descriptor, this.messages, this.#size);
    if (bytes <= 0) return false;
    this.took(bytes, latency);
    return true;
  }

  /** So many bytes were read into `messages`; `latency` is noted instead of their age. */
  took(bytes: number, latency?: number): void {
    const now = monotonicTime();
    const end = bytes / Int32Array.BYTES_PER_ELEMENT;
    for (let word = 0; word < end; word += Message.Words) {
      const seconds = this.messages[word + Message.Seconds]!;
      if (seconds === 0) this.#finish();
      else if (this.#latencies === undefined) this.#begin();
      else this.#latencies.push(latency ?? now - seconds * 1e9 - this.messages[word + Message.Nanoseconds]!);
    }
  }

  #begin(): void {
    this.#start = processorTime(Deno.pid);
    this.#latencies = [];
  }

  #finish(): void {
    const processor = processorTime(Deno.pid) - this.#start;
    const series: Series = { latencies: this.#latencies ?? [], processor };
    this.#latencies = undefined;
    console.log(JSON.stringify(series));
  }
}

/** Waits for messages and takes them, for good. */
type Way = (inbox: Inbox) => Promise<never>;

/** The ways of waiting, by their names in the report. */
export const WAYS = {
  "spin": (inbox) => inSlices(() => void inbox.take()),

  "poll": (inbox) => {
    const waiter = new PollWaiter(posix());
    return inSlices((left) => {
      look(waiter, inbox.descriptor);
      if (waiter.wait(left)) inbox.take();
    });
  },

  "spin 50 us, poll": (inbox) => {
    const waiter = new PollWaiter(posix());
    return inSlices((left) => {
      const end = performance.now() + BRIEFLY;
      do {
        if (inbox.take()) return;
      } while (performance.now() < end);
      look(waiter, inbox.descriptor);
      if (waiter.wait(left)) inbox.take();
    });
  },

  "io_uring": async (inbox) => {
    const ring = Uring.open(8, 1);
    if (ring === undefined) throw new Deno.errors.NotSupported("Cannot open io_uring");
    ring.registerBuffers();
    const address = addressOf(inbox.messages);
    const provide = () => {
      ring.provide(0, address, inbox.messages.byteLength);
      ring.publish();
    };
    const completions = {
      received(_buffer: number, bytes: number) {
        inbox.took(bytes);
        provide();
      },
      readEnded: () => ring.read(inbox.descriptor, 1),
      written() {},
    };
    provide();
    ring.read(inbox.descriptor, 1);
    let due = performance.now() + SLICE;
    for (;;) {
      ring.enter(1);
      ring.reap(completions);
      if (performance.now() < due) continue;
      await turn();
      due = performance.now() + SLICE;
    }
  },

  "poll beside the thread": async (inbox) => {
    const waiter = new PollWaiter(posix());
    for (;;) if (await parked(waiter, inbox.descriptor)) inbox.take();
  },

  "worker, Atomics.wait": async (inbox) => {
    const { cell, again } = await openWorker(inbox, false);
    return await inSlices((left) => {
      if (Atomics.wait(cell, 0, Cell.Polling, left) === "timed-out") return;
      inbox.take();
      again();
    });
  },

  "worker, waitAsync": async (inbox) => {
    const { cell, again } = await openWorker(inbox, false);
    for (;;) {
      await Atomics.waitAsync(cell, 0, Cell.Polling).value;
      inbox.take();
      again();
    }
  },

  "worker, postMessage": async (inbox) => {
    const { worker, again } = await openWorker(inbox, true);
    worker.onmessage = () => {
      inbox.take();
      again();
    };
    return await forever();
  },

  "the loop": async (inbox) => {
    const loop = new Loop();
    await loop.acquire(true);
    loop.join({
      name: "inbox",
      due: Infinity,
      waitable: true,
      busyPoll: 0,
      breathe: () => inbox.take() ? Breath.Moved : Breath.Idle,
      arm: (waiter) => void waiter.add(inbox.descriptor, true, false),
      fail(error) {
        throw error;
      },
    });
    return await forever();
  },

  "PollWaiter.wake()": (inbox) =>
    timeEnd(inbox, async (waiter, end) => {
      waiter.wake();
      await end;
    }),

  "PollWaiter's pipe": (inbox) => timeEnd(inbox, (waiter, _end, descriptor) => waiter.forget(descriptor)),
} as const satisfies Record<string, Way>;

/** What waits on this thread, with a turn of the event loop at times; `wait` is told how long at the most. */
async function inSlices(wait: (milliseconds: number) => void): Promise<never> {
  for (;;) {
    const end = performance.now() + SLICE;
    for (let left = SLICE as number; left > 0; left = end - performance.now()) wait(left);
    await turn();
  }
}

/** How long a `park` for what never comes takes to end, with each message that another one waits for. */
async function timeEnd(
  inbox: Inbox,
  finish: (waiter: PollWaiter, end: Promise<boolean>, descriptor: number) => Promise<void>,
): Promise<never> {
  const { from: never } = openWakeupEnds(posix());
  const waiter = new PollWaiter(posix());
  const messages = new PollWaiter(posix());
  for (;;) {
    const end = parked(waiter, never);
    await parked(messages, inbox.descriptor);
    const start = monotonicTime();
    await finish(waiter, end, never);
    inbox.take(monotonicTime() - start);
    await end;
  }
}

function look(waiter: PollWaiter, descriptor: number): void {
  waiter.clear();
  waiter.add(descriptor, true, false);
}

function parked(waiter: PollWaiter, descriptor: number): Promise<boolean> {
  look(waiter, descriptor);
  return waiter.park(Infinity);
}

/** Starts a worker that polls; `again` has it go on. */
async function openWorker(inbox: Inbox, posts: boolean) {
  const cell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const worker = new Worker(new URL("_parking_worker.ts", import.meta.url), { type: "module" });
  const order: Order = { descriptor: inbox.descriptor, cell, posts };
  await new Promise((resolve) => worker.onmessage = resolve);
  worker.postMessage(order);
  const again = () => {
    Atomics.store(cell, 0, Cell.Polling);
    Atomics.notify(cell, 0);
  };
  return { worker, cell, again };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function forever(): Promise<never> {
  return new Promise(() => {});
}

if (import.meta.main) await WAYS[Deno.args[0] as keyof typeof WAYS](new Inbox());
