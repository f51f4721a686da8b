/** The loop: its members, bursts, turns and rests. */

import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { ManualClock } from "../../../lib/core/mod.ts";
import { Breath, Loop, type LoopMember } from "../../../runtime/engine/loop.ts";

/** A member that has work for some breaths, then leaves. */
class Worker implements LoopMember {
  readonly name: string;
  readonly due: number = Infinity;
  readonly waitable = false;
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
