/** Cache of the resolver against a simple model, a list of answers that is scanned from its start. */

import assert from "node:assert/strict";
import { decodeMessage, DnsResolver, type DnsUpstream } from "@warren/tunnel/dns";
import { Random } from "../../../../lib/core/random.ts";
import { address, answering, reply, RESOLVER, Rig, soa } from "./_ask.ts";

/** Answer in the model. */
interface Known {
  name: string;
  type: string;
  data: string | undefined;
  /** Of its record, or of the SOA. */
  ttl: number;
  since: number;
  until: number;
}

/** Answers as the model: another address each time, at times nothing. */
class Source implements DnsUpstream {
  readonly random: Random;
  last: Known | undefined;
  now = 0;
  constructor(random: Random) {
    this.random = random;
  }
  query(message: Uint8Array): Promise<Uint8Array> {
    const { random } = this;
    const { name, type } = decodeMessage(message)!.questions![0]!;
    const ttl = random.below(20);
    const minimum = random.below(20);
    const host = 1 + random.below(255);
    const some = type === "A" ? `192.0.2.${host}` : `2001:db8::${host.toString(16)}`;
    const data = random.below(3) === 0 ? undefined : some;
    const good = data === undefined ? Math.min(ttl, minimum) : ttl;
    this.last = { name, type, data, ttl, since: this.now, until: this.now + good * 1000 };
    if (data !== undefined) {
      return Promise.resolve(
        reply(message, [{ name, type, ttl, data }]),
      );
    }
    const rcode = random.below(2) === 0 ? "NXDOMAIN" : "NOERROR";
    return Promise.resolve(reply(message, [], { rcode, authorities: [soa("example", ttl, minimum)] }));
  }
}

/** Returns the entries that stay: negative and positive answers each have a share. */
function forget(model: Known[], entries: number, fresh: Known): Known[] {
  if (model.length <= entries) return model;
  const isNothing = ({ data }: Known) => data === undefined;
  const nothing = model.filter(isNothing).length;
  const others = model.length - nothing;
  const greater = nothing === others ? isNothing(fresh) : nothing > others;
  return model.toSpliced(model.findIndex((known) => isNothing(known) === greater), 1);
}

Deno.test("DnsResolver's cache agrees with a simple model in contents, lifetimes and order of eviction", async () => {
  for (const seed of [1, 2, 3]) {
    const random = new Random(seed);
    const source = new Source(random);
    const entries = 4 + random.below(4);
    const resolver = new DnsResolver({ address: RESOLVER, upstream: source, cache: { entries } });
    const rig = new Rig(resolver);
    let model: Known[] = [];
    let hits = 0;
    for (let step = 0; step < 3000; step++) {
      rig.after(random.below(3000));
      const { now } = rig.test;
      source.now = now;
      source.last = undefined;
      const name = `n${random.below(6)}.example`;
      const type = random.below(2) === 0 ? "A" : "AAAA";
      const { message, records } = await rig.answer(name, { type });
      const at = model.findIndex((known) => known.name === name && known.type === type);
      const known = at < 0 ? undefined : model.splice(at, 1)[0]!;
      if (known !== undefined && known.until > now) {
        hits++;
        assert.equal(source.last, undefined, `seed ${seed}, step ${step}: it was asked again`);
        const ttl = known.ttl - Math.floor((now - known.since) / 1000);
        const shown = message.answers![0] ?? message.authorities![0]!;
        assert.equal(shown.ttl, ttl, `seed ${seed}, step ${step}`);
        if (known.data === undefined) assert.deepEqual(records, []);
        else assert.ok(records[0]!.endsWith(known.data), `${records[0]} instead of ${known.data}`);
        model.push(known);
        continue;
      }
      assert.notEqual(source.last, undefined, `seed ${seed}, step ${step}: it was not asked`);
      const fresh = source.last as unknown as Known;
      if (fresh.until > now) model.push(fresh);
      model = forget(model, entries, fresh);
      assert.equal(resolver.cacheSize, model.length, `seed ${seed}, step ${step}`);
    }
    assert.ok(hits > 300, `${hits}`);
  }
});

Deno.test("DnsResolver's cache keeps to its limits of bytes and lifetimes", async () => {
  let asked = 0;
  const upstream: DnsUpstream = {
    query: (message) => {
      asked++;
      return Promise.resolve(
        reply(message, [address(decodeMessage(message)!.questions![0]!.name, "192.0.2.1", 100)]),
      );
    },
  };
  const small = new DnsResolver({ address: RESOLVER, upstream, cache: { bytes: 2000 } });
  const rig = new Rig(small);
  for (let i = 0; i < 20; i++) await rig.answer(`n${i}.example`);
  assert.ok(small.cacheSize >= 4 && small.cacheSize <= 7, `${small.cacheSize}`);

  const askedAfter = async (milliseconds: number, cache: object | false) => {
    const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, cache }));
    await rig.answer("a.example");
    rig.after(milliseconds);
    asked = 0;
    await rig.answer("a.example");
    return asked;
  };
  assert.deepEqual([await askedAfter(99_999, {}), await askedAfter(100_000, {})], [0, 1]);
  assert.deepEqual([
    await askedAfter(199_999, { minTtl: 200_000 }),
    await askedAfter(9999, { maxTtl: 10_000 }),
  ], [0, 0]);
  assert.equal(await askedAfter(10_000, { maxTtl: 10_000 }), 1);
  assert.equal(await askedAfter(0, false), 1);
});

Deno.test("DnsResolver's cache evicts nothing for an answer larger than the cache", async () => {
  const upstream = answering((name) => Array(name.startsWith("big") ? 200 : 1).fill(address(name)));
  const resolver = new DnsResolver({ address: RESOLVER, upstream, cache: { bytes: 3000 } });
  const rig = new Rig(resolver);
  for (const name of ["a.example", "b.example", "big.example"]) await rig.answer(name);
  assert.equal(resolver.cacheSize, 2);
});
