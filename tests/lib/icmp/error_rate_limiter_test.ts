/** The rate limit of errors and resets, as seen by attackers who infer from it which packets a host gets. */

import { equal, ok } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { Firewall } from "@warren/tunnel/firewall";
import { IcmpError, IcmpErrors } from "@warren/tunnel/icmp_error";
import { Random } from "../../../lib/core/random.ts";
import { encodePacket } from "../../kit/packet_text.ts";
import { TestPipeline } from "../../kit/pipeline.ts";

const OPEN_PORT = 5353;
/** Long enough for every bucket to be full again (ms). */
const PAUSE = 10_000;

/** A host that rejects UDP but for one port, and what comes back from it. */
class Host {
  readonly #test: TestPipeline;
  readonly #random = new Random(7);

  constructor() {
    this.#test = new TestPipeline(
      new Firewall({
        rules: [{ verdict: "allow", direction: "inbound", protocol: "udp", dstPort: OPEN_PORT }],
        default: { inbound: "reject" },
        errors: new IcmpErrors({ random: () => this.#random.next(), hashKey: [1, 2] }),
      }),
    );
  }

  pause(): void {
    this.#test.now += PAUSE;
    this.#test.settle();
    this.#test.receive();
  }

  /** Sends one packet to a port; returns whether an error comes back. */
  probe(src: string, port: number): boolean {
    const isIpv6 = src.includes(":");
    const [from, to] = isIpv6 ? [`[${src}]`, "[fd09::1]"] : [src, "10.9.0.1"];
    this.#test.send(Direction.Inbound, encodePacket(`udp ${from}:53 > ${to}:${port} payload 1`));
    this.#test.settle();
    return this.#test.receive().far.length === 1;
  }
}

/** An address that nobody else has. */
function stranger(i: number, isIpv6: boolean): string {
  return isIpv6 ? `2001:db8:${i.toString(16)}::1` : `198.18.${i >> 8}.${i & 255}`;
}

for (const isIpv6 of [false, true]) {
  const [resolver, prober] = isIpv6
    ? ["2001:db8:ffff::53", "2001:db8:fffe::1"]
    : ["192.0.2.53", "198.51.100.1"];

  Deno.test(`IcmpErrors answers a prober equally whether one of 50 ports is open or none, over IPv${isIpv6 ? 6 : 4}`, () => {
    const host = new Host();
    let unanswered = 0;
    for (let trial = 0; trial < 100; trial++) {
      host.pause();
      const first = trial % 2 === 0 ? OPEN_PORT - 20 : 9000;
      for (let i = 0; i < 50; i++) host.probe(resolver, first + i);
      if (!host.probe(prober, 1)) unanswered++;
    }
    equal(unanswered, 0);
  });

  Deno.test(`IcmpErrors hides one error more or less to other destinations, over IPv${isIpv6 ? 6 : 4}`, () => {
    const host = new Host();
    for (const burnt of [44, 47, 49]) {
      const answered = [0, 0];
      const trials = 300;
      for (let trial = 0; trial < trials; trial++) {
        for (const isOpen of [0, 1]) {
          host.pause();
          for (let i = 0; i < burnt; i++) host.probe(stranger(trial + i, isIpv6), 1);
          host.probe(resolver, isOpen === 1 ? OPEN_PORT : 1);
          if (host.probe(prober, 1)) answered[isOpen]!++;
        }
      }
      // With whole tokens, the two differ by 1 where 49 were taken before.
      const advantage = Math.abs(answered[0]! - answered[1]!) / trials;
      ok(advantage < 0.2, `${burnt} burnt: ${answered} of ${trials}`);
    }
  });
}

/** Answers what goes out by an error, or a reset. */
function answering(errors: IcmpErrors, resets: boolean): Stage {
  return {
    name: "answer",
    outbound: ({ packets, length }, context) => {
      for (let i = 0; i < length; i++) {
        if (resets) errors.reset(packets[i]!, context, "closed");
        else errors.answer(packets[i]!, IcmpError.PortUnreachable, context, "closed");
      }
    },
  };
}

function answersTo(errors: IcmpErrors, packets: readonly string[], resets = false): number {
  const test = new TestPipeline(answering(errors, resets));
  let count = 0;
  for (const packet of packets) {
    test.send(Direction.Outbound, encodePacket(packet));
    test.settle();
    count += test.receive().device.length;
  }
  return count;
}

Deno.test("IcmpErrors limits resets and errors to a destination, an IPv6 /64 included, to two fifths of the burst", () => {
  const one = Array.from({ length: 60 }, () => "tcp 10.9.0.1:1 > 192.0.2.1:80 S");
  equal(answersTo(new IcmpErrors({ random: () => 1 }), one), 20);
  equal(answersTo(new IcmpErrors({ random: () => 1 }), one, true), 20);
  const network = Array.from({ length: 60 }, (_, i) => `udp [fd09::${i + 1}]:1 > [2001:db8::1]:53`);
  equal(answersTo(new IcmpErrors({ random: () => 1 }), network), 20);
  const errors = new IcmpErrors({ random: () => 1 });
  equal(answersTo(errors, one, true), 20);
  equal(answersTo(errors, one), 0);
});

Deno.test("IcmpErrors limits errors to all destinations together to about the burst", () => {
  const counts = new Set<number>();
  for (let i = 0; i < 40; i++) {
    const many = Array.from({ length: 200 }, (_, j) => `udp 10.${i}.${j}.1:1 > 192.0.2.1:53`);
    counts.add(answersTo(new IcmpErrors(), many));
  }
  ok(counts.size > 5, `${[...counts]}`);
  ok(Math.min(...counts) >= 25 && Math.max(...counts) < 100, `${[...counts]}`);
});
