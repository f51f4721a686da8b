/** A firewall with a full table: which flows are evicted. */

import { equal, ok } from "node:assert/strict";
import { Direction, type Packet, PacketPool } from "@warren/tunnel/core";
import { Firewall, type FirewallOptions } from "@warren/tunnel/firewall";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";

const pool = new PacketPool({ small: 1, large: 0 });
const OPEN: FirewallOptions = { default: { outbound: "allow", inbound: "allow" }, hashKey: [1, 2] };
const ANSWERS_ONLY: FirewallOptions = { default: { outbound: "allow", inbound: "drop" }, hashKey: [1, 2] };

interface Names {
  readonly inside: string;
  readonly other: string;
  readonly outside: string;
  /** Many sources, all in one IPv6 /64 where there is one. */
  readonly near: (i: number) => string;
  /** Many unrelated sources. */
  readonly far: (i: number) => string;
}

const NAMES: Record<4 | 6, Names> = {
  4: {
    inside: "10.9.0.1",
    other: "10.9.0.2",
    outside: "192.0.2.1",
    near: () => "198.18.0.1",
    far: (i) => `198.18.${i >> 8 & 255}.${i & 255}`,
  },
  6: {
    inside: "[fd09::1]",
    other: "[fd09:0:0:1::1]",
    outside: "[2001:db8::1]",
    near: (i) => `[2001:db8:bad:1::${(i + 1).toString(16)}]`,
    far: (i) => `[2001:db8:${(i + 1).toString(16)}::1]`,
  },
};

class Rig {
  readonly firewall: Firewall;
  readonly #test: TestPipeline;

  constructor(options: FirewallOptions) {
    this.firewall = new Firewall(options);
    this.#test = new TestPipeline(this.firewall);
  }

  /** Sends a packet; returns whether it passes. */
  pass(direction: Direction, text: string): boolean {
    this.#test.now += 0.01;
    this.#test.send(direction, encodePacket(text));
    this.#test.settle();
    const { far, device } = this.#test.receive();
    return (direction === Direction.Outbound ? far : device).length === 1;
  }

  /** Reports whether a flow is known: its packets are not new. */
  knows(direction: Direction, text: string): boolean {
    return this.firewall.explain(packetFor(text), direction).by === "flow";
  }
}

/** A packet for `explain`, in the only slot. */
function packetFor(text: string): Packet {
  const packet = pool.packets[0]!;
  const bytes = encodePacket(text);
  packet.reset(bytes.length);
  packet.bytes.set(bytes, packet.offset);
  return packet;
}

for (const version of [4, 6] as const) {
  const { inside, other, outside, near, far } = NAMES[version];
  for (const [kind, source] of [["one network's", near], ["many networks'", far]] as const) {
    for (const protocol of ["tcp", "udp"] as const) {
      const flags = protocol === "tcp" ? "S" : "payload 1";
      Deno.test(`Firewall keeps flows of inside hosts under a flood of ${kind} unanswered ${protocol} over IPv${version}`, () => {
        const rig = new Rig({ ...OPEN, capacity: 256 });
        const opened = (i: number) => `${protocol} ${inside}:${2000 + i} > ${outside}:80 ${flags}`;
        for (let i = 0; i < 50; i++) ok(rig.pass(Direction.Outbound, opened(i)));
        for (let i = 0; i < 3000; i++) {
          rig.pass(Direction.Inbound, `${protocol} ${source(i)}:${1000 + i} > ${inside}:443 ${flags}`);
        }
        for (let i = 0; i < 50; i++) ok(rig.knows(Direction.Outbound, opened(i)), `${i}`);
        equal(rig.firewall.size, 256);
      });

      Deno.test(`Firewall keeps flows of inside hosts under a flood of ${kind} half-open or once answered ${protocol} over IPv${version}`, () => {
        const rig = new Rig({ ...OPEN, capacity: 256 });
        const opened = `${protocol} ${inside}:2000 > ${outside}:80 ${flags}`;
        const reply = protocol === "tcp" ? "SA ack 1" : "payload 1";
        ok(rig.pass(Direction.Outbound, opened));
        for (let i = 0; i < 1000; i++) {
          rig.pass(Direction.Inbound, `${protocol} ${source(i)}:${1000 + i} > ${inside}:443 ${flags}`);
          rig.pass(Direction.Outbound, `${protocol} ${inside}:443 > ${source(i)}:${1000 + i} ${reply}`);
          // Answered inbound UDP has the eviction priority of unanswered outbound flows: the inside host continues.
          if (protocol === "udp" && i % 100 === 0) ok(rig.pass(Direction.Outbound, opened));
        }
        ok(rig.knows(Direction.Outbound, opened));
      });
    }
  }

  Deno.test(`Firewall keeps a client's new flow under a flood from one network, over IPv${version}`, () => {
    const rig = new Rig({ ...OPEN, capacity: 256 });
    const honest = `tcp ${outside}:5000 > ${inside}:443 S`;
    ok(rig.pass(Direction.Inbound, honest));
    for (let i = 0; i < 3000; i++) {
      rig.pass(Direction.Inbound, `tcp ${near(i)}:${1000 + i} > ${inside}:443 S`);
    }
    ok(rig.knows(Direction.Inbound, honest));
  });

  Deno.test(`Firewall keeps an inside host's new flow beside another host's scan, over IPv${version}`, () => {
    const rig = new Rig({ ...ANSWERS_ONLY, capacity: 256 });
    const honest = `tcp ${inside}:5000 > ${outside}:443 S`;
    ok(rig.pass(Direction.Outbound, honest));
    for (let i = 0; i < 3000; i++) rig.pass(Direction.Outbound, `tcp ${other}:5000 > ${far(i)}:443 S`);
    ok(rig.knows(Direction.Outbound, honest));
    ok(rig.pass(Direction.Inbound, `tcp ${outside}:443 > ${inside}:5000 SA ack 1`));
  });

  Deno.test(`Firewall keeps first fragments under a flood of them from one network, over IPv${version}`, () => {
    const rig = new Rig(OPEN);
    const bare = (name: string) => name.replace(/[[\]]/g, "");
    const fragment = (src: string, ident: number, offset: number) =>
      `ip ${bare(src)} > ${bare(inside)} protocol 17 ident ${ident} ${
        offset === 0 ? "more" : ""
      } offset ${offset} ` +
      (offset === 0 ? "bytes 13880035001800000001020304050607" : "payload 8");
    ok(rig.pass(Direction.Inbound, fragment(outside, 7, 0)));
    for (let i = 0; i < 3000; i++) ok(rig.pass(Direction.Inbound, fragment(near(i), i, 0)));
    ok(rig.pass(Direction.Inbound, fragment(outside, 7, 16)));
  });
}

Deno.test("Firewall.restore() restores the sources of flows, so that inbound floods are still evicted first", () => {
  const before = new Rig({ ...OPEN, capacity: 64 });
  const opened = "tcp 10.9.0.1:2000 > 192.0.2.1:80 S";
  ok(before.pass(Direction.Outbound, opened));
  for (let i = 0; i < 63; i++) before.pass(Direction.Inbound, `tcp 198.18.0.${i}:1000 > 10.9.0.1:443 S`);
  const rig = new Rig({ ...OPEN, capacity: 64 });
  rig.firewall.restore(JSON.parse(JSON.stringify(before.firewall.save())));
  for (let i = 0; i < 500; i++) {
    rig.pass(Direction.Inbound, `tcp 198.18.${1 + (i >> 8)}.${i & 255}:1000 > 10.9.0.1:443 S`);
  }
  ok(rig.knows(Direction.Outbound, opened));
});
