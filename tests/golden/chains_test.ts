/** Stages in any row, with the golden tests' packets, changed and cut at random: nothing throws, and the books balance. */

import { equal, ok } from "node:assert/strict";
import type { Direction, Stage } from "@warren/tunnel/core";
import { DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { Firewall } from "@warren/tunnel/firewall";
import { fragment } from "@warren/tunnel/fragment";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { Impairment } from "@warren/tunnel/impair";
import { Meter } from "@warren/tunnel/meter";
import { mssClamp } from "@warren/tunnel/mss_clamp";
import { Napt44, Nptv6, StaticNat } from "@warren/tunnel/nat";
import { Nat64 } from "@warren/tunnel/nat64";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Reassemble } from "@warren/tunnel/reassemble";
import { route } from "@warren/tunnel/route";
import { FqCodel, Shaper } from "@warren/tunnel/shape";
import { ttl } from "@warren/tunnel/ttl";
import { TestPipeline } from "../kit/pipeline.ts";
import { Random } from "../../lib/core/random.ts";
import { goldenPackets } from "./_packets.ts";

const ROWS = 400;
const PACKETS = 60;
const SPARE_SLOTS = 20;

const MAKE: (() => Stage)[] = [
  () => ttl(),
  () => mssClamp({ mtu: 1300 }),
  () => fragment(600),
  () => new Reassemble(),
  () => new PathMtu({ mtu: 1200 }),
  () =>
    new Firewall({
      rules: [
        { verdict: "reject", protocol: "tcp", dstPort: 80 },
        { verdict: "allow", direction: "inbound", protocol: "udp", dstPort: "1-1000" },
      ],
    }),
  () => new Napt44({ outside: "198.51.100.1", inside: "10.0.0.0/8" }),
  () => new StaticNat({ rules: [{ inside: "10.9.0.0/24", outside: "203.0.113.0/24" }] }),
  () => new Nptv6({ inside: "fd00::/48", outside: "2001:db8:1::/48" }),
  () => new Nat64({ outside: "198.51.100.7", errors: new IcmpErrors() }),
  () => route([{ to: { "10.9.0.0/16": 0, "0.0.0.0/0": 1, "::/0": 1 } }], { errors: new IcmpErrors() }),
  () => {
    const rate = { rateBitsPerSecond: 1e6 };
    return new Shaper({ outbound: { ...rate, queue: new FqCodel() }, inbound: rate });
  },
  () =>
    new Impairment({
      seed: 1,
      outbound: { delay: 3, loss: 0.1, duplicate: 0.1, corrupt: 0.1 },
      inbound: { delay: 2, reorder: 0.2 },
    }),
  () => new DnsResolver({ address: "10.9.0.53", fakeIp: new FakeIp(), records: ["a.example A 192.0.2.1"] }),
  () => new Meter(),
];

for (const seed of [1, 2]) {
  Deno.test(`Stages in ${ROWS} rows survive any packets, and their books balance, seed ${seed}`, () => {
    const known = goldenPackets();
    ok(known.length > 300, `${known.length} packets`);
    const random = new Random(seed);
    for (let row = 0; row < ROWS; row++) {
      const stages = Array.from({ length: 1 + random.below(5) }, () => MAKE[random.below(MAKE.length)]!());
      const names = stages.map(({ name }) => name).join(", ");
      const test = new TestPipeline(...stages);
      for (let i = 0; i < PACKETS; i++) {
        const bytes = known[random.below(known.length)]!.slice();
        for (let changes = random.below(4); changes > 0; changes--) {
          bytes[random.below(bytes.length)] = random.below(256);
        }
        const cut = random.below(8) === 0 ? bytes.slice(0, 1 + random.below(bytes.length)) : bytes;
        if (test.pool.available(cut.length) > SPARE_SLOTS) test.send(random.below(2) as Direction, cut);
        test.settle();
        test.receive();
        test.now += random.below(5);
        ok(test.balanced, `${names}: ${cut.toHex()}`);
      }
      test.pipeline.close();
      test.receive();
      equal(test.pool.taken, 0, names);
    }
  });
}
