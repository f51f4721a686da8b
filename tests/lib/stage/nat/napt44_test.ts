/** Napt44 beyond its golden tests: floods, any bytes, workers, saved states, a slow model for comparison. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { parseCidr, parseIpv4 } from "@warren/tunnel/address";
import { Direction, type Packet } from "@warren/tunnel/core";
import { Napt44, type Napt44Options } from "@warren/tunnel/nat";
import { fixHashes } from "../../../kit/fixed_hashes.ts";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { makePartial, wrongChecksum } from "../../../kit/packets.ts";
import { copy } from "../../../../lib/split/copy.ts";

const OUTSIDE = "198.51.100.1";
const INSIDE = parseCidr("10.9.0.0/16");

function nat(options: Partial<Napt44Options> = {}): Napt44 {
  return new Napt44({ outside: OUTSIDE, inside: "10.9.0.0/16", random: () => 0, ...options });
}

/** Sends packets one after the other; returns those that leave, as text. */
function pass(test: TestPipeline, direction: "outbound" | "inbound", ...texts: string[]): string[] {
  for (const text of texts) {
    test.send(direction === "outbound" ? Direction.Outbound : Direction.Inbound, encodePacket(text));
  }
  test.settle();
  const { far, device } = test.receive();
  ok(test.balanced, "the books balance");
  return [...far, ...device].map(formatPacket);
}

function dropped(test: TestPipeline): Record<string, number> {
  return test.pipeline.ledger.counters.snapshot(0).dropped;
}

Deno.test("Napt44 under a million new flows keeps its limits and its established flows", () => {
  const stage = nat({ capacity: 4096 });
  const test = new TestPipeline(stage);
  const opened = [
    pass(test, "outbound", "tcp 10.9.0.5:5000 > 192.0.2.1:80 S seq 1"),
    pass(test, "inbound", `tcp 192.0.2.1:80 > ${OUTSIDE}:5000 SA seq 7 ack 2`),
    pass(test, "outbound", "tcp 10.9.0.5:5000 > 192.0.2.1:80 A seq 2 ack 8"),
    pass(test, "outbound", "udp 10.9.0.6:6000 > 192.0.2.1:53"),
    pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:6000`),
  ];
  ok(opened.every((packets) => packets.length === 1));
  const floods = [
    encodePacket("tcp 10.9.1.0:1 > 203.0.113.0:443 S seq 1"),
    encodePacket("udp 10.9.1.0:1 > 203.0.113.0:443"),
  ];
  const random = new Random(7);
  for (let i = 0; i < 1_000_000; i++) {
    const bytes = floods[i & 1]!;
    // Sums are not looked at: only how many flows there are.
    bytes[14] = 1 + random.below(250);
    bytes[15] = random.below(256);
    bytes[19] = random.below(256);
    bytes[20] = random.below(256);
    bytes[21] = random.below(256);
    test.send(Direction.Outbound, bytes);
    if (i % 64 < 63) continue;
    test.settle();
    test.pipeline.ledger.discardAll(test.pipeline.forFar, "flood");
    test.now += 1;
  }
  const { flood, ...others } = dropped(test);
  deepEqual([flood! > 990_000, others], [true, {}]);
  ok(stage.flows <= 2 * 4096 && stage.mappings <= 2 * 4096);
  deepEqual(pass(test, "inbound", `tcp 192.0.2.1:80 > ${OUTSIDE}:5000 A seq 8 ack 2`), [
    "tcp 192.0.2.1:80 > 10.9.0.5:5000 A seq 8 ack 2",
  ]);
  deepEqual(pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:6000`), [
    "udp 192.0.2.1:53 > 10.9.0.6:6000",
  ]);
});

Deno.test("Napt44 has a port for a new flow when a flood has all of them", () => {
  const stage = nat({ capacity: 65_536, ports: "2000-2999" });
  const test = new TestPipeline(stage);
  for (let i = 0; i < 5000; i++) {
    const host = `10.9.${1 + (i >> 8)}.${i & 255}`;
    equal(pass(test, "outbound", `udp ${host}:5000 > 192.0.2.1:53`).length, 1);
  }
  equal(stage.mappings, 1000);
  equal(stage.flows, 1000);
});

/** A valid packet of one of many kinds, of few addresses and ports: so that flows and errors meet. */
function anyPacket(random: Random): Uint8Array {
  const inside = `10.9.0.${1 + random.below(3)}`;
  const remote = random.below(4) === 0 ? OUTSIDE : `192.0.2.${1 + random.below(3)}`;
  const [port, remotePort] = [5000 + random.below(3), 50 + random.below(3)];
  const [src, dst] = random.below(2) === 0
    ? [inside, remote]
    : [remote, random.below(8) === 0 ? inside : OUTSIDE];
  const [srcPort, dstPort] = src === inside ? [port, remotePort] : [remotePort, port];
  const kinds = [
    `udp ${src}:${srcPort} > ${dst}:${dstPort} payload ${random.below(30)}`,
    `tcp ${src}:${srcPort} > ${dst}:${dstPort} ${["S", "SA", "A", "FA", "R"][random.below(5)]} seq 1 ack 2`,
    `icmp ${src} > ${dst} type ${[8, 0, 13, 14, 10][random.below(5)]} id ${port} seq 1 payload 8`,
    `icmp ${src} > ${dst} type ${[3, 11, 12, 4, 5][random.below(5)]} ` +
    `{ udp ${dst}:${dstPort} > ${src}:${srcPort} payload 20 cut ${28 + random.below(20)} }`,
    `icmp ${src} > ${dst} type 11 { tcp ${dst}:${dstPort} > ${src}:${srcPort} S seq 1 }`,
    `icmp ${src} > ${dst} type 11 { icmp ${dst} > ${src} type 8 id ${port} seq 1 payload 9 }`,
    `ip ${src} > ${dst} protocol 17 ident ${
      random.below(3)
    } more bytes 1388003500180000010203040506070809101112131415`,
    `ip ${src} > ${dst} protocol 17 ident ${random.below(3)} offset 24 bytes 0a0b0c`,
    `ip ${src} > ${dst} protocol ${[47, 50, 132, 4][random.below(4)]} payload 20`,
  ];
  return encodePacket(kinds[random.below(kinds.length)]!);
}

/** Reports an inside address in the packet's header, or in the header that an error quotes. */
function leaks(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const header = (bytes[0]! & 0x0f) * 4;
  if (INSIDE.containsIpv4(view.getUint32(12))) return true;
  const isError = bytes[9] === 1 && (view.getUint16(6) & 0x1fff) === 0 && bytes.length >= header + 28 &&
    [3, 4, 5, 11, 12].includes(bytes[header]!);
  return isError && INSIDE.containsIpv4(view.getUint32(header + 8 + 16));
}

Deno.test("Napt44 never throws, loses nothing, and shows no inside address, whatever comes", () => {
  for (
    const filtering of ["endpoint-independent", "address-dependent", "address-and-port-dependent"] as const
  ) {
    const seed = 11 + filtering.length;
    const random = new Random(seed);
    const test = new TestPipeline(nat({
      filtering,
      capacity: 64,
      fragments: 4,
      forwards: [{ protocol: "udp", port: 5001, to: "10.9.0.2:80" }],
    }));
    let out = 0;
    for (let i = 0; i < 16_000; i++) {
      let bytes = anyPacket(random);
      if (random.below(2) === 0) {
        // Versions, sources and destinations stay: packets from other sources are not translated.
        for (let n = random.below(4); n >= 0; n--) {
          const at = random.below(bytes.length);
          if (at === 0 || at >= 12 && at < 16) continue;
          bytes[at] = random.below(256);
        }
        if (random.below(3) === 0) bytes = bytes.slice(0, 1 + random.below(bytes.length));
      }
      test.send(random.below(2) as Direction, bytes);
      test.now += random.below(100);
      if (i % 8 < 7) continue;
      test.settle();
      const { far } = test.receive();
      out += far.length;
      // Packets from other sources pass: they are not from inside.
      for (const packet of far) ok(!leaks(packet), `${filtering}, ${seed}, ${i}: ${formatPacket(packet)}`);
      ok(test.balanced, `${filtering}, ${seed}, ${i}`);
    }
    ok(out > 500, `${out} packets came out`);
  }
});

/** A NAT with Maps: endpoint-independent mapping, kept ports, and the strictest filter. */
class Model {
  readonly #mappings = new Map<string, string>();
  readonly #sessions = new Set<string>();

  outbound(src: string, dst: string): string {
    this.#mappings.set(src.split(":")[1]!, src);
    this.#sessions.add(`${src} ${dst}`);
    return `${OUTSIDE}:${src.split(":")[1]}`;
  }

  inbound(src: string, port: string): string | undefined {
    const inside = this.#mappings.get(port);
    return inside !== undefined && this.#sessions.has(`${inside} ${src}`) ? inside : undefined;
  }
}

Deno.test("Napt44 translates what a model of Maps does, with correct checksums, complete and partial ones", () => {
  const random = new Random(3);
  const test = new TestPipeline(nat({ filtering: "address-and-port-dependent" }));
  const models = { udp: new Model(), tcp: new Model() };
  for (let i = 0; i < 20_000; i++) {
    const kind = random.below(2) === 0 ? "udp" : "tcp";
    const port = 5000 + random.below(200);
    // One inside host a port, so that every port is kept.
    const inside = `10.9.0.${1 + port % 20}:${port}`;
    const remote = `192.0.2.${1 + random.below(4)}:${50 + random.below(4)}`;
    const isOut = random.below(2) === 0;
    const text = `${kind} ${isOut ? inside : remote} > ${isOut ? remote : `${OUTSIDE}:${port}`}` +
      `${kind === "tcp" ? " A seq 1 ack 2" : ""} payload ${random.below(40)}`;
    const direction = isOut ? Direction.Outbound : Direction.Inbound;
    test.send(direction, encodePacket(text));
    if (random.below(2) === 0) {
      const batch = isOut ? test.pipeline.outbound[0]! : test.pipeline.fromFar;
      const packet = batch.packets[0]!;
      makePartial(packet, packet.offset + 20, kind === "tcp" ? 16 : 6);
    }
    test.settle();
    const { far, device } = test.receive();
    const target = isOut ? models[kind].outbound(inside, remote) : models[kind].inbound(remote, String(port));
    const [came] = isOut ? far : device;
    equal(far.length + device.length, target === undefined ? 0 : 1, text);
    if (came === undefined) continue;
    equal(wrongChecksum(came), "", text);
    const [, src, , dst] = formatPacket(came).split(" ");
    deepEqual([src, dst], isOut ? [target, remote] : [remote, target], text);
  }
});

Deno.test("Napt44 translates a super-packet as one", () => {
  const test = new TestPipeline(nat());
  test.send(Direction.Outbound, encodePacket("tcp 10.9.0.5:5000 > 192.0.2.1:80 A seq 1 payload 300"));
  const packet = test.pipeline.outbound[0]!.packets[0]!;
  makePartial(packet, packet.offset + 20, 16);
  packet.segmentSize = 100;
  test.settle();
  const { far } = test.receive();
  equal(far.length, 3);
  for (const bytes of far) {
    equal(wrongChecksum(bytes), "");
    equal(new DataView(bytes.buffer, bytes.byteOffset).getUint32(12), parseIpv4(OUTSIDE));
  }
});

Deno.test("Napt44.restore() continues where Napt44.save() was, through JSON", () => {
  const options: Partial<Napt44Options> = { forwards: [{ protocol: "tcp", port: 80, to: "10.9.0.9:8080" }] };
  const [first, second] = [nat(options), nat(options)];
  const before = new TestPipeline(first);
  pass(before, "outbound", "udp 10.9.0.6:5000 > 192.0.2.1:53", "udp 10.9.0.5:5000 > 192.0.2.1:53");
  pass(before, "outbound", "icmp 10.9.0.5 > 192.0.2.1 type 8 id 7 seq 1");
  pass(before, "outbound", "tcp 10.9.0.5:5000 > 192.0.2.1:80 S seq 1");
  pass(before, "inbound", `tcp 192.0.2.1:80 > ${OUTSIDE}:5000 SA seq 7 ack 2`);
  pass(before, "inbound", `tcp 192.0.2.1:4000 > ${OUTSIDE}:80 S seq 1`);
  before.now += 50_000;
  pass(before, "outbound", "tcp 10.9.0.5:5000 > 192.0.2.1:80 A seq 2 ack 8");
  const state = JSON.parse(JSON.stringify(first.save()));
  second.restore(state);
  deepEqual(JSON.parse(JSON.stringify(second.save())), state, "even before the first packet");
  const after = new TestPipeline(second);
  after.now = 7_000_000;
  after.settle();
  deepEqual(JSON.parse(JSON.stringify(second.save())), state);
  deepEqual(
    pass(
      after,
      "inbound",
      `udp 192.0.2.1:53 > ${OUTSIDE}:1024`,
      `tcp 192.0.2.1:80 > ${OUTSIDE}:5000 A seq 8 ack 2`,
      `icmp 192.0.2.1 > ${OUTSIDE} type 0 id 7 seq 1`,
    ),
    [
      "udp 192.0.2.1:53 > 10.9.0.5:5000",
      "tcp 192.0.2.1:80 > 10.9.0.5:5000 A seq 8 ack 2",
      "icmp 192.0.2.1 > 10.9.0.5 type 0 id 7 seq 1",
    ],
  );
  deepEqual(pass(after, "outbound", "tcp 10.9.0.9:8080 > 192.0.2.1:4000 SA seq 1 ack 2"), [
    `tcp ${OUTSIDE}:80 > 192.0.2.1:4000 SA seq 1 ack 2`,
  ]);
  after.now += 240_000;
  // UDP has been idle for 50 s more than it was here; the open connection stays.
  deepEqual(pass(after, "outbound", "udp 10.9.0.7:1 > 192.0.2.1:53").length, 1);
  equal(second.flows, 4);
  const other = nat({ outside: "203.0.113.1" });
  other.restore(state);
  new TestPipeline(other).settle();
  equal(other.flows, 0, "no flow has this outside address");
});

Deno.test("Napt44.restore() refuses what save() did not return", () => {
  const flow = [1, 2, 3, 4, 5, 6, 0, 0, 0];
  const states = [
    undefined,
    {},
    { format: "napt44 2" },
    { format: "napt44 3", tcp: [], udp: [], icmp: [] },
    { format: "napt44 2", tcp: [flow.slice(1)], udp: [], icmp: [] },
    { format: "napt44 2", tcp: [], udp: [flow.with(1, 65_536)], icmp: [] },
    { format: "napt44 2", tcp: [], udp: [], icmp: [flow.with(8, -1)] },
    { format: "napt44 2", tcp: [], udp: [], icmp: [flow.with(0, "1" as unknown as number)] },
  ];
  for (const state of states) throws(() => nat().restore(state), TypeError, JSON.stringify(state));
  nat().restore({ format: "napt44 2", tcp: [flow], udp: [], icmp: [] });
});

Deno.test("Napt44 in several workers: each has its ports, and stray packets reach the worker that owns them", () => {
  const count = 3;
  const tests: TestPipeline[] = [];
  for (let index = 0; index < count; index++) {
    const send = (packet: Packet, worker: number, _stage: number, direction: Direction) => {
      tests[worker]!.send(direction, copy(packet)[0]!);
      return true;
    };
    tests.push(new TestPipeline(nat(), { others: { place: { index, count }, send } }));
  }
  const settle = () => {
    for (let i = 0; i < count; i++) tests.forEach((test) => test.settle());
    const all = tests.map((test) => test.receive());
    return {
      far: all.flatMap(({ far }) => far.map(formatPacket)),
      device: all.flatMap(({ device }) => device.map(formatPacket)),
    };
  };
  const random = new Random(5);
  const ports = new Map<string, string>();
  for (let i = 0; i < 2000; i++) {
    const inside = `10.9.0.${1 + random.below(20)}:${5000 + random.below(40)}`;
    const remote = `192.0.2.${1 + random.below(9)}:53`;
    tests[random.below(count)]!.send(Direction.Outbound, encodePacket(`udp ${inside} > ${remote}`));
    const [sent] = settle().far;
    const outside = sent!.split(" ")[1]!;
    equal(ports.get(inside) ?? outside, outside, "the mapping is one, wherever a packet comes in");
    ports.set(inside, outside);
    tests[random.below(count)]!.send(Direction.Inbound, encodePacket(`udp ${remote} > ${outside}`));
    deepEqual(settle().device, [`udp ${remote} > ${inside}`]);
    const error = `icmp 192.0.2.99 > ${OUTSIDE} type 11 { udp ${outside} > ${remote} }`;
    tests[random.below(count)]!.send(Direction.Inbound, encodePacket(error));
    deepEqual(settle().device, [
      `icmp 192.0.2.99 > ${inside.split(":")[0]} type 11 { udp ${inside} > ${remote} }`,
    ]);
  }
  equal(new Set(ports.values()).size, ports.size);
  const [[one, outsideOne], [, outsideTwo]] = [...ports] as [[string, string], [string, string]];
  const [two] = [...ports.keys()].slice(1);
  tests[0]!.send(Direction.Outbound, encodePacket(`udp ${two} > ${outsideOne}`));
  settle();
  tests[1]!.send(Direction.Outbound, encodePacket(`udp ${one} > ${outsideTwo}`));
  deepEqual(settle().device, [`udp ${outsideOne} > ${two}`], "it turns round at another worker");
  ok(tests.every((test) => test.pipeline.queued === 0));
});

Deno.test("Napt44 refuses wrong options", () => {
  const wrong: [Partial<Napt44Options>, typeof TypeError | typeof RangeError | typeof SyntaxError][] = [
    [{ outside: [] }, TypeError],
    [{ outside: "2001:db8::1" }, TypeError],
    [{ outside: "198.51.100.0/24" }, RangeError],
    [{ outside: "198.51.100" }, SyntaxError],
    [{ ports: "0-7" }, RangeError],
    [{ ports: "7-6" }, RangeError],
    [{ ports: "many" }, SyntaxError],
    [{ filtering: "none" as "address-dependent" }, TypeError],
    [{ unmatched: "keep" as "pass" }, TypeError],
    [{ capacity: 0 }, RangeError],
    [{ flowsPerHost: 0.5 }, RangeError],
    [{ fragments: 0 }, RangeError],
    [{ timeouts: { udp: 0 } }, RangeError],
    [{ forwards: [{ protocol: "sctp" as "tcp", port: 1, to: "10.9.0.1" }] }, TypeError],
    [{ forwards: [{ protocol: "tcp", port: "1-2", to: "10.9.0.1:65535" }] }, RangeError],
    [{ forwards: [{ protocol: "tcp", port: 1, to: "10.9.0.1", address: "192.0.2.1" }] }, TypeError],
    [{ forwards: { protocol: "tcp", port: 1, to: "10.9.0.1" } as unknown as [] }, TypeError],
    [{ forwards: [{ protocol: "tcp", port: 1, to: "10.9.0.1:80:90" }] }, SyntaxError],
    [{ outside: "224.0.0.1" }, RangeError],
    [{ outside: "0.0.0.0" }, RangeError],
    [{ outside: 5 as unknown as string }, TypeError],
    [{ inside: [] }, TypeError],
    [{ timeouts: { udp: "300" as unknown as number } }, TypeError],
    [{
      forwards: [{ protocol: "tcp", port: "80-90", to: "10.9.0.1" }, {
        protocol: "tcp",
        port: 85,
        to: "10.9.0.2",
      }],
    }, TypeError],
  ];
  for (const [options, failure] of wrong) throws(() => nat(options), failure, JSON.stringify(options));
  const rule = { port: 80, to: "10.9.0.1" };
  nat({ forwards: [{ ...rule, protocol: "tcp" }, { ...rule, protocol: "udp" }] });
});

/** Opens flows of one inside host to one server, which answers each of them. */
function openAnswered(test: TestPipeline, host: string, count: number): void {
  const request = encodePacket(`udp ${host}:1 > 192.0.2.1:53`);
  for (let i = 0; i < count; i++) {
    new DataView(request.buffer, request.byteOffset).setUint16(20, 1024 + i);
    test.send(Direction.Outbound, request);
    test.settle();
    for (const sent of test.receive().far) {
      const reply = encodePacket(`udp 192.0.2.1:53 > ${OUTSIDE}:1`);
      reply.set(sent.subarray(20, 22), 22);
      test.send(Direction.Inbound, reply);
    }
    test.settle();
    test.receive();
    test.now++;
  }
}

Deno.test("Napt44 has ports and room for others when one inside host has taken all, even with flows that were answered", () => {
  for (const options of [{ ports: "2000-2999" }, { capacity: 1000 }]) {
    const stage = nat(options);
    const test = new TestPipeline(stage);
    openAnswered(test, "10.9.0.6", 20);
    openAnswered(test, "10.9.0.5", 3000);
    equal(stage.flows, 1000, "one host alone may have everything");
    for (let i = 0; i < 100; i++) {
      equal(pass(test, "outbound", `udp 10.9.0.7:${7000 + i} > 192.0.2.1:53`).length, 1);
    }
    const before = stage.flows;
    openAnswered(test, "10.9.0.5", 3000);
    equal(stage.flows, before);
    // The others keep the flows within their shares.
    equal(pass(test, "outbound", `udp 10.9.0.6:1024 > 192.0.2.1:53`).length, 1);
    test.now += 1;
    deepEqual(dropped(test), {});
    for (
      const [host, port] of [["10.9.0.6", 1024], ["10.9.0.6", 1043], ["10.9.0.7", 7000], ["10.9.0.7", 7099]]
    ) {
      const flow = JSON.stringify(stage.save()).includes(`[${parseIpv4(String(host))},${port},`);
      ok(flow, `${host}:${port} is known`);
    }
  }
});

Deno.test("Napt44 does not forget what inside hosts are opening for strangers' SYNs to a forwarded port", () => {
  const forwards = [{ protocol: "tcp", port: 80, to: "10.9.0.9:8080" }] as const;
  const stage = nat({ capacity: 256, forwards });
  const test = new TestPipeline(stage);
  for (let i = 0; i < 16; i++) pass(test, "outbound", `tcp 10.9.0.5:${5000 + i} > 192.0.2.1:80 S seq 1`);
  // A client that the server is about to answer.
  pass(test, "inbound", `tcp 203.0.113.9:4000 > ${OUTSIDE}:80 S seq 5`);
  const syn = encodePacket(`tcp 192.0.2.7:1 > ${OUTSIDE}:80 S seq 1`);
  for (let i = 0; i < 4096; i++) {
    // One stranger with many ports, then strangers with many addresses.
    new DataView(syn.buffer, syn.byteOffset).setUint16(20, 1 + i);
    test.send(Direction.Inbound, syn);
    test.settle();
    test.receive();
    test.now++;
  }
  deepEqual(pass(test, "outbound", "tcp 10.9.0.9:8080 > 203.0.113.9:4000 SA seq 9 ack 6"), [
    `tcp ${OUTSIDE}:80 > 203.0.113.9:4000 SA seq 9 ack 6`,
  ]);
  for (let i = 0; i < 4096; i++) {
    new DataView(syn.buffer, syn.byteOffset).setUint32(12, 0xcb007200 + i);
    test.send(Direction.Inbound, syn);
    test.settle();
    test.receive();
    test.now++;
  }
  for (let i = 0; i < 16; i++) {
    equal(pass(test, "inbound", `tcp 192.0.2.1:80 > ${OUTSIDE}:${5000 + i} SA seq 7 ack 2`).length, 1);
  }
  ok(stage.flows <= 256);
});

Deno.test("Napt44 keeps room for inside hosts when one stranger has all connections of a forwarded port", () => {
  const stage = nat({ capacity: 256, forwards: [{ protocol: "udp", port: 53, to: "10.9.0.9" }] });
  const test = new TestPipeline(stage);
  pass(test, "outbound", "udp 10.9.0.5:5000 > 192.0.2.1:53");
  for (let i = 0; i < 1000; i++) {
    pass(test, "inbound", `udp 203.0.113.9:${2000 + i} > ${OUTSIDE}:53`);
    pass(test, "outbound", `udp 10.9.0.9:53 > 203.0.113.9:${2000 + i}`);
    test.now++;
  }
  deepEqual(pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:5000`), [
    "udp 192.0.2.1:53 > 10.9.0.5:5000",
  ]);
});

/** A fragment of UDP from an inside host to 192.0.2.1, with identification 9. */
function fragment(host: number, offset: number, more: boolean, digits: string): string {
  const place = `${more ? "more " : ""}${offset > 0 ? `offset ${offset} ` : ""}`;
  return `ip 10.9.0.${host} > 192.0.2.1 protocol 17 ident 9 ${place}bytes ${digits}`;
}

Deno.test("Napt44 keeps fragments of inside hosts apart that have one identification, in any order", () => {
  const first = "138800350018aaaa0001020304050607";
  const later = "0808080808080808";
  const orders = [
    [[5, 0], [6, 0], [5, 16], [6, 16]],
    [[5, 16], [6, 0], [6, 16], [5, 0]],
    [[6, 16], [5, 16], [5, 0], [6, 0]],
  ] as const;
  for (const order of orders) {
    const test = new TestPipeline(nat());
    const texts = order.map(([host, at]) => fragment(host, at, at === 0, at === 0 ? first : later));
    const sent = [...pass(test, "outbound", ...texts), ...pass(test, "outbound")];
    const ids = sent.map((text) => /ident (\d+)/.exec(text)?.[1] ?? "0");
    equal(sent.length, 4);
    const counts = new Map<string, number>();
    for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
    deepEqual([...counts.values()], [2, 2], sent.join("\n"));
  }
});

Deno.test("Napt44 gives no two workers one identification", () => {
  const ids = [0, 1].map((index) => {
    const send = () => true;
    const test = new TestPipeline(nat(), { others: { place: { index, count: 2 }, send } });
    const port = 5000 + 2 * index;
    const sent: number[] = [];
    for (let i = 0; i < 100; i++) {
      const udp = `${port.toString(16).padStart(4, "0")}003500180000`;
      const [text] = pass(test, "outbound", fragment(5, 0, true, `${udp}0001020304050607`));
      sent.push(Number(/ident (\d+)/.exec(text!)![1]));
    }
    return sent;
  });
  deepEqual(ids.map((of) => new Set(of.map((id) => id & 1)).size), [1, 1]);
  equal(new Set(ids.flat()).size, 200);
});

Deno.test("Napt44 lets no source take all places of fragments that wait for their first one", () => {
  const stage = nat({ forwards: [{ protocol: "udp", port: 53, to: "10.9.0.9" }] });
  const test = new TestPipeline(stage);
  for (let i = 0; i < 100; i++) {
    pass(
      test,
      "inbound",
      `ip 203.0.113.${1 + i} > ${OUTSIDE} protocol 17 ident ${i} offset 16 bytes 0808080808080808`,
    );
    pass(
      test,
      "inbound",
      `ip 203.0.113.200 > ${OUTSIDE} protocol 17 ident ${i} offset 16 bytes 0808080808080808`,
    );
  }
  pass(test, "outbound", fragment(5, 16, false, "0808080808080808"));
  const sent = pass(test, "outbound", fragment(5, 0, true, "138800350018aaaa0001020304050607"));
  equal([...sent, ...pass(test, "outbound")].length, 2);
});

Deno.test("Napt44 keeps the flows of inside hosts when forged senders open flows that a server answers", () => {
  const forwards = [
    { protocol: "udp", port: 53, to: "10.9.0.9" },
    { protocol: "tcp", port: 80, to: "10.9.0.9" },
  ] as const;
  const stage = nat({ capacity: 256, forwards });
  const test = new TestPipeline(stage);
  pass(test, "outbound", "udp 10.9.0.5:5000 > 192.0.2.1:53");
  pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:5000`);
  pass(test, "outbound", "tcp 10.9.0.5:5000 > 192.0.2.1:80 S seq 1");
  // A client that has received the server's reply is not forged.
  pass(test, "inbound", `tcp 192.0.2.7:4000 > ${OUTSIDE}:80 S seq 5`);
  pass(test, "outbound", "tcp 10.9.0.9:80 > 192.0.2.7:4000 SA seq 9 ack 6");
  pass(test, "inbound", `tcp 192.0.2.7:4000 > ${OUTSIDE}:80 A seq 6 ack 10`);
  pass(test, "inbound", `udp 192.0.2.7:4000 > ${OUTSIDE}:53`);
  pass(test, "outbound", "udp 10.9.0.9:53 > 192.0.2.7:4000");
  pass(test, "inbound", `udp 192.0.2.7:4000 > ${OUTSIDE}:53`);
  for (let i = 0; i < 1000; i++) {
    const forged = `203.0.${113 + (i >> 8)}.${i & 255}:9`;
    pass(test, "inbound", `udp ${forged} > ${OUTSIDE}:53`, `tcp ${forged} > ${OUTSIDE}:80 S seq 1`);
    pass(test, "outbound", `udp 10.9.0.9:53 > ${forged}`, `tcp 10.9.0.9:80 > ${forged} SA seq 7 ack 2`);
    test.now++;
  }
  deepEqual(pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:5000`), [
    "udp 192.0.2.1:53 > 10.9.0.5:5000",
  ]);
  deepEqual(pass(test, "inbound", `tcp 192.0.2.1:80 > ${OUTSIDE}:5000 SA seq 7 ack 2`), [
    "tcp 192.0.2.1:80 > 10.9.0.5:5000 SA seq 7 ack 2",
  ]);
  const saved = JSON.stringify(stage.save());
  const client = parseIpv4("192.0.2.7");
  for (const port of [53, 80]) ok(saved.includes(`,${port},${client},4000,`), `the client of port ${port}`);
});

Deno.test("Napt44 does not count what strangers open to a forwarded port by flowsPerHost, also when restored", () => {
  const options: Partial<Napt44Options> = {
    flowsPerHost: 2,
    forwards: [{ protocol: "tcp", port: 80, to: "10.9.0.9" }],
  };
  let stage = nat(options);
  let test = new TestPipeline(stage);
  const syn = (host: number) => `tcp 203.0.113.${host}:9 > ${OUTSIDE}:80 S seq 1`;
  for (let host = 1; host < 9; host++) equal(pass(test, "inbound", syn(host)).length, 1);
  for (let host = 1; host < 5; host++) {
    pass(test, "outbound", `tcp 10.9.0.9:80 > 203.0.113.${host}:9 SA seq 7 ack 2`);
    pass(test, "inbound", `tcp 203.0.113.${host}:9 > ${OUTSIDE}:80 A seq 2 ack 8`);
  }
  const state = JSON.parse(JSON.stringify(stage.save()));
  for (const restored of [false, true]) {
    if (restored) {
      stage = nat(options);
      stage.restore(state);
      test = new TestPipeline(stage);
      test.settle();
      equal(stage.flows, 8);
    }
    equal(pass(test, "outbound", "tcp 10.9.0.9:5000 > 192.0.2.1:443 S seq 1").length, 1);
    equal(pass(test, "outbound", "tcp 10.9.0.9:5002 > 192.0.2.1:443 S seq 1").length, 1);
    equal(pass(test, "outbound", "tcp 10.9.0.9:5004 > 192.0.2.1:443 S seq 1").length, 0);
    equal(pass(test, "inbound", syn(99)).length, 1);
  }
});

Deno.test("Napt44 ends no flow of another outside address for a port that this would not free", () => {
  const stage = nat({
    outside: [OUTSIDE, "198.51.100.2"],
    ports: "2000-2063",
    forwards: [{ protocol: "udp", port: 53, to: "10.9.0.9", address: OUTSIDE }],
  });
  const test = new TestPipeline(stage);
  const byOutside = new Map<string, string[]>();
  for (let host = 1; host < 200; host++) {
    const [sent] = pass(test, "outbound", `icmp 10.9.1.${host} > 192.0.2.1 type 8 id ${host} seq 1`);
    const outside = sent?.split(" ")[1] ?? "";
    byOutside.set(outside, [...byOutside.get(outside) ?? [], `10.9.1.${host}`]);
  }
  const [ours, others] = [byOutside.get(OUTSIDE)!, byOutside.get("198.51.100.2")!];
  for (const host of others.slice(0, 40)) pass(test, "outbound", `udp ${host}:3000 > 192.0.2.1:53`);
  // Its answer to a client has no port to give.
  pass(test, "inbound", `udp 192.0.2.7:4000 > ${OUTSIDE}:53`);
  pass(test, "outbound", "udp 10.9.0.9:53 > 192.0.2.7:4000");
  for (let i = 0; i < 64; i++) {
    const [sent] = pass(test, "outbound", `udp ${ours[i]}:3000 > 192.0.2.1:53`);
    const port = /:(\d+) >/.exec(sent!)![1];
    equal(pass(test, "inbound", `udp 192.0.2.1:53 > ${OUTSIDE}:${port}`).length, 1);
  }
  const before = stage.flows;
  deepEqual(pass(test, "outbound", `udp ${ours[65]}:3000 > 192.0.2.1:53`), []);
  deepEqual([dropped(test), stage.flows], [{ "no port": 1 }, before]);
});

Deno.test("Napt44 knows the first fragments of a host still after another one's flood of them, either way", () => {
  using _hashes = fixHashes();
  for (const direction of ["outbound", "inbound"] as const) {
    const test = new TestPipeline(nat({ fragments: 64, filtering: "endpoint-independent" }));
    pass(test, "outbound", "udp 10.9.0.5:5000 > 192.0.2.1:53");
    const [victim, flooder] = direction === "outbound"
      ? ["10.9.0.6", "10.9.0.7"]
      : ["192.0.2.6", "192.0.2.7"];
    const to = direction === "outbound" ? "192.0.2.1" : OUTSIDE;
    const first = (host: string, ident: number) =>
      `ip ${host} > ${to} protocol 17 ident ${ident} more bytes 003513880018000000010203040506070809101112131415`;
    equal(pass(test, direction, first(victim, 1)).length, 1);
    for (let i = 0; i < 500; i++) equal(pass(test, direction, first(flooder, i)).length, 1);
    const later = `ip ${victim} > ${to} protocol 17 ident 1 offset 24 bytes 0a0b0c`;
    equal(pass(test, direction, later).length, 1, direction);
  }
});

Deno.test("Napt44 has places for early fragments from outside when forged inside sources send many", () => {
  const test = new TestPipeline(nat({ forwards: [{ protocol: "udp", port: 53, to: "10.9.0.9" }] }));
  const later = (src: string, dst: string) =>
    `ip ${src} > ${dst} protocol 17 ident 9 offset 16 bytes 0808080808080808`;
  for (let host = 1; host < 101; host++) pass(test, "outbound", later(`10.9.0.${host}`, "192.0.2.1"));
  pass(test, "inbound", later("203.0.113.9", OUTSIDE));
  const first = `ip 203.0.113.9 > ${OUTSIDE} protocol 17 ident 9 more bytes 138800350018aaaa0001020304050607`;
  equal([...pass(test, "inbound", first), ...pass(test, "inbound")].length, 2);
});
