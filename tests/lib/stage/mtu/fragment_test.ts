/** Fragments of packets of all kinds and lengths, for all MTUs: joined again they are the packet. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Packet } from "@warren/tunnel/core";
import { fragment } from "@warren/tunnel/fragment";
import { Reassemble } from "@warren/tunnel/reassemble";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { before, TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { survive } from "../../../kit/hostile.ts";
import { join, readFragment } from "./_join.ts";
import { chained, EXTENSIONS as CHAINS, randomChain, upperOf } from "../../../kit/ipv6_chains.ts";
import { encodeIp, hex, packetOf, wrongChecksum } from "../../../kit/packets.ts";
import { copy } from "../../../../lib/split/copy.ts";

const EXTENSIONS = [[], [0, 0, 5, 2, 0, 0, 1, 0], [43, 0, 1, 0, 0, 0, 0, 0], [
  60,
  0,
  1,
  4,
  0,
  0,
  0,
  0,
]] as const;

/** The packets that leave; fragments are joined. */
function joined(packets: readonly Uint8Array[], mtu: number): Uint8Array[] {
  const whole: Uint8Array[] = [];
  let fragments = [];
  for (const bytes of packets) {
    ok(bytes.length <= mtu, `${bytes.length} bytes are more than ${mtu}`);
    const part = readFragment(bytes);
    if (part === undefined) {
      whole.push(bytes);
      continue;
    }
    fragments.push(part);
    if (part.more) continue;
    deepEqual(new Set(fragments.map(({ key }) => key)).size, 1);
    whole.push(join(fragments));
    fragments = [];
  }
  equal(fragments.length, 0);
  return whole;
}

Deno.test("fragment() makes fragments that are the packet when they are joined", () => {
  const seed = 0xf4a6;
  const random = new Random(seed);
  for (let i = 0; i < 500; i++) {
    const version = random.below(2) === 0 ? 4 : 6;
    const mtu = 120 + random.below(1300);
    const packet = packetOf(Uint8Array.from({ length: random.below(1500) }, () => random.below(256)));
    Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
    const [first, ...header] = EXTENSIONS[version === 4 ? 0 : random.below(EXTENSIONS.length)]!;
    if (first !== undefined) {
      packet.prepend(8);
      packet.bytes.set([17, ...header], packet.offset);
    }
    encodeIp(packet, version, first ?? 17);
    const test = new TestPipeline(fragment(mtu, { fragmentIpv6: true, ignoreDontFragment: true }));
    test.send(Direction.Outbound, packet.data);
    test.settle();
    const { far } = test.receive();
    const [whole, ...others] = joined(far, mtu);
    equal(others.length, 0);
    const wanted = packet.data.slice();
    if (version === 4 && far.length > 1) {
      // The stage has set the identification and cleared Don't Fragment.
      wanted.set(whole!.subarray(4, 8), 4);
      wanted.set(whole!.subarray(10, 12), 10);
    }
    equal(hex(whole!), hex(wanted), `seed ${seed}, packet ${i}, mtu ${mtu}`);
    equal(wrongChecksum(whole!), "");
    ok(test.balanced);
  }
});

for (const version of [4, 6] as const) {
  Deno.test(`fragment() segments an IPv${version} super-packet first, and passes one whose segments fit`, () => {
    const packet = packetOf(new Uint8Array(1500).map((_, i) => i * 7));
    Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack });
    encodeIp(packet, version, 6);
    for (const [segmentSize, mtu] of [[400, 300], [400, 460], [1000, 700]] as const) {
      packet.segmentSize = segmentSize;
      const segments = copy(packet);
      const test = new TestPipeline(
        before((given) => void (given.segmentSize = segmentSize)),
        fragment(mtu, { fragmentIpv6: true, ignoreDontFragment: true }),
      );
      test.send(Direction.Outbound, packet.data);
      test.settle();
      const waiting = test.pipeline.forFar.length;
      const { far } = test.receive();
      equal(waiting === 1, mtu === 460);
      const payloads = (all: readonly Uint8Array[]) => all.map((bytes) => hex(bytes.subarray(20)));
      const wanted = version === 4 ? payloads(segments) : segments.map(hex);
      const got = joined(far, mtu);
      deepEqual(version === 4 ? payloads(got) : got.map(hex), wanted);
      ok(test.balanced);
    }
  });
}

Deno.test("fragment() keeps the order of packets, fragmented or not", () => {
  const test = new TestPipeline(fragment(100));
  for (const [ident, length] of [[1, 10], [2, 150], [3, 10], [4, 90], [5, 1]]) {
    const text = `udp 10.9.0.1:5000 > 192.0.2.1:53 nodf ident ${ident} payload ${length}`;
    test.send(Direction.Outbound, encodePacket(text));
  }
  test.settle();
  deepEqual(test.receive().far.map((bytes) => bytes[5]), [1, 2, 2, 3, 4, 4, 5]);
});

Deno.test("fragment() drops a packet whole when there is no room for its fragments", () => {
  const test = new TestPipeline(fragment(100));
  test.send(Direction.Outbound, encodePacket("udp 10.9.0.1:5000 > 192.0.2.1:53 nodf payload 500"));
  const taken: Packet[] = [];
  while (test.pool.free > 3) taken.push(test.pool.take(100)!);
  test.settle();
  equal(test.receive().far.length, 0);
  for (const packet of taken) test.pool.give(packet);
  const { dropped } = test.pipeline.ledger.counters.snapshot(0);
  deepEqual(dropped, { "no room for fragments": 4 });
  ok(test.balanced);
});

Deno.test("fragment() gives each packet with Don't Fragment a new identification", () => {
  const test = new TestPipeline(fragment(100, { ignoreDontFragment: true }));
  for (let i = 0; i < 3; i++) {
    test.send(Direction.Outbound, encodePacket("udp 10.9.0.1:5000 > 192.0.2.1:53 payload 100"));
  }
  test.settle();
  const keys = test.receive().far.map((bytes) => readFragment(bytes)!.key);
  equal(keys.length, 6);
  equal(new Set(keys).size, 3);
});

Deno.test("fragment() keeps the identification of a fragment, even with Don't Fragment", () => {
  const packet = packetOf(
    encodePacket("ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more offset 80 payload 80"),
  );
  Ipv4.of(packet)!.dontFragment = true;
  const test = new TestPipeline(fragment(68, { ignoreDontFragment: true }));
  test.send(Direction.Outbound, packet.data);
  test.settle();
  deepEqual(test.receive().far.map((bytes) => formatPacket(bytes).replace(/ (payload|").*/, "")), [
    "ip 10.9.0.1 > 192.0.2.1 ident 7 offset 80 protocol 17 more",
    "ip 10.9.0.1 > 192.0.2.1 ident 7 offset 128 protocol 17 more",
  ]);
});

Deno.test("fragment() rejects an invalid MTU", () => {
  for (const mtu of [67, 65_536, 1400.5, NaN]) throws(() => fragment(mtu), RangeError);
});

Deno.test("fragment() never throws and loses no packet, whatever bytes come", () => {
  ok(survive(fragment(500, { fragmentIpv6: true, ignoreDontFragment: true }), 0xf4a1, 20_000) > 10_000);
  ok(survive(fragment(68, { direction: Direction.Inbound, fragmentIpv6: true }), 0xf4a2, 5000) > 2000);
  ok(survive(fragment(300), 0xf4a3, 5000) > 2000);
});

Deno.test("fragment() and Reassemble make the same packet again, whatever extension headers it has, atomic ones gone", () => {
  const random = new Random(0xf4a6);
  const upper = upperOf("udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1500");
  let fragmented = 0;
  for (let i = 0; i < 500; i++) {
    const chain = randomChain(random).filter((extension) => extension !== CHAINS.first);
    const sent = chained(chain, upper);
    const wanted = chained(chain.filter((extension) => extension !== CHAINS.atomic), upper);
    const out = new TestPipeline(fragment(600 + random.below(1200), { fragmentIpv6: true }));
    out.send(Direction.Outbound, sent);
    out.settle();
    const fragments = out.receive().far;
    if (fragments.length > 1) fragmented++;
    // Fragmented again on the way.
    const again = new TestPipeline(fragment(500, { fragmentIpv6: true }));
    for (const bytes of fragments) again.send(Direction.Outbound, bytes);
    again.settle();
    const smaller = again.receive().far;
    for (const received of [fragments, smaller, smaller.toReversed()]) {
      const back = new TestPipeline(new Reassemble());
      for (const bytes of received) back.send(Direction.Inbound, bytes);
      back.settle();
      const { device } = back.receive();
      deepEqual(device.map(hex), [hex(wanted)], chain.map(({ type }) => type).join());
      ok(back.balanced);
    }
  }
  ok(fragmented > 200);
});
