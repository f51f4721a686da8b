/** Padding after a packet, which might reveal data of other hosts, is removed. */

import { deepEqual, ok } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { Napt44, Nptv6, StaticNat } from "@warren/tunnel/nat";
import { Nat64 } from "@warren/tunnel/nat64";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";

const PADDING = 24;
const FOUR = 'udp 10.9.0.5:5000 > 192.0.2.1:53 "hello"';
const CASES: [stage: Stage, packet: string][] = [
  [new Napt44({ outside: "198.51.100.1" }), FOUR],
  [new StaticNat({ rules: [{ inside: "10.9.0.0/24", outside: "198.51.100.0/24" }] }), FOUR],
  [
    new Nptv6({ inside: "fd01:203:405::/48", outside: "2001:db8:1::/48" }),
    'udp [fd01:203:405:1::5]:5000 > [2001:db8:ffff::1]:53 "hello"',
  ],
  // A random identification might be the padding's bytes.
  [
    new Nat64({ outside: "198.51.100.1", random: () => 6 }),
    'udp [fd64::5]:5000 > [64:ff9b::c000:201]:53 "hello"',
  ],
];

for (const [stage, text] of CASES) {
  Deno.test(`${stage.name} removes padding behind a packet`, () => {
    const test = new TestPipeline(stage);
    const bytes = encodePacket(text);
    const padded = new Uint8Array(bytes.length + PADDING).fill(0xa5);
    padded.set(bytes);
    for (const packet of [bytes, padded]) test.send(Direction.Outbound, packet);
    test.settle();
    const [plain, cut] = test.receive().far;
    deepEqual([cut!.length, cut!.includes(0xa5)], [plain!.length, false]);
    ok(test.balanced);
  });
}
