/**
 * The loop that moves the packets of all tunnels of a thread; each thread has one.
 *
 *     burst ── breathes every tunnel, again while there is more to do; waits on this thread while traffic is recent
 *       │        a breath: read a bounded batch, run the stages, write; the other direction; due ticks
 *       ▼
 *     turn ─── of Deno's event loop, every 8 to 12 ms: signals, timers, other code of the script;
 *       │      every 1 ms or 16 breaths if an end uses Deno's sockets
 *       ▼
 *     rest ─── no recent traffic, or an end on Deno's sockets: one asynchronous wait for all ends, until the next tick
 */

import { setImmediate } from "node:timers";
import { errorMessage } from "../../driver/error.ts";
import { openWaiter, type Waiter } from "../../driver/mod.ts";
import { type Clock, PacketPool, type Waitable } from "../../lib/core/mod.ts";
import { Heartbeat } from "./heartbeat.ts";
import { WakeWaiter } from "./wake_waiter.ts";

// Implementation
/**
 * Maximum time that signals and timers wait under load. A turn of the event loop costs 40 to 130 us: at 20,000 packets
 * a second, one turn each millisecond took a third of the loop's time.
 */
const BURST = { breaths: 1024, milliseconds: 8 } as const;
/**
 * Maximum delay of a due turn, which waits for a gap in the traffic (milliseconds). A reply to the last packet arrives
 * within `REPLY_TIME` and would wait for the turn: with pings in step with turns, round trips doubled.
 */
const MAX_TURN_DELAY = 4;
const REPLY_TIME = 1;
/** Burst of a loop with an end on Deno's sockets, whose packets move in turns. */
const SOCKET_BURST = { breaths: 16, milliseconds: 1 } as const;
/** Interval at which watched descriptors are polled under load (milliseconds). */
const WATCH_INTERVAL = 10;
/**
 * Waits in a row that end at once although no packet can move, as with a removed device whose far end is full; after
 * these, the loop pauses (milliseconds) instead of spinning.
 */
const EMPTY_WAITS = 4;
const EMPTY_WAIT_PAUSE = 10;
/**
 * Turns between polls of Deno's sockets, while the loop is busy and an end uses one; and the interval of polls in every
 * case, for signals and the script's own sockets (milliseconds).
 */
const SOCKET_TURNS = 4;
const SOCKET_POLL_INTERVAL = 16;
/**
 * Time after the last packet for which the loop waits on this thread (milliseconds). With packets 10 ms apart, it
 * wakes on the thread in 55 to 65 us; an asynchronous wait, which takes two threads and Deno's event loop, wakes in
 * 185 us: a ping each second took 194 us instead of 370 us (`deno task bench latency`). Waiting on the thread takes 1
 * to 2 % of a processor, an asynchronous wait nothing. The alternatives were no better (`deno task bench parking`): a
 * polling worker takes 90 to 165 us by Atomics.wait, 145 to 240 us by Atomics.waitAsync, 235 to 330 us by
 * postMessage; io_uring takes 55 to 75 us. Spinning takes 10 to 20 us and a whole processor; 50 us of it before each
 * wait quadrupled the processor time at 5,000 packets a second and shortened no wait.
 */
const IDLE_AFTER = 1500;

const NOTHING = new Uint8Array(0);

/** Reasons why a burst ends: a turn is due, under load or not; no traffic; descriptors that are ready without packets. */
const After = { BusyTurn: 0, Turn: 1, Rest: 2, Pause: 3 } as const;
type After = typeof After[keyof typeof After];

/** Result of a breath: no packet moved; packets moved; packets moved and there may be more to do at once. */
export const Breath = { Idle: 0, Moved: 1, More: 2 } as const;
/** One of the values of {@linkcode Breath}. */
export type Breath = typeof Breath[keyof typeof Breath];

/** A tunnel as the loop sees it. */
export interface LoopMember {
  /** The name in messages. */
  readonly name: string;
  /** Time of its next tick (monotonic milliseconds). */
  readonly due: number;
  /** True if each of its ends has a descriptor that this thread can wait for. */
  readonly waitable: boolean;
  /** Moves packets once; after a wait, only from the ends that were found ready. */
  breathe(now: number, waited: Waiter | undefined): Breath;
  /** Adds the descriptors to wait for. */
  arm(waiter: Waiter): void;
  /** Ends it, after its breath threw. */
  fail(error: unknown): void;
}

/** The loop of one thread. */
export class Loop {
  /** The pool of the packets of all its tunnels. */
  readonly pool: PacketPool = new PacketPool();
  /** Signs of life for the watchdog. */
  readonly heartbeat: Heartbeat = new Heartbeat();

  readonly #clock: Clock;
  readonly #members: LoopMember[] = [];
  #waiter: Waiter = new WakeWaiter();
  /** True while the waiter is the system's, for descriptors. */
  #waits = false;
  #tunnels = 0;
  #running: Promise<void> | undefined;
  #woken = false;
  #lastWork = -Infinity;
  #turning: Promise<void> | undefined;
  #lastTurn = 0;
  #lastPoll = 0;
  #lastSockets = 0;
  #turns = 0;
  #emptyWaits = 0;
  #endPause: (() => void) | undefined;

  /** Makes a loop that reads `clock` once a breath. */
  constructor(clock: Clock = performance) {
    this.#clock = clock;
    this.pool.onRoom = () => this.wake();
  }

  /** Counts an open tunnel. One with a descriptor among its ends (`needsWait`) makes the loop use the system's wait. */
  async acquire(needsWait: boolean): Promise<void> {
    if (needsWait && !this.#waits) {
      const waiter = await openWaiter();
      if (this.#waits) waiter[Symbol.dispose]();
      else {
        this.#waits = true;
        this.wake();
        this.#waiter = waiter;
      }
    }
    this.#tunnels++;
  }

  /**
   * Forgets a closed tunnel and its descriptors; with the last tunnel, the system's wait is closed. Settled when no
   * wait refers to the descriptors and no turn is in progress.
   */
  async release(waitables: readonly Waitable[]): Promise<void> {
    const waiter = this.#waiter;
    const forgotten = waitables.map((waitable) => waiter.forget(waitable));
    if (--this.#tunnels === 0) {
      waiter.wake();
      waiter[Symbol.dispose]();
      this.#waiter = new WakeWaiter();
      this.#waits = false;
    }
    await Promise.all([...forgotten, this.#turning]);
  }

  /** Adds a descriptor to the loop's wait; `readable` is called when it can be read. The returned function removes it. */
  watch(waitable: Waitable, readable: () => void): () => void {
    return this.#waiter.watch(waitable, readable);
  }

  /** Starts to serve a tunnel. */
  join(member: LoopMember): void {
    this.#members.push(member);
    this.wake();
    this.#running ??= this.#run();
  }

  /** Stops serving a tunnel. */
  leave(member: LoopMember): void {
    const index = this.#members.indexOf(member);
    if (index >= 0) this.#members.splice(index, 1);
    this.wake();
  }

  /** Requests a breath. */
  wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    this.#waiter.wake();
    this.#endPause?.();
  }

  async #run(): Promise<void> {
    // The caller of join() may have more to do before the first packet.
    await turn();
    try {
      while (this.#members.length > 0) {
        const after = this.#burst();
        // The burst may have ended the last tunnel.
        if (this.#members.length === 0) break;
        if (after === After.Rest) await this.#rest();
        else if (after === After.Pause) await this.#pause();
        else await this.#turn(after === After.BusyTurn);
      }
    } catch (error) {
      // Breaths and turns do not throw, so the wait did: no tunnel can continue.
      for (const member of [...this.#members]) member.fail(error);
    } finally {
      this.#running = undefined;
    }
  }

  /** Breathes while there is more to do, and waits for packets; returns why it stopped. */
  #burst(): After {
    const waitable = this.#waitable;
    const { breaths, milliseconds } = waitable ? BURST : SOCKET_BURST;
    let now = this.#clock.now();
    // A rest is not always a turn: the loop can be woken again and again without one.
    const end = this.#lastTurn + milliseconds;
    let waited: Waiter | undefined;
    for (let breath = 0; breath < breaths; breath++) {
      const came = this.#breatheAll(now, waited);
      waited = undefined;
      if (came < Breath.More && !this.#woken) {
        // The last breath may have made a stage wait, which no descriptor shows.
        if (!this.#waitable || now - this.#lastWork >= IDLE_AFTER) return now < end ? After.Rest : After.Turn;
        const due = this.#arm();
        const until = Math.max(end, Math.min(this.#lastWork + REPLY_TIME, end + MAX_TURN_DELAY));
        if (this.#waiter.wait(Math.max(0, Math.min(until, due) - now))) {
          if (++this.#emptyWaits > EMPTY_WAITS) return After.Pause;
          waited = this.#waiter;
        } else if (due > until) return After.Turn;
      }
      now = this.#clock.now();
      if (now >= end && (came === Breath.More || !waitable || now >= end + MAX_TURN_DELAY)) break;
    }
    return After.BusyTurn;
  }

  /** Breathes every tunnel once. */
  #breatheAll(now: number, waited: Waiter | undefined): Breath {
    this.#woken = false;
    this.heartbeat.beat();
    let most: Breath = Breath.Idle;
    for (let i = this.#members.length - 1; i >= 0; i--) {
      // A breath may end several tunnels.
      const member = this.#members[i];
      if (member === undefined) continue;
      const came = this.#breathe(member, now, waited);
      if (came > most) most = came;
    }
    if (most > Breath.Idle) {
      this.#lastWork = now;
      this.#emptyWaits = 0;
    }
    // An end that only refused packets requests another breath: the wait was not empty.
    if (this.#woken) this.#emptyWaits = 0;
    return most;
  }

  #breathe(member: LoopMember, now: number, waited: Waiter | undefined): Breath {
    try {
      return member.breathe(now, waited);
    } catch (error) {
      const place = this.heartbeat.current;
      this.heartbeat.cells[1] = 0;
      const message = `Cannot go on with "${member.name}"${this.heartbeat.worker}: ${place} threw: ${
        transferMessage(error) ?? errorMessage(error)
      }`;
      member.fail(new Error(message, { cause: error }));
      return Breath.More;
    }
  }

  /** True if packets can arrive through descriptors only. */
  get #waitable(): boolean {
    return this.#waits && this.#members.every((member) => member.waitable);
  }

  /** Adds all descriptors to the waiter; returns the time of the next tick. */
  #arm(): number {
    let due = Infinity;
    this.#waiter.clear();
    for (const member of this.#members) {
      due = Math.min(due, member.due);
      member.arm(this.#waiter);
    }
    return due;
  }

  async #rest(): Promise<void> {
    const left = Math.max(0, this.#arm() - this.#clock.now());
    const ready = await this.#waiter.park(left);
    if (ready && ++this.#emptyWaits > EMPTY_WAITS && !this.#woken) await this.#pause();
  }

  /** Leaves the thread to other code for 10 ms, or until a breath is requested: ready descriptors bring no packets. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#endPause = undefined;
        resolve();
      };
      const timer = setTimeout(end, EMPTY_WAIT_PAUSE);
      this.#endPause = end;
    });
  }

  /** Runs one turn of the event loop. */
  async #turn(busy: boolean): Promise<void> {
    const now = this.#clock.now();
    if (now - this.#lastPoll >= WATCH_INTERVAL) {
      this.#waiter.look();
      this.#lastPoll = now;
    }
    const sockets = now - this.#lastSockets >= SOCKET_POLL_INTERVAL ||
      busy && ++this.#turns % SOCKET_TURNS === 0 && !this.#waitable;
    if (sockets) this.#lastSockets = now;
    this.#turning = sockets ? turnWithSockets() : turn();
    await this.#turning;
    this.#turning = undefined;
    this.#lastTurn = this.#clock.now();
  }
}

/** Message for V8's and Deno's errors about a buffer that cannot be transferred; `undefined` for other errors. */
function transferMessage(error: unknown): string | undefined {
  return error instanceof TypeError && /detachable|transferable/.test(error.message)
    ? "Cannot transfer a packet's memory: the pool owns it: transfer a copy, packet.data.slice()"
    : undefined;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Runs a turn in which Deno also polls its sockets. A thread that always has work polls them only in every 61st turn
 * (tokio's event interval), so packets would wait for 60 ms. While a task runs in Deno's thread pool, the thread is
 * idle and polls; a digest of no bytes is the shortest such task that needs no permission (70 to 350 us).
 */
async function turnWithSockets(): Promise<void> {
  await crypto.subtle.digest("SHA-256", NOTHING);
}

let threadLoop: Loop | undefined;

/** Returns the loop of this thread. */
export function currentLoop(): Loop {
  return threadLoop ??= new Loop();
}
