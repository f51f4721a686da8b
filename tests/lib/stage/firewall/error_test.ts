/** ICMP errors about connections, and invalid fragments. */

import { deepEqual, equal } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Firewall } from "@warren/tunnel/firewall";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { chained, EXTENSIONS } from "../../../kit/ipv6_chains.ts";

function start(): { test: TestPipeline; pass: (direction: Direction, bytes: Uint8Array) => boolean } {
  const test = new TestPipeline(new Firewall({ default: "allow" }));
  return {
    test,
    pass: (direction, bytes) => {
      test.send(direction, bytes);
      test.settle();
      const { far, device } = test.receive();
      return (direction === Direction.Outbound ? far : device).length === 1;
    },
  };
}

for (const version of [4, 6] as const) {
  const [inside, outside, router] = version === 4
    ? ["10.9.0.1", "192.0.2.1", "198.51.100.1"]
    : ["fd09::1", "2001:db8::1", "2001:db8:1::1"];
  const at = (address: string, port: number) => version === 4 ? `${address}:${port}` : `[${address}]:${port}`;
  const out = (rest: string) => `tcp ${at(inside, 5000)} > ${at(outside, 80)} ${rest}`;
  const back = (rest: string) => `tcp ${at(outside, 80)} > ${at(inside, 5000)} ${rest}`;
  const cut = version === 4 ? 28 : 48;
  const errors = version === 4
    ? ["type 3 code 1", "type 3 code 4 rest 1280", "type 11"]
    : ["type 1", "type 2 rest 1280", "type 3"];
  const about = (error: string, seq: number) =>
    encodePacket(
      `icmp ${router} > ${inside} ${error} { ${out(`A seq ${seq >>> 0} ack 501 payload 100`)} cut ${cut} }`,
    );

  Deno.test(`Firewall passes errors only about segments in flight, over IPv${version}`, () => {
    const isn = 2 ** 32 - 50;
    const { pass } = start();
    equal(pass(0, encodePacket(out(`S seq ${isn}`))), true);
    for (const error of errors) {
      equal(pass(1, about(error, isn)), true, "the SYN");
      for (const seq of [isn - 1, isn + 2, isn + 100]) equal(pass(1, about(error, seq)), false);
    }
    equal(pass(1, encodePacket(back(`SA seq 500 ack ${isn + 1}`))), true);
    equal(pass(0, encodePacket(out(`A seq ${isn + 1} ack 501`))), true);
    for (let i = 0; i < 3; i++) {
      equal(pass(0, encodePacket(out(`A seq ${(isn + 1 + 100 * i) % 2 ** 32} ack 501 payload 100`))), true);
    }
    equal(pass(1, encodePacket(back(`A seq 501 ack ${(isn + 101) % 2 ** 32}`))), true);
    for (const error of errors) {
      for (const seq of [isn + 101, isn + 201, isn + 300]) equal(pass(1, about(error, seq)), true, `${seq}`);
      // Acknowledged, not sent yet, random.
      for (const seq of [isn, isn + 1, isn + 100, isn + 302, isn + 5000, isn + 2 ** 31]) {
        equal(pass(1, about(error, seq)), false, `${error} ${seq - isn}`);
      }
    }
  });

  Deno.test(`Firewall passes no error about a reply that was not sent, over IPv${version}`, () => {
    const { pass } = start();
    const [query, reply] = [
      `udp ${at(inside, 5000)} > ${at(outside, 53)} payload 8`,
      `udp ${at(outside, 53)} > ${at(inside, 5000)} payload 8`,
    ];
    const forged = encodePacket(`icmp ${inside} > ${outside} ${errors[0]} { ${reply} }`);
    equal(pass(0, encodePacket(query)), true);
    equal(pass(0, forged), false);
    equal(pass(1, encodePacket(`icmp ${router} > ${inside} ${errors[0]} { ${query} }`)), true);
    equal(pass(1, encodePacket(reply)), true);
    equal(pass(0, forged), true);
  });

  Deno.test(`Firewall passes no error about a side that has sent nothing in a mid-stream connection, over IPv${version}`, () => {
    const test = new TestPipeline(new Firewall({ midStream: true, default: "allow" }));
    const pass = (direction: Direction, bytes: Uint8Array) => {
      test.send(direction, bytes);
      test.settle();
      return test.receive().device.length === 1;
    };
    equal(pass(1, encodePacket(back("A seq 501 ack 1000 payload 10"))), true);
    equal(pass(1, about(errors[0]!, 1000)), false);
    pass(0, encodePacket(out("A seq 1000 ack 511 payload 100")));
    equal(pass(1, about(errors[0]!, 1000)), true);
    equal(pass(1, about(errors[0]!, 2000)), false);
  });
}

Deno.test("Firewall passes no fragment that ends beyond 65,535, is nested in another, or has an incomplete header", () => {
  const upper = [17, Uint8Array.of(0x13, 0x88, 0, 53, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)] as const;
  const fragment = (offset: number, more: boolean, id = 9) => ({
    type: 44,
    bytes: [0, 0, offset >> 8, offset & 0xf8 | (more ? 1 : 0), 0, 0, 0, id],
  });
  const { atomic, destination } = EXTENSIONS;
  const passes = (...packets: Uint8Array[]): boolean[] => {
    const { test, pass } = start();
    const passed = packets.map((bytes) => pass(Direction.Inbound, bytes));
    equal(test.balanced, true);
    return passed;
  };
  const first = chained([fragment(0, true)], upper);
  deepEqual(passes(first, chained([fragment(16, false)], upper)), [true, true]);
  deepEqual(passes(first, chained([fragment(65_528, false)], upper)), [true, false]);
  deepEqual(passes(first, chained([fragment(8, false)], upper)), [true, false]);
  deepEqual(
    passes(chained([atomic, fragment(0, true)], upper), chained([atomic, fragment(16, false)], upper)),
    [
      true,
      true,
    ],
  );
  // A fragment nested in a fragment: one identification here, two at the destination.
  deepEqual(passes(chained([fragment(0, true), fragment(0, true, 8)], upper)), [false]);
  deepEqual(passes(first, chained([fragment(0, true), fragment(16, false, 9)], upper)), [true, false]);
  deepEqual(passes(chained([fragment(0, true)], [6, upper[1]])), [false]);
  deepEqual(passes(chained([fragment(0, true), destination], [17, new Uint8Array(0)])), [false]);
  // The payload of a later fragment is not a header, whatever its protocol.
  deepEqual(passes(first, chained([fragment(16, false)], [60, upper[1]])), [true, true]);
});
