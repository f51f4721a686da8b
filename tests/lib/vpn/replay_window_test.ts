/** `ReplayWindow`, beside a set of all counters received. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { ReplayWindow } from "@warren/tunnel/vpn";
import { Random } from "../../../lib/core/random.ts";

const MAX_COUNTER = Number.MAX_SAFE_INTEGER;

/** Replays a walk of counters through a window and a set, which must agree about each of them. */
function compare(window: ReplayWindow, start: number, random: Random, steps: number): void {
  const seen = new Set<number>();
  let newest = -1;
  let center = start;
  for (let step = 0; step < steps; step++) {
    const leap = random.below(40);
    if (leap === 0) center += random.below(3 * window.size);
    else if (leap < 20) center++;
    const counter = Math.min(MAX_COUNTER, Math.max(0, center - random.below(window.size + 40)));
    const expected = counter > newest || counter > newest - window.size && !seen.has(counter);
    equal(window.admits(counter), expected, `step ${step}, counter ${counter}, newest ${newest}`);
    // A datagram that does not authenticate changes nothing.
    if (!expected || random.below(8) === 0) continue;
    window.add(counter);
    seen.add(counter);
    newest = Math.max(newest, counter);
    equal(window.newest, newest);
  }
}

Deno.test("ReplayWindow agrees with a set of all counters, for any size and up to 2^53", () => {
  for (const size of [1, 31, 32, 33, 63, 64, 100, 1024, 8192]) {
    for (const start of [0, 2 ** 31 - 50, 2 ** 32 - 50, 2 ** 37 - 50, MAX_COUNTER - 5 * size]) {
      compare(new ReplayWindow(size), start, new Random(size, start), 4000);
    }
  }
});

Deno.test("ReplayWindow admits each of its counters once, and none that is older", () => {
  const window = new ReplayWindow(64);
  window.add(1000);
  ok(!window.admits(936));
  const admitted = Array.from({ length: 64 }, (_, i) => 937 + i).filter((counter) => window.admits(counter));
  deepEqual([admitted.length, admitted[0], admitted.at(-1)], [63, 937, 999]);
  for (const counter of admitted) window.add(counter);
  ok(admitted.every((counter) => !window.admits(counter)));
});

Deno.test("ReplayWindow.add() after a leap of 2^52 counters forgets none that it should know", () => {
  const window = new ReplayWindow();
  for (let counter = 0; counter < 10_000; counter++) window.add(counter);
  window.add(2 ** 52);
  ok(window.admits(2 ** 52 - 1) && window.admits(2 ** 52 - 8191) && !window.admits(2 ** 52 - 8192));
  ok(!window.admits(9999) && !window.admits(2 ** 52));
});

Deno.test("ReplayWindow.reset() takes all counters up to the given one as received", () => {
  for (const newest of [0, 30, 31, 32, 8191, 2 ** 40 + 31]) {
    const window = new ReplayWindow();
    window.reset(newest);
    for (let age = 0; age <= Math.min(newest, 9000); age++) ok(!window.admits(newest - age));
    for (let counter = newest + 1; counter < newest + 100; counter++) ok(window.admits(counter));
    window.add(newest + 99);
    for (let counter = newest + 1; counter < newest + 99; counter++) ok(window.admits(counter));
    window.reset();
    ok(window.admits(0) && window.newest === -1);
  }
});

Deno.test("ReplayWindow rejects a size that is out of range", () => {
  for (const size of [0, 1.5, NaN, 2 ** 24 + 1]) throws(() => new ReplayWindow(size), RangeError);
});
