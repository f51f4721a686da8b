/** Priority bands, strict and weighted. */

import { bandByDscp, bandByFilter, Fifo, Priority } from "@warren/tunnel/shape";
import { Udp } from "@warren/tunnel/udp";
import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { QueueContext } from "./_queue_context.ts";

function bands(count: number): Fifo[] {
  return Array.from({ length: count }, () => new Fifo({ packets: 1000 }));
}

function text(dscp: number, payload = 100): string {
  return `udp 10.9.0.1:5000 > 192.0.2.1:53 dscp ${dscp} payload ${payload}`;
}

Deno.test("Priority without weights serves a band when all before it are empty", () => {
  const context = new QueueContext();
  const queue = new Priority({ bands: bands(3), classify: bandByDscp({ 46: 0, 8: 2 }, 1) });
  for (const [mark, dscp] of [8, 0, 46, 8, 63, 46].entries()) {
    queue.enqueue(context.packet(text(dscp), mark), context);
  }
  equal(queue.length, 6);
  const order = Array.from({ length: 7 }, () => context.done(queue.dequeue(context)));
  deepEqual(order, [2, 5, 1, 4, 0, 3, undefined]);
});

Deno.test("Priority with weights shares bytes by them, and a band gets what others leave", () => {
  const context = new QueueContext();
  const weights = [3, 1, 0.5];
  const queue = new Priority({ bands: bands(3), classify: (packet) => packet.mark, weights });
  const payloads = [1400, 300, 900];
  for (let i = 0; i < 900; i++) {
    queue.enqueue(context.packet(text(0, payloads[i % 3]), i % 3), context);
  }
  const bytes = [0, 0, 0];
  for (let i = 0; i < 300; i++) {
    const packet = queue.dequeue(context)!;
    bytes[packet.mark]! += packet.length;
    context.done(packet);
  }
  const sum = bytes[0]! + bytes[1]! + bytes[2]!;
  for (const [band, weight] of weights.entries()) {
    ok(Math.abs(bytes[band]! / sum - weight / 4.5) < 0.02, `${bytes}`);
  }
  while (queue.length > 0) ok(context.done(queue.dequeue(context)) !== undefined);
  equal(queue.dequeue(context), undefined);
});

Deno.test("Priority with weights saves no credit for a band that had nothing to send", () => {
  const context = new QueueContext();
  const queue = new Priority({ bands: bands(2), classify: (packet) => packet.mark, weights: [1, 1] });
  for (let i = 0; i < 100; i++) queue.enqueue(context.packet(text(0, 1472), 0), context);
  for (let i = 0; i < 50; i++) equal(context.done(queue.dequeue(context)), 0);
  for (let i = 0; i < 100; i++) queue.enqueue(context.packet(text(0, 1472), 1), context);
  const turns = Array.from({ length: 20 }, () => context.done(queue.dequeue(context)));
  const second = turns.filter((band) => band === 1).length;
  ok(Math.abs(second - 10) <= 1, `${turns}`);
});

Deno.test("bandByFilter() returns the first filter that matches; a band that does not exist is the last", () => {
  const context = new QueueContext();
  const classify = bandByFilter([
    (packet) => Udp.of(packet)?.dstPort === 53,
    (packet) => Udp.of(packet) !== undefined,
  ]);
  const texts = [
    "udp 10.9.0.1:1 > 192.0.2.1:53",
    "udp 10.9.0.1:1 > 192.0.2.1:54",
    "tcp 10.9.0.1:1 > 192.0.2.1:53 S",
  ];
  deepEqual(texts.map((text) => classify(context.packet(text), context.direction)), [0, 1, 2]);
  const queues = bands(2);
  const queue = new Priority({ bands: queues, classify: (packet) => packet.mark });
  for (const mark of [-1, 2, NaN, 1e9, 0.5]) queue.enqueue(context.packet(text(0), mark), context);
  deepEqual(queues.map(({ length }) => length), [0, 5]);
});

Deno.test("Priority() and bandByDscp() refuse wrong options", () => {
  const classify = () => 0;
  throws(() => new Priority({ bands: [], classify }), RangeError);
  const same = new Fifo();
  throws(() => new Priority({ bands: [same, same], classify }), TypeError);
  for (const weights of [[], [1], [1, 0], [1, NaN], [1, Infinity]]) {
    throws(() => new Priority({ bands: bands(2), classify, weights }), RangeError);
  }
  throws(() => bandByDscp({ 64: 0 }, 1), RangeError);
});
