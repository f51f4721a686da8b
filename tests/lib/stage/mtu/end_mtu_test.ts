/** Packets longer than a far end's MTU: fragments, ICMP errors, and super-packets that fit. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Direction, type Stage, type TunnelEnd } from "@warren/tunnel/core";
import { MemoryDevice } from "@warren/tunnel/memory";
import { Switchboard } from "@warren/tunnel/switchboard";
import { EndMtu } from "../../../../lib/stage/mtu/end_mtu.ts";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { before, TestPipeline } from "../../../kit/pipeline.ts";

const SRC4 = "10.9.0.2:5000";
const DST4 = "10.9.0.1:80";
const SRC6 = "[fd09::2]:5000";
const DST6 = "[fd09::1]:80";

/** An end as far as the step looks at it. */
function endOf(fields: Partial<TunnelEnd>): TunnelEnd {
  return fields as TunnelEnd;
}

/** Sends packets to the far end; returns those that leave at either end. */
function pass(stages: Stage[], ...packets: string[]): { far: string[]; device: string[] } {
  const test = new TestPipeline(...stages);
  for (const packet of packets) test.send(Direction.Outbound, encodePacket(packet));
  test.settle();
  const { far, device } = test.receive();
  ok(test.balanced);
  return { far: far.map(formatPacket), device: device.map(formatPacket) };
}

/** A TCP packet of this length. */
function tcp4(length: number): string {
  return `tcp ${SRC4} > ${DST4} A payload ${length - 40}`;
}

function udp6(length: number): string {
  return `udp ${SRC6} > ${DST6} payload ${length - 48}`;
}

function tooBig4(mtu: number, length: number): string {
  return `icmp 10.9.0.1 > 10.9.0.2 dscp 48 type 3 code 4 rest ${mtu} { ${tcp4(length)} cut 548 }`;
}

function tooBig6(mtu: number, length: number): string {
  return `icmp fd09::1 > fd09::2 type 2 rest ${mtu} { ${udp6(length)} cut 1232 }`;
}

Deno.test("EndMtu answers what must not be fragmented with the MTU, from its destination, and passes the rest", () => {
  const stage = new EndMtu(endOf({ mtu: 1300 }));
  deepEqual(pass([stage], tcp4(1300), udp6(1300), tcp4(1301), udp6(1301), tcp4(100)), {
    far: [tcp4(1300), udp6(1300), tcp4(100)],
    device: [tooBig4(1300, 1301), tooBig6(1300, 1301)],
  });
});

Deno.test("EndMtu fragments IPv4 packets that allow it, in their order", () => {
  const stage = new EndMtu(endOf({ mtu: 600 }));
  const short = `udp ${SRC4} > ${DST4} nodf payload 10`;
  const { far, device } = pass([stage], short, `udp ${SRC4} > ${DST4} nodf payload 1000`, short);
  deepEqual(device, []);
  equal(far.length, 4);
  deepEqual([far[0], far[3]], [short, short]);
  ok(/ more/.test(far[1]!) && / offset 576/.test(far[2]!), far.join());
});

Deno.test("EndMtu looks at the segments of a super-packet, not at its length", () => {
  for (const [size, answers] of [[460, 0], [461, 1]] as const) {
    const stages = [
      before((packet) => packet.segmentSize = size),
      new EndMtu(endOf({ mtu: 500 })),
    ];
    const { far, device } = pass(stages, tcp4(1440));
    equal(device.length, answers, `${size}`);
    equal(far.length, answers === 0 ? 4 : 0);
    // The first segment is what is quoted.
    if (answers > 0) {
      deepEqual(device, [tooBig4(500, 501).replace(" cut 548", "")]);
    }
  }
});

Deno.test("EndMtu follows its end's MTU", () => {
  const end = { mtu: 1400 };
  const stage = new EndMtu(endOf(end));
  deepEqual(pass([stage], tcp4(1400)).far, [tcp4(1400)]);
  end.mtu = 1399;
  deepEqual(pass([stage], tcp4(1400)), { far: [], device: [tooBig4(1399, 1400)] });
  end.mtu = 1500;
  deepEqual(pass([stage], tcp4(1400)).far, [tcp4(1400)]);
});

Deno.test("EndMtu fragments IPv6 packets below the MTU that every IPv6 link has", () => {
  const { far, device } = pass([new EndMtu(endOf({ mtu: 1000 }))], udp6(1280), tcp4(1001));
  equal(far.length, 2);
  deepEqual(device, [tooBig4(1000, 1001)]);
});

Deno.test("EndMtu passes packets that are not IP, and everything to an end with an invalid MTU", () => {
  const bytes = Array.from({ length: 700 }, () => "a5").join(" ");
  deepEqual(pass([new EndMtu(endOf({ mtu: 600 }))], `hex ${bytes}`).far, [`hex ${bytes}`]);
  for (const mtu of [67, 0, -1, NaN, Infinity]) {
    deepEqual(pass([new EndMtu(endOf({ mtu }))], tcp4(1400)).far, [tcp4(1400)]);
  }
});

Deno.test("EndMtu answers at a limited rate, and counts the rest", () => {
  const test = new TestPipeline(new EndMtu(endOf({ mtu: 600 })));
  for (let i = 0; i < 200; i++) test.send(Direction.Outbound, encodePacket(tcp4(700)));
  test.settle();
  const { far, device } = test.receive();
  deepEqual(far, []);
  ok(device.length > 0 && device.length < 200, `${device.length}`);
  const { dropped } = test.pipeline.ledger.counters.snapshot(0);
  deepEqual(dropped, { "longer than the MTU": 200 - device.length });
  ok(test.balanced);
});

Deno.test("EndMtu keeps to the MTU of the end of a switchboard that a packet is for", () => {
  const [wide] = MemoryDevice.pair({ mtu: 1500 });
  const [narrow] = MemoryDevice.pair({ mtu: 1300 });
  const boundless = Object.assign(MemoryDevice.pair({ mtu: 1300 })[0], { payload: "any" as const });
  const far = new Switchboard([wide, narrow, boundless]);
  equal(EndMtu.isFor(far), true);
  for (const [to, fits] of [[1, true], [2, false], [3, true], [0, true], [9, true]] as const) {
    const stages = [before((packet) => packet.to = to), new EndMtu(far)];
    const expected = fits ? { far: [tcp4(1400)], device: [] } : { far: [], device: [tooBig4(1300, 1400)] };
    deepEqual(pass(stages, tcp4(1400)), expected, `${to}`);
  }
  far.close();
});

Deno.test("EndMtu.isFor() is false for ends without an MTU, and for those that carry anything", () => {
  equal(EndMtu.isFor(endOf({})), false);
  equal(EndMtu.isFor(endOf({ mtu: 1500, payload: "any" })), false);
  equal(EndMtu.isFor(endOf({ mtu: 1500, payload: "ip" })), true);
});
