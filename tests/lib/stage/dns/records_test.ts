/** Local records: lines, wildcards, zones, aliases. */

import assert from "node:assert/strict";
import { type DnsRecord, DnsResolver } from "@warren/tunnel/dns";
import { RESOLVER, Rig } from "./_ask.ts";

/** Asks a resolver with these records; returns `NAME TTL TYPE DATA` of each, or the code. */
function client(records: (string | DnsRecord)[], zones: string[] = []) {
  const rig = new Rig(new DnsResolver({ address: RESOLVER, records, zones }));
  return async (name: string, type = "A") => {
    const { records, rcode, message } = await rig.answer(name, { type, edns: 1232 });
    if (records.length > 0) return records;
    return message.authorities!.length > 0 ? [rcode, message.authorities![0]!.name] : [rcode];
  };
}

Deno.test("DnsResolver parses record lines of every type", async () => {
  const ask = client([
    "a.lan A 10.0.0.1",
    "a.lan 30 IN A 10.0.0.2",
    "a.lan AAAA fd00::1",
    "b.lan cname a.lan",
    "lan MX 10 mail.a.lan.",
    "_http._tcp.lan SRV 1 2 8080 a.lan",
    'lan TXT "two words" and\\three "q\\"uote"',
    'lan CAA 0 issue "ca.example"',
    "lan NS a.lan",
    "7.0.0.10.in-addr.arpa PTR seven.lan",
    { name: "lan", type: "HINFO", ttl: 5, data: { cpu: "c", os: "o" } },
  ]);
  assert.deepEqual(await ask("a.lan"), ["a.lan 60 A 10.0.0.1", "a.lan 30 A 10.0.0.2"]);
  assert.deepEqual(await ask("a.lan", "AAAA"), ["a.lan 60 AAAA fd00::1"]);
  assert.deepEqual(await ask("b.lan"), [
    "b.lan 60 CNAME a.lan",
    "a.lan 60 A 10.0.0.1",
    "a.lan 30 A 10.0.0.2",
  ]);
  assert.deepEqual(await ask("lan", "MX"), ['lan 60 MX {"preference":10,"exchange":"mail.a.lan"}']);
  assert.deepEqual(await ask("_http._tcp.lan", "SRV"), [
    '_http._tcp.lan 60 SRV {"priority":1,"weight":2,"port":8080,"target":"a.lan"}',
  ]);
  assert.deepEqual(await ask("lan", "TXT"), ['lan 60 TXT two words|and\\three|q"uote']);
  assert.match((await ask("lan", "CAA"))[0]!, /"tag":"issue","value":"ca.example"/);
  assert.deepEqual(await ask("lan", "NS"), ["lan 60 NS a.lan"]);
  assert.deepEqual(await ask("lan", "HINFO"), ['lan 5 HINFO {"cpu":"c","os":"o"}']);
  assert.deepEqual(await ask("7.0.0.10.in-addr.arpa", "PTR"), ["7.0.0.10.in-addr.arpa 60 PTR seven.lan"]);
  assert.deepEqual(await ask("2.0.0.10.in-addr.arpa", "PTR"), ["2.0.0.10.in-addr.arpa 30 PTR a.lan"]);
  const nibbles = `1.${"0.".repeat(27)}0.0.d.f.ip6.arpa`;
  assert.deepEqual(await ask(nibbles, "PTR"), [`${nibbles} 60 PTR a.lan`]);
  // A name that is there is there with all that it has.
  assert.deepEqual(await ask("a.lan", "MX"), ["NOERROR", "a.lan"]);
  assert.deepEqual(await ask("c.lan"), ["REFUSED"]);
});

// RFC 4592 section 2.2.1, with A for the types that are not to be read from lines.
Deno.test("DnsResolver matches wildcards as RFC 4592 does", async () => {
  const ask = client([
    "*.example 3600 TXT wild",
    "*.example 3600 MX 10 host1.example",
    "sub.*.example 3600 TXT literal",
    "host1.example 3600 A 192.0.2.1",
    "_ssh._tcp.host1.example 3600 SRV 0 0 22 host1.example",
    "_ssh._tcp.host2.example 3600 SRV 0 0 22 host1.example",
  ], ["example"]);
  assert.deepEqual(await ask("host3.example", "MX"), [
    'host3.example 3600 MX {"preference":10,"exchange":"host1.example"}',
  ]);
  assert.deepEqual(await ask("host3.example", "A"), ["NOERROR", "example"]);
  assert.deepEqual(await ask("foo.bar.example", "TXT"), ["foo.bar.example 3600 TXT wild"]);
  assert.deepEqual(await ask("host1.example", "MX"), ["NOERROR", "example"]);
  assert.deepEqual(await ask("sub.*.example", "MX"), ["NOERROR", "example"]);
  assert.deepEqual(await ask("_telnet._tcp.host1.example", "SRV"), ["NXDOMAIN", "example"]);
  assert.deepEqual(await ask("host2.example", "TXT"), ["NOERROR", "example"]);
  assert.deepEqual(await ask("ghost.*.example", "MX"), ["NXDOMAIN", "example"]);
});

Deno.test("DnsResolver answers NXDOMAIN for other names of its zones, including targets of aliases", async () => {
  const ask = client(["a.b.lan A 10.0.0.1", "x.lan CNAME nothing.lan"], ["lan", "deep.lan"]);
  assert.deepEqual(await ask("other.lan"), ["NXDOMAIN", "lan"]);
  assert.deepEqual(await ask("y.deep.lan"), ["NXDOMAIN", "deep.lan"]);
  assert.deepEqual(await ask("b.lan"), ["NOERROR", "lan"]);
  assert.deepEqual(await ask("lan.example"), ["REFUSED"]);
  const rig = new Rig(
    new DnsResolver({ address: RESOLVER, records: ["x.lan CNAME nothing.lan"], zones: ["lan"] }),
  );
  const { rcode, records } = await rig.answer("x.lan");
  assert.deepEqual([rcode, records], ["NXDOMAIN", ["x.lan 60 CNAME nothing.lan"]]);
});

Deno.test("DnsResolver does not follow loops of aliases", async () => {
  const ask = client(["a.lan CNAME b.lan", "b.lan CNAME a.lan"]);
  assert.deepEqual(await ask("a.lan"), ["SERVFAIL"]);
});

Deno.test("DnsResolver truncates an answer with more records than a message holds", async () => {
  const records = Array.from({ length: 5000 }, (_, i) => `a.lan A 10.0.${i >> 8}.${i & 255}`);
  const rig = new Rig(new DnsResolver({ address: RESOLVER, records }));
  const answer = await rig.answer("a.lan", { edns: 4096 });
  assert.deepEqual([answer.isTruncated, answer.records], [true, []]);
});

Deno.test("DnsResolver rejects invalid records", () => {
  const syntax = [
    "",
    "a.lan",
    "a.lan A",
    "a..b A 10.0.0.1",
    "a.lan A 10.0.0.1 10.0.0.2",
    "a.lan A 10.0.0",
    "a.lan MX x mail.lan",
    "a.lan MX 70000 mail.lan",
    "a.lan SRV 1 2 3",
    "a.lan CNAME b..c",
    "a.lan HINFO a b",
    "a.lan CNAME b\\.c.lan",
    `a.lan TXT ${"x".repeat(256)}`,
    `${"x".repeat(64)}.lan A 10.0.0.1`,
  ];
  const make = (records: (string | DnsRecord)[]) => () => new DnsResolver({ address: RESOLVER, records });
  for (const line of syntax) assert.throws(make([line]), SyntaxError, line);
  assert.throws(make(["a.lan A fd00::1"]), TypeError);
  assert.throws(make(["a.lan A 10.0.0.1", "a.lan CNAME b.lan"]), TypeError);
  assert.throws(make(["a.lan CNAME c.lan", "a.lan CNAME b.lan"]), TypeError);
  assert.throws(make([{ name: "a.lan", type: "MX", data: 7 }]), TypeError);
  assert.throws(make([{ name: "a.lan", type: "A", data: "10.0.0.1", ttl: -1 }]), RangeError);
  assert.throws(make(["a.lan 4294967295 A 10.0.0.1"]), RangeError);
});
