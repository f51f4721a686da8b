/**
 * The loop: one a thread, for every open tunnel.
 *
 *     burst ── breathe every tunnel, again while there is more, and wait on this thread while packets came lately
 *       │        a breath: inhale a bounded batch, stages, exhale; the other direction; due ticks
 *       ▼
 *     turn ─── of Deno's event loop, every 8 to 12 ms: signals, timers, other code of the script;
 *       │      every 1 ms or 16 breaths with an end that is made of Deno's sockets
 *       ▼
 *     rest ─── no packets lately, or such an end: one wait over all ends beside the thread, until the next tick is due
 */

import { setImmediate } from "node:timers";
import { errorMessage } from "../../driver/error.ts";
import { openWaiter, type Waiter } from "../../driver/mod.ts";
import { type Clock, PacketPool, type Waitable } from "../../lib/core/mod.ts";
import { Heartbeat } from "./heartbeat.ts";
import { WakeWaiter } from "./wake_waiter.ts";

// Implementation
/**
 * The longest that everything else on the thread waits while packets come: signals, timers. A turn of the event loop
 * costs 40 to 130 us in between: with 20,000 packets a second, one each millisecond was a third of the loop's time.
 */
const BURST = { breaths: 1024, milliseconds: 8 } as const;
/**
 * A turn that is due waits for a moment without packets, for so long at the most (milliseconds): what answers the last
 * packet comes within `ANSWER`, and would wait for the turn. With pings and turns in step, pings took twice as long.
 */
const MAX_TURN_DELAY = 4;
const ANSWER = 1;
/** The same with an end that is made of Deno's sockets: packets come and go in those turns. */
const SOCKET_BURST = { breaths: 16, milliseconds: 1 } as const;
/** How often the watches are looked at while packets come (milliseconds). */
const WATCH_INTERVAL = 10;
/**
 * Waits that end at once though no packet can move: after so many in a row, as with a device that was removed
 * while its far end is full, the loop waits for a while (milliseconds) instead of spinning.
 */
const EMPTY_WAITS = 4;
const EMPTY_WAIT_PAUSE = 10;
/**
 * Turns after which Deno looks at its sockets, while the loop is busy and an end is made of one; and how often it looks at
 * all, for signals and the script's own sockets (milliseconds).
 */
const SOCKET_TURNS = 4;
const SOCKET_LOOK = 16;
/**
 * How long after the last packet the loop waits on this thread (milliseconds). At 10 ms apart, packets wake it there in
 * 55 to 65 us, beside it, where two threads and Deno's event loop have a part in it, in 185 us: a ping each second took
 * 194 us instead of 370 us (`deno task bench latency`). Bursts of waiting take 1 to 2 % of a processor, a wait beside
 * the thread nothing. The other ways were no better (`deno task bench parking`): a worker that polls takes 90 to 165 us
 * by Atomics.wait, for the same bursts, 145 to 240 us by Atomics.waitAsync, 235 to 330 us by postMessage; io_uring 55 to
 * 75 us. Spinning takes 10 to 20 us and a whole processor; 50 us of it before each wait took four times the processor
 * time at 5,000 packets a second, and shortened no wait.
 */
const IDLE_AFTER = 1500;

const NOTHING = new Uint8Array(0);

/** What ends a burst: a turn is due, and packets may be waiting or none is; nothing more came; what is ready brings nothing. */
const After = { BusyTurn: 0, Turn: 1, Rest: 2, Pause: 3 } as const;
type After = typeof After[keyof typeof After];

/** What a breath came to: nothing, something, or something and there may be more at once. */
export const Breath = { Idle: 0, Moved: 1, More: 2 } as const;
/** One of {@linkcode Breath}'s values. */
export type Breath = typeof Breath[keyof typeof Breath];

/** What the loop serves. */
export interface LoopMember {
  /** What messages call it. */
  readonly name: string;
  /** When its next tick is due (monotonic milliseconds). */
  readonly due: number;
  /** Whether all of its ends have a descriptor that can be waited for on this thread. */
  readonly waitable: boolean;
  /** Moves packets, once; after a wait only from the ends that it found ready. */
  breathe(now: number, waited: Waiter | undefined): Breath;
  /** Says what to wait for. */
  arm(waiter: Waiter): void;
  /** Ends it: its breath threw. */
  fail(error: unknown): void;
}

/** The loop of a thread. */
export class Loop {
  /** Where the packets of all its tunnels live. */
  readonly pool: PacketPool = new PacketPool();
  /** What the watchdog reads. */
  readonly heartbeat: Heartbeat = new Heartbeat();

  readonly #clock: Clock;
  readonly #members: LoopMember[] = [];
  #waiter: Waiter = new WakeWaiter();
  /** Whether the waiter is the system's. */
  #waits = false;
  #tunnels = 0;
  #running: Promise<void> | undefined;
  #woken = false;
  #lastWork = -Infinity;
  #turning: Promise<void> | undefined;
  #lastTurn = 0;
  #lastLook = 0;
  #lastSockets = 0;
  #turns = 0;
  #emptyWaits = 0;
  #endPause: (() => void) | undefined;

  /** A loop that reads this clock, once a breath. */
  constructor(clock: Clock = performance) {
    this.#clock = clock;
    this.pool.onRoom = () => this.wake();
  }

  /** Counts a tunnel that is open; with a descriptor among its ends, the loop needs the system's wait. */
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
   * A tunnel is closed, with these descriptors; the last one takes the system's wait with it. Settled when nothing
   * waits for the descriptors any more, and nothing is under way.
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

  /** Has the loop's wait look at one more descriptor. */
  watch(waitable: Waitable, readable: () => void): () => void {
    return this.#waiter.watch(waitable, readable);
  }

  /** Serves a tunnel from now on. */
  join(member: LoopMember): void {
    this.#members.push(member);
    this.wake();
    this.#running ??= this.#run();
  }

  /** Serves a tunnel no longer. */
  leave(member: LoopMember): void {
    const index = this.#members.indexOf(member);
    if (index >= 0) this.#members.splice(index, 1);
    this.wake();
  }

  /** Asks for a breath. */
  wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    this.#waiter.wake();
    this.#endPause?.();
  }

  async #run(): Promise<void> {
    // Whoever joined may have more to do before its first packet.
    await turn();
    try {
      while (this.#members.length > 0) {
        const after = this.#burst();
        // The last tunnel may have ended in it.
        if (this.#members.length === 0) break;
        if (after === After.Rest) await this.#rest();
        else if (after === After.Pause) await this.#pause();
        else await this.#turn(after === After.BusyTurn);
      }
    } catch (error) {
      // Neither a breath nor a turn throws: the wait did. No tunnel can go on without it.
      for (const member of [...this.#members]) member.fail(error);
    } finally {
      this.#running = undefined;
    }
  }

  /** Breathes while there is more to do, and waits for more; returns why it stopped. */
  #burst(): After {
    const waitable = this.#waitable;
    const { breaths, milliseconds } = waitable ? BURST : SOCKET_BURST;
    let now = this.#clock.now();
    // A rest may be no turn: what wakes the loop may come without one, again and again.
    const end = this.#lastTurn + milliseconds;
    let waited: Waiter | undefined;
    for (let breath = 0; breath < breaths; breath++) {
      const came = this.#breatheAll(now, waited);
      waited = undefined;
      if (came < Breath.More && !this.#woken) {
        // The last breath may have asked for what comes another way.
        if (!this.#waitable || now - this.#lastWork >= IDLE_AFTER) return now < end ? After.Rest : After.Turn;
        const due = this.#arm();
        const until = Math.max(end, Math.min(this.#lastWork + ANSWER, end + MAX_TURN_DELAY));
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

  /** One breath of every tunnel. */
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
    // What only refused packets was no empty wait: it says so by asking for another breath.
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

  /** Whether nothing but descriptors can bring packets. */
  get #waitable(): boolean {
    return this.#waits && this.#members.every((member) => member.waitable);
  }

  /** Tells the waiter what to wait for; returns when the next tick is due. */
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

  /** What is ready brings nothing: the thread is for others a while, unless somebody asks for a breath. */
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

  /** Lets everything else on this thread run. */
  async #turn(busy: boolean): Promise<void> {
    const now = this.#clock.now();
    if (now - this.#lastLook >= WATCH_INTERVAL) {
      this.#waiter.look();
      this.#lastLook = now;
    }
    const sockets = now - this.#lastSockets >= SOCKET_LOOK ||
      busy && ++this.#turns % SOCKET_TURNS === 0 && !this.#waitable;
    if (sockets) this.#lastSockets = now;
    this.#turning = sockets ? turnWithSockets() : turn();
    await this.#turning;
    this.#turning = undefined;
    this.#lastTurn = this.#clock.now();
  }
}

/** Our words for V8's and Deno's errors about a buffer that cannot be transferred; `undefined` for other errors. */
function transferMessage(error: unknown): string | undefined {
  return error instanceof TypeError && /detachable|transferable/.test(error.message)
    ? "Cannot transfer a packet's memory: it is the pool's: transfer a copy, packet.data.slice()"
    : undefined;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * A turn in which Deno also looks at its sockets. A thread that always has something to run does that in every
 * 61st turn only (tokio's event interval): packets then wait for 60 ms. While a task of Deno's thread pool is
 * under way, it has nothing to run and looks; a digest of nothing is the shortest one that needs no permission
 * (70 to 350 us).
 */
async function turnWithSockets(): Promise<void> {
  await crypto.subtle.digest("SHA-256", NOTHING);
}

let threadLoop: Loop | undefined;

/** This thread's loop. */
export function currentLoop(): Loop {
  return threadLoop ??= new Loop();
}
