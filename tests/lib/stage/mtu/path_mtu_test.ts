/** Path MTUs: save and restore, super-packets, wrong states and options, and any bytes at all. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Tcp } from "@warren/tunnel/tcp";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { survive } from "../../../kit/hostile.ts";
import { encodeIp, packetOf } from "../../../kit/packets.ts";

const LONG = {
  4: encodePacket("udp 10.9.0.1:5000 > 192.0.2.1:53 payload 1400"),
  6: encodePacket("udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400"),
} as const;
const ERROR = {
  4: encodePacket(
    "icmp 198.51.100.1 > 10.9.0.1 type 3 code 4 rest 1300 { udp 10.9.0.1:5000 > 192.0.2.1:53 payload 1400 cut 28 }",
  ),
  6: encodePacket(
    "icmp 2001:db8:1::1 > fd09::1 type 2 rest 1300 { udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400 cut 48 }",
  ),
} as const;

/** Sends a packet out; whether it went. */
function goes(test: TestPipeline, bytes: Uint8Array): boolean {
  test.send(Direction.Outbound, bytes);
  test.settle();
  const { far, device } = test.receive();
  equal(far.length + device.length, 1);
  return far.length === 1;
}

Deno.test("PathMtu keeps path MTUs and their ages through save, JSON and restore", () => {
  const before = new PathMtu();
  const test = new TestPipeline(before);
  for (const version of [4, 6] as const) {
    test.now += 1000;
    ok(goes(test, LONG[version]));
    test.send(Direction.Inbound, ERROR[version]);
    test.settle();
    test.receive();
  }
  equal(before.learned, 2);
  test.now += 1000;
  ok(!goes(test, LONG[4]));
  const state = JSON.parse(JSON.stringify(before.save()));
  deepEqual(state, [
    { address: "192.0.2.1", mtu: 1300, age: 2000 },
    { address: "2001:db8::1", mtu: 1300, age: 1000 },
  ]);
  const behind = new PathMtu();
  behind.restore(state);
  deepEqual(behind.save(), state);
  const restored = new TestPipeline(behind);
  restored.now = 7_000_000;
  ok(!goes(restored, LONG[4]) && !goes(restored, LONG[6]));
  restored.now += 598_000;
  ok(goes(restored, LONG[4]) && !goes(restored, LONG[6]));
  deepEqual(behind.save(), [{ address: "2001:db8::1", mtu: 1300, age: 599_000 }]);
  restored.now += 1000;
  ok(goes(restored, LONG[6]));
  deepEqual(behind.save(), []);
});

Deno.test("PathMtu rejects a state that is not its own", () => {
  const stage = new PathMtu();
  const right = { address: "192.0.2.1", mtu: 1300, age: 0 };
  for (
    const wrong of [
      null,
      {},
      [1],
      [{ ...right, mtu: 67 }],
      [{ ...right, mtu: 70_000 }],
      [{ ...right, age: -1 }],
      [{ ...right, address: 7 }],
      [{ ...right, address: "2001:db8::1", mtu: 1279 }],
    ]
  ) throws(() => stage.restore(wrong), TypeError);
  throws(() => stage.restore([{ ...right, address: "192.0.2" }]), SyntaxError);
});

for (const version of [4, 6] as const) {
  Deno.test(`PathMtu answers an IPv${version} super-packet whose segments are too long, and passes others`, () => {
    const packet = packetOf(new Uint8Array(1600));
    Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack });
    encodeIp(packet, version, 6);
    let segmentSize = 0;
    const before: Stage = {
      name: "before",
      outbound: (batch) => {
        for (const given of batch) given.segmentSize = segmentSize;
      },
    };
    const test = new TestPipeline(before, new PathMtu({ mtu: 1400 }));
    const most = version === 4 ? 1360 : 1340;
    for (const size of [most, most + 1]) {
      segmentSize = size;
      test.send(Direction.Outbound, packet.data);
      test.settle();
      equal(test.pipeline.forFar.length, size === most ? 1 : 0);
      equal(test.pipeline.forDevice.length, size === most ? 0 : 1);
      test.receive();
    }
  });
}

Deno.test("PathMtu ignores an error with a wrong checksum", () => {
  const stage = new PathMtu();
  const test = new TestPipeline(stage);
  ok(goes(test, LONG[4]));
  const error = ERROR[4].slice();
  error[22]! ^= 1;
  test.send(Direction.Inbound, error);
  test.settle();
  test.receive();
  deepEqual([stage.learned, stage.ignored, stage.size], [0, 1, 0]);
});

Deno.test("PathMtu ignores an error that quotes a packet of the other version", () => {
  const stage = new PathMtu();
  const test = new TestPipeline(stage);
  ok(goes(test, LONG[6]));
  const quoted = "{ udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400 cut 48 }";
  const error = `icmp 198.51.100.1 > 10.9.0.1 type 3 code 4 rest 1300 ${quoted}`;
  // The word of IPv4's total length is a part of IPv6's flow label.
  const bytes = encodePacket(error.replace("payload", "label 2000 payload"));
  ok(goes(test, encodePacket("udp [fd09::1]:5000 > [2001:db8::1]:53 label 2000 payload 1400")));
  test.send(Direction.Inbound, bytes);
  test.settle();
  test.receive();
  deepEqual([stage.learned, stage.ignored, stage.size], [0, 1, 0]);
});

Deno.test("PathMtu has one entry of a path whose MTU goes down, and ages it from then on", () => {
  const stage = new PathMtu();
  const test = new TestPipeline(stage);
  const lower = "rest 1200 { udp 10.9.0.1:5000 > 192.0.2.1:53 payload 1400 cut 28 }";
  ok(goes(test, LONG[4]));
  for (const error of [ERROR[4], encodePacket(`icmp 198.51.100.1 > 10.9.0.1 type 3 code 4 ${lower}`)]) {
    test.now += 1000;
    test.send(Direction.Inbound, error);
    test.settle();
    test.receive();
  }
  deepEqual(stage.save(), [{ address: "192.0.2.1", mtu: 1200, age: 0 }]);
  test.now += 599_999;
  ok(!goes(test, LONG[4]));
  test.now += 1;
  ok(goes(test, LONG[4]));
  equal(stage.size, 0);
});

Deno.test("PathMtu rejects wrong options", () => {
  for (const mtu of [67, 65_536, 1400.5, NaN]) throws(() => new PathMtu({ mtu }), RangeError);
  throws(() => new PathMtu({ paths: 0 }), RangeError);
  throws(() => new PathMtu({ age: 0 }), RangeError);
});

Deno.test("PathMtu never throws and loses no packet, whatever bytes come", () => {
  const stage = new PathMtu({ mtu: 1410, paths: 4 });
  ok(survive(stage, 0x9a71, 20_000) > 10_000);
  ok(stage.learned > 0 && stage.ignored > 0 && stage.size <= 4);
});

const ENDS = { 4: ["10.9.0.1", "192.0.2.1", "198.51.100.1"], 6: ["fd09::1", "2001:db8::1", "2001:db8:1::1"] };

/** A text's ends with ports, and what is needed to make errors about it. */
function textsFor(version: 4 | 6) {
  const [src, dst, router] = ENDS[version];
  const at = (address: string, port: number) => version === 4 ? `${address}:${port}` : `[${address}]:${port}`;
  const error = (reported: number, quoted: string, to = src) =>
    encodePacket(
      `icmp ${router} > ${to} ${
        version === 4 ? "type 3 code 4" : "type 2"
      } rest ${reported} { ${quoted} cut ${version === 4 ? 28 : 48} }`,
    );
  const tcp = (seq: number, payload = 1300) =>
    `tcp ${at(src!, 5000)} > ${at(dst!, 80)} A seq ${seq >>> 0} ack 1 payload ${payload}`;
  const ack = (number: number) =>
    encodePacket(`tcp ${at(dst!, 80)} > ${at(src!, 5000)} A seq 1 ack ${number >>> 0}`);
  const udp = (port: number, payload: number) =>
    `udp ${at(src!, 5000)} > ${at(dst!, port)} payload ${payload}`;
  return { error, tcp, ack, udp };
}

for (const version of [4, 6] as const) {
  const { error, tcp, ack, udp } = textsFor(version);
  const start = () => {
    const stage = new PathMtu();
    const test = new TestPipeline(stage);
    const send = (text: string) => ok(goes(test, encodePacket(text)));
    const receive = (bytes: Uint8Array) => {
      test.send(Direction.Inbound, bytes);
      test.settle();
      equal(test.receive().device.length, 1);
    };
    return { stage, test, send, receive };
  };

  Deno.test(`PathMtu accepts an error about TCP only for bytes in flight, over IPv${version}`, () => {
    for (const base of [1000, 2 ** 32 - 1500]) {
      const { stage, send, receive } = start();
      for (let i = 0; i < 4; i++) send(tcp(base + 1300 * i));
      receive(ack(base + 2600));
      // Never sent, sent and acknowledged, not sent yet, of another window.
      const forged = [
        0,
        base - 1,
        base,
        base + 1300,
        base + 2599,
        base + 5200,
        base + 10_000,
        base + 2 ** 31,
      ];
      for (const seq of forged) {
        receive(error(1280, tcp(seq)));
        equal(stage.learned, 0, `${base} ${seq}`);
      }
      deepEqual([stage.learned, stage.ignored, stage.size], [0, forged.length, 0]);
      receive(error(1280, tcp(base + 2600)));
      deepEqual([stage.learned, stage.size], [1, 1]);
      receive(ack(base + 5200));
      receive(error(1279 + (version === 4 ? 0 : 1), tcp(base + 3900)));
      equal(stage.learned, 1);
    }
  });

  Deno.test(`PathMtu follows a new connection between the same ports, and one after a forged acknowledgment, over IPv${version}`, () => {
    const { stage, send, receive } = start();
    send(tcp(5_000_000));
    receive(ack(15_000_000));
    send(tcp(1000));
    receive(error(1280, tcp(5_000_000)));
    equal(stage.learned, 0);
    receive(error(1280, tcp(1000)));
    equal(stage.learned, 1);
  });

  Deno.test(`PathMtu accepts an error about UDP only for a packet of that length, sent in the last 10 s, over IPv${version}`, () => {
    const { stage, test, send, receive } = start();
    send(udp(53, 1300));
    receive(error(1290, udp(54, 1300)));
    receive(error(1290, udp(53, 1301)));
    receive(error(1290, udp(53, 1300), version === 4 ? "10.9.0.2" : "fd09::2"));
    test.now += 10_000;
    receive(error(1290, udp(53, 1300)));
    deepEqual([stage.learned, stage.ignored], [0, 4]);
    send(udp(53, 1300));
    test.now += 9999;
    receive(error(1290, udp(53, 1300)));
    equal(stage.learned, 1);
  });

  Deno.test(`PathMtu never learns less than the minimum of IPv${version}, nor more than it knows`, () => {
    const least = version === 4 ? 552 : 1280;
    const { stage, send, receive } = start();
    send(udp(53, 1300));
    receive(error(1285, udp(53, 1300)));
    for (const reported of [1286, 1400, 65_535]) receive(error(reported, udp(53, 1300)));
    deepEqual(stage.save().map(({ mtu }) => mtu), [1285]);
    for (const reported of [1, 68, 551]) receive(error(reported, udp(53, 1300)));
    deepEqual(stage.save().map(({ mtu }) => mtu), [version === 4 ? least : 1285]);
  });

  Deno.test(`PathMtu lets one network fill no more than its share of a full table, over IPv${version}`, () => {
    const paths = 16;
    const stage = new PathMtu({ paths, hashKey: [1, 2] });
    const test = new TestPipeline(stage);
    const learn = (address: string) => {
      const src = ENDS[version][0]!;
      const [from, to] = version === 4 ? [`${src}:1`, `${address}:2`] : [`[${src}]:1`, `[${address}]:2`];
      const sent = `udp ${from} > ${to} payload 1300`;
      goes(test, encodePacket(sent));
      test.send(Direction.Inbound, error(1290, sent));
      test.settle();
      test.receive();
    };
    const honest = version === 4 ? "192.0.2.200" : "2001:db8:2::1";
    learn(honest);
    // One /64; over IPv4, where each address is its own network, as many as there is room beside.
    const count = version === 4 ? paths - 1 : 1000;
    for (let i = 1; i <= count; i++) {
      learn(version === 4 ? `198.18.0.${i}` : `2001:db8:bad::${i.toString(16)}`);
    }
    equal(stage.size, paths);
    ok(stage.save().some(({ address }) => address === honest));
  });
}
