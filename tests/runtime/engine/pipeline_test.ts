/** Stages in a row: order, turning round, holding, dropping, ticks. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  Direction,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
} from "../../../lib/core/mod.ts";
import type { OtherWorkers } from "../../../runtime/engine/pipeline.ts";
import { TestPipeline } from "../../kit/pipeline.ts";

const { Outbound, Inbound } = Direction;

/** Adds a digit to each packet's first byte, which then shows the packet's path. */
function digit(value: number): Stage {
  const append = (batch: PacketBatch) => {
    for (const packet of batch) packet.bytes[packet.offset] = packet.bytes[packet.offset]! * 10 + value;
  };
  return { name: `digit ${value}`, outbound: append, inbound: append };
}

/** Calls a function for outbound packets with one value. */
function on(value: number, act: (packet: Packet, context: StageContext) => void): Stage {
  return {
    name: `on ${value}`,
    outbound(batch, context) {
      for (const packet of batch) if (packet.data[0] === value) act(packet, context);
    },
  };
}

Deno.test("Pipeline passes packets outbound in order of the stages, inbound in reverse", () => {
  const test = new TestPipeline(digit(1), digit(2));
  test.put(Outbound, [0]);
  test.put(Inbound, [0]);
  test.settle();
  assert.deepEqual(test.take(), { far: [12], device: [21] });
  assert.equal(test.balanced, true);
});

Deno.test("StageContext.emit() against the direction turns a packet round through the stages it has passed", () => {
  const turn = on(1, (packet, context) => context.emit(packet, Inbound));
  const test = new TestPipeline(digit(1), turn, digit(3));
  test.put(Outbound, [0]);
  test.settle();
  assert.deepEqual(test.take(), { far: [], device: [11] });
  assert.equal(test.balanced, true);
});

Deno.test("StageContext.emit() in the direction goes onward from the stage, ahead of what is left", () => {
  const emit = on(2, (packet, context) => context.emit(packet, Outbound));
  const test = new TestPipeline(emit, digit(1));
  test.put(Outbound, [1, 2, 3]);
  test.settle();
  assert.deepEqual(test.take().far, [21, 11, 31]);
});

Deno.test("StageContext.handOver() gives packets to the same stage of another worker, and counts them", () => {
  const sent: [bytes: number[], worker: number, stage: number, direction: Direction][] = [];
  const full = on(3, (packet, context) => context.handOver(packet, 1));
  const stage = on(2, (packet, context) => {
    assert.deepEqual(context.worker, { index: 0, count: 3 });
    context.handOver(packet, 2);
  });
  const others: OtherWorkers = {
    place: { index: 0, count: 3 },
    send(packet, worker, index, direction) {
      if (worker === 1) return false;
      sent.push([[...packet.data], worker, index, direction]);
      return true;
    },
  };
  const test = new TestPipeline(digit(1), full, stage, { others });
  test.put(Outbound, [2, 0, 3]);
  // What the first stage makes of them: 21, 1, 31.
  test.settle();
  assert.deepEqual(sent, []);
  assert.deepEqual(test.take().far, [21, 1, 31]);
  const alone = new TestPipeline(full, stage, { others });
  alone.put(Outbound, [2, 1, 3]);
  alone.settle();
  assert.deepEqual(sent, [[[2], 2, 1, Outbound]]);
  assert.deepEqual(alone.take().far, [1]);
  const { outbound, dropped } = alone.pipeline.ledger.counters.snapshot(alone.pipeline.queued);
  assert.deepEqual([outbound.packetsIn, outbound.packetsOut, dropped], [3, 2, { "hand-over full": 1 }]);
  assert.equal(alone.balanced, true);
  assert.equal(alone.pool.taken, 0);
});

Deno.test("Pipeline.accept() has a packet enter its stage, in its direction", () => {
  const test = new TestPipeline(digit(1), digit(2), digit(3));
  const packet = (byte: number) => test.pool.from(Uint8Array.of(byte))!;
  test.pipeline.accept(packet(0), 1, Outbound, 0);
  test.pipeline.accept(packet(0), 1, Inbound, 0);
  test.pipeline.accept(packet(0), 3, Outbound, 0);
  test.settle();
  assert.deepEqual(test.take(), { far: [23], device: [21] });
  assert.deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, { "hand-over to a missing stage": 1 });
  assert.equal(test.balanced, true);
});

Deno.test("StageContext.handOver() throws for a worker that is not there, and for its own", () => {
  for (const place of [undefined, { index: 1, count: 2 }]) {
    const wrong: [worker: number, error: RegExp][] = place === undefined
      ? [[0, /^TypeError: Cannot hand over to worker 0: it is this worker$/], [
        1,
        /^RangeError: Cannot hand over a packet: worker must be an integer from 0 to 0, got 1$/,
      ]]
      : [[1, /^TypeError: .*it is this worker$/], [2, /^RangeError/], [-1, /^RangeError/], [
        0.5,
        /^RangeError/,
      ]];
    for (const [worker, error] of wrong) {
      const stage = on(1, (packet, context) => {
        assert.throws(() => context.handOver(packet, worker), error);
      });
      const others = place === undefined ? [] : [{ others: { place, send: () => true } }];
      const test = new TestPipeline(stage, ...others);
      test.put(Outbound, [1]);
      test.settle();
      assert.deepEqual(test.take().far, [1]);
      assert.equal(test.balanced, true);
    }
  }
});

Deno.test("StageContext.hold() keeps a packet, counted as queued, until it is emitted", () => {
  const held: Packet[] = [];
  const stage: Stage = {
    ...on(2, (packet, context) => {
      context.hold(packet);
      held.push(packet);
    }),
    tick(context) {
      if (context.now < 10) return 10;
      for (const packet of held.splice(0)) context.emit(packet, Outbound);
      return undefined;
    },
  };
  const test = new TestPipeline(stage);
  test.put(Outbound, [1, 2, 3]);
  test.settle();
  assert.deepEqual(test.take().far, [1, 3]);
  assert.equal(test.pipeline.queued, 1);
  assert.equal(test.balanced, true);
  assert.equal(test.pipeline.due, 10);
  test.now = 10;
  test.settle();
  assert.deepEqual(test.take().far, [2]);
  assert.equal(test.pipeline.due, Infinity);
  assert.equal(test.balanced, true);
});

Deno.test("StageContext.drop() counts by reason and gives the slot back", () => {
  const test = new TestPipeline(on(2, (packet, context) => context.drop(packet, "two")));
  test.put(Outbound, [1, 2, 2, 3]);
  test.settle();
  assert.deepEqual(test.take().far, [1, 3]);
  assert.deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, { two: 2 });
  assert.equal(test.balanced, true);
});

Deno.test("StageContext.take() makes a packet of the stage's own, until the pool is empty", () => {
  const test = new TestPipeline(on(1, (_, context) => {
    for (let packet = context.take(1); packet !== undefined; packet = context.take(1)) {
      packet.data[0] = 9;
      context.emit(packet, Inbound);
    }
  }));
  test.put(Outbound, [1]);
  test.settle();
  assert.equal(test.pipeline.ledger.counters.created, 255);
  assert.equal(test.balanced, true);
  assert.equal(test.take().device.length, 255);
  assert.equal(test.balanced, true);
});

Deno.test("StageContext refuses a packet that the stage does not own", () => {
  const twice: [string, (packet: Packet, context: StageContext) => void][] = [
    ["drop", (packet, context) => context.drop(packet, "again")],
    ["emit", (packet, context) => context.emit(packet, Outbound)],
    ["hold", (packet, context) => context.hold(packet)],
  ];
  for (const [verb, act] of twice) {
    const test = new TestPipeline(on(1, (packet, context) => {
      context.drop(packet, "first");
      act(packet, context);
    }));
    test.put(Outbound, [1]);
    assert.throws(
      () => test.settle(),
      new RegExp(`^TypeError: Cannot ${verb} a packet that stage "on 1" does not own`),
    );
  }
});

Deno.test("Stage.tick is called in the first breath, when it is due, and after wake()", () => {
  const ticks: number[] = [];
  let wake = () => {};
  const test = new TestPipeline({
    name: "ticker",
    tick(context) {
      ticks.push(context.now);
      wake = () => context.wake();
      return ticks.length === 1 ? 5 : undefined;
    },
  });
  for (test.now = 0; test.now < 20; test.now++) test.settle();
  assert.deepEqual(ticks, [0, 5]);
  wake();
  assert.equal(test.wakes, 1);
  test.settle();
  assert.deepEqual(ticks, [0, 5, 20]);
});

Deno.test("Stage.tick returns milliseconds from 0 on, or undefined", () => {
  for (const wait of [-1, NaN, "5", Promise.resolve()]) {
    const test = new TestPipeline({ name: "ticker", tick: () => wait as number });
    assert.throws(
      () => test.settle(),
      /^TypeError: Cannot schedule a tick: tick must return milliseconds of at least 0 or undefined, got /,
    );
  }
});

Deno.test("StageContext.take() gives nothing once the pipeline is closed", () => {
  let context: StageContext | undefined;
  const test = new TestPipeline({ name: "keeper", outbound: (_, given) => void (context = given) });
  test.put(Outbound, [1]);
  test.settle();
  test.take();
  test.pipeline.close();
  assert.equal(context!.take(1), undefined);
  assert.equal(test.pool.taken, 0);
});

Deno.test("Pipeline.close() gives back what stages hold, and closes them", () => {
  let closed = 0;
  const stage: Stage = { ...on(1, (packet, context) => context.hold(packet)), close: () => void closed++ };
  const test = new TestPipeline(stage);
  test.put(Outbound, [1, 1, 2]);
  test.settle();
  test.pipeline.close();
  assert.deepEqual([test.pool.taken, test.pipeline.queued, closed], [0, 0, 1]);
  assert.deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, { closed: 3 });
});

Deno.test("Pipeline neither loses nor duplicates a packet, whatever its stages do", () => {
  const verbs = ["pass", "drop", "turn", "emit", "hold", "make"] as const;
  const plan = fc.array(fc.constantFrom(...verbs), { minLength: 6, maxLength: 6 });
  fc.assert(fc.property(fc.array(plan, { minLength: 1, maxLength: 4 }), fc.nat(3), (plans, rounds) => {
    const stages = plans.map((verbsByValue, index): Stage => {
      const held: Packet[] = [];
      const act = (batch: PacketBatch, context: StageContext) => {
        for (const packet of [...batch]) {
          const verb = verbsByValue[packet.data[0]! % 6]!;
          if (verb === "drop") context.drop(packet, `stage ${index}`);
          else if (verb === "emit") context.emit(packet, context.direction);
          else if (verb === "turn" && context.direction === Outbound) context.emit(packet, Inbound);
          else if (verb === "hold" && held.length < 8) {
            context.hold(packet);
            held.push(packet);
          } else if (verb === "make" && context.direction === Outbound) {
            const made = context.take(1);
            if (made === undefined) continue;
            made.data[0] = 0;
            context.emit(made, Inbound);
          }
        }
      };
      const tick = (context: StageContext) => {
        for (const packet of held.splice(0)) context.emit(packet, Outbound);
        return 1;
      };
      return { name: `stage ${index}`, outbound: act, inbound: act, tick };
    });
    const test = new TestPipeline(...stages);
    for (let round = 0; round <= rounds; round++) {
      test.put(Outbound, [0, 1, 2, 3, 4, 5, 6]);
      test.put(Inbound, [5, 4, 3, 2, 1, 0]);
      test.now++;
      test.settle();
      assert.equal(test.balanced, true);
      test.take();
      assert.equal(test.balanced, true);
    }
    test.pipeline.close();
    assert.equal(test.pool.taken, 0);
  }));
});

Deno.test("Pipeline.stageStats has each stage's drops by reason, and its own counters", () => {
  const first = { name: "first", counters: { packets: 3, label: "not a number" } };
  const second: Stage = {
    name: "second",
    outbound: (batch, context) => {
      for (const packet of batch) context.drop(packet, packet.bytes[packet.offset] === 1 ? "one" : "other");
    },
  };
  const test = new TestPipeline(first, second);
  test.put(Direction.Outbound, [1, 2, 3]);
  test.settle();
  assert.deepEqual(test.pipeline.stageStats, [
    { name: "first", dropped: {}, counters: { packets: 3 } },
    { name: "second", dropped: { one: 1, other: 2 }, counters: {} },
  ]);
  assert.deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, { one: 1, other: 2 });
});
