/** What the benches calculate with, on figures whose results are known. */

import { deepStrictEqual, equal, ok } from "node:assert/strict";
import { addressOf } from "../../driver/native_memory.ts";
import { percentile, ratio, residentMemory, summarize } from "./measure.ts";

// Implementation
const MEBIBYTE = 1 << 20;

Deno.test("summarize() gives the middle, or what lies between two, and how far the figures reach", () => {
  deepStrictEqual(summarize([3, 1, 2]), { median: 2, low: 1, high: 3 });
  deepStrictEqual(summarize([4, 1, 2, 3]), { median: 2.5, low: 1, high: 4 });
  deepStrictEqual(summarize([]), { median: NaN, low: NaN, high: NaN });
});

Deno.test("percentile() is the figure that so many figures do not exceed", () => {
  const figures = Array.from({ length: 200 }, (_, i) => 200 - i);
  equal(percentile(figures, 0.99), 198);
  equal(percentile(figures, 0.5), 100);
  equal(percentile([7], 0.99), 7);
  equal(percentile([], 0.99), NaN);
});

Deno.test("ratio() is the middle of the rounds' ratios and leaves out a round that lacks a figure", () => {
  equal(ratio([2, 9, 8], [1, 3, 2]), 3);
  equal(ratio([2, 9, 8], [1, NaN]), 2);
});

Deno.test({
  name: "residentMemory() of a part of a process's memory counts the pages that were written",
  ignore: Deno.build.os !== "linux",
  fn() {
    const memory = new Uint8Array(16 * MEBIBYTE);
    const address = addressOf(memory);
    const part = { address, length: memory.length };
    const before = residentMemory(Deno.pid, part);
    const whole = residentMemory(Deno.pid);
    memory.fill(0xa5, 4 * MEBIBYTE, 12 * MEBIBYTE);
    const after = residentMemory(Deno.pid, part);
    // Memory that was used before has pages already; where pages are huge ones, the first and the last reach further.
    ok(after >= 8 * MEBIBYTE, `${after} bytes of the part`);
    ok(after - before <= 12 * MEBIBYTE, `${after - before} bytes more of the part`);
    const more = residentMemory(Deno.pid) - whole;
    ok(more > (after - before) / 2, `${more} bytes more in all, of which ${after - before} in the part`);
  },
});
