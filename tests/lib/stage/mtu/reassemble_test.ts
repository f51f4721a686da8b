/** Reassembly: against a slow one, for random and overlapping fragments; sizes, workers, and any bytes. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Packet, PacketPool, type Stage } from "@warren/tunnel/core";
import { fragment } from "@warren/tunnel/fragment";
import { Reassemble } from "@warren/tunnel/reassemble";
import { Udp } from "@warren/tunnel/udp";
import { Heartbeat } from "../../../../runtime/engine/heartbeat.ts";
import { Ledger } from "../../../../runtime/engine/ledger.ts";
import { type OtherWorkers, Pipeline } from "../../../../runtime/engine/pipeline.ts";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { survive } from "../../../kit/hostile.ts";
import { type Fragment, join, readFragment } from "./_join.ts";
import { encodeIp, hex, wrongChecksum } from "../../../kit/packets.ts";
import { copy } from "../../../../lib/split/copy.ts";

/** RFC 815, RFC 5722 and RFC 8200, word by word. */
class Slow {
  readonly #fragments = new Map<string, Fragment[]>();
  readonly #refused = new Set<string>();

  take(fragment: Fragment): Uint8Array | undefined {
    const { key, offset, more, payload } = fragment;
    const end = offset + payload.length;
    if (payload.length === 0 || more && payload.length % 8 !== 0 || this.#refused.has(key)) return undefined;
    const others = this.#fragments.get(key) ?? [];
    const ends = ({ offset, payload }: Fragment) => offset + payload.length;
    const same = others.find((other) => other.offset === offset && ends(other) === end);
    const last = others.find(({ more }) => !more);
    const disagrees = last !== undefined && (more ? end >= ends(last) : end !== ends(last)) ||
      !more && others.some((other) => ends(other) > end);
    const overlaps = others.some((other) => offset < ends(other) && other.offset < end);
    if (!disagrees && same !== undefined && hex(same.payload) === hex(payload)) return undefined;
    if (disagrees || overlaps) {
      this.#refused.add(key);
      return undefined;
    }
    const all = [...others, fragment];
    this.#fragments.set(key, all);
    const received = all.reduce((sum, { payload }) => sum + payload.length, 0);
    if (all.every(({ more }) => more) || received !== Math.max(...all.map(ends))) return undefined;
    this.#fragments.delete(key);
    return join(all);
  }
}

Deno.test("Reassemble joins and refuses what a slow reassembly does, for random fragments", () => {
  const seed = 0x4ea5;
  const random = new Random(seed);
  let joined = 0;
  let refused = 0;
  for (let round = 0; round < 300; round++) {
    const stage = new Reassemble();
    const test = new TestPipeline(stage);
    const slow = new Slow();
    for (let i = 0; i < 60; i++) {
      const [src, dst] = random.below(2) === 0 ? ["10.9.0.1", "192.0.2.1"] : ["fd09::1", "2001:db8::1"];
      // Four fragments make a packet; one in ten belongs to another.
      const isOdd = random.below(10) === 0;
      const offset = isOdd ? 8 * random.below(8) : 16 * random.below(4);
      const more = isOdd ? random.below(2) === 0 || offset === 0 : offset < 48;
      const length = isOdd ? 8 * (1 + random.below(3)) : more ? 16 : 9;
      // Mostly what its place says, so that there are duplicates.
      const start = offset + (random.below(60) === 0 ? 1 : 0);
      const bytes = Array.from({ length }, (_, at) => (start + at).toString(16).padStart(2, "0")).join("");
      const words = `protocol 253 ident ${1 + random.below(8)} offset ${offset} ${more ? "more" : ""}`;
      const packet = encodePacket(`ip ${src} > ${dst} ${words} bytes ${bytes}`);
      const wanted = slow.take(readFragment(packet)!);
      test.send(Direction.Inbound, packet);
      test.settle();
      const { device } = test.receive();
      const place = `seed ${seed}, round ${round}, fragment ${i}`;
      deepEqual(device.map(hex), wanted === undefined ? [] : [hex(wanted)], place);
      ok(test.balanced, place);
    }
    joined += stage.reassembled;
    refused += stage.refused;
  }
  ok(joined > 300 && refused > 300, `${joined} joined, ${refused} refused`);
});

/** Passes packets in any order through a stage that keeps their properties, with so many large slots. */
function pass(stage: Stage, packets: readonly Uint8Array[], large: number): Uint8Array[] {
  const pool = new PacketPool({ small: 128, large });
  const ledger = new Ledger(pool);
  const pipeline = new Pipeline([stage], {
    ledger,
    others: undefined,
    heartbeat: new Heartbeat(),
    wake: () => {},
  });
  const random = new Random(7);
  const shuffled = packets.map((bytes) => ({ bytes, key: random.below(1000) }))
    .sort((a, b) => a.key - b.key).map(({ bytes }) => bytes);
  for (const bytes of shuffled) {
    const packet = pool.from(bytes)!;
    packet.mark = 9;
    packet.endpoint.fill(7);
    pipeline.outbound[0]!.push(packet);
  }
  pipeline.flow(Direction.Outbound, 0);
  const passed = Array.from(pipeline.forFar, (packet) => copy(packet)).flat();
  for (const packet of pipeline.forFar) {
    equal(packet.mark, 9);
    ok(packet.endpoint.every((byte) => byte === 7));
    pipeline.ledger.giveBack(packet);
  }
  equal(pool.taken, 0);
  return passed;
}

for (const version of [4, 6] as const) {
  Deno.test(`Reassemble joins an IPv${version} packet of 60,000 bytes in a large slot, if there is one`, () => {
    const packet = new PacketPool({ small: 0, large: 1 }).from(
      Uint8Array.from({ length: 60_000 }, (_, i) => i * 7),
    )!;
    Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
    encodeIp(packet, version, 17);
    const fragmenter = fragment(1500, { ignoreDontFragment: true, fragmentIpv6: true });
    const fragments = pass(fragmenter, [packet.data], 1);
    equal(fragments.length, version === 4 ? 41 : 42);
    const [whole, ...others] = pass(new Reassemble(), fragments, 1);
    equal(others.length, 0);
    equal(hex(whole!.subarray(20)), hex(packet.data.subarray(20)));
    equal(wrongChecksum(whole!), "");
    const without = new Reassemble();
    equal(pass(without, fragments, 0).length, 0);
    equal(without.refused, 1);
  });
}

Deno.test("Reassemble keeps the order of packets, reassembled or not", () => {
  const test = new TestPipeline(new Reassemble());
  const lines = [
    'udp 10.9.0.1:5000 > 192.0.2.1:53 ident 1 "hello"',
    'ip 10.9.0.1 > 192.0.2.1 protocol 253 ident 2 more "hello..."',
    'udp 10.9.0.1:5000 > 192.0.2.1:53 ident 3 "hello"',
    'ip 10.9.0.1 > 192.0.2.1 protocol 253 ident 2 offset 8 "there"',
    'udp 10.9.0.1:5000 > 192.0.2.1:53 ident 4 "hello"',
  ];
  for (const line of lines) test.send(Direction.Outbound, encodePacket(line));
  test.settle();
  deepEqual(test.receive().far.map((bytes) => bytes[5]), [1, 3, 2, 4]);
});

Deno.test("Reassemble keeps properties, and removes Fragment headers of packets with partial checksums", () => {
  const bytes = encodePacket("ip fd09::1 > 2001:db8::1 protocol 253 ident 7 payload 32");
  let seen: Packet | undefined;
  const before: Stage = {
    name: "before",
    outbound: (batch) => {
      for (const packet of batch) [packet.checksumStart, packet.checksumOffset, packet.mark] = [48, 6, 9];
    },
  };
  const behind: Stage = { name: "behind", outbound: (batch) => void (seen = batch.packets[0]) };
  const test = new TestPipeline(before, new Reassemble(), behind);
  test.send(Direction.Outbound, bytes);
  test.settle();
  deepEqual([seen!.checksumStart, seen!.checksumOffset, seen!.mark, seen!.length], [40, 6, 9, 72]);
});

Deno.test("Reassemble hands each datagram's fragments to one worker, the same from both", () => {
  const handed: Map<number, number>[] = [new Map(), new Map()];
  for (const index of [0, 1]) {
    const others: OtherWorkers = {
      place: { index, count: 2 },
      send: (packet, worker, stage, direction) => {
        deepEqual([stage, direction], [0, Direction.Inbound]);
        handed[index]!.set(packet.bytes[packet.offset + 5]!, worker);
        return true;
      },
    };
    const test = new TestPipeline(new Reassemble(), { others });
    for (let ident = 0; ident < 64; ident++) {
      for (const place of ["more", "offset 8"]) {
        const text = `ip 10.9.0.1 > 192.0.2.1 protocol 253 ident ${ident} ${place} "hello..."`;
        test.send(Direction.Inbound, encodePacket(text));
      }
      test.settle();
      const joined = test.receive().device.length;
      equal(joined, handed[index]!.has(ident) ? 0 : 1);
    }
    ok(handed[index]!.size > 16 && handed[index]!.size < 48);
  }
  for (let ident = 0; ident < 64; ident++) equal(handed[0]!.has(ident), !handed[1]!.has(ident));
});

Deno.test("Reassemble stays within its bounds in a flood, and reassembles datagrams that complete", () => {
  const random = new Random(0xf100d);
  const stage = new Reassemble({ datagrams: 32, fragments: 48, bytes: 4000, fragmentsPerDatagram: 4 });
  const test = new TestPipeline(stage);
  for (let i = 1; i <= 5000; i++) {
    const place = random.below(2) === 0 ? "more" : `offset ${8 * random.below(1000)} more`;
    const words = `protocol 17 ident ${random.below(65_536)} ${place} payload ${8 * (1 + random.below(20))}`;
    test.send(Direction.Inbound, encodePacket(`ip 198.51.100.${random.below(256)} > 10.9.0.1 ${words}`));
    if (i % 100 === 0) {
      for (const place of ["more", "offset 8"]) {
        const text = `ip 192.0.2.1 > 10.9.0.1 protocol 253 ident ${i} ${place} "hello..."`;
        test.send(Direction.Inbound, encodePacket(text));
      }
    }
    test.settle();
    test.receive();
    const held = test.pool.packets.filter(({ owner }) => owner !== test.pool);
    equal(held.length, test.pipeline.queued);
    ok(held.length <= 48 && held.reduce((sum, { length }) => sum + length, 0) <= 4000);
  }
  ok(test.balanced);
  equal(stage.reassembled, 50);
});

Deno.test("Reassemble rejects wrong options", () => {
  throws(() => new Reassemble({ datagrams: 0 }), RangeError);
  throws(() => new Reassemble({ fragments: 1.5 }), RangeError);
  throws(() => new Reassemble({ bytes: NaN }), RangeError);
  throws(() => new Reassemble({ timeout: 0 }), RangeError);
});

Deno.test("Reassemble never throws and loses no packet, whatever bytes come", () => {
  ok(survive(new Reassemble({ datagrams: 8, fragments: 16, bytes: 2000 }), 0x4ea1, 20_000) > 5000);
  ok(survive(new Reassemble(), 0x4ea2, 5000) > 1000);
});
