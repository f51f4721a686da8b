/** Packets handed over to another worker. */

import assert from "node:assert/strict";
import { Direction, PacketPool, type StageContext } from "../../../lib/core/mod.ts";
import { Counters } from "../../../lib/core/stats.ts";
import { Heartbeat } from "../../../runtime/engine/heartbeat.ts";
import { Ledger } from "../../../runtime/engine/ledger.ts";
import { Pipeline } from "../../../runtime/engine/pipeline.ts";
import { WorkerLink } from "../../../runtime/ring/link.ts";
import { allocateCounters } from "../../../runtime/ring/counters.ts";

const { Outbound } = Direction;

/** Two workers of one tunnel, without wakeups: the test moves everything itself. */
async function openLinks(pool: PacketPool): Promise<{ near: Pipeline; far: Pipeline; move: () => void }> {
  const links: WorkerLink[] = [];
  const parts = {
    counters: [allocateCounters(), allocateCounters()],
    waiting: new SharedArrayBuffer(8),
    wakeups: [],
  };
  for (const index of [0, 1]) {
    links.push(
      await WorkerLink.open({ index, count: 2 }, parts, {
        sendRing: (ring, to) => links[to]!.accept(ring),
        leave: () => Promise.resolve(),
      }),
    );
  }
  const pipelines = links.map((link, index) =>
    new Pipeline([{
      name: "shifter",
      outbound(batch, context: StageContext) {
        if (index === 1) return;
        for (const packet of batch) context.handOver(packet, 1);
      },
    }], {
      ledger: new Ledger(index === 0 ? new PacketPool({ small: 64, large: 4 }) : pool),
      heartbeat: new Heartbeat(),
      others: link,
      wake: () => {},
    })
  );
  const [near, far] = pipelines as [Pipeline, Pipeline];
  const move = () => {
    near.flow(Outbound, 0);
    links[0]!.publish(new Counters(), 0, 0, 0);
    while (links[1]!.receive(far, 0, undefined));
    far.flow(Outbound, 0);
  };
  return { near, far, move };
}

Deno.test("A packet longer than any slot is dropped where it is handed over, and what follows arrives", async () => {
  const { near, far, move } = await openLinks(new PacketPool({ small: 64, large: 4 }));
  for (let i = 0; i < 3; i++) {
    const long = near.ledger.pool.take(65_535)!;
    if (i === 1) {
      long.offset = long.slotStart;
      long.length = long.slotEnd - long.slotStart;
    }
    near.outbound[0]!.push(long);
    near.outbound[0]!.push(near.ledger.pool.from(Uint8Array.of(i))!);
  }
  move();
  assert.deepEqual([...far.forFar].map(({ length }) => length), [65_535, 1, 1, 65_535, 1]);
  assert.deepEqual(Object.fromEntries(near.ledger.counters.dropped.reasons), { "moved out of its slot": 1 });
  assert.equal(near.ledger.pool.taken, 0);
});

Deno.test("A packet that no slot of the other worker holds is dropped there, and what follows arrives", async () => {
  const { near, far, move } = await openLinks(new PacketPool({ small: 64, large: 0 }));
  near.outbound[0]!.push(near.ledger.pool.take(5000)!);
  near.outbound[0]!.push(near.ledger.pool.from(Uint8Array.of(7))!);
  move();
  assert.deepEqual([...far.forFar].map(({ length }) => length), [1]);
  assert.deepEqual(Object.fromEntries(far.ledger.counters.dropped.reasons), { "longer than any slot": 1 });
  assert.equal(far.ledger.counters.outbound.packetsIn, 2);
});
