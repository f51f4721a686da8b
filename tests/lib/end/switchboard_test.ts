/** An end made of several, beside each of them. */

import { deepEqual, equal, throws } from "node:assert/strict";
import { PacketBatch } from "@warren/tunnel/core";
import { openTunnel } from "@warren/tunnel";
import { MemoryDevice } from "@warren/tunnel/memory";
import { Switchboard } from "@warren/tunnel/switchboard";
import { TestHost } from "../../kit/host.ts";
import { assertBalanced, ManualEnd, QUIET } from "../../kit/tunnel.ts";

function rig(count: number): { ends: ManualEnd[]; board: Switchboard; host: TestHost } {
  const ends = Array.from({ length: count }, (_, i) => new ManualEnd(`end ${i + 1}`));
  const board = new Switchboard(ends);
  const host = new TestHost();
  board.attach(host);
  return { ends, board, host };
}

function batch(host: TestHost, packets: [to: number, byte: number][]): PacketBatch {
  const batch = new PacketBatch({ packets: 1000 });
  for (const [to, byte] of packets) {
    const packet = host.pool.from(Uint8Array.of(byte))!;
    packet.to = to;
    batch.push(packet);
  }
  return batch;
}

Deno.test("Switchboard reads every end, and sets Packet.from", () => {
  const { ends, board, host } = rig(3);
  ends[2]!.come(30, 31);
  ends[0]!.come(10);
  const read = new PacketBatch();
  equal(board.read(read), 3);
  deepEqual([...read].map((packet) => [packet.from, packet.data[0]]), [[1, 10], [3, 30], [3, 31]]);
  for (const packet of read) host.pool.give(packet);
});

Deno.test("Switchboard reads every end in turn, however much the first one brings", () => {
  const { ends, board, host } = rig(2);
  for (let i = 0; i < 200; i++) ends[0]!.come(1);
  ends[1]!.come(2);
  const from: number[] = [];
  for (let i = 0; i < 3; i++) {
    const read = new PacketBatch();
    board.read(read);
    from.push(...[...read].map((packet) => packet.from));
    for (const packet of read) host.pool.give(packet);
  }
  equal(from.indexOf(2) < 128, true);
});

Deno.test("Switchboard writes each packet to its end, and drops packets for none", () => {
  const { ends, board, host } = rig(2);
  const packets = batch(host, [[2, 1], [1, 2], [0, 3], [3, 4], [2, 5]]);
  equal(board.write(packets), 5);
  equal(packets.length, 0);
  deepEqual(ends.map((end) => end.writtenBytes), [[2], [1, 5]]);
  deepEqual(host.dropped, { "no such end": 2 });
  equal(host.pool.taken, 0);
});

Deno.test("Switchboard keeps the order for a full end, and does not delay others", () => {
  const { ends, board, host } = rig(2);
  ends[0]!.room = 3;
  const numbers = Array.from({ length: 200 }, (_, i) => i);
  board.write(batch(host, numbers.map((i) => [1, i])));
  board.write(batch(host, [[2, 77]]));
  deepEqual([ends[0]!.writtenBytes.length, ends[1]!.writtenBytes, board.queued], [3, [77], 197]);
  equal(board.waits[0]!.isFull, true);
  ends[0]!.room = Infinity;
  board.read(new PacketBatch());
  deepEqual([ends[0]!.writtenBytes, board.queued, board.waits[0]!.isFull], [numbers, 0, false]);
});

Deno.test("Switchboard drops packets beyond the queue of a full end, and waiting ones when it closes", () => {
  const { ends, board, host } = rig(2);
  ends[0]!.room = 0;
  for (let i = 0; i < 5; i++) board.write(batch(host, new Array(100).fill([1, i])));
  equal(board.queued, 320);
  deepEqual(host.dropped, { "end full": 180 });
  board.close();
  deepEqual([host.dropped, host.pool.taken, ends.map(({ closes }) => closes)], [
    { "end full": 180, closed: 320 },
    0,
    [1, 1],
  ]);
});

Deno.test("Switchboard fails when an end does, and accepts super-packets if all ends do", () => {
  const { ends, board } = rig(2);
  equal(board.failure, undefined);
  ends[1]!.fail(new Error("gone"));
  equal(board.failure!.message, "gone");
  equal(board.offload, false);
  equal(new Switchboard(MemoryDevice.pair()).offload, true);
  throws(() => new Switchboard([]), TypeError);
  throws(() => new Switchboard([ends[0]!, ends[0]!]), TypeError);
});

Deno.test("A tunnel whose far end is a switchboard carries packets to and from both", async () => {
  const [device, system] = [new ManualEnd("device"), rig(0 + 2)];
  const far = new Switchboard(system.ends.map((_, i) => new ManualEnd(`far ${i}`)));
  await using tunnel = await openTunnel({ device, far, ...QUIET });
  const running = tunnel.run((packet) => void (packet.to = packet.data[0]! % 2 + 1));
  device.come(4, 5, 6);
  const ends = far.ends as ManualEnd[];
  await Promise.all([ends[0]!.wrote(2), ends[1]!.wrote(1)]);
  deepEqual(ends.map((end) => end.writtenBytes), [[4, 6], [5]]);
  ends[1]!.come(9);
  await device.wrote(1);
  assertBalanced(tunnel);
  tunnel.close();
  await running;
});
