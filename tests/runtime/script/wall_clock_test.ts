/** Wall-clock times of the monotonic clock. */

import { equal, ok } from "node:assert/strict";
import { WallClock } from "../../../runtime/script/wall_clock.ts";

/** Two clocks that a test sets. */
class FakeClocks {
  now = 10_000;
  ahead = 1_763_856_000_000.25;

  readonly monotonic = () => this.now;
  readonly preciseWall = () => this.now + this.ahead;
  readonly wall = () => Math.floor(this.preciseWall());
}

Deno.test("WallClock keeps its origin while both clocks go alike", () => {
  const clocks = new FakeClocks();
  const clock = new WallClock(clocks);
  for (let i = 0; i < 1000; i++, clocks.now += 0.777) equal(clock.origin, clocks.ahead);
});

Deno.test("WallClock follows a clock that is set, forward and back, and a suspend, at once", () => {
  const clocks = new FakeClocks();
  const clock = new WallClock(clocks);
  for (const step of [3_600_000, -7_200_000, 5, -5, 8 * 3_600_000]) {
    equal(clock.origin, clocks.ahead);
    clocks.ahead += step;
    clocks.now += 1;
    equal(clock.origin, clocks.ahead);
  }
});

Deno.test("WallClock follows a clock that drifts to half a millisecond", () => {
  const clocks = new FakeClocks();
  const clock = new WallClock(clocks);
  for (let i = 0; i < 100_000; i++) {
    clocks.now += 1;
    // NTP's most: 500 microseconds a second.
    clocks.ahead += 0.0005;
    ok(Math.abs(clock.origin - clocks.ahead) <= 0.51);
  }
});
