/** What a count counts. */

import { deepEqual, equal, throws } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Count } from "@warren/tunnel/count";
import { TestPipeline } from "../../../kit/pipeline.ts";

Deno.test("Count counts what its filter likes, each way, and passes everything", () => {
  const count = new Count({ name: "odd", filter: (packet) => packet.data[0]! % 2 === 1 });
  equal(count.name, "odd");
  const test = new TestPipeline(count);
  test.put(Direction.Outbound, [1, 2, 3]);
  test.put(Direction.Inbound, [4, 5]);
  test.settle();
  deepEqual(test.take(), { far: [1, 2, 3], device: [4, 5] });
  deepEqual([count.out, count.in], [{ packets: 2, bytes: 2 }, { packets: 1, bytes: 1 }]);
});

Deno.test("Count goes on from a state that it saved, and refuses another", () => {
  const count = new Count();
  count.out.packets = 5;
  count.out.bytes = 500;
  const restored = new Count();
  restored.restore(JSON.parse(JSON.stringify(count.save())));
  deepEqual([restored.out, restored.in], [count.out, count.in]);
  for (
    const state of [null, {}, { out: { packets: 1, bytes: 1 } }, { out: { packets: "1", bytes: 1 }, in: {} }]
  ) {
    throws(() => restored.restore(state), TypeError);
  }
  equal(restored.out.packets, 5);
});
