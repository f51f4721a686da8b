/** The ring between two workers, against a list. */

import assert from "node:assert/strict";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";
import { allocateRing, PacketRing } from "../../../runtime/ring/ring.ts";
import { Random } from "../../../lib/core/random.ts";

/** All properties of a packet that cross the ring. */
interface Properties {
  tag: number;
  bytes: Uint8Array;
  endpoint: Uint8Array;
  segmentSize: number;
  checksumStart: number;
  checksumOffset: number;
  malformed: boolean;
  hasEndpoint: boolean;
  from: number;
  to: number;
  mark: number;
}

function propertiesOf(packet: Packet, tag: number): Properties {
  const { segmentSize, checksumStart, checksumOffset, malformed, hasEndpoint, from, to, mark } = packet;
  const [bytes, endpoint] = [packet.data.slice(), packet.endpoint.slice()];
  return {
    tag,
    bytes,
    endpoint,
    segmentSize,
    checksumStart,
    checksumOffset,
    malformed,
    hasEndpoint,
    from,
    to,
    mark,
  };
}

function randomBytes(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.below(256));
}

function makePool(): PacketPool {
  const pool = new PacketPool({ small: 2, large: 2 });
  pool.bytes.fill(0xa5);
  return pool;
}

/** A packet with every property set. */
function makePacket(pool: PacketPool, random: Random, length: number): Packet {
  const packet = pool.from(randomBytes(random, length))!;
  packet.endpoint.set(randomBytes(random, 48));
  packet.segmentSize = random.below(0x10000);
  packet.checksumStart = random.below(0x10000);
  packet.checksumOffset = random.below(0x10000);
  packet.malformed = random.below(2) === 1;
  packet.hasEndpoint = random.below(2) === 1;
  packet.from = random.below(1000);
  packet.to = random.below(1000) - 500;
  packet.mark = random.below(0x7fff_ffff) * 4;
  return packet;
}

for (const [capacity, longest] of [[256, 120], [4096, 1500], [1 << 18, 65_535]] as const) {
  Deno.test(`PacketRing of ${capacity} bytes gives packets of up to ${longest} as they were, in order`, () => {
    const seed = 7 + capacity;
    const random = new Random(seed);
    const memory = allocateRing(capacity);
    const [writer, reader] = [new PacketRing(memory), new PacketRing(memory)];
    const [source, target] = [makePool(), makePool()];
    const pushed: Properties[] = [];
    const shown: Properties[] = [];
    let [passed, refused] = [0, 0];
    for (let step = 0; step < 3000; step++) {
      for (let i = random.below(6); i > 0; i--) {
        const packet = makePacket(source, random, 1 + random.below(longest));
        const tag = random.below(0x7fff_ffff);
        if (writer.push(packet, tag)) pushed.push(propertiesOf(packet, tag));
        else refused++;
        source.give(packet);
      }
      if (random.below(3) === 0) {
        writer.commit();
        shown.push(...pushed.splice(0));
      }
      for (let i = random.below(6); i > 0; i--) {
        const expected = shown.shift();
        assert.equal(reader.nextLength, expected?.bytes.length ?? -1, `seed ${seed}, step ${step}`);
        if (expected === undefined) break;
        const tag = reader.nextTag;
        const packet = target.take(reader.nextLength)!;
        reader.shift(packet);
        assert.deepEqual(propertiesOf(packet, tag), expected, `seed ${seed}, step ${step}`);
        target.give(packet);
        passed++;
      }
    }
    assert.ok(passed > 500 && refused > 100, `${passed} passed, ${refused} were refused`);
  });
}

Deno.test("PacketRing counts bytes beyond 2^32", () => {
  const memory = allocateRing(4096);
  // What the two sides have counted so far.
  const ends = new Int32Array(memory, 0, 32);
  ends[0] = ends[16] = -4096;
  const [writer, reader] = [new PacketRing(memory), new PacketRing(memory)];
  const pool = makePool();
  for (let i = 0; i < 20; i++) {
    const packet = pool.from(new Uint8Array(1000).fill(i))!;
    assert.ok(writer.push(packet, i));
    writer.commit();
    assert.deepEqual([reader.nextLength, reader.nextTag], [1000, i]);
    reader.shift(packet);
    pool.give(packet);
  }
  assert.ok(ends[0]! > 0);
});

Deno.test("PacketRing refuses a packet while there is no room, and takes it when there is", () => {
  const memory = allocateRing(1024);
  const [writer, reader] = [new PacketRing(memory), new PacketRing(memory)];
  const pool = makePool();
  const packet = pool.take(400)!;
  assert.deepEqual([writer.push(packet, 1), writer.push(packet, 2), writer.push(packet, 3)], [
    true,
    true,
    false,
  ]);
  assert.equal(reader.nextLength, -1);
  writer.commit();
  assert.equal(reader.nextLength, 400);
  reader.shift(packet);
  assert.equal(writer.push(packet, 3), true);
});

Deno.test("PacketRing refuses a packet that no reader could take", () => {
  const writer = new PacketRing(allocateRing());
  const pool = new PacketPool({ small: 1, large: 1 });
  const [small, large] = [pool.take(100)!, pool.take(65_535)!];
  large.offset = large.slotStart;
  large.length = large.slotEnd - large.slotStart;
  small.length = 4000;
  assert.deepEqual([writer.push(large, 0), writer.push(small, 0)], [false, false]);
});
