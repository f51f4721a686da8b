/** The firewall with many packets: explanations and decisions, any bytes, floods, saved states, workers. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, PacketPool } from "@warren/tunnel/core";
import { Firewall } from "@warren/tunnel/firewall";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";
import { randomBytes, randomRule } from "./_traffic.ts";
import { copy } from "../../../../lib/split/copy.ts";

const { Outbound, Inbound } = Direction;

/** Sends a packet; returns `passed`, `answered`, or the drop reason. */
function pass(test: TestPipeline, direction: Direction, bytes: Uint8Array): string {
  const before = test.pipeline.ledger.counters.snapshot(0).dropped;
  test.send(direction, bytes);
  test.settle();
  const { far, device } = test.receive();
  ok(test.balanced, "the books do not balance");
  const { dropped } = test.pipeline.ledger.counters.snapshot(0);
  const reason = Object.keys(dropped).find((key) => dropped[key] !== before[key]);
  if (reason !== undefined) return reason;
  const [onward, back] = direction === Outbound ? [far, device] : [device, far];
  if (back.length > 0) return "answered";
  equal(onward[0]!.toHex(), bytes.toHex());
  return "passed";
}

function send(test: TestPipeline, direction: Direction, ...texts: string[]): string[] {
  return texts.map((text) => pass(test, direction, encodePacket(text)));
}

Deno.test("Firewall.explain() agrees with the decision that follows, and changes nothing", () => {
  const pool = new PacketPool({ small: 1, large: 0 });
  const seen = new Map<string, number>();
  for (let seed = 1; seed <= 150; seed++) {
    const random = new Random(seed);
    const rules = Array.from(
      { length: random.below(8) },
      () => randomRule(random, { states: true, rates: true }),
    );
    if (seed % 2 === 0) rules.unshift({ verdict: "drop", state: "related", src: "192.0.2.0/25" });
    const defaults = { outbound: "allow", inbound: seed % 2 === 0 ? "drop" : "allow" } as const;
    const firewall = new Firewall({ rules, default: defaults, capacity: 8, hashKey: [1, seed] });
    const test = new TestPipeline(firewall);
    for (let i = 0; i < 100; i++) {
      const direction = random.below(2) === 0 ? Outbound : Inbound;
      const bytes = randomBytes(random, direction === Outbound);
      test.now += random.below(4) === 0 ? random.below(40_000) : 0;
      test.settle();
      const packet = pool.from(bytes)!;
      const before = JSON.stringify([firewall.save(), firewall.rules, firewall.defaults]);
      const explained = firewall.explain(packet, direction, test.now);
      equal(firewall.explain(packet, direction, test.now).text, explained.text);
      equal(JSON.stringify([firewall.save(), firewall.rules, firewall.defaults]), before);
      equal(packet.malformed, false);
      equal(packet.data.toHex(), bytes.toHex());
      pool.give(packet);
      const packets = firewall.rules.map((rule) => rule.packets);
      const happened = pass(test, direction, bytes);
      if (explained.verdict === "allow") equal(happened, "passed", explained.text);
      else {
        const { rule, by } = explained;
        const reason = rule === undefined ? by === "default" ? "no rule" : by : `rule ${rule.number}`;
        ok(
          happened === reason || explained.verdict === "reject" && happened === "answered",
          `${happened}: ${explained.text}`,
        );
      }
      if (explained.rule !== undefined) {
        const { number } = explained.rule;
        equal(firewall.rules[number - 1]!.packets, packets[number - 1]! + 1);
      }
      const kind = `${explained.by} ${explained.state}`;
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
  }
  const wanted = ["rule new", "rule established", "rule related", "rule invalid", "flow established"];
  wanted.push("flow related", "default new", "invalid invalid", "no first fragment undefined");
  deepEqual(wanted.filter((kind) => !seen.has(kind)), [], JSON.stringify([...seen]));
});

Deno.test("Firewall.explain() names the rule, or the flow and the rule that allowed it", () => {
  const firewall = new Firewall({
    rules: [
      { name: "web", verdict: "allow", direction: "inbound", protocol: "tcp", dstPort: 80 },
      { verdict: "reject", direction: "inbound", protocol: "tcp" },
    ],
  });
  const test = new TestPipeline(firewall);
  const whyOf = (direction: Direction, text: string) => {
    const pool = new PacketPool({ small: 1, large: 0 });
    return firewall.explain(pool.from(encodePacket(text))!, direction).why;
  };
  const syn = "tcp 192.0.2.1:5000 > 10.9.0.1:80 S seq 1";
  equal(whyOf(Inbound, syn), 'rule 1 "web" matches this new packet: allow inbound tcp to port 80');
  equal(
    whyOf(Inbound, "tcp 192.0.2.1:5000 > 10.9.0.1:81 S seq 1"),
    "rule 2 matches this new packet: reject inbound tcp",
  );
  equal(whyOf(Inbound, "udp 192.0.2.1:5000 > 10.9.0.1:81"), "no rule matches");
  send(test, Inbound, syn);
  send(test, Outbound, "udp 10.9.0.1:5000 > 192.0.2.1:53");
  equal(whyOf(Inbound, syn), 'it belongs to a flow opened inbound by rule 1 "web", now SynSent');
  equal(
    whyOf(Inbound, "icmp 192.0.2.1 > 10.9.0.1 type 3 code 3 { udp 10.9.0.1:5000 > 192.0.2.1:53 }"),
    "it is an error about a flow opened outbound by default outbound allow, now UdpUnreplied",
  );
  equal(
    whyOf(Inbound, "tcp 192.0.2.1:5000 > 10.9.0.1:80 A seq 1"),
    "it is outside its connection's window, or invalid in its state",
  );
  equal(
    whyOf(Inbound, "tcp 192.0.2.9:5000 > 10.9.0.1:80 A seq 1"),
    "it neither opens nor belongs to a connection",
  );
  equal(
    whyOf(Inbound, 'ip 192.0.2.9 > 10.9.0.1 protocol 17 ident 1 offset 8 "x"'),
    "its first fragment has not passed",
  );
  equal(firewall.rules[0]!.packets, 1);
  deepEqual(firewall.defaults.outbound, { packets: 1, bytes: 28 });
});

Deno.test("Firewall.explain() with a later time removes no flow", () => {
  const pool = new PacketPool({ small: 1, large: 0 });
  const firewall = new Firewall();
  const test = new TestPipeline(firewall);
  send(test, Outbound, 'udp 10.9.0.1:5000 > 192.0.2.1:53 "query"');
  const answer = 'udp 192.0.2.1:53 > 10.9.0.1:5000 "answer"';
  const packet = pool.from(encodePacket(answer))!;
  equal(firewall.explain(packet, Inbound, 1e6).verdict, "drop");
  equal(firewall.size, 1);
  deepEqual(send(test, Inbound, answer), ["passed"]);
});

Deno.test("Firewall never throws and loses no packet, whatever bytes come", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const rules = Array.from({ length: 6 }, () => randomRule(random, { states: true, rates: true }));
    const midStream = seed % 2 === 0;
    const firewall = new Firewall({ rules, default: "allow", capacity: 16, midStream });
    const test = new TestPipeline(firewall);
    for (let i = 0; i < 400; i++) {
      const direction = random.below(2) === 0 ? Outbound : Inbound;
      const bytes = randomBytes(random, direction === Outbound);
      for (let changes = random.below(6); changes > 0; changes--) {
        bytes[random.below(bytes.length)] = random.below(256);
      }
      const length = random.below(3) === 0 ? 1 + random.below(bytes.length) : bytes.length;
      test.send(direction, bytes.slice(0, length));
      test.now += random.below(100);
      test.settle();
      test.receive();
      ok(test.balanced, `seed ${seed}, packet ${i}`);
      ok(firewall.size <= 16);
    }
  }
});

/** Opens a TCP connection from inside. */
const CONNECTION = {
  syn: "tcp 10.9.0.1:5000 > 192.0.2.1:80 S seq 100",
  answer: "tcp 192.0.2.1:80 > 10.9.0.1:5000 SA seq 900 ack 101",
  ack: "tcp 10.9.0.1:5000 > 192.0.2.1:80 A seq 101 ack 901",
  data: 'tcp 192.0.2.1:80 > 10.9.0.1:5000 PA seq 901 ack 101 "hello"',
};

function connect(test: TestPipeline): void {
  send(test, Outbound, CONNECTION.syn);
  send(test, Inbound, CONNECTION.answer);
  send(test, Outbound, CONNECTION.ack);
}

Deno.test("Firewall keeps open flows through a flood of 1,000,000 others, in bounded memory", () => {
  const firewall = new Firewall({ default: "allow", capacity: 4096 });
  const test = new TestPipeline(firewall);
  connect(test);
  send(test, Outbound, "udp 10.9.0.1:6000 > 192.0.2.1:53");
  send(test, Inbound, "udp 192.0.2.1:53 > 10.9.0.1:6000");
  const syn = encodePacket("tcp 203.0.113.1:1 > 10.9.0.1:80 S seq 7");
  const query = encodePacket("udp 203.0.113.1:1 > 10.9.0.1:53");
  for (let i = 0; i < 1_000_000; i += 64) {
    for (let j = i; j < i + 64; j++) {
      // Addresses and ports count up; checksums do not matter here.
      const bytes = j % 2 === 0 ? syn : query;
      bytes.set([j >> 16 & 0xff, j >> 8 & 0xff], 14);
      bytes[21] = j & 0xff;
      test.send(Inbound, bytes);
    }
    test.settle();
    const { pipeline } = test;
    for (const packet of pipeline.forDevice) {
      pipeline.ledger.counters.inbound.packetsOut++;
      pipeline.ledger.giveBack(packet);
    }
    pipeline.forDevice.clear();
  }
  ok(test.balanced);
  equal(firewall.size, 4096);
  ok(firewall.evicted > 990_000, `${firewall.evicted} evicted`);
  deepEqual(send(test, Inbound, CONNECTION.data, "udp 192.0.2.1:53 > 10.9.0.1:6000"), ["passed", "passed"]);
});

Deno.test("Firewall.restore() restores the flows of save() through JSON", () => {
  const rules = [{ verdict: "allow", direction: "inbound", protocol: "udp", dstPort: 53 }] as const;
  const one = new Firewall({ rules });
  const before = new TestPipeline(one);
  before.now = 5000;
  connect(before);
  send(before, Inbound, "udp [2001:db8::1]:5000 > [fd09::1]:53");
  send(before, Outbound, "icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1", "udp 10.9.0.1:6000 > 192.0.2.1:53");
  before.now += 29_000;
  before.settle();
  const saved = JSON.parse(JSON.stringify(one.save()));
  const other = new Firewall({ rules });
  other.restore(saved);
  deepEqual(JSON.parse(JSON.stringify(other.save())), saved);
  const after = new TestPipeline(other);
  after.now = 1_000_000;
  deepEqual(send(after, Inbound, CONNECTION.data, "icmp 192.0.2.1 > 10.9.0.1 type 0 id 7 seq 1"), [
    "passed",
    "passed",
  ]);
  equal(send(after, Inbound, CONNECTION.data.replace("901", "990000"))[0], "invalid");
  equal(other.size, 4);
  after.now += 1000;
  deepEqual(send(after, Inbound, "udp 192.0.2.1:53 > 10.9.0.1:6000"), ["no rule"]);
  deepEqual(send(after, Outbound, "udp [fd09::1]:53 > [2001:db8::1]:5000"), ["passed"]);
  equal(other.rules[0]!.packets, 0);
});

Deno.test("Firewall.restore() leaves out flows of a rule that no longer exists", () => {
  const one = new Firewall({ rules: [{ verdict: "allow", direction: "inbound", protocol: "udp" }] });
  const before = new TestPipeline(one);
  send(before, Inbound, "udp 192.0.2.1:5000 > 10.9.0.1:53");
  const other = new Firewall();
  other.restore(JSON.parse(JSON.stringify(one.save())));
  const after = new TestPipeline(other);
  deepEqual(send(after, Inbound, "udp 192.0.2.1:5000 > 10.9.0.1:53"), ["no rule"]);
  equal(other.size, 0);
});

Deno.test("Firewall.restore() rejects a state that is not a firewall's, and keeps its own", () => {
  const firewall = new Firewall();
  const test = new TestPipeline(firewall);
  connect(test);
  const saved = JSON.parse(JSON.stringify(firewall.save()));
  const flow = saved.flows[0];
  const wrong = [
    undefined,
    null,
    7,
    {},
    { ...saved, format: "nat" },
    { ...saved, flows: 7 },
    { ...saved, labels: [7] },
    ...[{ key: [1] }, { key: [0x406, -1, 0, 0] }, { state: 99 }, { opener: 2 }, { allowedBy: 99 }, {
      idle: -1,
    }, {
      tcp: [1],
    }]
      .map((change) => ({ ...saved, flows: [{ ...flow, ...change }] })),
  ];
  for (const state of wrong) throws(() => firewall.restore(state), TypeError, JSON.stringify(state));
  deepEqual(JSON.parse(JSON.stringify(firewall.save())), saved);
  deepEqual(send(test, Inbound, CONNECTION.data), ["passed"]);
});

Deno.test("Firewall hands packets over to the worker of their addresses, the same in both directions", () => {
  const workers = [0, 1, 2].map((index) => {
    const handed: { bytes: Uint8Array; worker: number; direction: Direction }[] = [];
    const place = { index, count: 3 };
    const test = new TestPipeline(new Firewall(), {
      others: {
        place,
        send(packet, worker, _stage, direction) {
          handed.push({ bytes: copy(packet)[0]!, worker, direction });
          return true;
        },
      },
    });
    return { test, handed };
  });
  /** Brings a packet to a worker; returns which one decides about it, and what becomes of it. */
  const bring = (index: number, direction: Direction, text: string) => {
    const { test, handed } = workers[index]!;
    handed.length = 0;
    test.send(direction, encodePacket(text));
    test.settle();
    const [gone] = handed;
    if (gone === undefined) {
      const { far, device } = test.receive();
      return [index, far.length + device.length > 0 ? "passed" : "dropped"];
    }
    equal(gone.direction, direction);
    const owner = workers[gone.worker]!;
    owner.handed.length = 0;
    owner.test.send(direction, gone.bytes);
    owner.test.settle();
    equal(owner.handed.length, 0, `${formatPacket(gone.bytes)} is handed over twice`);
    const { far, device } = owner.test.receive();
    return [gone.worker, far.length + device.length > 0 ? "passed" : "dropped"];
  };
  const owners = new Set<unknown>();
  const short = 'udp 10.9.0.1:5000 > 192.0.2.1:53 "query" cut 8';
  for (let host = 1; host <= 30; host++) {
    const [owner] = bring(0, Outbound, `udp 10.9.0.1:5000 > 192.0.2.${host}:53 "query"`);
    owners.add(owner);
    const about = `{ udp 10.9.0.1:5000 > 192.0.2.${host}:53 "query" }`;
    deepEqual(bring(1, Inbound, `udp 192.0.2.${host}:53 > 10.9.0.1:5000 "answer"`), [owner, "passed"]);
    deepEqual(bring(2, Inbound, `icmp 198.51.100.1 > 10.9.0.1 type 11 ${about}`), [owner, "passed"]);
    deepEqual(bring(2, Inbound, `udp 192.0.2.${host}:53 > 10.9.0.1:5001 "other"`), [owner, "dropped"]);
    const fragment = `protocol 17 ident 7 offset 32 "rest"`;
    deepEqual(bring(1, Inbound, `ip 192.0.2.${host} > 10.9.0.1 ${fragment}`), [owner, "dropped"]);
    // Without quoted addresses, it belongs to the first worker.
    deepEqual(bring(2, Inbound, `icmp 198.51.100.1 > 10.9.0.1 type 11 { ${short} }`), [0, "dropped"]);
    deepEqual(bring(0, Inbound, `icmp 198.51.100.1 > 10.9.0.1 type 11 { ${short} }`), [0, "dropped"]);
  }
  equal(owners.size, 3);
});
