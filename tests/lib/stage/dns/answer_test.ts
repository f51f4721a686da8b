/** Truncation of long answers, and blocking by aliases in answers. */

import assert from "node:assert/strict";
import { BlockList, type DnsMessage, DnsResolver, type DnsUpstream } from "@warren/tunnel/dns";
import { parseName } from "../../../../lib/stage/dns/name.ts";
import { address, type Answered, type Asking, reply, RESOLVER, Rig, soa } from "./_ask.ts";

const MX = { name: "big.example", type: "MX", ttl: 60, data: { preference: 1, exchange: "mx0.example" } };

function addresses(count: number, name = (i: number) => `mx${i}.example`) {
  return Array.from({ length: count }, (_, i) => address(name(i), `192.0.2.${i}`));
}

function nameServers(count: number) {
  return Array.from(
    { length: count },
    (_, i) => ({ name: "example", type: "NS", ttl: 60, data: `ns${i}.example` }),
  );
}

/** Asks twice: the second answer comes from the cache, and is the same. */
async function ask(message: DnsMessage, asking: Asking = {}, options = {}): Promise<Answered> {
  const { answers = [], ...more } = message;
  const upstream = { query: (query: Uint8Array) => Promise.resolve(reply(query, answers, more)) };
  const resolver = new DnsResolver({ address: RESOLVER, upstream, ...options });
  const rig = new Rig(resolver);
  const first = await rig.answer("big.example", asking);
  const second = await rig.answer("big.example", asking);
  assert.deepEqual(second.bytes, first.bytes);
  assert.equal(resolver.counters.truncated, first.isTruncated ? 2 : 0);
  return first;
}

function shape({ isTruncated, message: { answers, authorities, additionals } }: Answered) {
  const count = (records: readonly { type: string }[] = []) =>
    records.filter(({ type }) => type !== "OPT").length;
  return [isTruncated, count(answers), count(authorities), count(additionals)];
}

Deno.test("Answers lose additional records first, then authority records, without TC", async () => {
  const limits: [asking: Asking, room: number, options?: object][] = [
    [{}, 512],
    [{ edns: 700 }, 700],
    [{ edns: 4096 }, 1232],
    [{ edns: 4096 }, 900, { answerLimit: 900 }],
  ];
  for (const [asking, room, options] of limits) {
    const mx = await ask({ answers: [MX], additionals: addresses(80) }, { ...asking, type: "MX" }, options);
    const [isTruncated, answers, , additionals] = shape(mx);
    assert.deepEqual([isTruncated, answers], [false, 1]);
    assert.ok(mx.bytes.length <= room && mx.bytes.length > room - 40, `${mx.bytes.length} of ${room}`);
    assert.ok(Number(additionals) > 5);
    assert.equal(mx.message.additionals!.some(({ type }) => type === "OPT"), asking.edns !== undefined);

    const a = await ask({ answers: [address("big.example")], authorities: nameServers(80) }, asking, options);
    assert.deepEqual(shape(a).slice(0, 2), [false, 1]);
    // Eighty name servers are one RRset.
    assert.equal(shape(a)[2], 0);
  }
  const both = { authorities: nameServers(4), additionals: addresses(40, (i) => `ns${i}.example`) };
  const [isTruncated, , authorities, additionals] = shape(
    await ask({ answers: [address("big.example")], ...both }),
  );
  assert.deepEqual([isTruncated, authorities], [false, 4]);
  assert.ok(Number(additionals) > 5 && Number(additionals) < 40);
});

Deno.test("Answers lose whole RRsets, even if their records are apart", async () => {
  const one = await ask({ answers: [MX], additionals: addresses(40, () => "mx0.example") }, { type: "MX" });
  assert.deepEqual(shape(one), [false, 1, 0, 0]);
  const others = addresses(40, (i) => `mx${i % 2}.example`);
  const mixed = await ask({ answers: [MX], additionals: [address("first.example"), ...others] }, {
    type: "MX",
  });
  assert.deepEqual(shape(mixed), [false, 1, 0, 1]);
});

Deno.test("Answers have TC when the answer section or the SOA of a negative answer does not fit", async () => {
  const many = await ask({ answers: addresses(40, () => "big.example") });
  assert.deepEqual(shape(many), [true, 0, 0, 0]);
  const name = (letter: string) => Array(4).fill(letter.repeat(60)).join(".");
  const times = { serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 5 };
  const big = {
    name: name("a"),
    type: "SOA",
    ttl: 60,
    data: { ...times, mname: name("b"), rname: name("c") },
  };
  assert.deepEqual(shape(await ask({ rcode: "NXDOMAIN", authorities: [big] })), [true, 0, 0, 0]);
});

Deno.test("Negative answers keep their SOA, wherever it stands", async () => {
  for (const rcode of ["NXDOMAIN", "NOERROR"]) {
    for (
      const authorities of [[soa("example", 90, 70), ...nameServers(60)], [
        ...nameServers(60),
        soa("example", 90, 70),
      ]]
    ) {
      const answer = await ask({ rcode, authorities, additionals: addresses(50) });
      assert.equal(answer.rcode, rcode);
      assert.deepEqual(shape(answer), [false, 0, 1, 0]);
      const [record] = answer.message.authorities!;
      assert.deepEqual([record!.type, record!.name, record!.ttl], ["SOA", "example", 90]);
      assert.equal((record!.data as { minimum: number }).minimum, 70);
    }
  }
});

Deno.test("TTL of an SOA that is kept alone decreases in the cache", async () => {
  const upstream = {
    query: (query: Uint8Array) =>
      Promise.resolve(
        reply(query, [], { rcode: "NXDOMAIN", authorities: [...nameServers(60), soa("example", 90, 70)] }),
      ),
  };
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
  await rig.answer("big.example");
  rig.after(20_000);
  assert.equal((await rig.answer("big.example")).message.authorities![0]!.ttl, 70);
});

Deno.test("Answers with DNSSEC keep their proofs, or have TC", async () => {
  const proof = (i: number) => ({
    name: `p${i}.example`,
    type: "UNKNOWN_50",
    ttl: 60,
    // RFC 5155 section 3.2: SHA-1 without a salt, the next hash, no types.
    data: Uint8Array.of(1, 0, 0, 0, 0, 20, ...new Uint8Array(20).fill(i)),
  });
  const proofs = Array.from({ length: 20 }, (_, i) => proof(i));
  const authorities = [soa("example", 90, 70), ...proofs];
  const checking: Asking = { edns: 512, dnssecOk: true };
  assert.deepEqual(shape(await ask({ rcode: "NXDOMAIN", authorities }, checking)), [true, 0, 0, 0]);
  const plain = shape(await ask({ rcode: "NXDOMAIN", authorities }, { edns: 512 }));
  assert.deepEqual([plain[0], Number(plain[2]) >= 1], [false, true]);
  // A wildcard's answer has proofs too.
  const wild = { answers: [address("big.example")], authorities: proofs };
  assert.equal((await ask(wild, checking)).isTruncated, true);
  assert.equal((await ask(wild, { edns: 512 })).isTruncated, false);
});

/** An upstream whose answer to anything is one record of a type that leads to another name. */
function leading(type: number, target: string): DnsUpstream {
  const names: Record<number, string> = { 5: "CNAME", 39: "DNAME" };
  return {
    query: (query) => {
      if (names[type] !== undefined) {
        const record = { name: "shop.example", type: names[type], ttl: 50, data: target };
        return Promise.resolve(reply(query, [record, address(target)]));
      }
      const data = Uint8Array.of(0, 1, ...parseName(target));
      return Promise.resolve(
        reply(query, [{ name: "shop.example", type: `UNKNOWN_${type}`, ttl: 50, data }]),
      );
    },
  };
}

Deno.test("DnsResolver blocks answers that lead to a blocked name, including cached ones", async () => {
  for (const [type, asked] of [[5, "A"], [39, "A"], [64, "SVCB"], [65, "HTTPS"]] as const) {
    const block = new BlockList(["tracker.example"]);
    const resolver = new DnsResolver({
      address: RESOLVER,
      block,
      upstream: leading(type, "X.tracker.example"),
    });
    const rig = new Rig(resolver);
    const asking = { type: asked === "A" ? "A" : `UNKNOWN_${type}` };
    for (const _ of [1, 2]) {
      const answer = await rig.answer("shop.example", asking);
      assert.deepEqual([answer.rcode, answer.records], ["NXDOMAIN", []], asked);
    }
    assert.deepEqual([resolver.counters.blocked, resolver.counters.upstreamQueries], [2, 1]);
  }
});

Deno.test("DnsResolver lets aliases pass whose target or whose own name is allowed", async () => {
  for (
    const [allow, expected] of [["x.tracker.example", 2], ["shop.example", 2], ["other.example", 0]] as const
  ) {
    const rig = new Rig(
      new DnsResolver({
        address: RESOLVER,
        block: new BlockList(["tracker.example"]),
        allow: [allow],
        upstream: leading(5, "x.tracker.example"),
      }),
    );
    assert.equal((await rig.answer("shop.example")).records.length, expected, allow);
  }
});

Deno.test("DnsResolver blocks an alias of its records that an upstream leads to a blocked name", async () => {
  const rig = new Rig(
    new DnsResolver({
      address: RESOLVER,
      records: ["shop.lan CNAME shop.example"],
      block: new BlockList(["tracker.example"]),
      upstream: leading(5, "x.tracker.example"),
    }),
  );
  const { rcode, records } = await rig.answer("shop.lan");
  assert.deepEqual([rcode, records], ["NXDOMAIN", []]);
});

Deno.test("DnsResolver rejects answers with malformed aliases", async () => {
  const upstream = {
    query: (query: Uint8Array) => {
      const bytes = reply(query, [{ name: "shop.example", type: "CNAME", ttl: 50, data: "x.example" }]);
      bytes[bytes.length - 1] = 0xff;
      return Promise.resolve(bytes);
    },
  };
  const resolver = new DnsResolver({ address: RESOLVER, upstream });
  assert.equal((await new Rig(resolver).answer("shop.example")).rcode, "SERVFAIL");
  assert.equal(resolver.counters.badAnswers, 1);
});
