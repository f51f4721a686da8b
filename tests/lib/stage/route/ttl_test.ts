/** The `ttl` stage: wrong options, and any bytes at all. */

import { equal, ok, throws } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { ttl } from "@warren/tunnel/ttl";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { survive } from "../../../kit/hostile.ts";
import { wrongChecksum } from "../../../kit/packets.ts";

Deno.test("ttl() rejects a value that is out of range", () => {
  for (const value of [0, 256, 1.5, NaN]) {
    throws(() => ttl({ outbound: value }), RangeError);
    throws(() => ttl({ inbound: { min: value } }), RangeError);
  }
});

Deno.test("ttl() keeps the header checksum at each number", () => {
  const test = new TestPipeline(ttl());
  for (let value = 2; value <= 255; value++) {
    test.send(Direction.Outbound, encodePacket(`udp 10.9.0.1:5000 > 192.0.2.1:53 ttl ${value} "hello"`));
    test.settle();
    const [packet] = test.receive().far;
    equal(packet![8], value - 1);
    equal(wrongChecksum(packet!), "");
  }
});

Deno.test("ttl() never throws and loses no packet, whatever bytes come", () => {
  ok(survive(ttl(), 0x771, 20_000) > 10_000);
  ok(survive(ttl({ outbound: 64, inbound: { min: 64 } }), 0x772, 5000) >= 5000);
});
