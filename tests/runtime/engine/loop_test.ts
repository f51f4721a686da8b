/** The loop: its members, bursts, turns and rests. */

import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { ManualClock } from "../../../lib/core/mod.ts";
import type { Waiter } from "../../../driver/mod.ts";
import { Breath, Loop, type LoopMember } from "../../../runtime/engine/loop.ts";
import { WakeWaiter } from "../../../runtime/engine/wake_waiter.ts";

/** A member that has work for some breaths, then leaves. */
class Worker implements LoopMember {
  readonly name: string;
  readonly due: number = Infinity;
  readonly waitable = false;
  readonly busyPoll = 0;
  breaths: number[] = [];
  failure: unknown;
  readonly ended = Promise.withResolvers<void>();
  readonly #loop: Loop;
  readonly #breathe: (breath: number, now: number) => boolean | "leave";

  constructor(name: string, loop: Loop, breathe: (breath: number, now: number) => boolean | "leave") {
    this.name = name;
    this.#loop = loop;
    this.#breathe = breathe;
    loop.join(this);
  }

  breathe(now: number): Breath {
    this.breaths.push(now);
    const outcome = this.#breathe(this.breaths.length, now);
    if (outcome !== "leave") return outcome ? Breath.More : Breath.Idle;
    this.#loop.leave(this);
    this.ended.resolve();
    return Breath.Idle;
  }

  arm(): void {
  }

  fail(error: unknown): void {
    this.failure = error;
    this.#loop.leave(this);
    this.ended.resolve();
  }
}

Deno.test("Loop serves every member in each breath", async () => {
  const loop = new Loop();
  const members = ["a", "b"].map((name) => new Worker(name, loop, (breath) => breath < 40 ? true : "leave"));
  await Promise.all(members.map(({ ended }) => ended.promise));
  assert.deepEqual(members.map(({ breaths }) => breaths.length), [40, 40]);
});

Deno.test("Loop gives the event loop a turn after 16 breaths, and after a millisecond", async () => {
  for (const [step, most] of [[0, 16], [0.25, 4]] as const) {
    const clock = new ManualClock();
    const loop = new Loop(clock);
    const atTurn: number[] = [];
    const worker = new Worker("busy", loop, (breath) => {
      clock.advance(step);
      return breath < 200 ? true : "leave";
    });
    const observe = () => {
      atTurn.push(worker.breaths.length);
      if (worker.breaths.length < 200) setImmediate(observe);
    };
    setImmediate(observe);
    await worker.ended.promise;
    // A turn that looks at sockets is several of the observer's, or none.
    const turns = [...new Set(atTurn)].filter((breaths) => breaths > 0 && breaths < 200);
    assert.deepEqual(turns.filter((breaths) => breaths % most !== 0), []);
    assert.ok(turns.length >= 200 / most / 2, `other code ran after ${turns} breaths`);
  }
});

Deno.test("Loop rests until a member wakes it, or its tick is due", async () => {
  class Sleeper extends Worker {
    #rests = Promise.withResolvers<void>();

    /** Settled when the loop next waits. */
    get rests(): Promise<void> {
      return this.#rests.promise;
    }

    override arm(): void {
      this.#rests.resolve();
      this.#rests = Promise.withResolvers();
    }
  }

  const clock = new ManualClock();
  const loop = new Loop(clock);
  const sleeper = new Sleeper("sleeper", loop, (breath) => breath < 4 ? false : "leave");
  const assertRests = async (breaths: number) => {
    await sleeper.rests;
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(sleeper.breaths.length, breaths);
  };
  await assertRests(1);
  loop.wake();
  await assertRests(2);
  Object.assign(sleeper, { due: clock.now() + 1 });
  loop.wake();
  await sleeper.rests;
  assert.equal(sleeper.breaths.length, 3);
  await sleeper.ended.promise;
});

Deno.test("Loop fails a member that throws, and goes on with the others", async () => {
  const loop = new Loop();
  const good = new Worker("good", loop, (breath) => breath < 10 ? true : "leave");
  const bad = new Worker("bad", loop, () => {
    loop.heartbeat.cells[1] = loop.heartbeat.name("nat");
    throw new Error("boom");
  });
  await Promise.all([good.ended.promise, bad.ended.promise]);
  assert.equal(good.breaths.length, 10);
  assert.match(String(bad.failure), /^Error: Cannot go on with "bad": stage "nat" threw: boom$/);
  assert.equal(loop.heartbeat.cells[1], 0);
});

Deno.test("Loop starts anew after its last member left", async () => {
  const loop = new Loop();
  for (let round = 0; round < 3; round++) {
    const member = new Worker("again", loop, () => "leave");
    await member.ended.promise;
  }
});

Deno.test("Loop ends in the breath in which its last member leaves, woken or not", async () => {
  const loop = new Loop();
  for (let round = 0; round < 3; round++) {
    const member = new Worker("last", loop, () => {
      loop.wake();
      return "leave";
    });
    await member.ended.promise;
    await loop.acquire(false);
    await loop.release([]);
  }
});

/** A wait in virtual time, for a descriptor that gets packets at given times. */
class VirtualWaiter extends (WakeWaiter as new () => Waiter) {
  readonly waits: number[] = [];
  parks = 0;
  readonly #clock: ManualClock;
  readonly #arrivals: number[];

  constructor(clock: ManualClock, arrivals: number[]) {
    super();
    this.#clock = clock;
    this.#arrivals = arrivals;
  }

  /** Takes the packets that have arrived; returns whether there were any. */
  take(): boolean {
    const now = this.#clock.now();
    const count = this.#arrivals.filter((time) => time <= now).length;
    return this.#arrivals.splice(0, count).length > 0;
  }

  override wait(milliseconds: number): boolean {
    this.waits.push(milliseconds);
    const now = this.#clock.now();
    const next = this.#arrivals[0] ?? Infinity;
    this.#clock.advance(Math.min(Math.max(0, next - now), milliseconds));
    return next <= now + milliseconds;
  }

  override async park(): Promise<boolean> {
    this.parks++;
    this.#clock.advance(Math.max(0, (this.#arrivals[0] ?? Infinity) - this.#clock.now()));
    return await Promise.resolve(true);
  }
}

/** Breathes on a loop in virtual time until the last packet has arrived, and for `milliseconds` after it. */
async function breatheFor(milliseconds: number, arrivals: number[], { busyPoll = 0, step = 0 } = {}) {
  const clock = new ManualClock();
  const waiter = new VirtualWaiter(clock, [...arrivals]);
  const loop = new Loop(clock, () => Promise.resolve(waiter));
  const last = arrivals.at(-1)!;
  const breaths: number[] = [];
  const taken: number[] = [];
  await loop.acquire(true);
  const ended = Promise.withResolvers<void>();
  const member: LoopMember = {
    name: "descriptor",
    due: Infinity,
    waitable: true,
    busyPoll,
    breathe(now) {
      clock.advance(step);
      breaths.push(now);
      if (now >= last + milliseconds && taken.length > 0) {
        loop.leave(member);
        ended.resolve();
      }
      if (!waiter.take()) return Breath.Idle;
      taken.push(now);
      return Breath.Moved;
    },
    arm: () => {},
    fail: ended.reject,
  };
  loop.join(member);
  await ended.promise;
  await loop.release([]);
  return { breaths, taken, waiter };
}

Deno.test("Loop breathes every 2 ms for 1.5 s after a packet, so that its code stays in the caches", async () => {
  const { breaths, waiter } = await breatheFor(1490, [10]);
  assert.ok(Math.max(...waiter.waits) <= 2, `waited for ${Math.max(...waiter.waits)} ms`);
  const since = breaths.filter((time) => time >= 10);
  const pauses = since.slice(1).map((time, i) => time - since[i]!);
  assert.ok(Math.max(...pauses) <= 2, `no breath for ${Math.max(...pauses)} ms`);
  // The budget: a wake-up of an idle processor takes 40 to 80 us of its time, so 750 take 3 to 6 % for 1.5 s.
  assert.ok(breaths.length <= 1490 / 2 + 1490 / 8 + 10, `${breaths.length} breaths`);
});

Deno.test("Loop parks 1.5 s after the last packet", async () => {
  const { waiter, breaths } = await breatheFor(0, [10, 5000]);
  assert.equal(waiter.parks, 2, "before the first packet, and before the second");
  assert.ok(Math.max(...breaths.filter((time) => time < 5000)) <= 10 + 1500 + 2);
});

Deno.test("Loop with busyPoll waits only when that time has passed since the last packet", async () => {
  const arrivals = [1, 3, 6, 10];
  const spinning = await breatheFor(4, arrivals, { busyPoll: 5, step: 0.01 });
  assert.deepEqual(spinning.waiter.waits, []);
  assert.deepEqual(spinning.taken.map(Math.round), arrivals);
  const waiting = await breatheFor(4, arrivals, { step: 0.01 });
  assert.ok(waiting.waiter.waits.length >= arrivals.length);
});
