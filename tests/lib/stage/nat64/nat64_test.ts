/** Translation of packets, and the sessions of NAT64. */

import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { Direction, type Packet, PacketPool, type Stage } from "@warren/tunnel/core";
import { parseIpv4, parseIpv6 } from "@warren/tunnel/address";
import { Nat64, type Nat64Options, toIpv4, toIpv6 } from "@warren/tunnel/nat64";
import type { IcmpErrors } from "@warren/tunnel/icmp_error";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { Reassemble } from "@warren/tunnel/reassemble";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import type { OtherWorkers } from "../../../../runtime/engine/pipeline.ts";
import { fixHashes } from "../../../kit/fixed_hashes.ts";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { survive } from "../../../kit/hostile.ts";
import { makePartial, packetOf, wrongChecksum } from "../../../kit/packets.ts";
import { copy } from "../../../../lib/split/copy.ts";

const FOUR = { src: parseIpv4("198.51.100.1"), dst: parseIpv4("192.0.2.1"), quotedSrc: 0, quotedDst: 0 };
const SIX = {
  src: parseIpv6("64:ff9b::c000:201"),
  dst: parseIpv6("fd64::5"),
  quotedSrc: new Uint8Array(16),
  quotedDst: new Uint8Array(16),
};

function make(options: Partial<Nat64Options> = {}): Nat64 {
  return new Nat64({ outside: "198.51.100.1", random: () => 6, ...options });
}

/** Sends packets; returns those that leave, as text. */
function send(test: TestPipeline, direction: Direction, ...packets: string[]): string[] {
  for (const packet of packets) test.send(direction, encodePacket(packet));
  test.settle();
  const { far, device } = test.receive();
  return [...far, ...device].map(formatPacket);
}

Deno.test("Nat64 finds the last free port, and then takes that of the session that has been idle for longest", () => {
  const nat = make({ capacity: 70_000, random: () => 1e9 });
  const test = new TestPipeline(nat);
  const bytes = encodePacket('udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "hello"');
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 65_536; i++) {
    view.setUint32(20, i);
    test.send(Direction.Outbound, bytes);
    if (i % 64 < 63) continue;
    test.settle();
    test.receive();
  }
  // Not 0.
  equal(nat.bindings, 65_535);
  deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, {});
});

Deno.test("Nat64 fragments to 1280 bytes packets that may be fragmented, in order, and the fragments are the whole", () => {
  const lines = [
    'udp 192.0.2.1:53 > 198.51.100.1:5000 "before"',
    "udp 192.0.2.1:53 > 198.51.100.1:5000 ident 77 nodf payload 1500",
    "udp 192.0.2.1:53 > 198.51.100.1:5000 payload 1440",
    "udp 192.0.2.1:53 > 198.51.100.1:5000 ident 78 nodf payload 1233",
    'udp 192.0.2.1:53 > 198.51.100.1:5000 "after"',
    'udp [fd64::5]:53 > [fd64::6]:54 "of IPv6"',
  ];
  const open = 'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "hello"';
  const test = new TestPipeline(make());
  send(test, Direction.Outbound, open);
  for (const line of lines) test.send(Direction.Inbound, encodePacket(line));
  test.settle();
  deepEqual(test.receive().device.map(({ length }) => length), [54, 1280, 324, 1488, 1280, 57, 53, 55]);
  ok(test.balanced);
  const whole = new TestPipeline(new Reassemble(), make());
  send(whole, Direction.Outbound, open);
  deepEqual(send(whole, Direction.Inbound, ...lines), [
    'udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 ttl 63 "before"',
    "udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 ttl 63 payload 1500",
    "udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 ttl 63 payload 1440",
    "udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 ttl 63 payload 1233",
    'udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 ttl 63 "after"',
    lines.at(-1),
  ]);
});

for (
  const text of [
    "udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 payload 1233",
    "tcp [fd64::5]:5000 > [64:ff9b::c000:201]:80 A payload 1400",
  ]
) {
  Deno.test(`toIpv4() keeps the partial checksum of a super-packet: ${text}`, () => {
    const packet = packetOf(encodePacket(text));
    makePartial(packet, packet.offset + 40, text.startsWith("udp") ? 6 : 16);
    packet.segmentSize = 600;
    equal(toIpv4(packet, FOUR, 7), undefined);
    ok(packet.checksumStart === 20 && packet.segmentSize === 600);
    const segments = copy(packet);
    ok(segments.length > 1);
    for (const segment of segments) equal(wrongChecksum(segment), "");
  });
}

for (
  const text of [
    "udp 192.0.2.1:53 > 198.51.100.1:5000 payload 1233",
    "tcp 192.0.2.1:80 > 198.51.100.1:5000 A payload 1400",
  ]
) {
  Deno.test(`toIpv6() keeps the partial checksum of a super-packet: ${text}`, () => {
    const packet = packetOf(encodePacket(text));
    makePartial(packet, packet.offset + 20, text.startsWith("udp") ? 6 : 16);
    packet.segmentSize = 600;
    equal(toIpv6(packet, SIX), undefined);
    ok(packet.checksumStart === 40 && packet.segmentSize === 600);
    const segments = copy(packet);
    ok(segments.length > 1);
    for (const segment of segments) equal(wrongChecksum(segment), "");
  });
}

Deno.test("toIpv6() gives the segments of a UDP super-packet without a checksum theirs", () => {
  const bytes = encodePacket("udp 192.0.2.1:53 > 198.51.100.1:5000 payload 1400");
  bytes[26] = bytes[27] = 0;
  const packet = packetOf(bytes);
  packet.segmentSize = 600;
  equal(toIpv6(packet, SIX), undefined);
  deepEqual(copy(packet).map(wrongChecksum), ["", "", ""]);
});

Deno.test("Translation keeps right checksums right and wrong ones wrong, for any length and bytes", () => {
  const random = new Random(64);
  for (let i = 0; i < 2000; i++) {
    const payload = Array.from(
      { length: random.below(40) },
      () => random.below(256).toString(16).padStart(2, "0"),
    );
    const kind = ["udp", "tcp"][random.below(2)]!;
    const ports = [random.below(65_536), random.below(65_536)];
    const bytes = encodePacket(
      `${kind} [fd64::5]:${ports[0]} > [64:ff9b::c000:201]:${ports[1]} bytes ${payload.join("")}`,
    );
    const isWrong = random.below(4) === 0;
    if (isWrong) bytes[46] ^= 1 + random.below(255);
    const packet: Packet = packetOf(bytes);
    const before = wrongChecksum(bytes) === "";
    const isZero = kind === "udp" && bytes[46] === 0 && bytes[47] === 0;
    if (isZero) continue;
    equal(toIpv4(packet, FOUR, i), undefined);
    equal(wrongChecksum(packet.data) === "", before);
    equal(toIpv6(packet, SIX), undefined);
    equal(wrongChecksum(packet.data) === "", before);
  }
});

Deno.test("toIpv6() drops a source route with hops left, and leaves other options out", () => {
  const withOptions = (options: number[]): Packet => {
    const plain = encodePacket('udp 192.0.2.1:53 > 198.51.100.1:5000 "hello"');
    const bytes = new Uint8Array(plain.length + options.length);
    bytes.set(plain.subarray(0, 20));
    bytes.set(options, 20);
    bytes.set(plain.subarray(20), 20 + options.length);
    bytes[0] = 0x45 + options.length / 4;
    bytes[3] = bytes.length;
    bytes[10] = bytes[11] = 0;
    let total = 0;
    for (let i = 0; i < 20 + options.length; i += 2) total += bytes[i]! * 256 + bytes[i + 1]!;
    total = ~((total & 0xffff) + (total >>> 16));
    bytes[10] = total >> 8;
    bytes[11] = total;
    return packetOf(bytes);
  };
  equal(toIpv6(withOptions([1, 131, 7, 4, 10, 0, 0, 1]), SIX), "source route");
  equal(toIpv6(withOptions([137, 7, 4, 10, 0, 0, 1, 0]), SIX), "source route");
  for (const harmless of [[1, 131, 7, 8, 10, 0, 0, 1], [1, 1, 1, 0], [148, 4, 0, 0]]) {
    const packet = withOptions(harmless);
    equal(toIpv6(packet, SIX), undefined);
    equal(formatPacket(packet.data), 'udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 "hello"');
  }
});

Deno.test("toIpv4() leaves extension headers out, and drops a source route with hops left", () => {
  const withHeader = (type: number, header: number[]): Packet => {
    const plain = encodePacket('udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "hello"');
    const bytes = Uint8Array.from([...plain.subarray(0, 40), 17, ...header, ...plain.subarray(40)]);
    bytes[5]! += 8;
    bytes[6] = type;
    return packetOf(bytes);
  };
  for (const type of [0, 60]) {
    const packet = withHeader(type, [0, 1, 4, 0, 0, 0, 0]);
    equal(toIpv4(packet, FOUR, 9), undefined);
    equal(formatPacket(packet.data), 'udp 198.51.100.1:5000 > 192.0.2.1:53 ident 9 nodf "hello"');
  }
  equal(toIpv4(withHeader(43, [0, 0, 1, 0, 0, 0, 0]), FOUR, 9), "source route");
  equal(toIpv4(withHeader(43, [0, 0, 0, 0, 0, 0, 0]), FOUR, 9), undefined);
});

Deno.test("Nat64 shows no inside address in any error, however it is mutated", () => {
  const random = new Random(7);
  const test = new TestPipeline(make({ outside: "198.51.100.1" }));
  send(test, Direction.Outbound, 'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "a"');
  const valid = encodePacket(
    'icmp fd64::5 > 64:ff9b::c000:201 type 1 code 4 { udp [64:ff9b::c000:201]:53 > [fd64::5]:5000 "hello" }',
  );
  let passed = 0;
  for (let i = 0; i < 2000; i++) {
    const packet = packetOf(valid);
    // The version stays.
    const at = 1 + random.below(packet.length - 1);
    packet.bytes[packet.offset + at] = random.below(256);
    // Most would be refused for their checksum alone.
    Icmpv6.of(packet)?.refreshChecksum();
    test.send(Direction.Outbound, packet.data.slice());
    test.settle();
    for (const bytes of test.receive().far) {
      // A packet that no longer has the prefix passes unchanged.
      if (bytes[0]! >> 4 !== 4) continue;
      passed++;
      ok(!bytes.toHex().includes("fd640000"), `at ${at}`);
    }
  }
  ok(passed > 500 && test.balanced);
});

Deno.test("Nat64 evicts sessions of the lowest priority when it is full, and stays bounded", () => {
  const nat = make({ capacity: 8 });
  const test = new TestPipeline(nat);
  const open = "tcp [fd64::5]:5000 > [64:ff9b::c000:201]:80";
  send(test, Direction.Outbound, `${open} S`);
  send(test, Direction.Inbound, "tcp 192.0.2.1:80 > 198.51.100.1:5000 SA");
  for (let port = 1; port < 200; port++) {
    send(test, Direction.Outbound, `udp [fd64::6]:${port} > [64:ff9b::c000:201]:53 "x"`);
  }
  ok(nat.flows <= 8 && nat.bindings <= 8);
  deepEqual(send(test, Direction.Outbound, `${open} A seq 1`).length, 1);
  ok(test.balanced);
  test.now += 10_000_000;
  test.settle();
  deepEqual([nat.flows, nat.bindings], [0, 0]);
});

Deno.test("Nat64 evicts no opening connection for older UDP, and no inside session for one opened from outside", () => {
  const nat = make({ capacity: 4 });
  const test = new TestPipeline(nat);
  // Hosts of several networks: each is within its share.
  const udp = (port: number) => `udp [fd64:0:0:${port}::6]:${port} > [64:ff9b::c000:201]:53 "x"`;
  send(test, Direction.Outbound, udp(6000), udp(6002), udp(6004));
  test.now = 1000;
  send(test, Direction.Outbound, "tcp [fd64::5]:5000 > [64:ff9b::c000:202]:80 S", udp(6006));
  test.now = 2000;
  equal(send(test, Direction.Inbound, "tcp 192.0.2.2:80 > 198.51.100.1:5000 SA").length, 1);
  for (let port = 1000; port < 1100; port++) {
    send(test, Direction.Inbound, `udp 192.0.2.1:${port} > 198.51.100.1:6006 "x"`);
  }
  equal(nat.flows, 4);
  // The first one from outside has driven out the oldest, and then each one the one before.
  const answers = [6002, 6004, 6006].map((port) => `udp 192.0.2.1:53 > 198.51.100.1:${port} "x"`);
  equal(send(test, Direction.Inbound, ...answers).length, 2);
  // A session that was answered, and used again by its sender, has the usual timeout.
  send(test, Direction.Outbound, `udp [fd64:0:0:6006::6]:6006 > [64:ff9b::c000:201]:1099 "x"`);
  send(test, Direction.Inbound, `udp 192.0.2.1:1099 > 198.51.100.1:6006 "x"`);
  test.now = 2000 + 250_000;
  test.settle();
  equal(send(test, Direction.Inbound, `udp 192.0.2.1:1099 > 198.51.100.1:6006 "x"`).length, 1);
  ok(test.balanced);
});

Deno.test("Nat64.restore() continues where Nat64.save() was", () => {
  const one = make();
  const before = new TestPipeline(one);
  send(before, Direction.Outbound, 'udp [fd64::4]:5000 > [64:ff9b::c000:201]:53 "a"');
  send(before, Direction.Outbound, 'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "b"');
  send(before, Direction.Outbound, "tcp [fd64::5]:5000 > [64:ff9b::c000:201]:80 S");
  send(before, Direction.Inbound, "tcp 192.0.2.1:80 > 198.51.100.1:5000 SA");
  const two = make();
  two.restore(JSON.parse(JSON.stringify(one.save())));
  deepEqual(JSON.stringify(two.save()), JSON.stringify(one.save()));
  const after = new TestPipeline(two);
  after.settle();
  deepEqual([two.flows, two.bindings], [3, 3]);
  deepEqual(JSON.stringify(two.save()), JSON.stringify(one.save()));
  for (
    const packet of [
      'udp 192.0.2.1:53 > 198.51.100.1:1036 "for the second"',
      "tcp 192.0.2.1:80 > 198.51.100.1:5000 A seq 1",
    ]
  ) deepEqual(send(after, Direction.Inbound, packet), send(before, Direction.Inbound, packet));
});

Deno.test("Nat64 of several workers assigns a port of the same worker, and hands packets of others over", () => {
  const handed: number[] = [];
  const others: OtherWorkers = {
    place: { index: 1, count: 2 },
    send: (_packet, worker) => handed.push(worker) > 0,
  };
  const nat = make();
  const test = new TestPipeline(nat, { others });
  test.settle();
  const ours = 5002; // (5002 >>> 1) % 2 is 1
  send(test, Direction.Outbound, `udp [fd64::4]:${ours} > [64:ff9b::c000:201]:53 "a"`);
  const [second] = send(test, Direction.Outbound, `udp [fd64::5]:${ours} > [64:ff9b::c000:201]:53 "b"`);
  const port = Number(/198\.51\.100\.1:(\d+)/.exec(second!)![1]);
  ok(port !== ours && port % 4 === ours % 4);
  deepEqual(handed, []);
  deepEqual(send(test, Direction.Outbound, 'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "c"'), []);
  deepEqual(send(test, Direction.Inbound, 'udp 192.0.2.1:53 > 198.51.100.1:5001 "d"'), []);
  const quoted = '{ udp 198.51.100.1:5000 > 192.0.2.1:53 "c" }';
  deepEqual(send(test, Direction.Inbound, `icmp 192.0.2.9 > 198.51.100.1 type 3 code 3 ${quoted}`), []);
  deepEqual(handed, [0, 0, 0]);
});

Deno.test("Nat64 of several workers hairpins packets between hosts of different workers", () => {
  const tests: TestPipeline[] = [];
  for (const index of [0, 1]) {
    const others: OtherWorkers = {
      place: { index, count: 2 },
      send: (packet, worker, _stage, direction) => {
        for (const bytes of copy(packet)) tests[worker]!.send(direction, bytes);
        return true;
      },
    };
    tests.push(new TestPipeline(new Nat64({ outside: "198.51.100.1", random: () => 6 }), { others }));
  }
  const pass = (text: string): string[] => {
    tests[0]!.send(Direction.Outbound, encodePacket(text));
    for (let i = 0; i < 4; i++) for (const test of tests) test.settle();
    return tests.flatMap((test) => {
      const { far, device } = test.receive();
      return [...far, ...device].map(formatPacket);
    });
  };
  const [a, b] = ["[fd64::5]:5000", "[fd64::6]:5002"];
  for (const host of [a, b]) pass(`udp ${host} > [64:ff9b::c000:201]:53`);
  // Each lets the other one in by its own first packet.
  pass(`udp ${a} > [64:ff9b::c633:6401]:5002 "to b"`);
  pass(`udp ${b} > [64:ff9b::c633:6401]:5000 "to a"`);
  const came = pass(`udp ${a} > [64:ff9b::c633:6401]:5002 "again"`);
  equal(came.length, 1);
  match(came[0]!, /^udp \[64:ff9b::c633:6401\]:5000 > \[fd64::6\]:5002 .*"again"$/);
});

Deno.test("Nat64 finds a port while there is one, even if the taken ones are consecutive", () => {
  const nat = new Nat64({ outside: "198.51.100.1" });
  const test = new TestPipeline(nat);
  const flows = 30_000;
  for (let i = 0; i < flows; i++) {
    const [host, port] = [(i >> 12) + 1, 1024 + (i & 4095)];
    test.send(
      Direction.Outbound,
      encodePacket(`udp [fd64::${host.toString(16)}]:${port} > [64:ff9b::c000:201]:53`),
    );
    if (i % 64 === 63) {
      test.settle();
      test.receive();
    }
  }
  test.settle();
  test.receive();
  deepEqual([nat.bindings, test.pipeline.ledger.counters.snapshot(0).dropped], [flows, {}]);
});

Deno.test("Nat64 opens no binding for a source that is not a host", () => {
  const nat = new Nat64({ outside: "198.51.100.1" });
  const test = new TestPipeline(nat);
  const sources = ["::", "::1", "ff02::1", "fe80::7", "febf::1", "64:ff9b::1"];
  for (const src of sources) {
    test.send(Direction.Outbound, encodePacket(`udp [${src}]:5000 > [64:ff9b::c000:201]:53`));
  }
  test.settle();
  deepEqual(test.receive(), { far: [], device: [] });
  deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, { "bad address": sources.length });
  equal(nat.bindings, 0);
});

Deno.test("Nat64.restore() refuses what save() did not return", () => {
  const sessions = [[17, "fd64::5", 5000, 1, 53, 1, 5000, 0, 2, 0]];
  make().restore({ version: 2, sessions });
  for (
    const state of [
      null,
      7,
      {},
      { version: 1, sessions },
      { version: 2, sessions: [[17]] },
      { version: 2, sessions: [[1, "fd64::5", 5000, 1, 53, 1, 5000, 0, 2, 0]] },
      { version: 2, sessions: [[17, "fd64:5", 5000, 1, 53, 1, 5000, 0, 2, 0]] },
      { version: 2, sessions: [[17, "fd64::5", 5000, 1, 53, 1, 70000, 0, 2, 0]] },
    ]
  ) throws(() => make().restore(state), TypeError);
});

Deno.test("Nat64 refuses wrong options", () => {
  throws(() => make({ outside: [] }), TypeError);
  throws(() => make({ outside: "fd64::1" }), SyntaxError);
  throws(() => make({ prefix: "64:ff9b::/95" }), RangeError);
  throws(() => make({ capacity: 0 }), RangeError);
  throws(() => make({ filtering: "none" as "address-dependent" }), TypeError);
  throws(() => make({ outside: 5 as unknown as string }), Error);
  for (const outside of ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]) {
    throws(() => make({ outside }), RangeError);
  }
  throws(() => make({ errors: {} as unknown as IcmpErrors }), /errors must be an IcmpErrors, got an object$/);
});

Deno.test("Nat64 survives any bytes, and every packet is accounted for", () => {
  for (const filtering of ["endpoint-independent", "address-dependent"] as const) {
    const nat = make({ outside: "10.9.0.1", filtering, capacity: 64 });
    // A stage of two: what is sent is made to concern the NAT.
    const both: Stage = {
      name: "both",
      outbound: (batch, context) => {
        for (let i = 0; i < batch.length; i++) steerOut(batch.packets[i]!);
        nat.outbound(batch, context);
      },
      inbound: (batch, context) => {
        for (let i = 0; i < batch.length; i++) steerIn(batch.packets[i]!);
        nat.inbound(batch, context);
      },
      tick: (context) => nat.tick(context),
    };
    ok(survive(both, 64, 6000) > 0);
    ok(nat.flows <= 64);
  }
});

function steerOut(packet: Packet): void {
  const ip = Ipv6.of(packet);
  if (ip !== undefined) ip.dst = SIX.src;
}

/** Makes a packet an answer, unless it is for the NAT as it is. */
function steerIn(packet: Packet): void {
  const ip = Ipv4.of(packet);
  if (ip === undefined || ip.dst === parseIpv4("10.9.0.1")) return;
  ip.swap();
  const ports = Udp.of(packet) ?? Tcp.of(packet);
  if (ports === undefined) return;
  const { srcPort, dstPort } = ports;
  ports.srcPort = dstPort;
  ports.dstPort = srcPort;
}

/** Opens flows of an inside host to one server, which answers each of them; a new address for each with `anyHost`. */
function openAnswered(test: TestPipeline, host: string, count: number, anyHost = false): void {
  const request = encodePacket(`udp [${host}]:1 > [64:ff9b::c000:201]:53 "x"`);
  const view = new DataView(request.buffer, request.byteOffset);
  for (let i = 0; i < count; i++) {
    if (anyHost) view.setUint32(20, 0x10000 + i);
    view.setUint16(40, 1024 + i);
    test.send(Direction.Outbound, request);
    test.settle();
    for (const sent of test.receive().far) {
      const reply = encodePacket('udp 192.0.2.1:53 > 198.51.100.1:1 "x"');
      reply.set(sent.subarray(20, 22), 22);
      test.send(Direction.Inbound, reply);
    }
    test.settle();
    test.receive();
    test.now++;
  }
}

Deno.test("Nat64 has ports and room for others when one inside host, or one network, has taken all", () => {
  for (const anyHost of [false, true]) {
    const nat = make({ capacity: 1024 });
    const test = new TestPipeline(nat);
    send(test, Direction.Outbound, 'udp [fd64:0:0:7::7]:7000 > [64:ff9b::c000:201]:53 "x"');
    openAnswered(test, "fd64::5", 3000, anyHost);
    equal(nat.flows, 1024, "one alone may have everything");
    for (let i = 0; i < 100; i++) {
      const open = `udp [fd64:0:0:8::8]:${8000 + i} > [64:ff9b::c000:201]:53 "x"`;
      equal(send(test, Direction.Outbound, open).length, 1);
    }
    openAnswered(test, "fd64::5", 3000, anyHost);
    const known = JSON.stringify(nat.save());
    for (const [host, port] of [["7::7", 7000], ["8::8", 8000], ["8::8", 8099]]) {
      ok(known.includes(`"fd64:0:0:${host}",${port},`), `${host} ${port} is known`);
    }
    deepEqual(test.pipeline.ledger.counters.snapshot(0).dropped, {});
    ok(test.balanced);
  }
});

Deno.test("Nat64 takes the ports of a host's surplus for another host, even those that were answered", () => {
  const nat = make({ capacity: 131_072, random: () => 1e9 });
  const test = new TestPipeline(nat);
  openAnswered(test, "fd64::5", 65_536);
  equal(nat.bindings, 65_535);
  const open = 'udp [fd64:0:0:8::8]:8000 > [64:ff9b::c000:201]:53 "x"';
  equal(send(test, Direction.Outbound, open).length, 1);
  equal(nat.bindings, 65_535);
});

/** MPLS labels as an extension of an ICMP error (RFC 4950), and a longer one of another class. */
const EXTENSION = Uint8Array.of(0x20, 0, 0xdf, 0xf5, 0, 8, 1, 1, 0, 1, 0x23, 0x45);

/** An ICMP error with extensions behind the quoted packet, whose length it tells in units of `unit` bytes. */
function extendedError(error: string, quote: string, extension: Uint8Array, padTo = 128): Packet {
  const quoted = encodePacket(quote);
  const payload = new Uint8Array(Math.max(padTo, quoted.length) + extension.length);
  payload.set(quoted);
  payload.set(extension, payload.length - extension.length);
  const digits = Array.from(payload, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const packet = new PacketPool().from(encodePacket(`${error} { hex ${digits} }`))!;
  const icmp = (Icmpv6.of(packet) ?? Icmpv4.of(packet))!;
  icmp.rest = icmp instanceof Icmpv6
    ? (payload.length - extension.length) / 8 << 24
    : (payload.length - extension.length) / 4 << 16;
  icmp.refreshChecksum();
  return packet;
}

const ERROR_TO_FOUR = {
  src: parseIpv4("192.0.2.9"),
  dst: parseIpv4("198.51.100.1"),
  quotedSrc: parseIpv4("198.51.100.1"),
  quotedDst: parseIpv4("192.0.2.1"),
};
const ERROR_TO_SIX = {
  src: parseIpv6("64:ff9b::c000:209"),
  dst: parseIpv6("fd64::5"),
  quotedSrc: parseIpv6("fd64::5"),
  quotedDst: parseIpv6("64:ff9b::c000:201"),
};

Deno.test("toIpv4() and toIpv6() keep the extensions of ICMP errors, behind 128 bytes and more", () => {
  for (const payload of [0, 20, 60, 72, 77, 80, 200]) {
    const six = `udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 payload ${payload}`;
    const padTo = Math.max(128, 48 + payload + 7 & ~7);
    for (const type of [1, 3]) {
      const packet = extendedError(
        `icmp 64:ff9b::c000:209 > fd64::5 type ${type} code 0`,
        six,
        EXTENSION,
        padTo,
      );
      equal(toIpv4(packet, ERROR_TO_FOUR, 7), undefined);
      const icmp = Icmpv4.of(packet)!;
      equal(wrongChecksum(packet.data), "");
      ok(icmp.quotedLength >= 128 && icmp.quotedLength % 4 === 0 && packet.length <= 576);
      deepEqual(packet.data.slice(28 + icmp.quotedLength), EXTENSION);
      deepEqual(
        packet.data.slice(28 + 28 + payload, 28 + icmp.quotedLength).some((byte) => byte !== 0),
        false,
      );
      equal(toIpv6(packet, ERROR_TO_SIX), undefined);
      const again = Icmpv6.of(packet)!;
      ok(again.checksumValid && again.type === type);
      ok(again.quotedLength >= 128 && again.quotedLength % 8 === 0);
      deepEqual(packet.data.slice(48 + again.quotedLength), EXTENSION);
    }
  }
});

Deno.test("toIpv6() leaves extensions out of messages that have no room for them in ICMPv6", () => {
  const quote = "udp 198.51.100.1:5000 > 192.0.2.1:53 payload 100";
  for (const error of ["type 3 code 4", "type 3 code 2"]) {
    const packet = extendedError(`icmp 192.0.2.9 > 198.51.100.1 ${error}`, quote, EXTENSION);
    equal(toIpv6(packet, ERROR_TO_SIX), undefined);
    equal(packet.length, 40 + 8 + 40 + 8 + 100);
    ok(Icmpv6.of(packet)!.checksumValid);
  }
});

Deno.test("toIpv4() truncates ICMP errors to 576 bytes, which routers may fragment, and leaves out what has no room", () => {
  for (const extension of [new Uint8Array(0), EXTENSION, new Uint8Array(900).fill(0x20)]) {
    const quote = "udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 payload 900";
    const error = "icmp 64:ff9b::c000:209 > fd64::5 type 1 code 4";
    const packet = extension.length === 0
      ? new PacketPool().from(encodePacket(`${error} { ${quote} }`))!
      : extendedError(error, quote.replace("900", "200"), extension, 248);
    equal(toIpv4(packet, ERROR_TO_FOUR, 7), undefined);
    const icmp = Icmpv4.of(packet)!;
    ok(packet.length <= 576 && icmp.checksumValid && !icmp.ip.dontFragment && icmp.ip.id === 7);
    equal(extension === EXTENSION, icmp.quotedLength < packet.length - 28);
  }
});

Deno.test("Nat64 keeps the sessions of inside hosts when forged senders open sessions that a server answers", () => {
  const nat = make({ capacity: 256, filtering: "endpoint-independent" });
  const test = new TestPipeline(nat);
  const [remote, outside] = ["[64:ff9b::c000:201]", "198.51.100.1"];
  send(test, Direction.Outbound, `tcp [fd64::5]:5000 > ${remote}:80 S`);
  send(test, Direction.Inbound, `tcp 192.0.2.1:80 > ${outside}:5000 SA`);
  send(test, Direction.Outbound, `udp [fd64::5]:5000 > ${remote}:53 "x"`);
  // A server that has a binding of each protocol, and a client that has heard it.
  send(
    test,
    Direction.Outbound,
    `udp [fd64::9]:6000 > ${remote}:53 "x"`,
    `tcp [fd64::9]:6000 > ${remote}:80 S`,
  );
  const client = "[64:ff9b::c000:207]";
  send(
    test,
    Direction.Inbound,
    `tcp 192.0.2.7:9 > ${outside}:6000 S`,
    `udp 192.0.2.7:9 > ${outside}:6000 "x"`,
  );
  send(
    test,
    Direction.Outbound,
    `tcp [fd64::9]:6000 > ${client}:9 SA`,
    `udp [fd64::9]:6000 > ${client}:9 "x"`,
  );
  send(
    test,
    Direction.Inbound,
    `tcp 192.0.2.7:9 > ${outside}:6000 A`,
    `udp 192.0.2.7:9 > ${outside}:6000 "x"`,
  );
  for (let i = 0; i < 1000; i++) {
    const forged = `203.0.${113 + (i >> 8)}.${i & 255}:9`;
    const embedded = `[64:ff9b::cb00:${(0x7100 + i).toString(16)}]:9`;
    send(test, Direction.Inbound, `tcp ${forged} > ${outside}:6000 S`, `udp ${forged} > ${outside}:6000 "x"`);
    send(
      test,
      Direction.Outbound,
      `tcp [fd64::9]:6000 > ${embedded} SA`,
      `udp [fd64::9]:6000 > ${embedded} "x"`,
    );
    // A host whose address was forged resets what it has not opened.
    if (i % 2 === 0) send(test, Direction.Inbound, `tcp ${forged} > ${outside}:6000 R`);
    test.now++;
  }
  equal(send(test, Direction.Inbound, `tcp 192.0.2.1:80 > ${outside}:5000 A`).length, 1);
  equal(send(test, Direction.Inbound, `udp 192.0.2.1:53 > ${outside}:5000 "x"`).length, 1);
  const known = JSON.stringify(nat.save());
  for (const protocol of [6, 17]) {
    ok(known.includes(`[${protocol},"fd64::9",6000,${parseIpv4("192.0.2.7")},9,`), `client of ${protocol}`);
  }
  ok(test.balanced);
});

Deno.test("Nat64 ends no session of another protocol or outside address for a port that this would not free", () => {
  const worker: OtherWorkers = { place: { index: 1, count: 16_384 }, send: () => true };
  const nat = make({ outside: ["198.51.100.1", "198.51.100.2"] });
  const test = new TestPipeline(nat, { others: worker });
  // This worker has four ports of each address and protocol: 2, 3, 32770 and 32771.
  for (let i = 0; i < 8; i++) {
    send(test, Direction.Outbound, `icmp fd64:0:${i}::6 > 64:ff9b::c000:201 type 128 id 2 seq 1`);
    send(test, Direction.Outbound, `udp [fd64:0:${i}::6]:2 > [64:ff9b::c000:201]:53 "x"`);
  }
  const before = nat.flows;
  ok(before > 8);
  for (let i = 0; i < 64; i++) {
    const [sent] = send(test, Direction.Outbound, `tcp [fd64:1:${i}::5]:2 > [64:ff9b::c000:201]:80 S`);
    if (sent === undefined) continue;
    const [, outside] = /^tcp (\S+) >/.exec(sent)!;
    send(test, Direction.Inbound, `tcp 192.0.2.1:80 > ${outside} SA`);
  }
  equal(nat.flows, before + 8);
  ok(test.balanced);
});

Deno.test("Nat64 knows the first fragments of a network still after another one's flood of them, either way", () => {
  using _hashes = fixHashes();
  for (const direction of [Direction.Outbound, Direction.Inbound]) {
    const test = new TestPipeline(make({ filtering: "endpoint-independent" }));
    send(test, Direction.Outbound, 'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "x"');
    const [victim, flooder, to] = direction === Direction.Outbound
      ? ["fd64:0:0:6::6", "fd64:0:0:7::7", "64:ff9b::c000:201"]
      : ["192.0.2.6", "192.0.2.7", "198.51.100.1"];
    const first = (host: string, ident: number) =>
      `ip ${host} > ${to} protocol 17 ident ${ident} more bytes 003513880018123400010203040506070809101112131415`;
    equal(send(test, direction, first(victim, 1)).length, 1);
    for (let i = 0; i < 2000; i++) equal(send(test, direction, first(flooder, i)).length, 1);
    const later = `ip ${victim} > ${to} protocol 17 ident 1 offset 24 bytes 0a0b0c`;
    equal(send(test, direction, later).length, 1);
  }
});
