/**
 * The loop that moves the packets of all tunnels of a thread; each thread has one.
 *
 *     burst ── breathes every tunnel, repeatedly while packets move; waits on this thread while traffic is recent
 *       │        a breath: read a bounded batch, run the stages, write; the other direction; due ticks
 *       ▼
 *     turn ─── of Deno's event loop, for signals, timers and other code of the script: every 8 to 12 ms, or
 *       │      every 1 ms or 16 breaths if an end uses Deno's sockets
 *       ▼
 *     rest ─── without recent traffic, or with an end on Deno's sockets: an asynchronous wait for ends and ticks
 */

import { setImmediate } from "node:timers";
import { errorMessage } from "../../driver/error.ts";
import { openWaiter, type Waiter } from "../../driver/mod.ts";
import { type Clock, PacketPool, type Waitable } from "../../lib/core/mod.ts";
import { Heartbeat } from "./heartbeat.ts";
import { WakeWaiter } from "./wake_waiter.ts";

export type { Heartbeat } from "./heartbeat.ts";

// Implementation
/**
 * Maximum time that signals and timers wait under load. A turn of the event loop takes 40 to 130 us: at 20,000 packets
 * per second, one turn per millisecond took a third of the loop's time.
 */
const BURST = { breaths: 1024, milliseconds: 8 } as const;
/**
 * Maximum time that a due turn waits for a gap in the traffic (milliseconds). A gap begins `REPLY_TIME` after the last
 * packet, because a reply to it would otherwise wait for the turn: round trips of pings in step with turns doubled.
 */
const MAX_TURN_DELAY = 4;
const REPLY_TIME = 1;
/** Burst of a loop with an end on Deno's sockets, whose packets move only during turns. */
const SOCKET_BURST = { breaths: 16, milliseconds: 1 } as const;
/** Interval between polls of the watched descriptors under load (milliseconds). */
const WATCH_INTERVAL = 10;
/**
 * Number of consecutive waits that end at once although no packet can move, after which the loop pauses instead of
 * spinning; and the pause (milliseconds). Example: the device has been removed while the far end is full.
 */
const EMPTY_WAITS = 4;
const EMPTY_WAIT_PAUSE = 10;
/**
 * Turns between polls of Deno's sockets while the loop is busy and an end uses one; and the maximum interval between
 * polls in any loop, for signals and the script's own sockets (milliseconds). A poll takes two changes of thread.
 */
const SOCKET_TURNS = 4;
const SOCKET_POLL_INTERVAL = 64;
/**
 * Maximum wait within a burst (milliseconds). The code and data of a breath that has not run for longer have left the
 * processor's caches: pings 10 ms apart take 150 us with waits of up to 8 ms, 115 us with 2 ms, 120 us with 4 ms
 * (`deno task bench latency`). The additional breaths cost 0.5 % of a processor.
 */
const WARM_INTERVAL = 2;
/**
 * Time after the last packet for which the loop waits on this thread (milliseconds).
 *
 * With packets 10 ms apart, a wait on this thread wakes up within 55 to 65 us. An asynchronous wait, which involves two
 * threads and Deno's event loop, takes 185 us. One ping per second took 194 us instead of 370 us (`deno task bench
 * latency`). Waiting on this thread uses 2 to 3 % of a processor, an asynchronous wait none.
 *
 * The alternatives were no better (`deno task bench parking`). A polling worker wakes the loop within 90 to 165 us with
 * Atomics.wait, 145 to 240 us with Atomics.waitAsync, 235 to 330 us with postMessage; io_uring takes 55 to 75 us.
 * Spinning takes 10 to 20 us and a whole processor. Spinning for 50 us before each wait quadrupled the processor time
 * at 5,000 packets per second and shortened no wait.
 */
const IDLE_AFTER = 1500;

const NOTHING = new Uint8Array(0);

/** Next step after a burst: a turn under load, a turn, a rest, or a pause when ready descriptors bring no packets. */
const After = { BusyTurn: 0, Turn: 1, Rest: 2, Pause: 3 } as const;
type After = typeof After[keyof typeof After];

/** Result of a breath: `Idle` if no packet moved; `More` if the next breath can probably move packets at once. */
export const Breath = { Idle: 0, Moved: 1, More: 2 } as const;
/** See {@linkcode Breath}. */
export type Breath = typeof Breath[keyof typeof Breath];

/** A tunnel as the loop sees it. */
export interface LoopMember {
  /** Name for messages. */
  readonly name: string;
  /** Time of the next tick (monotonic milliseconds). */
  readonly due: number;
  /** True if this thread can wait for each end through a descriptor. */
  readonly waitable: boolean;
  /** Time after the last packet for which the loop breathes without waiting (milliseconds). */
  readonly busyPoll: number;
  /** Performs one breath; after a wait, reads only the ends that were ready. */
  breathe(now: number, waited: Waiter | undefined): Breath;
  /** Adds its descriptors to the wait. */
  arm(waiter: Waiter): void;
  /** Ends the tunnel after its breath threw. */
  fail(error: unknown): void;
}

/**
 * The loop of one thread. A program that embeds Warren, and a test, can pass one with its own clock to `openTunnel`: ticks
 * of stages, and times in their contexts, are then in that clock's time. Descriptors and sockets stay in real time.
 *
 * @example One hour of a stage, in no time
 * ```ts
 * import assert from "node:assert/strict";
 * import { openTunnel, type StageContext } from "@warren/tunnel";
 * import { ManualClock } from "@warren/tunnel/core";
 * import { Loop } from "@warren/tunnel/loop";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 *
 * const clock = new ManualClock();
 * const loop = new Loop(clock);
 * const { promise, resolve } = Promise.withResolvers<number>();
 * const tick = ({ now }: StageContext): number => {
 *   if (now > 0) resolve(now);
 *   return 3_600_000;
 * };
 * const [device] = MemoryDevice.pair();
 * await using tunnel = await openTunnel({ device, loop, stages: [{ name: "hourly", tick }] });
 * tunnel.run();
 * clock.advance(3_600_000);
 * loop.wake();
 * assert.equal(await promise, 3_600_000);
 * ```
 */
export class Loop {
  /** Pool of the packets of all tunnels. */
  readonly pool: PacketPool = new PacketPool();
  /** Signs of life for the watchdog. */
  readonly heartbeat: Heartbeat = new Heartbeat();

  /** Start time of the current breath, or of the last one (monotonic milliseconds). */
  now = 0;

  readonly #clock: Clock;
  readonly #openWaiter: () => Promise<Waiter>;
  readonly #members: LoopMember[] = [];
  #waiter: Waiter = new WakeWaiter();
  /** True while the waiter waits for descriptors. */
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
  /** Time after the last packet for which the loop spins; the longest of its members' (milliseconds). */
  #busyPoll = 0;
  #endPause: (() => void) | undefined;

  /**
   * Creates a loop that reads the clock once per breath.
   *
   * @param open Opens the wait for descriptors.
   */
  constructor(clock: Clock = performance, open: () => Promise<Waiter> = openWaiter) {
    this.#clock = clock;
    this.#openWaiter = open;
    this.pool.onRoom = () => this.wake();
  }

  /** Adds an open tunnel. `needsWait` is true if any of its ends has a descriptor, which the loop then waits for. */
  async acquire(needsWait: boolean): Promise<void> {
    if (needsWait && !this.#waits) {
      const waiter = await this.#openWaiter();
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
   * Removes a closed tunnel and its descriptors. Resolves when no wait refers to the descriptors and no turn is in
   * progress. The loop waits for descriptors until its last tunnel is removed.
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

  /** Calls `readable` whenever a descriptor is readable, until the returned function is called. */
  watch(waitable: Waitable, readable: () => void): () => void {
    return this.#waiter.watch(waitable, readable);
  }

  /** Starts to serve a tunnel. */
  join(member: LoopMember): void {
    this.#members.push(member);
    this.#busyPoll = Math.max(this.#busyPoll, member.busyPoll);
    this.wake();
    this.#running ??= this.#run();
  }

  /** Stops serving a tunnel. */
  leave(member: LoopMember): void {
    const index = this.#members.indexOf(member);
    if (index >= 0) this.#members.splice(index, 1);
    this.#busyPoll = Math.max(0, ...this.#members.map(({ busyPoll }) => busyPoll));
    this.wake();
  }

  /** Requests a breath of every tunnel. */
  wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    this.#waiter.wake();
    this.#endPause?.();
  }

  async #run(): Promise<void> {
    // The caller of join() may have to run more code before the first packet.
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
      // Breaths and turns do not throw, so the wait has failed and no tunnel can continue.
      for (const member of [...this.#members]) member.fail(error);
    } finally {
      this.#running = undefined;
    }
  }

  /** Breathes while packets move, waiting for them on this thread; returns the next step. */
  #burst(): After {
    const waitable = this.#waitable;
    const { breaths, milliseconds } = waitable ? BURST : SOCKET_BURST;
    let now = this.#clock.now();
    // A turn is due from here on, since rests need not include one: `wake` can end each of them at once.
    const end = this.#lastTurn + milliseconds;
    let waited: Waiter | undefined;
    for (let breath = 0; breath < breaths;) {
      const came = this.#breatheAll(now, waited);
      waited = undefined;
      const isIdle = came < Breath.More && !this.#woken;
      const spins = isIdle && now - this.#lastWork < this.#busyPoll;
      if (!spins) breath++;
      if (isIdle && !spins) {
        // Checked again, because the last breath may have made a stage wait for a promise.
        if (!this.#waitable || now - this.#lastWork >= IDLE_AFTER) return now < end ? After.Rest : After.Turn;
        const due = this.#arm();
        const until = Math.max(end, Math.min(this.#lastWork + REPLY_TIME, end + MAX_TURN_DELAY));
        const next = Math.min(until, due, now + WARM_INTERVAL);
        if (this.#waiter.wait(Math.max(0, next - now))) {
          if (++this.#emptyWaits > EMPTY_WAITS) return After.Pause;
          waited = this.#waiter;
        } else if (next === until && until < due) return After.Turn;
      }
      now = this.#clock.now();
      if (now >= end && (came === Breath.More || !waitable || now >= end + MAX_TURN_DELAY)) break;
    }
    return After.BusyTurn;
  }

  /** Breathes every tunnel once. */
  #breatheAll(now: number, waited: Waiter | undefined): Breath {
    this.now = now;
    this.#woken = false;
    this.heartbeat.beat();
    let max: Breath = Breath.Idle;
    for (let i = this.#members.length - 1; i >= 0; i--) {
      // A breath may have ended several tunnels.
      const member = this.#members[i];
      if (member === undefined) continue;
      const came = this.#breathe(member, now, waited);
      if (came > max) max = came;
    }
    if (max > Breath.Idle) {
      this.#lastWork = now;
      this.#emptyWaits = 0;
    }
    // The wait was not empty if an end requested another breath, as ends that refuse packets do.
    if (this.#woken) this.#emptyWaits = 0;
    return max;
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

  /** True if packets arrive only through descriptors. */
  get #waitable(): boolean {
    if (!this.#waits || this.#members.length === 0) return false;
    for (const { waitable } of this.#members) if (!waitable) return false;
    return true;
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

  /** Waits for 10 ms or until a breath is requested, ignoring descriptors. */
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

/** Returns a message for the errors of V8 and Deno about buffers that cannot be transferred; otherwise `undefined`. */
function transferMessage(error: unknown): string | undefined {
  return error instanceof TypeError && /detachable|transferable/.test(error.message)
    ? "Cannot transfer a packet's memory: the pool owns it: transfer a copy, packet.data.slice()"
    : undefined;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Runs a turn in which Deno also polls its sockets. A thread that always has work polls them only every 61st turn
 * (tokio's event interval), so packets would wait for up to 60 ms. A thread that waits for a task in Deno's thread pool
 * is idle and polls: the digest of no bytes is the shortest such task without a permission (70 to 350 us).
 */
async function turnWithSockets(): Promise<void> {
  await crypto.subtle.digest("SHA-256", NOTHING);
}

let threadLoop: Loop | undefined;

/** Returns the loop of this thread. */
export function currentLoop(): Loop {
  return threadLoop ??= new Loop();
}
