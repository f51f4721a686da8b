/** Top talkers, against a plain count. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { formatAddress, formatCidr } from "@warren/tunnel/address";
import { Direction } from "@warren/tunnel/core";
import { Meter, type MeterOptions } from "@warren/tunnel/meter";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";

class Rig {
  readonly meter: Meter;
  readonly test: TestPipeline;

  constructor(options?: MeterOptions) {
    this.meter = new Meter(options);
    this.test = new TestPipeline(this.meter);
  }

  pass(direction: Direction, text: string): void {
    this.test.send(direction, encodePacket(text));
    this.test.settle();
    this.test.receive();
  }
}

Deno.test("Meter counts both directions as one flow, and ranks by bytes", () => {
  const rig = new Rig();
  const { meter } = rig;
  rig.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53 payload 10");
  rig.pass(Direction.Inbound, "udp 192.0.2.1:53 > 10.9.0.1:5000 payload 100");
  rig.pass(Direction.Outbound, "tcp [fd00::1]:5000 > [2001:db8:1:2::1]:80 A payload 1000");
  rig.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.9:99 payload 10");
  const flows = meter.flows(2).map(({ protocol, near, far, nearPort, farPort, ...traffic }) => [
    protocol,
    formatAddress(near),
    nearPort,
    formatAddress(far),
    farPort,
    traffic.packetsOut,
    traffic.bytesOut,
    traffic.packetsIn,
    traffic.bytesIn,
  ]);
  deepEqual(flows, [
    ["Tcp", "fd00::1", 5000, "2001:db8:1:2::1", 80, 1, 1060, 0, 0],
    ["Udp", "10.9.0.1", 5000, "192.0.2.1", 53, 1, 38, 1, 128],
  ]);
  deepEqual(
    meter.prefixes(9).map(({ prefix, bytesOut, bytesIn }) => [formatCidr(prefix), bytesOut, bytesIn]),
    [
      ["2001:db8:1::/48", 1060, 0],
      ["192.0.2.0/24", 76, 128],
    ],
  );
  deepEqual(meter.protocols().map(({ protocol, packetsOut }) => [protocol, packetsOut]), [["Tcp", 1], [
    "Udp",
    2,
  ]]);
});

Deno.test("Meter's rate is that of a steady stream, and halves in a half-life", () => {
  const rig = new Rig({ halfLife: 1000 });
  for (rig.test.now = 0; rig.test.now < 20_000; rig.test.now += 10) {
    rig.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53 payload 972");
  }
  const [steady] = rig.meter.flows(1);
  ok(Math.abs(steady!.rateBitsPerSecond / 800_000 - 1) < 0.01, `${steady!.rateBitsPerSecond}`);
  rig.test.now += 990;
  rig.meter.tick({ now: rig.test.now } as never);
  const [later] = rig.meter.flows(1);
  ok(Math.abs(later!.rateBitsPerSecond / 400_000 - 1) < 0.02, `${later!.rateBitsPerSecond}`);
});

Deno.test("Meter's totals are a plain count's, with room for all and for few", () => {
  for (const capacity of [1000, 8]) {
    const rig = new Rig({ flows: capacity, prefixes: capacity });
    const random = new Random(7);
    const expected = new Map<string, number>();
    let all = 0;
    for (let i = 0; i < 2000; i++) {
      const far = `192.0.${random.below(20)}.${random.below(3)}`;
      const isOut = random.below(2) === 0;
      const length = random.below(300);
      const ends = isOut ? `10.9.0.1:7 > ${far}:53` : `${far}:53 > 10.9.0.1:7`;
      rig.pass(isOut ? Direction.Outbound : Direction.Inbound, `udp ${ends} payload ${length}`);
      expected.set(far, (expected.get(far) ?? 0) + length + 28);
      all += length + 28;
    }
    const flows = rig.meter.flows(1000);
    const measured = new Map(
      flows.map(({ far, bytesIn, bytesOut }) => [formatAddress(far), bytesIn + bytesOut]),
    );
    if (capacity === 1000) {
      deepEqual(new Map([...measured].sort()), new Map([...expected].sort()));
      equal(rig.meter.evicted, 0);
    } else {
      equal(flows.length, 8);
      ok(rig.meter.evicted > 100);
    }
    const [udp] = rig.meter.protocols();
    equal(udp!.bytesIn + udp!.bytesOut, all);
  }
});

Deno.test("Meter removes idle flows, and counts packets without a flow", () => {
  const rig = new Rig({ timeout: 100 });
  rig.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53");
  rig.pass(Direction.Outbound, "ip 10.9.0.1 > 192.0.2.1 protocol 17 offset 800 payload 8");
  rig.pass(Direction.Outbound, "hex 45 00");
  equal(rig.meter.unknown, 2);
  rig.test.now = 1000;
  rig.meter.tick({ now: 1000 } as never);
  deepEqual([rig.meter.flows(9), rig.meter.prefixes(9)], [[], []]);
});

Deno.test("Meter restores a state that it saved, and rejects any other", () => {
  const rig = new Rig();
  rig.test.now = 500;
  rig.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53 payload 10");
  rig.pass(Direction.Inbound, "tcp [2001:db8::1]:80 > [fd00::1]:5000 A payload 100");
  const state = JSON.parse(JSON.stringify(rig.meter.save()));
  const restored = new Rig();
  restored.meter.restore(state);
  const totals = ({ meter }: Rig) =>
    [meter.flows(9), meter.prefixes(9), meter.protocols()].map((list) =>
      list.map((traffic) => ({ ...traffic, rateBitsPerSecond: 0 }))
    );
  deepEqual(totals(restored), totals(rig));
  restored.pass(Direction.Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53 payload 10");
  equal(restored.meter.flows(9).find(({ farPort }) => farPort === 53)!.packetsOut, 2);
  for (
    const other of [null, {}, { ...state, flows: [{ key: [1], counters: [1], seen: 0 }] }, {
      ...state,
      prefixes: 1,
    }]
  ) {
    throws(() => restored.meter.restore(other), TypeError);
  }
});

Deno.test("Meter rejects options that are out of range", () => {
  for (
    const options of [{ halfLife: 0 }, { prefixLength4: 33 }, { prefixLength6: -1 }, { flows: 0 }, {
      timeout: NaN,
    }]
  ) {
    throws(() => new Meter(options), RangeError);
  }
});
