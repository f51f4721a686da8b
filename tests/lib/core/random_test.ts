/** Random numbers against their reference's, and against chance. */

import { Random } from "@warren/tunnel/random";
import { deepEqual, equal, notDeepEqual, ok, throws } from "node:assert/strict";

function take(random: Random, count: number): number[] {
  return Array.from({ length: count }, () => random.next());
}

Deno.test("Random equals xoshiro128starstar.c from the state 1, 2, 3, 4", () => {
  const random = new Random(0);
  random.restore([1, 2, 3, 4]);
  deepEqual(take(random, 10), [
    11520,
    0,
    5927040,
    70819200,
    2031721883,
    1637235492,
    1287239034,
    3734860849,
    3729100597,
    4258142804,
  ]);
});

Deno.test("Random differs by seed and stream, also beyond 32 bits and below 0", () => {
  const rows = [[0, 0], [0, 1], [1, 0], [2 ** 32, 0], [-1, 0], [2 ** 53 - 1, 0], [0, -1]] as const;
  const seen = new Set(rows.map(([seed, stream]) => take(new Random(seed, stream), 4).join()));
  equal(seen.size, rows.length);
  for (const wrong of [0.5, NaN, 2 ** 53]) throws(() => new Random(wrong), RangeError);
});

Deno.test("Random.fraction() and below() are uniform, and a sequence is not correlated with itself", () => {
  const random = new Random(7);
  const count = 200_000;
  const bins = new Float64Array(16);
  let product = 0;
  let last = random.fraction();
  for (let i = 0; i < count; i++) {
    const fraction = random.fraction();
    bins[Math.floor(fraction * 16)]!++;
    product += (fraction - 0.5) * (last - 0.5);
    last = fraction;
  }
  // Chi squared with 15 degrees of freedom: 37.7 is passed once in a thousand seeds.
  const expected = count / 16;
  const chi = bins.reduce((sum, bin) => sum + (bin - expected) ** 2 / expected, 0);
  ok(chi < 37.7, `chi squared ${chi}`);
  // The mean product of independent ones has a deviation of 1/12 over the root of the count.
  ok(Math.abs(product / count) < 4 / 12 / Math.sqrt(count), `correlation ${product / count}`);
  for (const limit of [1, 3, 2 ** 32]) {
    for (let i = 0; i < 100; i++) {
      const number = random.below(limit);
      ok(Number.isInteger(number) && number >= 0 && number < limit);
    }
  }
});

Deno.test("Random.save() and restore() continue the sequence, and restore() rejects an invalid state", () => {
  const random = new Random(7);
  take(random, 5);
  const state = JSON.parse(JSON.stringify(random.save()));
  const other = new Random(8);
  notDeepEqual(take(other, 3), take(new Random(7), 3));
  other.restore(state);
  deepEqual(take(other, 5), take(random, 5));
  for (
    const wrong of [undefined, null, [], [1, 2, 3], [0, 0, 0, 0], [1, 2, 3, 2 ** 31], [1, 2, 3, "4"], {}]
  ) {
    throws(() => other.restore(wrong), TypeError);
  }
});
