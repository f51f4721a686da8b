/** Path MTUs: save and restore, super-packets, wrong states and options, and any bytes at all. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Tcp } from "@warren/tunnel/tcp";
import { encodePacket } from "../kit/packet_text.ts";
import { TestPipeline } from "../kit/pipeline.ts";
import { survive } from "./_hostile.ts";
import { encodeIp, packetOf } from "./_packets.ts";

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

Deno.test("PathMtu knows after save, JSON and restore what it knew, and for as long", () => {
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

Deno.test("PathMtu refuses what is not its own state", () => {
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
  Deno.test(`PathMtu answers an IPv${version} super-packet whose segments are too long, and lets others go`, () => {
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

Deno.test("PathMtu does not believe an error with a wrong checksum", () => {
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

Deno.test("PathMtu does not believe an error that quotes a packet of the other version", () => {
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

Deno.test("PathMtu refuses wrong options", () => {
  for (const mtu of [67, 65_536, 1400.5, NaN]) throws(() => new PathMtu({ mtu }), RangeError);
  throws(() => new PathMtu({ paths: 0 }), RangeError);
  throws(() => new PathMtu({ age: 0 }), RangeError);
});

Deno.test("PathMtu never throws and loses no packet, whatever bytes come", () => {
  const stage = new PathMtu({ mtu: 1410, paths: 4 });
  ok(survive(stage, 0x9a71, 20_000) > 10_000);
  ok(stage.learned > 0 && stage.ignored > 0 && stage.size <= 4);
});
