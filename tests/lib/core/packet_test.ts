/** Packets, their pool and batches. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  HEADROOM,
  LARGE_ROOM,
  ManualClock,
  PacketBatch,
  PacketPool,
  SMALL_ROOM,
} from "../../../lib/core/mod.ts";
import { copy } from "../../../lib/split/copy.ts";

Deno.test("PacketPool.take() gives slots of two sizes and undefined when they are taken", () => {
  const pool = new PacketPool({ small: 2, large: 1 });
  const small = [pool.take(1), pool.take(SMALL_ROOM)];
  assert.equal(pool.take(20), undefined);
  const large = pool.take(SMALL_ROOM + 1)!;
  assert.equal(large.tailroom >= 0, true);
  assert.equal(pool.take(LARGE_ROOM), undefined);
  assert.equal(pool.taken, 3);
  pool.give(large);
  assert.equal(pool.take(LARGE_ROOM), large);
  for (const packet of [...small, large]) pool.give(packet!);
  assert.equal(pool.taken, 0);
  assert.equal(pool.take(LARGE_ROOM + 1), undefined);
});

Deno.test("PacketPool.take() gives the slot that came back last, and a clean handle", () => {
  const pool = new PacketPool({ small: 4, large: 0 });
  const packet = pool.take(100)!;
  packet.prepend(8);
  packet.mark =
    packet.to =
    packet.from =
    packet.segmentSize =
    packet.checksumStart =
      7;
  packet.checksumOffset = packet.time = 9;
  packet.malformed = true;
  pool.give(packet);
  assert.equal(pool.take(40), packet);
  const { offset, slotStart, length, mark, to, from, segmentSize, checksumStart, checksumOffset, time } =
    packet;
  assert.equal(offset - slotStart, HEADROOM);
  assert.equal(length, 40);
  assert.deepEqual([mark, to, from, segmentSize, checksumStart, checksumOffset, time], [0, 0, 0, 0, 0, 0, 0]);
  assert.equal(packet.malformed, false);
});

Deno.test("PacketPool.give() rejects a packet that is free or of another pool", () => {
  const pool = new PacketPool({ small: 1, large: 0 });
  const packet = pool.take(1)!;
  assert.throws(() => new PacketPool({ small: 1, large: 0 }).give(packet), TypeError);
  pool.give(packet);
  assert.throws(() => pool.give(packet), TypeError);
});

Deno.test("PacketPool throws RangeError for invalid counts", () => {
  for (const [small, large] of [[0, 0], [-1, 5], [1.5, 0], [NaN, 1]] as const) {
    assert.throws(() => new PacketPool({ small, large }), RangeError);
  }
});

Deno.test("PacketPool slots do not overlap, endpoints included", () => {
  const pool = new PacketPool({ small: 3, large: 2 });
  pool.bytes.fill(0xa5);
  const packets = [20, 20, 20, LARGE_ROOM, LARGE_ROOM].map((length) => pool.take(length)!);
  packets.forEach((packet, i) => {
    packet.prepend(packet.headroom);
    packet.length += packet.tailroom;
    packet.data.fill(i);
    packet.endpoint.fill(0x80 + i);
  });
  packets.forEach((packet, i) => {
    assert.equal(packet.data.every((byte) => byte === i), true);
    assert.equal(packet.endpoint.every((byte) => byte === 0x80 + i), true);
  });
});

Deno.test("Packet.prepend() and strip() move the start and keep the position of a partial checksum", () => {
  const packet = new PacketPool({ small: 1, large: 0 }).take(60)!;
  packet.checksumStart = 20;
  packet.prepend(40);
  assert.deepEqual([packet.length, packet.checksumStart], [100, 60]);
  packet.strip(40);
  assert.deepEqual([packet.length, packet.checksumStart], [60, 20]);
  assert.throws(
    () => packet.prepend(HEADROOM + 1),
    /^RangeError: Cannot prepend bytes: count must be from 0 to the headroom, 256, got 257$/,
  );
  assert.throws(() => packet.strip(61), RangeError);
  assert.throws(() => packet.prepend(-1), RangeError);
});

Deno.test("Packet.isInSlot is false for invalid lengths and offsets", () => {
  const pool = new PacketPool({ small: 2, large: 0 });
  const packet = pool.take(60)!;
  const { offset, slotStart, slotEnd } = packet;
  const room = slotEnd - offset;
  const wrong = [[-1, 1], [slotStart - 1, 1], [offset, 0], [offset, -1], [offset, NaN], [NaN, 1], [
    offset,
    room + 1,
  ]];
  wrong.push([offset + 0.5, 1], [offset, 1.5], [2 ** 32 + offset, 1], [offset, 2 ** 32], [slotEnd, 1]);
  for (const [start, length] of [[offset, 1], [slotStart, slotEnd - slotStart], [offset, room]] as const) {
    Object.assign(packet, { offset: start, length });
    assert.equal(packet.isInSlot, true, `${start} ${length}`);
  }
  for (const [start, length] of wrong) {
    Object.assign(packet, { offset: start, length });
    assert.equal(packet.isInSlot, false, `${start} ${length}`);
  }
});

Deno.test("copy() is independent of the slot", () => {
  const pool = new PacketPool({ small: 1, large: 0 });
  const packet = pool.from(Uint8Array.of(1, 2, 3))!;
  const [bytes] = copy(packet);
  packet.data.fill(0);
  assert.deepEqual(bytes, Uint8Array.of(1, 2, 3));
});

Deno.test("PacketBatch is full by count and by bytes", () => {
  const pool = new PacketPool({ small: 8, large: 0 });
  const byCount = new PacketBatch({ packets: 2 });
  const byBytes = new PacketBatch({ packets: 8, bytes: 2000 });
  byCount.push(pool.take(1)!);
  byBytes.push(pool.take(1500)!);
  assert.deepEqual([byCount.full, byBytes.full], [false, false]);
  byCount.push(pool.take(1)!);
  byBytes.push(pool.take(500)!);
  assert.deepEqual([byCount.full, byBytes.full], [true, true]);
  byBytes.clear();
  assert.equal(byBytes.full, false);
  assert.throws(() => new PacketBatch({ packets: 0 }), RangeError);
});

Deno.test("PacketBatch.full follows the bytes that are in it when packets leave", () => {
  const pool = new PacketPool({ small: 8, large: 0 });
  const batch = new PacketBatch({ packets: 8, bytes: 2000 });
  batch.push(pool.take(1500)!);
  batch.push(pool.take(1500)!);
  batch.shift(1);
  assert.equal(batch.full, false);
  batch.packets[0]!.owner = undefined;
  batch.push(pool.take(1500)!);
  batch.compact();
  assert.equal(batch.full, false);
});

Deno.test("PacketBatch.compact() keeps what it owns, in order, for any packets claimed", () => {
  fc.assert(fc.property(fc.array(fc.boolean(), { maxLength: 64 }), (claimed) => {
    const pool = new PacketPool({ small: 64, large: 0 });
    const batch = new PacketBatch();
    const packets = claimed.map(() => pool.take(10)!);
    packets.forEach((packet) => batch.push(packet));
    packets.forEach((packet, i) => claimed[i] && pool.give(packet));
    batch.compact();
    assert.deepEqual(
      [...batch].map(({ slot }) => slot),
      packets.filter((_, i) => !claimed[i]).map(({ slot }) => slot),
    );
  }));
});

Deno.test("ManualClock goes only forward", () => {
  const clock = new ManualClock();
  clock.advance(5);
  assert.equal(clock.now(), 5);
  assert.throws(() => clock.advance(-1), RangeError);
});
