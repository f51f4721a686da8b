/** Policies one by one, and where packets go by them. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { type Policy, route } from "@warren/tunnel/route";
import { RouteTable } from "@warren/tunnel/route_table";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";

const WEB = "tcp 10.1.0.2:5000 > 192.0.2.1:80 S";
const DNS = "udp 10.1.0.2:5000 > 192.0.2.1:53";
const PING = "icmp 10.1.0.2 > 192.0.2.1 type 8";
const SIX = "udp [fd00:1::2]:5000 > [2001:db8::1]:53";

/** Returns the destination of a packet from an end (0: this machine); `undefined` when it is dropped. */
function goesTo(policies: Policy[], text: string, from = 0, mark = 0): number | undefined {
  let to: number | undefined;
  const see = {
    name: "see",
    outbound: ({ packets, length }: { packets: { to: number }[]; length: number }) => {
      if (length > 0) to = packets[0]!.to;
    },
  };
  const tag = {
    name: "tag",
    inbound: ({ packets, length }: { packets: { from: number; mark: number }[]; length: number }) => {
      for (let i = 0; i < length; i++) [packets[i]!.from, packets[i]!.mark] = [from, mark];
    },
    outbound: ({ packets, length }: { packets: { mark: number }[]; length: number }) => {
      for (let i = 0; i < length; i++) packets[i]!.mark = mark;
    },
  };
  const test = from === 0
    ? new TestPipeline(tag as never, route(policies), see as never)
    : new TestPipeline(route(policies), see as never, tag as never);
  test.send(from === 0 ? Direction.Outbound : Direction.Inbound, encodePacket(text));
  test.settle();
  const { far, device } = test.receive();
  ok(test.balanced);
  if (far.length === 1) return to;
  return device.length === 1 ? 0 : undefined;
}

const ASKED: [policy: Policy, yes: string[], no: string[]][] = [
  [{ src: "10.1.0.0/16", to: 1 }, [WEB, DNS, PING], [SIX]],
  [{ src: ["10.2.0.0/16", "fd00::/8"], to: 1 }, [SIX], [WEB]],
  [{ protocol: "tcp", to: 1 }, [WEB], [DNS, PING, SIX]],
  [{ protocol: "icmp", to: 1 }, [PING], [WEB]],
  [{ protocol: 17, to: 1 }, [DNS, SIX], [WEB]],
  [{ dstPort: 53, to: 1 }, [DNS, SIX], [WEB, PING]],
  [{ dstPort: "50-80", to: 1 }, [DNS, SIX, WEB], [PING]],
  [{ srcPort: "1-4999", to: 1 }, [], [DNS, WEB]],
  [{ match: ({ length }) => length > 30, to: 1 }, [WEB], [DNS]],
  [{ to: { "192.0.2.0/24": 1 } }, [WEB], [SIX]],
  [{ to: { "2001:db8::/32": 1 } }, [SIX], [WEB]],
  [{ to: { "192.0.2.0/24": 1, "192.0.2.1/32": 0 } }, [], [SIX]],
];

for (const [policy, yes, no] of ASKED) {
  Deno.test(`route() goes by ${Deno.inspect(policy, { breakLength: Infinity })}`, () => {
    for (const text of yes) equal(goesTo([policy], text), 1, text);
    for (const text of no) equal(goesTo([policy], text), undefined, text);
  });
}

Deno.test("route() matches the mark, and the end that a packet comes from", () => {
  equal(goesTo([{ mark: 7, to: 1 }], WEB, 0, 7), 1);
  equal(goesTo([{ mark: 7, to: 1 }], WEB, 0, 8), undefined);
  equal(goesTo([{ end: 2, to: 1 }], WEB, 2), 1);
  equal(goesTo([{ end: 2, to: 1 }], WEB, 1), undefined);
  equal(goesTo([{ end: 0, to: 1 }], WEB), 1);
});

Deno.test("route() tries policies in order until one has a route", () => {
  const table = new RouteTable<number>();
  table.set("10.0.0.0/8", 3);
  const policies: Policy[] = [{ protocol: "tcp", to: table }, { dstPort: 80, to: 2 }, { to: 4 }];
  deepEqual([WEB, DNS].map((text) => goesTo(policies, text)), [2, 4]);
  table.set("192.0.2.1/32", 3);
  deepEqual([WEB, DNS].map((text) => goesTo(policies, text)), [3, 4]);
});

Deno.test("route() forwards from end to end, and from this machine to itself", () => {
  equal(goesTo([{ to: { "192.0.2.1/32": 2 } }], WEB, 1), 2);
  equal(goesTo([{ to: { "192.0.2.1/32": 0 } }], WEB), 0);
  equal(goesTo([{ to: { "192.0.2.1/32": 0 } }], WEB, 1), 0);
});

Deno.test("route() sends net unreachable for packets without a route, with errors", () => {
  const errors = new IcmpErrors({ address: "10.1.0.254" });
  const test = new TestPipeline(route([], { errors }));
  test.send(Direction.Outbound, encodePacket(DNS));
  test.settle();
  deepEqual(test.receive().device.map(formatPacket), [
    `icmp 10.1.0.254 > 10.1.0.2 dscp 48 type 3 { ${DNS} }`,
  ]);
});

Deno.test("route() rejects invalid prefixes, ports, ends and protocols", () => {
  throws(() => route([{ src: "10.0.0", to: 1 }]), SyntaxError);
  throws(() => route([{ to: { "10.0.0.0/33": 1 } }]), SyntaxError);
  for (const dstPort of ["x", "5-4", 65_536, -1]) {
    throws(
      () => route([{ dstPort, to: 1 }]),
      dstPort === "x"
        ? SyntaxError
        : /^RangeError: Cannot route by policy 1: dstPort must be from 0 to 65535, or .*, got /,
    );
  }
  throws(() => route([{ to: { "0.0.0.0/0": "lan" as never } }]), TypeError);
  for (const to of [-1, 0.5, NaN, { "0.0.0.0/0": -1 }]) {
    throws(() => route([{ to }]), /^RangeError: Cannot route by policy 1: to must be 0 .*, got /);
  }
  throws(
    () => route([{ to: 1 }, { protocol: "gre" as never, to: 1 }]),
    /policy 2: protocol must be tcp, udp, icmp or a number, got "gre"/,
  );
});

Deno.test("route() never throws, whatever the bytes, and loses nothing", () => {
  const random = new Random(4);
  const test = new TestPipeline(
    route([{ dstPort: "0-30000", src: "0.0.0.0/1", to: 1 }, { to: { "0.0.0.0/2": 0, "::/1": 2 } }], {
      errors: new IcmpErrors(),
    }),
  );
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from({ length: 1 + random.below(100) }, () => random.below(256));
    bytes[0] = [0x45, 0x60, bytes[0]!][random.below(3)]!;
    if (bytes.length > 3) bytes.set([0, bytes.length], 2);
    test.send(random.below(2) as Direction, bytes);
    test.settle();
    test.receive();
    ok(test.balanced);
  }
});
