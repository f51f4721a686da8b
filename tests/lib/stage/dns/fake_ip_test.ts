/** Synthetic addresses: from name to address and back, hold times, shares of clients. */

import assert from "node:assert/strict";
import { DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { encodePacket } from "../../../kit/packet_text.ts";
import { Random } from "../../../../lib/core/random.ts";
import { packetOf } from "../../../kit/packets.ts";
import { RESOLVER, RESOLVER6, Rig } from "./_ask.ts";

Deno.test("FakeIp gives a name the same address of each family, and finds the name by it", () => {
  const fakeIp = new FakeIp({ ipv6: "fd09:fa4e::/96" });
  assert.equal(fakeIp.addressOf("www.example.com"), "198.18.0.1");
  assert.equal(fakeIp.addressOf("mail.example.com"), "198.18.0.2");
  assert.equal(fakeIp.addressOf("WWW.example.com."), "198.18.0.1");
  assert.equal(fakeIp.addressOf("mail.example.com", 6), "fd09:fa4e::2");
  assert.equal(fakeIp.nameOf("fd09:fa4e::1"), "www.example.com");
  assert.equal(fakeIp.nameOf("198.18.0.2"), "mail.example.com");
  for (const other of ["198.18.0.0", "198.18.0.3", "198.20.0.1", "fd09:fa4e::", "fd09:fa4f::1"]) {
    assert.equal(fakeIp.nameOf(other), undefined, other);
  }
  assert.equal(new FakeIp().addressOf("www.example.com", 6), undefined);
  assert.equal(fakeIp.size, 2);
});

Deno.test("FakeIp finds the names of a packet's source and destination", () => {
  const fakeIp = new FakeIp({ ipv6: "fd09:fa4e::/96" });
  fakeIp.addressOf("www.example.com");
  const at = (text: string) => packetOf(encodePacket(text));
  assert.equal(fakeIp.destinationOf(at("tcp 10.9.0.1:5000 > 198.18.0.1:443 S")), "www.example.com");
  assert.equal(fakeIp.sourceOf(at("tcp 198.18.0.1:443 > 10.9.0.1:5000 SA")), "www.example.com");
  assert.equal(fakeIp.destinationOf(at("udp [fd09::1]:5000 > [fd09:fa4e::1]:443")), "www.example.com");
  assert.equal(fakeIp.sourceOf(at("udp [fd09:fa4e::1]:443 > [fd09::1]:5000")), "www.example.com");
  assert.equal(fakeIp.destinationOf(at("tcp 10.9.0.1:5000 > 198.18.0.2:443 S")), undefined);
  assert.equal(fakeIp.sourceOf(packetOf([0x45, 0])), undefined);
});

Deno.test("FakeIp gives no addresses to exceptions and to names in arpa", () => {
  const fakeIp = new FakeIp({ except: ["real.example"] });
  for (
    const name of ["a.real.example", "1.0.18.198.in-addr.arpa", "localhost", "x.localhost", "printer.local"]
  ) {
    assert.equal(fakeIp.addressOf(name), undefined, name);
  }
  assert.equal(fakeIp.addressOf("notlocal"), "198.18.0.1");
});

Deno.test("FakeIp takes a single exception as a text", () => {
  assert.equal(new FakeIp({ except: "example" }).addressOf("www.example"), undefined);
});

Deno.test("FakeIp reuses the address of the least recently used name, as a linear list does", () => {
  const random = new Random(18);
  const fakeIp = new FakeIp({ ipv4: "10.200.0.0/28", ipv6: "fd00::/96" });
  assert.equal(fakeIp.capacity, 14);
  const used: { name: string; address: string }[] = [];
  for (let i = 0; i < 20_000; i++) {
    const name = `n${random.below(20)}`;
    if (random.below(3) === 0) {
      const address = `10.200.0.${random.below(17)}`;
      const at = used.findIndex((entry) => entry.address === address);
      assert.equal(fakeIp.nameOf(address), used[at]?.name);
      if (at >= 0) used.push(...used.splice(at, 1));
      continue;
    }
    const at = used.findIndex((entry) => entry.name === name);
    const expected = at >= 0
      ? used.splice(at, 1)[0]!.address
      : used.length < 14
      ? `10.200.0.${used.length + 1}`
      : used.shift()!.address;
    assert.equal(fakeIp.addressOf(name), expected);
    used.push({ name, address: expected });
  }
});

/** A resolver with synthetic addresses, whose clients ask by their numbers. */
function clients(options: object) {
  const fakeIp = new FakeIp(options);
  const resolver = new DnsResolver({ address: [RESOLVER, RESOLVER6], fakeIp });
  const rig = new Rig(resolver);
  const ask = (name: string, client: number | string) => {
    const src = typeof client === "string" ? client : `10.9.1.${client}`;
    rig.ask(name, { src, dst: src.includes(":") ? RESOLVER6 : RESOLVER });
    const [{ rcode, records }] = rig.answers() as [ReturnType<Rig["answers"]>[number]];
    return records[0]?.split(" ").at(-1) ?? rcode;
  };
  // The tunnel's time began long ago.
  rig.after(1_000_000);
  return { fakeIp, ask, resolver, after: (milliseconds: number) => rig.after(milliseconds) };
}

Deno.test("FakeIp holds the address of a name until TTL and reuseAfter expire, whatever others ask for", () => {
  const { after, fakeIp, ask, resolver } = clients({ ipv4: "10.200.0.0/24", ttl: 5, reuseAfter: 60_000 });
  assert.equal(ask("bank.example", 1), "10.200.0.1");
  const answered = (client: number | string, count: number) =>
    Array.from({ length: count }, (_, i) => ask(`x${i}.${client}.example`, client))
      .filter((answer) => answer !== "SERVFAIL").length;
  // As many as are left for others: 253 were left.
  assert.equal(answered(66, 1000), 127);
  assert.equal(fakeIp.nameOf("10.200.0.1"), "bank.example");
  for (let client = 67; client < 80; client++) answered(client, 300);
  after(64_999);
  assert.equal(ask("late.example", 90), "SERVFAIL");
  assert.equal(resolver.counters.unanswered > 1000, true);
  assert.equal(ask("bank.example", 1), "10.200.0.1");
  after(2);
  assert.notEqual(ask("late.example", 90), "SERVFAIL");
  for (let client = 91; client < 110; client++) answered(client, 300);
  assert.equal(fakeIp.nameOf("10.200.0.1"), "bank.example");
});

Deno.test("FakeIp gives an address to another name after TTL and reuseAfter without use", () => {
  const { after, fakeIp, ask } = clients({ ipv4: "10.200.0.0/30", ttl: 5, reuseAfter: 10_000 });
  assert.equal(ask("a.example", 1), "10.200.0.1");
  assert.equal(ask("b.example", 2), "10.200.0.2");
  for (let second = 0; second < 100; second += 10) {
    // A packet's lookup is a use; an answer to another client, too.
    assert.equal(fakeIp.destinationOf(packetOf(encodePacket("udp 10.9.1.1:1 > 10.200.0.1:2"))), "a.example");
    assert.equal(ask("b.example", 3), "10.200.0.2");
    assert.equal(ask("c.example", 4), "SERVFAIL");
    after(10_000);
  }
  assert.equal(ask("b.example", 3), "10.200.0.2");
  after(5000);
  assert.equal(ask("c.example", 4), "10.200.0.1");
  assert.deepEqual([fakeIp.nameOf("10.200.0.1"), fakeIp.nameOf("10.200.0.2")], ["c.example", "b.example"]);
});

Deno.test("FakeIp leaves others a share when a client, its /64, or many ask for all addresses", () => {
  const { ask } = clients({ ipv4: "10.200.0.0/24", ipv6: "fd00::/112" });
  for (let i = 0; i < 1000; i++) ask(`x${i}.example`, `fd09:0:0:66::${(i + 1).toString(16)}`);
  assert.notEqual(ask("good.example", 1), "SERVFAIL");
  for (let client = 2; client < 20; client++) {
    for (let i = 0; i < 300; i++) ask(`y${i}.${client}.example`, client);
  }
  // A client with an address keeps it.
  assert.equal(ask("good.example", 1), ask("good.example", 1));
  assert.notEqual(ask("good.example", 1), "SERVFAIL");
});

Deno.test("FakeIp with a small prefix works as long as clients wait for reuseAfter", () => {
  const { after, fakeIp, ask } = clients({ ipv4: "10.200.0.0/28", ttl: 1, reuseAfter: 1000 });
  for (let i = 0; i < 500; i++) {
    const address = ask(`n${i % 40}.example`, 1);
    assert.equal(fakeIp.nameOf(address), `n${i % 40}.example`);
    after(400);
  }
});

Deno.test("FakeIp.restore() holds held addresses for the rest of their time", () => {
  const first = clients({ ipv4: "10.200.0.0/30", ttl: 5, reuseAfter: 10_000 });
  first.ask("a.example", 1);
  first.after(5000);
  first.ask("b.example", 2);
  const saved = JSON.parse(JSON.stringify(first.fakeIp.save()));
  const second = clients({ ipv4: "10.200.0.0/30", ttl: 5, reuseAfter: 10_000 });
  second.fakeIp.restore(saved);
  assert.deepEqual(second.fakeIp.save(), saved);
  second.ask("b.example", 2);
  second.fakeIp.restore(saved);
  second.after(9999);
  assert.equal(second.ask("c.example", 3), "SERVFAIL");
  second.after(1);
  assert.equal(second.ask("c.example", 3), "10.200.0.1");
  assert.equal(second.ask("d.example", 4), "SERVFAIL");
  for (const left of [-1, NaN, "7", {}]) {
    const names = [["a.example", 0, left]];
    assert.throws(() => second.fakeIp.restore({ ...saved, names }), TypeError);
  }
  assert.throws(() => second.fakeIp.restore({ ...saved, names: [["a.example", 0, 1, 7]] }), TypeError);
});

Deno.test("FakeIp gives a script all addresses that clients do not hold, at once", () => {
  const { fakeIp, ask } = clients({ ipv4: "10.200.0.0/29" });
  assert.equal(ask("held.example", 1), "10.200.0.1");
  for (let i = 0; i < 100; i++) {
    const address = fakeIp.addressOf(`s${i}.example`)!;
    assert.notEqual(address, "10.200.0.1");
    assert.equal(fakeIp.nameOf(address), `s${i}.example`);
  }
  assert.equal(fakeIp.nameOf("10.200.0.1"), "held.example");
});

Deno.test("FakeIp with `only` gives addresses to those names alone, except for `except`", async () => {
  const fakeIp = new FakeIp({ only: ["example.org"], except: "real.example.org" });
  assert.equal(fakeIp.addressOf("www.example.org"), "198.18.0.1");
  for (const name of ["example.com", "notexample.org", "a.real.example.org"]) {
    assert.equal(fakeIp.addressOf(name), undefined, name);
  }
  const rig = new Rig(new DnsResolver({ address: RESOLVER, fakeIp }));
  assert.equal((await rig.answer("example.com")).rcode, "REFUSED");
});

Deno.test("FakeIp.restore() restores names, addresses and their order", () => {
  const first = new FakeIp({ ipv4: "10.200.0.0/29", ipv6: "fd00::/96" });
  for (const name of ["a", "b", "c", "d", "e", "f", "g", "b"]) first.addressOf(name);
  const saved = JSON.parse(JSON.stringify(first.save()));
  const second = new FakeIp({ ipv4: "10.200.0.0/29", ipv6: "fd00::/96" });
  second.restore(saved);
  for (const name of ["c", "new", "newer", "b"]) {
    assert.equal(second.addressOf(name, 6), first.addressOf(name, 6), name);
  }
  assert.deepEqual(second.save(), first.save());
  const wrong = [
    undefined,
    {},
    { ...saved, prefixes: ["10.0.0.0/29", null] },
    { ...saved, names: [["a", 9]] },
    { ...saved, names: [["a", 0], ["a", 1]] },
    { ...saved, names: [["a", 0], ["b", 0]] },
    { ...saved, names: [[7, 0]] },
    { ...saved, names: [null] },
    ...["", ".", "a..b", "A", "a.", "x".repeat(64)].map((name) => ({ ...saved, names: [[name, 0]] })),
  ];
  for (const state of wrong) assert.throws(() => second.restore(state), TypeError);
  assert.deepEqual(second.save(), first.save());
});

Deno.test("FakeIp rejects invalid options", () => {
  assert.throws(() => new FakeIp({ ipv4: "198.18.0.0" }), SyntaxError);
  assert.throws(() => new FakeIp({ ipv4: "fd00::/96" }), TypeError);
  assert.throws(() => new FakeIp({ ipv6: "10.0.0.0/8" }), TypeError);
  assert.throws(() => new FakeIp({ ipv6: "fd00::/64" }), RangeError);
  assert.throws(() => new FakeIp({ ipv4: "10.0.0.0/31" }), RangeError);
  assert.throws(() => new FakeIp({ capacity: 0 }), RangeError);
  assert.throws(() => new FakeIp({ ttl: -1 }), RangeError);
  for (const reuseAfter of [-1, NaN, Infinity]) assert.throws(() => new FakeIp({ reuseAfter }), RangeError);
  assert.throws(() => new FakeIp({ only: ["a..b"] }), SyntaxError);
  assert.throws(() => new FakeIp({ prefix: "10.0.0.0/8" } as object), /there is no option "prefix"/);
  assert.throws(() => new FakeIp().addressOf("a..b"), SyntaxError);
});
