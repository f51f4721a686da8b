/** Each option that takes a filter calls it with the direction: `inbound` and `outbound` are words of its language. */

import { deepEqual } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { Count } from "@warren/tunnel/count";
import { compileFilter } from "@warren/tunnel/filter";
import { Firewall } from "@warren/tunnel/firewall";
import { MemoryDevice } from "@warren/tunnel/memory";
import { Mirror } from "@warren/tunnel/mirror";
import { route } from "@warren/tunnel/route";
import { bandByFilter } from "@warren/tunnel/shape";
import { encodePacket } from "../../kit/packet_text.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { packetOf } from "../../kit/packets.ts";

const OUTBOUND = compileFilter("outbound and udp");
const PACKET = encodePacket('udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"');

/** Sends a packet in each direction; returns the numbers that reach the far end and the device. */
function pass(stage: Stage): [far: number, device: number] {
  const test = new TestPipeline(stage);
  for (const direction of [Direction.Outbound, Direction.Inbound]) test.send(direction, PACKET);
  test.settle();
  const { far, device } = test.receive();
  return [far.length, device.length];
}

Deno.test("Count counts by a filter of one direction", () => {
  const count = new Count({ filter: OUTBOUND });
  pass(count);
  deepEqual([count.counted.outbound.packets, count.counted.inbound.packets], [1, 0]);
});

Deno.test("Mirror copies by a filter of one direction", () => {
  const mirror = new Mirror(MemoryDevice.pair()[0], { filter: OUTBOUND });
  pass(mirror);
  deepEqual(mirror.mirrored, 1);
  mirror.close();
});

Deno.test("Firewall lets pass by a filter of one direction", () => {
  const firewall = new Firewall({ default: "drop", rules: [{ verdict: "allow", match: OUTBOUND }] });
  // Outbound first, its flow would let the inbound packet pass.
  const test = new TestPipeline(firewall);
  test.send(Direction.Inbound, PACKET);
  test.settle();
  test.send(Direction.Outbound, PACKET);
  test.settle();
  const { far, device } = test.receive();
  deepEqual([far.length, device.length], [1, 0]);
});

Deno.test("route() routes by a filter of one direction", () => {
  deepEqual(pass(route([{ match: OUTBOUND, to: 1 }])), [1, 0]);
});

Deno.test("bandByFilter() classifies by a filter of one direction", () => {
  const classify = bandByFilter([OUTBOUND]);
  const packet = packetOf(PACKET);
  deepEqual([classify(packet, Direction.Outbound), classify(packet, Direction.Inbound)], [0, 1]);
});
