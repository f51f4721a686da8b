/** Counters of `Count`. */

import { deepEqual, equal, throws } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Count } from "@warren/tunnel/count";
import { TestPipeline } from "../../../kit/pipeline.ts";

Deno.test("Count counts the packets that its filter selects, by direction, and passes all", () => {
  const count = new Count({ name: "odd", filter: (packet) => packet.data[0]! % 2 === 1 });
  equal(count.name, "odd");
  const test = new TestPipeline(count);
  test.put(Direction.Outbound, [1, 2, 3]);
  test.put(Direction.Inbound, [4, 5]);
  test.settle();
  deepEqual(test.take(), { far: [1, 2, 3], device: [4, 5] });
  deepEqual(count.counted, { outbound: { packets: 2, bytes: 2 }, inbound: { packets: 1, bytes: 1 } });
});

Deno.test("Count restores a state that it saved, and rejects any other", () => {
  const count = new Count();
  count.counted.outbound.packets = 5;
  count.counted.outbound.bytes = 500;
  const restored = new Count();
  restored.restore(JSON.parse(JSON.stringify(count.save())));
  deepEqual(restored.counted, count.counted);
  for (
    const state of [null, {}, { outbound: { packets: 1, bytes: 1 } }, {
      outbound: { packets: "1", bytes: 1 },
      inbound: {},
    }]
  ) {
    throws(() => restored.restore(state), TypeError);
  }
  equal(restored.counted.outbound.packets, 5);
});
