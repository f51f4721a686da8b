/** Stages that misuse a batch's list, or packets that they do not own: no slot is lost. */

import assert from "node:assert/strict";
import {
  Direction,
  type Packet,
  PacketBatch,
  PacketQueue,
  type Stage,
  type StageContext,
} from "../../../lib/core/mod.ts";
import { Random } from "../../../lib/core/random.ts";
import { TestPipeline } from "../../kit/pipeline.ts";

const { Outbound, Inbound } = Direction;

/** A stage that holds packets of 200 and more. */
class Keeper implements Stage {
  readonly name = "keeper";
  readonly kept: Packet[] = [];

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      if (packet.bytes[packet.offset]! < 200) continue;
      context.hold(packet);
      this.kept.push(packet);
    }
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.outbound(batch, context);
  }
}

type Overstep = (batch: PacketBatch, context: StageContext, foreign: Packet) => void;
/** Misuse of arrays and packets. */
const OVERSTEPS: Record<string, Overstep> = {
  "sorts it": ({ packets }) => void packets.sort((a, b) => b.bytes[b.offset]! - a.bytes[a.offset]!),
  "reverses it": ({ packets }) => void packets.reverse(),
  "shifts its array": ({ packets }) => void packets.shift(),
  "splices it": ({ packets }) => void packets.splice(1, 1),
  "empties its array": ({ packets }) => void (packets.length = 0),
  "replaces its array": (batch) =>
    void Object.assign(batch, { packets: batch.packets.filter((packet) => packet.length > 1) }),
  "shortens it": (batch) => void batch.length--,
  "lengthens it": (batch) => void batch.length++,
  "calls shift": (batch) => batch.shift(1),
  "calls clear": (batch) => batch.clear(),
  "calls compact": (batch) => batch.compact(),
  "calls moveTo": (batch) => batch.moveTo(new PacketBatch()),
  "pushes a packet of another stage": (batch, _, foreign) => batch.push(foreign),
  "pushes a packet twice": (batch) => batch.push(batch.packets[0]!),
  "doubles a packet": ({ packets }) => void (packets[1] = packets[0]!),
  "puts in a packet of another stage": ({ packets }, _, foreign) => void (packets[0] = foreign),
  "drops a packet and takes it out": (batch, context) => {
    context.drop(batch.packets[0]!, "unwanted");
    batch.packets.shift();
    batch.length--;
  },
  "moves a packet to a batch of its own": ({ packets }) => new PacketBatch().push(packets[0]!),
  "moves a packet to a queue of its own": ({ packets }) => new PacketQueue({ packets: 1 }).push(packets[0]!),
  "gives a packet back": ({ packets }) => packets[1]!.pool.give(packets[1]!),
  "emits a packet of another stage": (_, context, foreign) => context.emit(foreign, context.direction),
  "gives back a packet of another stage": (_batch, _, foreign) => foreign.pool.give(foreign),
  "moves a packet of another stage": (_batch, _, foreign) => new PacketBatch().push(foreign),
  "moves a packet that it holds": ({ packets }, context) => {
    context.hold(packets[0]!);
    new PacketQueue({ packets: 1 }).push(packets[0]!);
  },
  "gives back a packet that it took": (_, context) => {
    const packet = context.take(1)!;
    packet.pool.give(packet);
  },
};

for (const [what, overstep] of Object.entries(OVERSTEPS)) {
  for (const direction of [Outbound, Inbound]) {
    const way = direction === Outbound ? "outbound" : "inbound";
    Deno.test(`A stage that ${what} ${way} gets a TypeError, and no slot is lost`, () => {
      const keeper = new Keeper();
      const pass = (batch: PacketBatch, context: StageContext) => overstep(batch, context, keeper.kept[0]!);
      const thief: Stage = { name: "thief", outbound: pass, inbound: pass };
      const test = new TestPipeline(...(direction === Outbound ? [keeper, thief] : [thief, keeper]));
      // What its list held before is not what it holds now.
      test.put(direction, [200, 10, 11, 30, 31, 32, 33]);
      assert.throws(() => test.settle(), TypeError);
      assert.ok(test.balanced, "while it ends");
      test.pipeline.close();
      assert.ok(test.balanced, "when it has ended");
      assert.equal(test.pool.taken, 0);
    });
  }
}

Deno.test("A stage that changes its batch is named, and told what to use", () => {
  const test = new TestPipeline({ name: "sorter", outbound: ({ packets }) => void packets.reverse() });
  test.put(Outbound, [1, 2]);
  assert.throws(
    () => test.settle(),
    /^TypeError: Cannot change the batch of stage "sorter": it is on loan: use context.emit, hold, drop, done and handOver$/,
  );
});

Deno.test("A stage that takes packets without its context is told what to use", () => {
  const test = new TestPipeline({
    name: "collector",
    outbound: ({ packets }) => new PacketBatch().push(packets[0]!),
  });
  test.put(Outbound, [1, 2]);
  assert.throws(
    () => test.settle(),
    /^TypeError: Cannot add a packet to a batch: it is on loan: use the context/,
  );
});

Deno.test("A stage changes the order by emitting its packets in another one", () => {
  const test = new TestPipeline({
    name: "sorter",
    outbound(batch, context) {
      const sorted = [...batch].sort((a, b) => b.bytes[b.offset]! - a.bytes[a.offset]!);
      for (const packet of sorted) context.emit(packet, context.direction);
    },
  });
  test.put(Outbound, [2, 1, 3]);
  test.settle();
  assert.deepEqual(test.take().far, [3, 2, 1]);
  assert.ok(test.balanced);
});

Deno.test("A stage that keeps its batch changes nothing with it later", () => {
  const kept: PacketBatch[] = [];
  const test = new TestPipeline(
    { name: "first", outbound: (batch) => void kept.push(batch) },
    { name: "second", outbound: (batch) => void kept.push(batch) },
  );
  for (let i = 0; i < 5; i++) {
    test.put(Outbound, [3 * i, 3 * i + 1, 3 * i + 2]);
    test.settle();
    for (const batch of kept) {
      assert.throws(() => batch.clear(), TypeError);
      batch.packets.reverse();
      batch.packets.length = 1;
      Object.assign(batch, { packets: [], length: 0 });
    }
    assert.ok(test.balanced);
    assert.deepEqual(test.take().far, [3 * i, 3 * i + 1, 3 * i + 2]);
  }
});

Deno.test("A stage that throws in the middle of what it does loses no slot", () => {
  const test = new TestPipeline({
    name: "thrower",
    outbound(batch, context) {
      context.hold(batch.packets[0]!);
      context.drop(batch.packets[1]!, "unwanted");
      batch.packets.reverse();
      throw new Error("out of ideas");
    },
  });
  test.put(Outbound, [1, 2, 3, 4]);
  assert.throws(() => test.settle(), /^Error: out of ideas/);
  assert.ok(test.balanced);
  test.pipeline.close();
  assert.equal(test.pool.taken, 0);
});

Deno.test("Stages that misuse packets at random lose no slot and no packet", () => {
  const names = Object.keys(OVERSTEPS);
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const keeper = new Keeper();
    const pass = (batch: PacketBatch, context: StageContext) => {
      if (batch.length < 2 || keeper.kept.length === 0) return;
      for (let i = random.below(3); i > 0; i--) {
        OVERSTEPS[names[random.below(names.length)]!]!(batch, context, keeper.kept[0]!);
      }
    };
    const test = new TestPipeline(keeper, { name: "thief", outbound: pass, inbound: pass });
    test.put(Outbound, Array.from({ length: 2 + random.below(20) }, () => random.below(256)));
    test.put(Inbound, Array.from({ length: 2 + random.below(20) }, () => random.below(256)));
    try {
      test.settle();
    } catch (error) {
      assert.ok(error instanceof TypeError, `seed ${seed}: ${error}`);
    }
    assert.ok(test.balanced, `seed ${seed}`);
    test.pipeline.close();
    assert.equal(test.pool.taken, 0, `seed ${seed}`);
  }
});
