/** Special-use names (RFC 6761 and others), which are not forwarded. */

import assert from "node:assert/strict";
import { DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { address, answering, PlayedUpstream, RESOLVER, Rig } from "./_ask.ts";

const REVERSE6 = (digits: string) => `${Array.from(digits).reverse().join(".")}.ip6.arpa`;
const PRIVATE = [
  ...["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.1.1", "100.64.0.1", "100.127.9.9"],
  ...["0.0.0.0", "127.9.9.9", "192.0.2.1", "198.51.100.7", "203.0.113.7", "255.255.255.255"],
].map((text) => `${text.split(".").reverse().join(".")}.in-addr.arpa`);
const PRIVATE6 = ["fd", "fe8", "febf", "20010db8"].map((start) => REVERSE6(start.padEnd(32, "7")));
const PUBLIC = [
  ...["9.255.255.255", "11.0.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "100.63.0.1", "100.128.0.1"],
  ...["192.0.3.1", "169.253.0.1", "192.0.0.170"],
].map((text) => `${text.split(".").reverse().join(".")}.in-addr.arpa`);
const PUBLIC6 = ["fc", "fec", "20010db9"].map((start) => REVERSE6(start.padEnd(32, "7")));

/** Returns the answer for a name, or `asked` if it went to an upstream. */
async function answer(name: string, type: string, options = {}) {
  const upstream = new PlayedUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, ...options }));
  rig.ask(name, { type });
  await rig.turns();
  if (upstream.queries.length > 0) return "asked";
  const [{ rcode, records, message }] = rig.answers() as [ReturnType<Rig["answers"]>[number]];
  if (records.length > 0) return records.join();
  // It may be kept (RFC 2308).
  const [soa] = message.authorities!;
  assert.deepEqual([soa!.type, soa!.ttl], ["SOA", 10_800]);
  return `${rcode} ${soa!.name}`;
}

Deno.test("DnsResolver gives localhost its loopback addresses, and nothing else", async () => {
  for (const name of ["localhost", "app.localhost", "a.b.LOCALHOST"]) {
    assert.equal(await answer(name, "A"), `${name} 10800 A 127.0.0.1`);
    assert.equal(await answer(name, "AAAA"), `${name} 10800 AAAA ::1`);
    for (const type of ["MX", "TXT", "PTR", "DS"]) {
      assert.equal(await answer(name, type), "NOERROR localhost", type);
    }
  }
  assert.equal(
    await answer("1.0.0.127.in-addr.arpa", "PTR"),
    "1.0.0.127.in-addr.arpa 10800 PTR localhost",
  );
  const loopback6 = REVERSE6("1".padStart(32, "0"));
  assert.equal(await answer(loopback6, "PTR"), `${loopback6} 10800 PTR localhost`);
  // RFC 8020: what is above a name exists.
  assert.equal(await answer("0.127.in-addr.arpa", "PTR"), "NOERROR 127.in-addr.arpa");
});

Deno.test("DnsResolver answers NXDOMAIN for special-use domains", async () => {
  for (const domain of ["alt", "invalid", "local", "onion", "test"]) {
    for (const name of [domain, `x.${domain}`, `a.b.${domain.toUpperCase()}`]) {
      for (const type of ["A", "AAAA", "HTTPS", "SRV", "DS"]) {
        const asked = type === "HTTPS" ? "UNKNOWN_65" : type;
        assert.equal(await answer(name, asked), `NXDOMAIN ${domain}`, `${name} ${type}`);
      }
    }
    assert.equal(await answer(`not${domain}`, "A"), "asked");
    assert.equal(await answer(`${domain}.example`, "A"), "asked");
  }
});

Deno.test("DnsResolver answers reverse names of private addresses itself, and forwards public ones", async () => {
  for (const name of [...PRIVATE, ...PRIVATE6]) {
    assert.match(await answer(name, "PTR"), /^(NXDOMAIN|NOERROR) .*arpa$/, name);
  }
  for (const name of [...PUBLIC, ...PUBLIC6, "arpa", "in-addr.arpa", "ipv4only.arpa"]) {
    assert.equal(await answer(name, "PTR"), "asked", name);
  }
  assert.equal(await answer("x.home.arpa", "A"), "NXDOMAIN home.arpa");
  assert.equal(await answer("x.default.service.arpa", "A"), "NXDOMAIN service.arpa");
  assert.equal(await answer("_dns.resolver.arpa", "UNKNOWN_64"), "NOERROR resolver.arpa");
  assert.match(await answer("10.in-addr.arpa", "SOA"), /^10\.in-addr\.arpa 10800 SOA /);
  assert.equal(await answer("10.in-addr.arpa", "NS"), "10.in-addr.arpa 10800 NS 10.in-addr.arpa");
  assert.equal(await answer("10.in-addr.arpa", "A"), "NOERROR 10.in-addr.arpa");
  // The parent zone knows whether the zone is signed.
  assert.equal(await answer("home.arpa", "DS"), "asked");
  assert.equal(await answer("www.example", "A"), "asked");
});

Deno.test("DnsResolver's records, zones and split domains take precedence over special names", async () => {
  const records = ["printer.local A 10.9.0.7"];
  assert.equal(await answer("printer.local", "A", { records }), "printer.local 60 A 10.9.0.7");
  assert.equal(await answer("other.local", "A", { records }), "NXDOMAIN local");
  const reverse = "7.0.9.10.in-addr.arpa";
  assert.equal(await answer(reverse, "PTR", { records }), `${reverse} 60 PTR printer.local`);
  const upstream = answering((name) => [address(name)]);
  const split = { "corp.local": upstream, "9.10.in-addr.arpa": upstream };
  assert.equal(await answer("a.corp.local", "A", { split }), "a.corp.local 300 A 192.0.2.7");
  assert.equal(await answer("a.local", "A", { split }), "NXDOMAIN local");
  assert.equal(await answer(reverse, "A", { split }), `${reverse} 300 A 192.0.2.7`);
  assert.equal(await answer("x.onion", "A", { split: { ".": upstream } }), "NXDOMAIN onion");
  const rig = new Rig(new DnsResolver({ address: RESOLVER, zones: "test" }));
  assert.equal((await rig.answer("x.test")).message.authorities![0]!.ttl, 60);
});

Deno.test("DnsResolver forwards the special names in `forwardSpecial`", async () => {
  assert.equal(await answer("a.local", "A", { forwardSpecial: "local" }), "asked");
  assert.equal(await answer("a.test", "A", { forwardSpecial: ["local"] }), "NXDOMAIN test");
  const one = { forwardSpecial: ["1.168.192.in-addr.arpa"] };
  assert.equal(await answer("7.1.168.192.in-addr.arpa", "PTR", one), "asked");
  assert.equal(await answer("7.2.168.192.in-addr.arpa", "PTR", one), "NXDOMAIN 168.192.in-addr.arpa");
  for (const name of ["localhost", "x.onion", "7.1.168.192.in-addr.arpa"]) {
    assert.equal(await answer(name, "A", { forwardSpecial: true }), "asked");
  }
  assert.throws(() => new DnsResolver({ address: RESOLVER, forwardSpecial: "example" }), {
    name: "TypeError",
    message: /forwardSpecial must name special-use names, got "example"/,
  });
  assert.throws(() => new DnsResolver({ address: RESOLVER, forwardSpecial: "a..b" }), SyntaxError);
});

Deno.test("DnsResolver answers special names behind an alias in its records itself", async () => {
  const records = ["a.lan CNAME localhost", "b.lan CNAME x.onion"];
  assert.equal(
    await answer("a.lan", "A", { records }),
    "a.lan 60 CNAME localhost,localhost 10800 A 127.0.0.1",
  );
  assert.equal(await answer("b.lan", "A", { records }), "b.lan 60 CNAME x.onion");
});

Deno.test("FakeIp gives special names no addresses, except those in onion", () => {
  const fakeIp = new FakeIp();
  for (
    const name of [
      ...[
        "localhost",
        "x.localhost",
        "x.alt",
        "x.invalid",
        "x.local",
        "x.test",
        "x.home.arpa",
        "resolver.arpa",
      ],
      ...PRIVATE,
      ...PUBLIC,
    ]
  ) {
    assert.equal(fakeIp.addressOf(name), undefined, name);
  }
  assert.equal(fakeIp.addressOf("x.onion"), "198.18.0.1");
});
