/** Counters in shared memory, and their sums. */

import assert from "node:assert/strict";
import type { TunnelStats } from "../../../lib/core/mod.ts";
import { Counters } from "../../../lib/core/stats.ts";
import {
  allocateCounters,
  noHandOvers,
  readAll,
  SharedCounters,
  sum,
} from "../../../runtime/ring/counters.ts";
import { Random } from "../../../lib/core/random.ts";

function assertBalanced(stats: TunnelStats): void {
  const { outbound, inbound, created, consumed, queued, dropped } = stats;
  const lost = Object.values(dropped).reduce((total, count) => total + count, 0);
  assert.equal(
    outbound.packetsIn + inbound.packetsIn + created,
    outbound.packetsOut + inbound.packetsOut + consumed + lost + queued,
    JSON.stringify(stats),
  );
}

Deno.test("SharedCounters shows another view the counts, with reasons of any length", () => {
  const memory = allocateCounters();
  const [writer, reader] = [new SharedCounters(memory), new SharedCounters(memory)];
  const counters = new Counters();
  Object.assign(counters.outbound, { packetsIn: 9, bytesIn: 2 ** 40, packetsOut: 5, bytesOut: 7 });
  Object.assign(counters.inbound, { packetsIn: 1, bytesIn: 2, packetsOut: 3, bytesOut: 4 });
  counters.created = 11;
  counters.consumed = 13;
  counters.malformed = 12;
  counters.drop("refused by the system: ÄÖÜ");
  counters.drop("x".repeat(300));
  counters.drop("x".repeat(300));
  const handed = noHandOvers();
  handed.inbound.packetsOut = 6;
  writer.publish(counters, handed, 8, 2, 1);
  assert.deepEqual(reader.read(), {
    stats: {
      outbound: { packetsIn: 9, bytesIn: 2 ** 40, packetsOut: 3, bytesOut: 7 },
      inbound: { packetsIn: 1, bytesIn: 2, packetsOut: 2, bytesOut: 4 },
      created: 11,
      consumed: 13,
      dropped: { "refused by the system: ÄÖÜ": 1, ["x".repeat(100)]: 2 },
      queued: 8,
      malformed: 12,
      stages: [],
    },
    handed,
  });
  assert.equal(reader.generation % 2, 0);
});

Deno.test("SharedCounters keeps the total of more reasons than it distinguishes", () => {
  const memory = allocateCounters();
  const counters = new Counters();
  for (let i = 0; i < 200; i++) counters.drop(`reason ${i}`);
  new SharedCounters(memory).publish(counters, noHandOvers(), 0, 0, 0);
  const { dropped } = new SharedCounters(memory).read().stats;
  assert.equal(Object.values(dropped).reduce((total, count) => total + count, 0), 200);
  assert.equal(dropped["other reasons"], 200 - 63);
});

Deno.test("sum() counts packets that are handed over once, and queued between two workers", () => {
  const random = new Random(42);
  const workers = Array.from({ length: 3 }, () => {
    const memory = allocateCounters();
    return {
      counters: new Counters(),
      handed: noHandOvers(),
      inside: 0,
      tally: new SharedCounters(memory),
      memory,
    };
  });
  let came = 0;
  for (let step = 0; step < 500; step++) {
    const [one, other] = [random.below(3), random.below(3)];
    const [from, to] = [workers[one]!, workers[other]!];
    switch (random.below(6)) {
      case 0:
        came++;
        from.inside++;
        from.counters.outbound.packetsIn++;
        break;
      case 1:
        if (from.inside === 0) break;
        from.inside--;
        from.counters.outbound.packetsOut++;
        break;
      case 2:
        if (from.inside === 0) break;
        from.inside--;
        from.counters.drop("at random");
        break;
      case 3:
        if (from.inside === 0) break;
        from.inside--;
        from.counters.outbound.packetsOut++;
        from.handed.outbound.packetsOut++;
        break;
      case 4: {
        const under = workers.reduce(
          (total, { handed: { outbound } }) => total + outbound.packetsOut - outbound.packetsIn,
          0,
        );
        if (under === 0) break;
        to.inside++;
        to.counters.outbound.packetsIn++;
        to.handed.outbound.packetsIn++;
        break;
      }
      case 5:
        if (from.inside === 0) break;
        from.inside--;
        from.counters.consumed++;
    }
    for (const { tally, counters, handed, inside } of workers) {
      tally.publish(counters, handed, inside, 0, 0);
      assertBalanced(tally.read().stats);
    }
    const told = readAll(workers.map(({ memory }) => new SharedCounters(memory)));
    const total = sum(told, false);
    assertBalanced(total);
    assert.equal(total.outbound.packetsIn, came);
    const ended = sum(told, true);
    assertBalanced(ended);
    assert.equal(ended.queued, 0);
  }
  assert.ok(workers.some(({ handed }) => handed.outbound.packetsIn > 0));
});

Deno.test("sum() adds reasons that are named like what every object has", () => {
  const counters = new Counters();
  const memory = allocateCounters();
  for (const reason of ["constructor", "__proto__", "toString", "constructor"]) counters.drop(reason);
  new SharedCounters(memory).publish(counters, noHandOvers(), 0, 0, 0);
  const told = readAll([new SharedCounters(memory), new SharedCounters(memory)]);
  assert.deepEqual(Object.entries(sum(told, false).dropped), [["constructor", 4], ["__proto__", 2], [
    "toString",
    2,
  ]]);
});
