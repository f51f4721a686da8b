/** Reassembly under a flood of fragments of datagrams that never complete. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Reassemble, type ReassembleOptions } from "@warren/tunnel/reassemble";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { chained, EXTENSIONS } from "../../../kit/ipv6_chains.ts";

const VERSIONS = [4, 6] as const;
const HERE = { 4: "10.9.0.1", 6: "fd09::1" };
const HONEST = { 4: "192.0.2.1", 6: "2001:db8::1" };

class Receiver {
  readonly stage: Reassemble;
  readonly test: TestPipeline;

  constructor(options: ReassembleOptions = {}) {
    this.stage = new Reassemble({ hashKey: [1, 2], ...options });
    this.test = new TestPipeline(this.stage);
  }

  /** Sends fragments `from` to `to - 1`, of 16 bytes each, of a datagram of `fragments`. */
  send(src: string, ident: number, [from, to]: [number, number], fragments: number): void {
    const here = HERE[src.includes(":") ? 6 : 4];
    for (let i = from; i < to; i++) {
      const more = i + 1 < fragments ? "more" : "";
      const text = `ip ${src} > ${here} protocol 253 ident ${ident} ${more} offset ${16 * i} payload 16`;
      this.test.send(Direction.Inbound, encodePacket(text));
      this.test.settle();
    }
  }

  /** Number of reassembled datagrams. */
  get joined(): number {
    const { device, far } = this.test.receive();
    equal(far.length, 0);
    return device.length;
  }
}

/** Flooding sources: with one address each, in one network, and a single one. */
const FLOODS: Record<string, (version: 4 | 6, i: number) => string> = {
  "one each": (version, i) =>
    version === 4
      ? `198.${18 + (i >> 16)}.${i >> 8 & 255}.${i & 255}`
      : `2001:db8:${(i + 1).toString(16)}:${i & 7}::1`,
  "one network": (version, i) => version === 4 ? `198.18.0.1` : `2001:db8:bad:1::${(i + 1).toString(16)}`,
  "one alone": (version) => version === 4 ? "198.18.0.1" : "2001:db8:bad::1",
};

for (const version of VERSIONS) {
  for (const [name, source] of Object.entries(FLOODS)) {
    for (const count of [130, 3000]) {
      Deno.test(`Reassemble joins a datagram under a flood of ${count} first fragments, ${name}, over IPv${version}`, () => {
        const receiver = new Receiver();
        // Begun before, and finished behind the flood.
        receiver.send(HONEST[version], 1, [0, 2], 4);
        for (let i = 0; i < count; i++) receiver.send(source(version, i), i & 0xffff, [0, 1], 2);
        receiver.send(HONEST[version], 1, [2, 4], 4);
        equal(receiver.joined, 1);
        // Begun in the full table.
        receiver.send(HONEST[version], 2, [0, 4], 4);
        receiver.send(source(version, count), 9, [0, 1], 2);
        equal(receiver.joined, 1);
        ok(receiver.test.balanced);
      });
    }
  }

  Deno.test(`Reassemble evicts the fragments of the source that holds most, over IPv${version}`, () => {
    for (const options of [{ fragments: 64 }, { bytes: 4096 }]) {
      const receiver = new Receiver(options);
      receiver.send(HONEST[version], 1, [0, 3], 4);
      for (let i = 0; i < 300; i++) receiver.send(FLOODS["one alone"]!(version, i), i & 7, [0, 20], 64);
      receiver.send(HONEST[version], 1, [3, 4], 4);
      equal(receiver.joined, 1);
      ok(receiver.test.balanced);
    }
  });

  Deno.test(`Reassemble evicts the oldest datagram of a source that fills the table itself, over IPv${version}`, () => {
    const receiver = new Receiver({ datagrams: 4 });
    for (let ident = 1; ident <= 5; ident++) receiver.send(HONEST[version], ident, [0, 1], 2);
    for (let ident = 5; ident >= 1; ident--) receiver.send(HONEST[version], ident, [1, 2], 2);
    equal(receiver.joined, 4);
  });

  Deno.test(`Reassemble protects nothing for more than 5 s in a full table, over IPv${version}`, () => {
    const receiver = new Receiver({ datagrams: 2 });
    receiver.send(HONEST[version], 1, [0, 1], 2);
    receiver.send(FLOODS["one each"]!(version, 0), 1, [0, 1], 2);
    receiver.test.now = 5000;
    receiver.send(FLOODS["one each"]!(version, 1), 1, [0, 1], 2);
    receiver.send(HONEST[version], 1, [1, 2], 2);
    equal(receiver.joined, 0);
  });
}

Deno.test("Reassemble takes constant time for each fragment of a flood, whatever the table's size", () => {
  const timeOf = (datagrams: number): number => {
    const receiver = new Receiver({ datagrams, fragments: 200 });
    const start = performance.now();
    for (let i = 0; i < 4000; i++) receiver.send(FLOODS["one each"]!(4, i), 1, [0, 1], 2);
    return performance.now() - start;
  };
  timeOf(64);
  const [small, large] = [timeOf(64), timeOf(100_000)];
  ok(large < 20 * small + 200, `${small} ms, ${large} ms`);
});

Deno.test("Reassemble answers faulty IPv6 fragments with the errors of RFC 8200", () => {
  const payload = (length: number) => new Uint8Array(length).fill(7);
  const fragment = (offset: number, more: boolean) => ({
    type: 44,
    bytes: [0, 0, offset >> 8, offset & 0xf8 | (more ? 1 : 0), 0, 0, 0, 9],
  });
  const { destination, hopByHop, atomic } = EXTENSIONS;
  const cases: [string, Uint8Array, string | undefined][] = [
    ["ends beyond 65,535", chained([fragment(65_528, false)], [17, payload(8)]), "type 4 rest 42"],
    [
      "the same behind 8 and 16 bytes of headers",
      chained([hopByHop, destination, fragment(65_528, true)], [
        17,
        payload(8),
      ]),
      "type 4 rest 66",
    ],
    [
      "the same behind an atomic header",
      chained([atomic, fragment(65_528, false)], [17, payload(8)]),
      "type 4 rest 50",
    ],
    ["odd length", chained([fragment(0, true)], [17, payload(17)]), "type 4 rest 4"],
    ["odd length of a later one", chained([fragment(16, true)], [17, payload(17)]), "type 4 rest 4"],
    ["odd length of the last one", chained([fragment(16, false)], [17, payload(17)]), undefined],
    ["half a TCP header", chained([fragment(0, true)], [6, payload(16)]), "type 4 code 3"],
    [
      "no UDP header behind options",
      chained([fragment(0, true), destination], [17, payload(0)]),
      "type 4 code 3",
    ],
    [
      "no ICMPv6 header, which may be an error's",
      chained([fragment(0, true), destination], [58, payload(0)]),
      undefined,
    ],
    [
      "of an ICMPv6 message, which may be an error",
      chained([fragment(65_528, false)], [58, payload(8)]),
      undefined,
    ],
    ["empty", chained([fragment(16, false)], [17, payload(0)]), undefined],
  ];
  for (const [name, bytes, expected] of cases) {
    const test = new TestPipeline(new Reassemble());
    test.send(Direction.Inbound, bytes);
    test.settle();
    const { far, device } = test.receive();
    deepEqual(
      far.map((error) => / (type .*?) \{/.exec(formatPacket(error))?.[1]),
      expected === undefined ? [] : [expected],
      name,
    );
    equal(device.length, 0, name);
  }
});

Deno.test("Reassemble removes every atomic Fragment header", () => {
  const test = new TestPipeline(new Reassemble());
  const upper = [253, Uint8Array.of(1, 2, 3)] as const;
  const { atomic, destination } = EXTENSIONS;
  test.send(Direction.Inbound, chained([atomic, destination, atomic, atomic], upper));
  test.settle();
  const [whole] = test.receive().device;
  deepEqual(whole, chained([destination], upper));
});
