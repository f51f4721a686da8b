/** Places for questions and waiting queries, which clients share, and upstreams without EDNS. */

import assert from "node:assert/strict";
import { decodeMessage, DnsResolver, type DnsUpstream } from "@warren/tunnel/dns";
import { address, reply, RESOLVER, RESOLVER6, Rig } from "./_ask.ts";

/** An upstream that never answers names in `slow`, and others at once. */
class SlowUpstream implements DnsUpstream {
  asked = 0;
  readonly aborted: string[] = [];

  query(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    this.asked++;
    const { name } = decodeMessage(message)!.questions![0]!;
    signal.addEventListener("abort", () => this.aborted.push(name));
    if (name.endsWith("slow")) return new Promise(() => {});
    return Promise.resolve(reply(message, [address(name)]));
  }
}

/** Asks another client's names while slow ones are asked, and returns the codes that it gets. */
async function codesBeside(
  flood: (rig: Rig, round: number, i: number) => void,
  client: { src: string; dst: string },
  options = {},
): Promise<{ codes: string[]; resolver: DnsResolver }> {
  const limits = { inFlight: 64, waiting: 128, ...options };
  const upstream = new SlowUpstream();
  const resolver = new DnsResolver({ address: [RESOLVER, RESOLVER6], upstream, ...limits });
  const rig = new Rig(resolver);
  const codes: string[] = [];
  for (let round = 0; round < 100; round++) {
    // 500 a second.
    for (let i = 0; i < 20; i++) flood(rig, round, i);
    rig.after(40);
    rig.answers();
    rig.ask(`n${round}.example`, { ...client, id: 9, srcPort: 999 });
    await rig.turns();
    const answer = rig.answers().find(({ route }) => route.endsWith(":999"));
    codes.push(answer?.rcode ?? "none");
  }
  return { codes, resolver };
}

const CLIENT = { src: "10.9.0.2", dst: RESOLVER };
const CLIENT6 = { src: "fd09::2", dst: RESOLVER6 };

Deno.test("DnsResolver answers other clients while one asks 500 slow names a second", async () => {
  const one = await codesBeside(
    (rig, round, i) => rig.ask(`x${round}.${i}.slow`, { src: "10.9.0.66" }),
    CLIENT,
  );
  assert.deepEqual(new Set(one.codes), new Set(["NOERROR"]));
  const prefix = await codesBeside(
    (rig, round, i) => rig.ask(`x${round}.${i}.slow`, { src: `fd09:0:0:66::${i + 1}`, dst: RESOLVER6 }),
    CLIENT6,
  );
  assert.deepEqual(new Set(prefix.codes), new Set(["NOERROR"]));
  assert.ok(prefix.resolver.counters.displaced < 200, `${prefix.resolver.counters.displaced}`);
});

Deno.test("DnsResolver answers other clients while many, including forged ones, ask slow names", async () => {
  for (const sources of [8, 300, 2000]) {
    let next = 0;
    const { codes } = await codesBeside((rig, round, i) => {
      const number = next++ % sources;
      rig.ask(`x${round}.${i}.slow`, { src: `10.10.${number >> 8}.${number & 255}` });
    }, CLIENT);
    assert.deepEqual(new Set(codes), new Set(["NOERROR"]), `${sources}`);
  }
});

Deno.test("DnsResolver answers other clients while one fills the places of waiting queries", async () => {
  const { codes } = await codesBeside(
    (rig, round, i) => rig.ask("one.slow", { src: "10.9.0.66", id: round * 20 + i, srcPort: 2000 + round }),
    CLIENT,
    { timeout: 60_000 },
  );
  assert.deepEqual(new Set(codes), new Set(["NOERROR"]));
});

Deno.test("DnsResolver answers several questions at a time while forged addresses ask slow names", async () => {
  const resolver = new DnsResolver({
    address: RESOLVER,
    upstream: new SlowUpstream(),
    inFlight: 64,
    waiting: 128,
  });
  const rig = new Rig(resolver);
  const codes = new Set<string>();
  for (let round = 0; round < 100; round++) {
    // 200 a second, which have their places for 320 ms.
    for (let i = 0; i < 8; i++) rig.ask(`x${round}.${i}.slow`, { src: `10.10.${round}.${i + 1}` });
    rig.after(40);
    rig.answers();
    for (const type of ["A", "AAAA", "TXT"]) {
      rig.ask(`n${round}.example`, { src: "10.9.0.2", type, srcPort: 999 });
    }
    await rig.turns();
    const answers = rig.answers().filter(({ route }) => route.endsWith(":999"));
    assert.equal(answers.length, 3);
    for (const { rcode } of answers) codes.add(rcode);
  }
  assert.deepEqual(codes, new Set(["NOERROR"]));
  assert.ok(resolver.counters.displaced > 100);
});

Deno.test("DnsResolver gives up the oldest question of the client with the most, and aborts it", async () => {
  const upstream = new SlowUpstream();
  const resolver = new DnsResolver({ address: RESOLVER, upstream, inFlight: 3 });
  const rig = new Rig(resolver);
  for (const name of ["a.slow", "b.slow", "c.slow"]) rig.ask(name, { src: "10.9.0.66" });
  rig.ask("d.slow", { src: "10.9.0.2" });
  await rig.turns();
  assert.deepEqual(rig.answers().map(({ rcode, route }) => [rcode, route]), [
    ["SERVFAIL", "10.9.0.53:53 > 10.9.0.66:5000"],
  ]);
  assert.deepEqual([upstream.aborted, resolver.counters.displaced, resolver.inFlight], [["a.slow"], 1, 3]);
  // Two against one: now both would have as many.
  rig.ask("e.slow", { src: "10.9.0.66" });
  rig.ask("f.slow", { src: "10.9.0.3" });
  await rig.turns();
  assert.deepEqual(rig.answers().map(({ rcode, route }) => [rcode, route]), [
    ["SERVFAIL", "10.9.0.53:53 > 10.9.0.66:5000"],
    ["SERVFAIL", "10.9.0.53:53 > 10.9.0.66:5000"],
  ]);
  // An abandoned query is not a failure: it is asked again.
  rig.after(2000);
  rig.answers();
  const before = upstream.asked;
  rig.ask("a.slow", { src: "10.9.0.2" });
  assert.equal(upstream.asked, before + 1);
});

Deno.test("DnsResolver keeps a question that another client waits for", async () => {
  const upstream = new SlowUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, inFlight: 4 }));
  for (const name of ["a.slow", "b.slow", "c.slow", "d.slow"]) rig.ask(name, { src: "10.9.0.66" });
  rig.ask("a.slow", { src: "10.9.0.2" });
  rig.ask("e.slow", { src: "10.9.0.3" });
  await rig.turns();
  assert.deepEqual(upstream.aborted, ["b.slow"]);
  assert.deepEqual(rig.answers().map(({ route }) => route), ["10.9.0.53:53 > 10.9.0.66:5000"]);
});

/** An upstream that refuses EDNS in one way, and answers without it. */
function withoutEdns(refuse: (query: Uint8Array) => Uint8Array): DnsUpstream & { edns: boolean[] } {
  const edns: boolean[] = [];
  return {
    edns,
    query: (message) => {
      const hasEdns = message[11] !== 0;
      edns.push(hasEdns);
      const { name } = decodeMessage(message)!.questions![0]!;
      return Promise.resolve(hasEdns ? refuse(message) : reply(message, [address(name)]));
    },
  };
}

function code(message: Uint8Array, rcode: number): Uint8Array {
  const bytes = message.slice();
  bytes[2]! |= 0x80;
  bytes[3] = bytes[3]! & 0xf0 | rcode;
  return bytes;
}

const withoutQuestion = (message: Uint8Array, rcode: number) =>
  Uint8Array.of(...code(message, rcode).subarray(0, 4), ...new Uint8Array(8));

const REFUSALS: Record<string, (message: Uint8Array) => Uint8Array> = {
  "FORMERR of 12 bytes": (message) => withoutQuestion(message, 1),
  "NOTIMP of 12 bytes": (message) => withoutQuestion(message, 4),
  "FORMERR with the question": (message) =>
    reply(message, [], {}).map((byte, i) => i === 3 ? byte | 1 : byte),
  "FORMERR with question and OPT": (message) => code(message, 1),
  "NOTIMP with the question": (message) => reply(message, [], {}).map((byte, i) => i === 3 ? byte | 4 : byte),
  BADVERS: (message) => {
    const bytes = code(message, 0);
    bytes[bytes.length - 6] = 1;
    return bytes;
  },
};

for (const [name, refuse] of Object.entries(REFUSALS)) {
  Deno.test(`DnsResolver asks once more without EDNS after ${name}, and remembers it for a while`, async () => {
    const upstream = withoutEdns(refuse);
    const resolver = new DnsResolver({ address: RESOLVER, upstream });
    const rig = new Rig(resolver);
    assert.deepEqual((await rig.answer("a.example", { edns: 1232 })).records, ["a.example 300 A 192.0.2.7"]);
    assert.deepEqual(upstream.edns, [true, false]);
    assert.equal(resolver.counters.upstreamQueries, 2);
    assert.equal((await rig.answer("b.example")).rcode, "NOERROR");
    assert.deepEqual(upstream.edns, [true, false, false]);
    rig.after(600_000);
    assert.equal((await rig.answer("c.example")).rcode, "NOERROR");
    assert.deepEqual(upstream.edns, [true, false, false, true, false]);
  });
}

Deno.test("DnsResolver answers SERVFAIL for an upstream's FORMERR and NOTIMP after asking the next one", async () => {
  for (const rcode of [1, 4]) {
    let asked = 0;
    const upstream = { query: (message: Uint8Array) => (asked++, Promise.resolve(code(message, rcode))) };
    const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
    assert.equal((await rig.answer("a.example")).rcode, "SERVFAIL");
    assert.equal(asked, 2);
    // A retry that did not help is not remembered.
    rig.after(1000);
    await rig.answer("a.example");
    assert.equal(asked, 4);
    const both = new DnsResolver({ address: RESOLVER, upstream: [upstream, new SlowUpstream()] });
    const patient = new Rig(both);
    patient.ask("a.example");
    for (const _ of [1, 2]) await patient.turns();
    assert.equal(patient.answers()[0]!.rcode, "NOERROR");
  }
});

Deno.test("DnsResolver's query without EDNS has the rest of the first query's timeout", async () => {
  const signals: AbortSignal[] = [];
  const upstream = {
    query: (message: Uint8Array, signal: AbortSignal) => {
      signals.push(signal);
      return message[11] !== 0 ? Promise.resolve(withoutQuestion(message, 1)) : new Promise<never>(() => {});
    },
  };
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, timeout: 500 }));
  rig.ask("a.example");
  await rig.turns();
  assert.equal(signals.length, 2);
  rig.after(500);
  assert.deepEqual([signals[1]!.aborted, rig.answers()[0]!.rcode], [true, "SERVFAIL"]);
});

Deno.test("DnsResolver's cache loses a flooding client's answers, and not another's", async () => {
  const upstream = new SlowUpstream();
  const resolver = new DnsResolver({ address: RESOLVER, upstream, cache: { entries: 200 } });
  const rig = new Rig(resolver);
  // Names of eight clients, so that the flood shares its part with few of them.
  for (let i = 0; i < 8; i++) {
    await rig.answer("kept.example".replace("kept", `kept${i}`), { src: `10.9.1.${i}` });
  }
  for (let i = 0; i < 1000; i++) await rig.answer(`x${i}.example`, { src: "10.9.0.66" });
  assert.equal(resolver.cacheSize, 200);
  const before = upstream.asked;
  for (let i = 0; i < 8; i++) await rig.answer(`kept${i}.example`, { src: "10.9.0.3" });
  assert.ok(upstream.asked - before <= 2, `${upstream.asked - before} of 8 were lost`);
});

Deno.test("DnsResolver's cache keeps answers of one upstream while another's flood it", async () => {
  const [good, bad] = [new SlowUpstream(), new SlowUpstream()];
  const lost: number[] = [];
  for (let round = 0; round < 4; round++) {
    const resolver = new DnsResolver({
      address: RESOLVER,
      upstream: good,
      split: { "flood.example": bad },
      cache: { entries: 100 },
    });
    const rig = new Rig(resolver);
    await rig.answer("kept.example");
    for (let i = 0; i < 300; i++) await rig.answer(`x${i}.flood.example`);
    const before = good.asked;
    await rig.answer("kept.example");
    lost.push(good.asked - before);
  }
  // The hash may put both in one share, but hardly each time.
  assert.ok(lost.includes(0));
});

Deno.test("DnsResolver's cache keeps answers while names that do not exist flood it", async () => {
  let asked = 0;
  const upstream = {
    query: (message: Uint8Array) => {
      asked++;
      const { name } = decodeMessage(message)!.questions![0]!;
      if (name.startsWith("kept")) return Promise.resolve(reply(message, [address(name)]));
      const data = { mname: "a", rname: "b", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 900 };
      const soa = { name: "example", type: "SOA", ttl: 900, data };
      return Promise.resolve(reply(message, [], { rcode: "NXDOMAIN", authorities: [soa] }));
    },
  };
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, cache: { entries: 100 } }));
  for (let i = 0; i < 40; i++) await rig.answer(`kept${i}.example`);
  for (let i = 0; i < 300; i++) await rig.answer(`x${i}.example`);
  const before = asked;
  for (let i = 0; i < 40; i++) await rig.answer(`kept${i}.example`);
  assert.equal(asked, before);
});
