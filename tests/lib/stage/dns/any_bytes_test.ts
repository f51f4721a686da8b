/**
 * Any bytes at all, as queries and as upstreams' answers: nothing throws, every query is answered, dropped or held, and
 * each answer is whole.
 */

import assert from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { BlockList, decodeMessage, DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { Random } from "../../../../lib/core/random.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { address, packetTo, queryOf, readAnswer, reply, RESOLVER, soa } from "./_ask.ts";

const ROUNDS = 40_000;
/** Lengths, counts, pointers and types that are worth a try. */
const TELLING = [0, 1, 2, 5, 12, 28, 41, 63, 64, 0x80, 0xc0, 0xff];

function mutate(random: Random, message: Uint8Array): Uint8Array {
  if (random.below(20) === 0) return Uint8Array.from({ length: random.below(600) }, () => random.below(256));
  let bytes = message.slice();
  for (let count = random.below(4); count > 0 && bytes.length > 0; count--) {
    const at = random.below(random.below(2) === 0 ? Math.min(bytes.length, 32) : bytes.length);
    const kind = random.below(5);
    if (kind === 0) bytes[at]! ^= 1 << random.below(8);
    else if (kind === 1) bytes[at] = random.below(256);
    else if (kind === 2) bytes[at] = TELLING[random.below(TELLING.length)]!;
    else if (kind === 3) bytes = bytes.slice(0, at);
    else bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(random.below(bytes.length))]);
  }
  return bytes.subarray(0, 1400);
}

const NAMES = [
  "www.example",
  "a.b.www.example",
  "ads.example",
  "real.example",
  "router.lan",
  "x.lan",
  "alias.lan",
];

function makeResolver(upstream: (message: Uint8Array) => Promise<Uint8Array>): DnsResolver {
  return new DnsResolver({
    address: RESOLVER,
    records: ["router.lan A 10.0.0.1", "alias.lan CNAME real.example"],
    zones: ["lan"],
    block: new BlockList(["ads.example"]),
    fakeIp: new FakeIp({ except: ["real.example", "www.example"] }),
    upstream: { query: upstream },
    cache: { entries: 20, stale: 10_000, prefetch: true },
    inFlight: 8,
    waiting: 16,
    timeout: 50,
  });
}

Deno.test("DnsResolver never throws and never loses a packet, whatever the query", async () => {
  const random = new Random(0xd45);
  const resolver = makeResolver((message) => Promise.resolve(reply(message, [address("www.example")])));
  const test = new TestPipeline(resolver);
  test.pool.bytes.fill(0xa5);
  let answers = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const types = ["A", "AAAA", "TXT", "PTR", "HTTPS", "ANY", "AXFR"];
    const asking = { type: types[random.below(types.length)]!, id: random.below(65_536), edns: 1232 };
    const name = random.below(10) === 0 ? "1.0.18.198.in-addr.arpa" : NAMES[random.below(NAMES.length)]!;
    const query = mutate(
      random,
      queryOf(name, random.below(2) === 0 ? asking : { ...asking, edns: undefined }),
    );
    test.send(random.below(8) === 0 ? Direction.Inbound : Direction.Outbound, packetTo(query));
    test.now += random.below(40);
    test.settle();
    if (round % 16 === 0) await Promise.resolve();
    const { far, device } = test.receive();
    for (const bytes of [...far, ...device]) {
      const { message } = readAnswer(bytes);
      assert.equal(message.type, "response");
      answers++;
    }
    assert.ok(test.balanced, `round ${round}`);
  }
  const { queries, refused } = resolver.counters;
  assert.ok(answers > ROUNDS / 2 && queries > 1000 && refused > 1000, JSON.stringify(resolver.counters));
});

Deno.test("DnsResolver never throws and answers every query, whatever the upstream responds", async () => {
  const random = new Random(0xa45);
  const resolver = makeResolver((message) => {
    const { name } = decodeMessage(message)!.questions![0]!;
    const opt = { name: ".", type: "OPT", udpPayloadSize: 1232 } as unknown as ReturnType<typeof address>;
    const said = reply(message, [
      { name, type: "CNAME", ttl: random.below(300), data: "www.example" },
      address("www.example", "192.0.2.1", random.below(300)),
      { name: "www.example", type: "TXT", ttl: 7, data: "text" },
    ], { authorities: [soa("example", 60, 30)], additionals: random.below(2) === 0 ? [opt] : [] });
    return random.below(50) === 0 ? Promise.reject(new Error("no")) : Promise.resolve(mutate(random, said));
  });
  const test = new TestPipeline(resolver);
  let asked = 0;
  let answered = 0;
  for (let round = 0; round < ROUNDS / 4; round++) {
    const name = ["www.example", "alias.lan", `n${random.below(40)}.real.example`][random.below(3)]!;
    const edns = random.below(2) === 0 ? {} : { edns: 1232 };
    test.send(Direction.Outbound, packetTo(queryOf(name, { id: round & 0xffff, ...edns })));
    asked++;
    test.settle();
    for (let i = 0; i < 6; i++) await Promise.resolve();
    test.now += random.below(300);
    test.settle();
    for (const bytes of test.receive().device) {
      // Records of an upstream pass unchanged, so only their lengths are checked.
      assert.equal(bytes.length > 40, true);
      answered++;
    }
    assert.ok(test.balanced, `round ${round}`);
  }
  assert.equal(answered + test.pipeline.queued, asked);
  const { badAnswers, cached, stale, upstreamFailures } = resolver.counters;
  assert.ok(
    badAnswers > 100 && cached > 100 && stale > 10 && upstreamFailures > 100,
    JSON.stringify(resolver.counters),
  );
});

Deno.test("decodeMessage() never throws, whatever the bytes", () => {
  const random = new Random(0xdec);
  let decoded = 0;
  const records = [address("www.example"), { name: "www.example", type: "TXT", ttl: 7, data: "text" }];
  const valid = reply(queryOf("www.example"), records, { authorities: [soa("example", 60, 30)] });
  for (let round = 0; round < ROUNDS; round++) {
    if (decodeMessage(mutate(random, valid)) !== undefined) decoded++;
  }
  assert.ok(decoded > ROUNDS / 10 && decoded < ROUNDS);
  // Counts that promise more than there is are not believed.
  assert.equal(decodeMessage(new Uint8Array(65_535).fill(0xff)), undefined);
});
