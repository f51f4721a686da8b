/** Counters of a tunnel. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Counters } from "../../../lib/core/stats.ts";

Deno.test("Counters keep a bounded number of drop reasons", () => {
  const counters = new Counters();
  counters.drop("known");
  for (let i = 0; i < 100_000; i++) counters.drop(`from 10.9.${i >> 8}.${i & 255}`);
  counters.drop("known");
  const { dropped } = counters.snapshot(0);
  equal(Object.keys(dropped).length, 64);
  equal(dropped.known, 2);
  equal(dropped["other reasons"], 100_000 - 62);
  equal(Object.values(dropped).reduce((sum, count) => sum + count, 0), 100_002);
  equal(counters.dropped.total, 100_002);
});

Deno.test("Counters keep 100 characters of a reason, none of which acts on a terminal", () => {
  const counters = new Counters();
  counters.drop("\x1b[2Jname\u009b\n");
  counters.drop("\x1b[2Jname\u009b\n");
  counters.drop("x".repeat(1_000_000));
  counters.drop(7 as unknown as string);
  counters.drop("right\u202e to\u2066 left\u2028, ü and 漢");
  counters.drop("y".repeat(99) + "😀");
  deepEqual(counters.snapshot(0).dropped, {
    "?[2Jname??": 2,
    ["x".repeat(100)]: 1,
    "7": 1,
    "right? to? left?, ü and 漢": 1,
    ["y".repeat(99) + "?"]: 1,
  });
});

Deno.test("Counters count a drop reason named like the reason for all others", () => {
  const counters = new Counters();
  for (let i = 0; i < 200; i++) counters.drop(i % 2 === 0 ? "other reasons" : `reason ${i}`);
  const { dropped } = counters.snapshot(0);
  ok(Object.keys(dropped).length <= 64);
  equal(Object.values(dropped).reduce((sum, count) => sum + count, 0), 200);
});
