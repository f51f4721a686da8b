/** Saved states, changed at random: `restore` takes them or refuses them in words, and nothing breaks afterwards. */

import { equal, ok } from "node:assert/strict";
import type { Direction, Stage } from "@warren/tunnel/core";
import { Count } from "@warren/tunnel/count";
import { DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { Firewall } from "@warren/tunnel/firewall";
import { Impairment } from "@warren/tunnel/impair";
import { Meter } from "@warren/tunnel/meter";
import { Napt44 } from "@warren/tunnel/nat";
import { Nat64 } from "@warren/tunnel/nat64";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { route } from "@warren/tunnel/route";
import { RouteTable } from "@warren/tunnel/route_table";
import { Shaper } from "@warren/tunnel/shape";
import { TestPipeline } from "../kit/pipeline.ts";
import { Random } from "../../lib/core/random.ts";
import { goldenPackets } from "./_packets.ts";

const STATES = 300;
const PACKETS = 40;

/** A part that has a state, and the stage that uses it. */
interface Part {
  readonly stage: Stage;
  readonly part: { save(): unknown; restore(state: unknown): void };
}

function both<Both extends Stage & Part["part"]>(stage: Both): Part {
  return { stage, part: stage };
}

const MAKE: Record<string, () => Part> = {
  Count: () => both(new Count()),
  Meter: () => both(new Meter()),
  PathMtu: () => both(new PathMtu()),
  Firewall: () => both(new Firewall({ rules: [{ name: "all", verdict: "allow" }], hashKey: [1, 2] })),
  Napt44: () =>
    both(new Napt44({ outside: "198.51.100.1", inside: "10.0.0.0/8", filtering: "address-dependent" })),
  Nat64: () => both(new Nat64({ outside: "198.51.100.7" })),
  Shaper: () => both(new Shaper({ outbound: { rateBitsPerSecond: 1e6 }, inbound: { rateBitsPerSecond: 1e6 } })),
  Impairment: () => {
    const gemodel = { loss: 0.3, delay: 3, jitter: 1, duplicate: 0.2, reorder: 0.2, rateBitsPerSecond: 1e7 };
    return both(new Impairment({ seed: 1, outbound: gemodel, inbound: gemodel }));
  },
  DnsResolver: () => {
    const upstream = { query: () => Promise.reject(new Error("nobody is there")) };
    return both(new DnsResolver({ address: "10.9.0.53", upstream, fakeIp: new FakeIp() }));
  },
  RouteTable: () => {
    const table = new RouteTable<number>();
    for (const prefix of ["10.9.0.0/16", "192.0.2.0/24", "fd00::/8", "0.0.0.0/0"]) table.set(prefix, table.size % 2);
    return { stage: route([{ to: table }]), part: table };
  },
};

const HOSTILE: readonly unknown[] = [
  ...[null, undefined, true, "", "x", "10.9.0.1", "fd09::1", "0.0.0.0/0", [], {}, [[]], { length: 5 }],
  ...[0, -1, 1, 0.5, 255, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 1e300, -1e300, 2 ** 53],
];

/** Another state: in some places, something else stands, is gone, is there twice, or comes from another place. */
function mutate(state: unknown, random: Random): unknown {
  const places: [holder: Record<string, unknown>, key: string][] = [];
  const root = { state: structuredClone(state) };
  const walk = (holder: Record<string, unknown>): void => {
    for (const key of Object.keys(holder)) {
      places.push([holder, key]);
      if (typeof holder[key] === "object" && holder[key] !== null) walk(holder[key] as Record<string, unknown>);
    }
  };
  walk(root);
  for (let count = 1 + random.below(3); count > 0; count--) {
    const [holder, key] = places[random.below(places.length)]!;
    switch (random.below(5)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1);
        else delete holder[key];
        break;
      case 1:
        if (Array.isArray(holder)) holder.push(structuredClone(holder[Number(key)]));
        break;
      case 2: {
        const [other, otherKey] = places[random.below(places.length)]!;
        holder[key] = structuredClone(other[otherKey]);
        break;
      }
      default:
        holder[key] = HOSTILE[random.below(HOSTILE.length)];
    }
  }
  // What JSON makes of it, as a file has it.
  return root.state === undefined ? undefined : JSON.parse(JSON.stringify(root.state));
}

/** Sends packets through a stage; nothing is thrown, and the books balance. */
function exercise(stage: Stage, known: readonly Uint8Array[], random: Random): void {
  const test = new TestPipeline(stage);
  for (let i = 0; i < PACKETS; i++) {
    test.send(random.below(2) as Direction, known[random.below(known.length)]!);
    test.settle();
    test.receive();
    test.now += random.below(3000);
    ok(test.balanced);
  }
  test.pipeline.close();
  test.receive();
  equal(test.pool.taken, 0);
}

for (const [name, make] of Object.entries(MAKE)) {
  Deno.test(`${name}.restore() takes or refuses any state, and what it takes breaks nothing`, () => {
    const known = goldenPackets();
    const random = new Random(7);
    const first = make();
    exercise(first.stage, known, random);
    const state = JSON.parse(JSON.stringify(first.part.save()));
    let refused = 0;
    for (let i = 0; i < STATES; i++) {
      const hostile = mutate(state, random);
      const { stage, part } = make();
      const said = JSON.stringify(hostile)?.slice(0, 2000);
      try {
        part.restore(hostile);
      } catch (error) {
        ok(error instanceof Error && /^(Type|Syntax|Range)Error$/.test(error.name), said);
        ok(/^Cannot /.test(error.message), `${error.message}: ${said}`);
        refused++;
        continue;
      }
      try {
        exercise(stage, known, random);
        JSON.stringify(part.save());
      } catch (cause) {
        throw new Error(`after ${said}`, { cause });
      }
    }
    ok(refused > 0 && refused < STATES, `${refused} of ${STATES} refused`);
  });
}
