/** Copies of a mirror, and the packets that it leaves unchanged. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Mirror } from "@warren/tunnel/mirror";
import { Switchboard } from "@warren/tunnel/switchboard";
import { Tcp } from "@warren/tunnel/tcp";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { ManualEnd } from "../../../kit/tunnel.ts";
import { encodePacket } from "../../../kit/packet_text.ts";
import { encodeIp, makePartial, packetOf, wrongChecksum } from "../../../kit/packets.ts";

Deno.test("Mirror copies what passes, both ways, and passes it on", () => {
  const end = new ManualEnd();
  const mirror = new Mirror(end);
  const test = new TestPipeline(mirror);
  test.put(Direction.Outbound, [1, 2]);
  test.put(Direction.Inbound, [3]);
  test.settle();
  deepEqual(test.take(), { far: [1, 2], device: [3] });
  deepEqual([end.writtenBytes, mirror.mirrored, test.balanced], [[1, 2, 3], 3, true]);
  test.pipeline.close();
  equal(end.closes, 1);
});

Deno.test("Mirror copies one direction, and what its filter likes", () => {
  const end = new ManualEnd();
  const mirror = new Mirror(end, {
    direction: Direction.Inbound,
    filter: (packet) => packet.data[0]! > 3,
  });
  const test = new TestPipeline(mirror);
  test.put(Direction.Outbound, [5]);
  test.put(Direction.Inbound, [3, 4]);
  test.settle();
  test.take();
  deepEqual(end.writtenBytes, [4]);
});

Deno.test("Mirror into a switchboard copies each packet to the end of that number", () => {
  const ends = [new ManualEnd(), new ManualEnd()];
  const mirror = new Mirror(new Switchboard(ends));
  const test = new TestPipeline({
    name: "to the end of its number",
    outbound: (batch) => {
      for (const packet of batch) packet.to = packet.data[0]!;
    },
  }, mirror);
  test.put(Direction.Outbound, [1, 2, 1]);
  test.settle();
  test.take();
  deepEqual([ends.map((end) => end.writtenBytes), mirror.mirrored, mirror.lost.size], [[[1, 1], [2]], 3, 0]);
});

Deno.test("Mirror keeps copies while the end has no room, and counts those that are too many", () => {
  const end = new ManualEnd();
  end.room = 2;
  const mirror = new Mirror(end);
  const test = new TestPipeline(mirror);
  for (let round = 0; round < 3; round++) {
    test.put(Direction.Outbound, Array.from({ length: 40 }, (_, i) => i));
    test.settle();
    equal(test.take().far.length, 40);
  }
  deepEqual([mirror.mirrored, mirror.lost.get("no room")], [2, 54]);
  end.room = Infinity;
  mirror.tick({ now: 0, wake: () => {} } as never);
  equal(mirror.mirrored, 66);
});

Deno.test("Mirror gives an end without offload ordinary packets with finished sums", () => {
  const end = new ManualEnd();
  const mirror = new Mirror(end);
  const test = new TestPipeline(mirror);
  const hello = packetOf(encodePacket('udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"'));
  makePartial(hello, hello.offset + 20, 6);
  mirror.outbound({ packets: [hello], length: 1 } as never, { now: 0 } as never);
  const long = packetOf(new Uint8Array(1200));
  Tcp.encode(long, { srcPort: 1, dstPort: 2, seq: 1, flags: Tcp.Ack });
  encodeIp(long, 4, 6).segmentSize = 500;
  mirror.outbound({ packets: [long], length: 1 } as never, { now: 0 } as never);
  deepEqual(end.written.map((bytes) => bytes.length), [33, 540, 540, 240]);
  ok(end.written.every((bytes) => wrongChecksum(bytes) === ""));
  ok(hello.checksumStart > 0 && long.segmentSize === 500);
  ok(test.balanced);
});
