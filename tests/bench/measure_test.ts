/** What the benches calculate with, on figures whose results are known. */

import { deepStrictEqual, equal } from "node:assert/strict";
import { percentile, ratio, summarize } from "./measure.ts";

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
