/** Resolver: order of sources, and queries that wait for upstreams. */

import assert from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { BlockList, decodeMessage, DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { encodePacket, formatPacket } from "../../../kit/packet_text.ts";
import {
  address,
  answering,
  packetTo,
  PlayedUpstream,
  queryOf,
  reply,
  RESOLVER,
  RESOLVER6,
  Rig,
  soa,
} from "./_ask.ts";

const RECURSION_AVAILABLE = 0x0080;
const AUTHENTIC = 0x0020;

Deno.test("DnsResolver answers with the id, the case and the ports of the query, over IPv4 and IPv6", async () => {
  const upstream = answering((name) => [address(name)]);
  const rig = new Rig(new DnsResolver({ address: [RESOLVER, RESOLVER6], upstream }));
  const four = await rig.answer("wWw.ExAmPle.com", { id: 0xbeef });
  assert.equal(four.message.id, 0xbeef);
  assert.equal(four.message.questions![0]!.name, "wWw.ExAmPle.com");
  assert.equal(four.route, "10.9.0.53:53 > 10.9.0.1:5000");
  assert.equal((four.message.flags! & RECURSION_AVAILABLE) !== 0, true);
  const six = await rig.answer("www.example.com", { dst: RESOLVER6, src: "fd09::7", srcPort: 6000 });
  assert.equal(six.route, "fd09::53:53 > fd09::7:6000");
  assert.deepEqual(six.records, ["www.example.com 300 A 192.0.2.7"]);
});

Deno.test("DnsResolver passes other packets in both directions", () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER }));
  const lines = [
    'udp 10.9.0.1:5000 > 10.9.0.54:53 "not the address"',
    'udp 10.9.0.1:5000 > 10.9.0.53:54 "not the port"',
    "icmp 10.9.0.1 > 10.9.0.53 type 8 id 1 seq 1",
    "tcp 10.9.0.1:5000 > 10.9.0.53:80 S",
    'udp [fd09::1]:5000 > [fd09::53]:53 "not the family"',
  ];
  for (const direction of [Direction.Outbound, Direction.Inbound]) {
    for (const line of lines) rig.test.send(direction, encodePacket(line));
    rig.test.settle();
    const { far, device } = rig.test.receive();
    assert.deepEqual((direction === Direction.Outbound ? far : device).map(formatPacket), lines);
  }
});

Deno.test("DnsResolver answers queries from the far end towards the far end", async () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER, records: ["router.lan A 10.9.0.1"] }));
  rig.test.send(Direction.Inbound, packetTo(queryOf("router.lan"), {}));
  await rig.turns();
  assert.equal(rig.test.receive().far.length, 1);
});

Deno.test("DnsResolver without TCP connections refuses them with RST", () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER, connections: 0 }));
  rig.test.send(Direction.Outbound, encodePacket("tcp 10.9.0.1:5000 > 10.9.0.53:53 S seq 100 mss 1460"));
  rig.test.send(Direction.Outbound, encodePacket('tcp 10.9.0.1:5000 > 10.9.0.53:53 A seq 100 ack 77 "data"'));
  rig.test.send(Direction.Outbound, encodePacket("tcp 10.9.0.1:5000 > 10.9.0.53:53 R seq 100"));
  rig.test.settle();
  assert.deepEqual(rig.test.receive().device.map(formatPacket), [
    "tcp 10.9.0.53:53 > 10.9.0.1:5000 RA ack 101 window 0",
    "tcp 10.9.0.53:53 > 10.9.0.1:5000 R seq 77 window 0",
  ]);
  assert.deepEqual(rig.dropped, { "no DNS over TCP": 1 });
  assert.ok(rig.test.balanced);
});

Deno.test("DnsResolver limits the rate of RST", () => {
  const rate = { ratePerSecond: 1, burst: 5 };
  const errors = new IcmpErrors({ ...rate, perDestination: rate, random: () => 1 });
  const rig = new Rig(new DnsResolver({ address: RESOLVER, errors, connections: 0 }));
  for (let i = 0; i < 50; i++) {
    rig.test.send(Direction.Outbound, encodePacket(`tcp 10.9.0.1:${5000 + i} > 10.9.0.53:53 S`));
  }
  rig.test.settle();
  assert.equal(rig.test.receive().device.length, 5);
  assert.deepEqual([errors.answered, errors.rateLimited, rig.dropped], [5, 45, { "no DNS over TCP": 45 }]);
});

Deno.test("DnsResolver asks the sources in order: records, block lists, synthetic addresses, upstreams", async () => {
  const names = ["a.example", "b.example", "c.example"];
  const resolver = new DnsResolver({
    address: RESOLVER,
    records: names.slice(0, 1).map((name) => `${name} A 10.0.0.1`),
    block: new BlockList(names.slice(0, 2)),
    fakeIp: new FakeIp({ except: ["real.example"] }),
    upstream: answering((name) => [address(name)]),
  });
  const rig = new Rig(resolver);
  assert.deepEqual((await rig.answer("a.example")).records, ["a.example 60 A 10.0.0.1"]);
  assert.equal((await rig.answer("x.b.example")).rcode, "NXDOMAIN");
  assert.deepEqual((await rig.answer("c.example")).records, ["c.example 5 A 198.18.0.1"]);
  assert.deepEqual((await rig.answer("real.example")).records, ["real.example 300 A 192.0.2.7"]);
  const { records, blocked, fakes, upstreamQueries, queries } = resolver.counters;
  assert.deepEqual({ records, blocked, fakes, upstreamQueries, queries }, {
    records: 1,
    blocked: 1,
    fakes: 1,
    upstreamQueries: 1,
    queries: 4,
  });
});

Deno.test("DnsResolver answers blocked names with `blockAnswer`, and other types with no records", async () => {
  const block = new BlockList(["ads.example"]);
  const cases = [
    ["nxdomain", "NXDOMAIN", [], []],
    ["null", "NOERROR", ["ads.example 9 A 0.0.0.0"], ["ads.example 9 AAAA ::"]],
    [["10.0.0.1", "10.0.0.2"], "NOERROR", ["ads.example 9 A 10.0.0.1", "ads.example 9 A 10.0.0.2"], []],
  ] as const;
  for (const [blockAnswer, rcode, ipv4, ipv6] of cases) {
    const rig = new Rig(new DnsResolver({ address: RESOLVER, block, blockAnswer, blockTtl: 9 }));
    const a = await rig.answer("ads.example");
    assert.deepEqual([a.rcode, a.records], [rcode, ipv4]);
    const aaaa = await rig.answer("ads.example", { type: "AAAA" });
    assert.deepEqual([aaaa.rcode, aaaa.records], [rcode, ipv6]);
    const txt = await rig.answer("ads.example", { type: "TXT" });
    assert.deepEqual([txt.rcode, txt.records, txt.message.authorities!.length], [rcode, [], 1]);
  }
});

Deno.test("DnsResolver does not block what is allowed", async () => {
  const upstream = answering((name) => [address(name)]);
  const block = new BlockList(["example"]);
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, block, allow: ["good.example"] }));
  assert.equal((await rig.answer("bad.example")).rcode, "NXDOMAIN");
  assert.equal((await rig.answer("www.good.example")).rcode, "NOERROR");
});

Deno.test("DnsResolver asks the longest domain's upstream, whose names get no synthetic addresses", async () => {
  const by = (data: string) => answering((name) => [address(name, data)]);
  const rig = new Rig(
    new DnsResolver({
      address: RESOLVER,
      upstream: by("192.0.2.1"),
      split: { "corp.example": by("192.0.2.2"), "eu.corp.example": [by("192.0.2.3")] },
      fakeIp: new FakeIp(),
    }),
  );
  assert.deepEqual((await rig.answer("a.corp.example")).records, ["a.corp.example 300 A 192.0.2.2"]);
  assert.deepEqual((await rig.answer("corp.example")).records, ["corp.example 300 A 192.0.2.2"]);
  assert.deepEqual((await rig.answer("a.EU.corp.example")).records, ["a.eu.corp.example 300 A 192.0.2.3"]);
  assert.deepEqual((await rig.answer("notcorp.example")).records, ["notcorp.example 5 A 198.18.0.1"]);
});

Deno.test("DnsResolver holds queries while an upstream is asked, joins equal ones and drops repeated ones", async () => {
  const upstream = new PlayedUpstream();
  const resolver = new DnsResolver({ address: RESOLVER, upstream });
  const rig = new Rig(resolver);
  rig.ask("www.example", { id: 1 });
  rig.ask("WWW.example", { id: 1 });
  rig.ask("wwW.example", { id: 2 });
  rig.ask("www.example", { id: 1, srcPort: 5001 });
  rig.ask("www.example", { id: 1, src: "10.9.0.2" });
  assert.deepEqual(rig.answers(), []);
  assert.equal(rig.test.pipeline.queued, 4);
  assert.equal(upstream.queries.length, 1);
  upstream.answer([address("www.example")]);
  await rig.turns();
  const answers = rig.answers();
  assert.deepEqual(answers.map(({ route, message: { id } }) => `${route} ${id}`), [
    "10.9.0.53:53 > 10.9.0.1:5000 1",
    "10.9.0.53:53 > 10.9.0.1:5000 2",
    "10.9.0.53:53 > 10.9.0.1:5001 1",
    "10.9.0.53:53 > 10.9.0.2:5000 1",
  ]);
  assert.deepEqual(answers.map(({ message }) => message.questions![0]!.name), [
    "www.example",
    "wwW.example",
    "www.example",
    "www.example",
  ]);
  assert.deepEqual(rig.dropped, { "repeated query": 1 });
  assert.deepEqual([resolver.counters.joined, resolver.counters.repeated], [3, 1]);
});

Deno.test("DnsResolver asks upstreams with id 0, lower case, EDNS and without the client's options", () => {
  const upstream = new PlayedUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
  rig.ask("WWW.example", { id: 77, edns: 4096, dnssecOk: true });
  const { id, questions, additionals } = decodeMessage(upstream.queries[0]!.message)!;
  assert.deepEqual([id, questions![0]!.name, additionals!.length], [0, "www.example", 1]);
  const opt = additionals![0]! as unknown as { udpPayloadSize: number; flag_do: boolean };
  assert.deepEqual([opt.udpPayloadSize, opt.flag_do], [1232, true]);
  // A client that does not want DNSSEC records does not share a query with one that does.
  rig.ask("www.example");
  assert.equal(upstream.queries.length, 2);
});

Deno.test("DnsResolver asks the next upstream after a failure, a timeout or a malformed answer, then answers SERVFAIL", async () => {
  const upstreams = [new PlayedUpstream(), new PlayedUpstream(), new PlayedUpstream(), new PlayedUpstream()];
  const [failing, late, odd, refusing] = upstreams as [
    PlayedUpstream,
    PlayedUpstream,
    PlayedUpstream,
    PlayedUpstream,
  ];
  const resolver = new DnsResolver({ address: RESOLVER, upstream: upstreams, timeout: 500 });
  const rig = new Rig(resolver);
  rig.ask("www.example");
  failing.fail();
  await rig.turns();
  assert.equal(late.queries.length, 1);
  assert.equal(rig.test.pipeline.due, 500);
  rig.after(500);
  assert.equal(late.queries[0]!.signal.aborted, true);
  assert.equal(odd.queries.length, 1);
  // A late answer is ignored.
  late.answer([address("www.example", "192.0.2.66")]);
  odd.say(Uint8Array.of(1, 2, 3));
  await rig.turns();
  assert.deepEqual(rig.answers(), []);
  refusing.answer([], { rcode: "REFUSED" });
  await rig.turns();
  const [answer] = rig.answers();
  assert.equal(answer!.rcode, "REFUSED");
  const { upstreamQueries, upstreamFailures, badAnswers, unanswered } = resolver.counters;
  assert.deepEqual({ upstreamQueries, upstreamFailures, badAnswers, unanswered }, {
    upstreamQueries: 4,
    upstreamFailures: 4,
    badAnswers: 1,
    unanswered: 1,
  });
  // Nobody is asked again at once.
  assert.equal((await rig.answer("www.example")).rcode, "SERVFAIL");
  assert.equal(failing.queries.length, 1);
  rig.after(1000);
  rig.ask("www.example");
  assert.equal(failing.queries.length, 2);
});

Deno.test("DnsResolver rejects answers to another question, of another type, and other messages", async () => {
  for (const change of ["name", "type", "query", "count", "class"]) {
    const upstream = {
      query: (message: Uint8Array) => {
        const bytes = message.slice();
        bytes[2]! |= 0x80;
        if (change === "name") bytes[13] = 0x78;
        if (change === "type") bytes[bytes.length - 11 - 3] = 28;
        if (change === "class") bytes[bytes.length - 11 - 1] = 3;
        if (change === "query") bytes[2]! &= 0x7f;
        if (change === "count") bytes[5] = 2;
        return Promise.resolve(bytes);
      },
    };
    const resolver = new DnsResolver({ address: RESOLVER, upstream });
    assert.equal((await new Rig(resolver).answer("www.example")).rcode, "SERVFAIL", change);
    assert.equal(resolver.counters.badAnswers, 1, change);
  }
});

Deno.test("DnsResolver removes bytes after an answer's records", async () => {
  const resolver = new DnsResolver({
    address: RESOLVER,
    upstream: {
      query: (message) =>
        Promise.resolve(Uint8Array.of(...reply(message, [address("a.example")]), ...Array(20).fill(0xff))),
    },
  });
  const { bytes, records, message } = await new Rig(resolver).answer("a.example", { edns: 1232 });
  assert.deepEqual(records, ["a.example 300 A 192.0.2.7"]);
  assert.equal(message.additionals?.[0]?.type, "OPT");
  // Header, question, record, EDNS.
  assert.equal(bytes.length, 12 + 15 + 25 + 11);
});

Deno.test("DnsResolver survives an upstream that throws at once or answers with something else", async () => {
  for (const said of [undefined, null, 7, "text", []]) {
    const upstream = {
      query: () => {
        if (said === undefined) throw new Error("at once");
        return Promise.resolve(said as unknown as Uint8Array);
      },
    };
    assert.equal(
      (await new Rig(new DnsResolver({ address: RESOLVER, upstream })).answer("a.example")).rcode,
      "SERVFAIL",
    );
  }
});

Deno.test("DnsResolver bounds the questions that it asks and the queries that it holds", async () => {
  const upstream = new PlayedUpstream();
  const resolver = new DnsResolver({ address: RESOLVER, upstream, inFlight: 2, waiting: 3 });
  const rig = new Rig(resolver);
  for (const [i, name] of ["a", "b", "c", "a", "a"].entries()) rig.ask(name, { id: i });
  assert.deepEqual(rig.answers().map(({ rcode, message: { id } }) => `${id} ${rcode}`), [
    "2 SERVFAIL",
    "4 SERVFAIL",
  ]);
  assert.equal(rig.test.pipeline.queued, 3);
  upstream.answer([address("a")]);
  upstream.answer([address("b")]);
  await rig.turns();
  assert.equal(rig.answers().length, 3);
  rig.ask("c");
  assert.equal(upstream.queries.length, 3);
});

Deno.test("DnsResolver truncates answers that are too long for the client, and keeps EDNS", async () => {
  const long = {
    name: "long.example",
    type: "TXT",
    ttl: 60,
    data: Array.from({ length: 3 }, () => "x".repeat(250)),
  };
  const resolver = new DnsResolver({ address: RESOLVER, upstream: answering(() => [long]) });
  const rig = new Rig(resolver);
  const plain = await rig.answer("long.example", { type: "TXT" });
  assert.deepEqual([plain.isTruncated, plain.records, plain.message.additionals], [true, [], []]);
  const wide = await rig.answer("long.example", { type: "TXT", edns: 1232 });
  assert.deepEqual([wide.isTruncated, wide.records.length, wide.message.additionals!.length], [false, 1, 1]);
  const narrow = await rig.answer("long.example", { type: "TXT", edns: 100 });
  assert.deepEqual([narrow.isTruncated, narrow.records, narrow.message.additionals!.length], [true, [], 1]);
  assert.equal(resolver.counters.truncated, 2);
});

Deno.test("DnsResolver answers FORMERR, NOTIMP, REFUSED and BADVERS, and drops messages that are not queries", () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER }));
  const change = (at: number, value: number, asking = {}): Uint8Array => {
    const query = queryOf("a.example", asking);
    query[at < 0 ? query.length + at : at] = value;
    return query;
  };
  const cases: [Uint8Array, string][] = [
    [change(2, 0x20), "NOTIMP"],
    [change(5, 2), "FORMERR"],
    [change(7, 1), "FORMERR"],
    [change(12, 0xc0), "FORMERR"],
    [queryOf("a.example").subarray(0, -1), "FORMERR"],
    [change(-1, 3), "REFUSED"],
    [queryOf("a.example", { type: "AXFR" }), "REFUSED"],
    [queryOf("a.example"), "REFUSED"],
  ];
  for (const [query, rcode] of cases) {
    rig.test.send(Direction.Outbound, packetTo(query));
    const [answer] = rig.answers();
    assert.deepEqual([answer!.rcode, answer!.message.id], [rcode, 7]);
  }
  // The version stands behind the extended code, before the flags and the length of the options.
  rig.test.send(Direction.Outbound, packetTo(change(-5, 1, { edns: 1232 })));
  const [answer] = rig.answers();
  assert.equal((answer!.message.additionals![0] as unknown as { extendedRcode: number }).extendedRcode, 1);
  for (const silent of [change(2, 0x81), Uint8Array.of(0, 1, 2), new Uint8Array()]) {
    rig.test.send(Direction.Outbound, packetTo(silent));
  }
  assert.deepEqual(rig.answers(), []);
  assert.deepEqual(rig.dropped, { "not a query": 3 });
});

Deno.test("DnsResolver drops queries with a wrong checksum, from port 0, and fragments", () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER }));
  const wrong = packetTo(queryOf("a.example"));
  wrong[wrong.length - 1]! ^= 1;
  rig.test.send(Direction.Outbound, wrong);
  rig.test.send(
    Direction.Outbound,
    encodePacket("ip 10.9.0.1 > 10.9.0.53 protocol 17 ident 7 more bytes 1388003500080000"),
  );
  rig.ask("a.example", { srcPort: 0 });
  assert.deepEqual(rig.answers(), []);
  assert.deepEqual(rig.dropped, { "bad checksum": 1, "fragment of a query": 1, "from port 0": 1 });
});

Deno.test("DnsResolver answers queries with partial checksums, and each query of a super-packet", () => {
  const rig = new Rig(
    new DnsResolver({ address: RESOLVER, records: ["a.lan A 10.0.0.1", "b.lan A 10.0.0.2"] }),
  );
  const queries = [queryOf("a.lan", { id: 1 }), queryOf("b.lan", { id: 2 }), queryOf("a.lan", { id: 3 })];
  const joined = Uint8Array.from(queries.flatMap((query) => [...query]));
  const packet = rig.test.pool.from(packetTo(joined))!;
  packet.segmentSize = queries[0]!.length;
  packet.checksumStart = 20;
  packet.checksumOffset = 6;
  packet.view.setUint16(packet.offset + 26, 0x1234);
  packet.from = 5;
  rig.test.pipeline.outbound[0]!.push(packet);
  rig.test.pipeline.ledger.counters.outbound.packetsIn++;
  const answers = rig.answers();
  assert.deepEqual(answers.map(({ message: { id }, records: [record] }) => `${id} ${record}`), [
    "1 a.lan 60 A 10.0.0.1",
    "2 b.lan 60 A 10.0.0.2",
    "3 a.lan 60 A 10.0.0.1",
  ]);
});

Deno.test("DnsResolver sends an answer to the peer that asked, with its mark", () => {
  const rig = new Rig(new DnsResolver({ address: RESOLVER, records: ["a.lan A 10.0.0.1"] }));
  const packet = rig.test.pool.from(packetTo(queryOf("a.lan")))!;
  packet.from = 5;
  packet.mark = 9;
  rig.test.pipeline.fromFar.push(packet);
  rig.test.settle();
  const [answer] = rig.test.pipeline.forFar;
  assert.deepEqual([answer!.to, answer!.mark], [5, 9]);
});

Deno.test("DnsResolver follows an alias in its records to a name that upstreams resolve", async () => {
  const upstream = answering((name) => [
    { name, type: "CNAME", ttl: 50, data: "host.example" },
    address("host.example"),
  ]);
  const records = ["a.lan 9 CNAME b.lan", "b.lan CNAME www.example"];
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, records }));
  const expected = [
    "A.lan 9 CNAME b.lan",
    "b.lan 60 CNAME www.example",
    "www.example 50 CNAME host.example",
    "host.example 300 A 192.0.2.7",
  ];
  assert.deepEqual((await rig.answer("A.lan")).records, expected);
  rig.after(10_000);
  const later = await rig.answer("A.lan");
  assert.deepEqual(later.records.slice(2), [
    "www.example 40 CNAME host.example",
    "host.example 290 A 192.0.2.7",
  ]);
});

Deno.test("DnsResolver includes the SOA of a negative answer behind an alias in its records", async () => {
  // Flags 3: NXDOMAIN.
  const upstream = answering(() => [], { flags: 3, authorities: [soa("example", 70, 30)] });
  const rig = new Rig(
    new DnsResolver({ address: RESOLVER, upstream, records: ["a.lan CNAME gone.example"] }),
  );
  const { rcode, records, message } = await rig.answer("a.lan");
  assert.deepEqual([rcode, records], ["NXDOMAIN", ["a.lan 60 CNAME gone.example"]]);
  assert.deepEqual(message.authorities!.map(({ name, type }) => [name, type]), [["example", "SOA"]]);
});

Deno.test("DnsResolver drops queries whose source is not a host", () => {
  const rig = new Rig(new DnsResolver({ address: [RESOLVER, RESOLVER6], records: ["a.lan A 10.9.0.1"] }));
  for (const src of ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]) rig.ask("a.lan", { src });
  for (const src of ["::", "::1", "ff02::1"]) rig.ask("a.lan", { src, dst: RESOLVER6 });
  rig.test.send(Direction.Outbound, encodePacket("tcp 224.0.0.1:5000 > 10.9.0.53:53 S"));
  assert.deepEqual(rig.answers(), []);
  assert.deepEqual(rig.dropped, { "martian source": 8 });
});

Deno.test("DnsResolver answers SERVFAIL at once after close(), and asks no upstream", async () => {
  const resolver = new DnsResolver({ address: RESOLVER, upstream: answering((name) => [address(name)]) });
  resolver.close();
  const rig = new Rig(resolver);
  assert.equal((await rig.answer("www.example")).rcode, "SERVFAIL");
  assert.equal(resolver.counters.upstreamQueries, 0);
});

Deno.test("DnsResolver truncates an answer that is too long behind its aliases without parsing it", async () => {
  const resolver = new DnsResolver({
    address: RESOLVER,
    records: ["www.lan CNAME www.example"],
    upstream: answering((name) => Array(300).fill(address(name))),
  });
  const { isTruncated, rcode, records } = await new Rig(resolver).answer("www.lan", { edns: 4096 });
  assert.deepEqual([isTruncated, rcode, records], [true, "NOERROR", []]);
  assert.equal(resolver.counters.badAnswers, 0);
});

Deno.test("DnsResolver answers SERVFAIL for names behind its aliases that cannot be encoded", async () => {
  const upstream = {
    query: (message: Uint8Array) => {
      const bytes = reply(message, [{ name: "x.example", type: "CNAME", ttl: 9, data: "y.example" }]);
      const at = bytes.findLastIndex((byte, i) => byte === 1 && bytes[i + 1] === 0x79);
      bytes[at + 1] = 0x2e;
      return Promise.resolve(bytes);
    },
  };
  const resolver = new DnsResolver({ address: RESOLVER, upstream, records: ["a.lan CNAME x.example"] });
  assert.equal((await new Rig(resolver).answer("a.lan")).rcode, "SERVFAIL");
  assert.equal(resolver.counters.badAnswers, 1);
});

Deno.test("DnsResolver sets AD only for clients that know it", async () => {
  const upstream = answering((name) => [address(name)], { flags: AUTHENTIC });
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
  const flags = async (asking: object) =>
    ((await rig.answer("a.example", asking)).message.flags! & AUTHENTIC) !== 0;
  assert.equal(await flags({}), false);
  assert.equal(await flags({ flags: 0x0120 }), true);
  assert.equal(await flags({ edns: 1232, dnssecOk: true }), true);
});

Deno.test("DnsResolver.close() aborts upstreams and gives back the waiting queries", async () => {
  const upstream = new PlayedUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
  rig.ask("a.example");
  rig.test.pipeline.close();
  assert.equal(upstream.queries[0]!.signal.aborted, true);
  upstream.answer([address("a.example")]);
  await Promise.resolve();
  assert.ok(rig.test.balanced);
  assert.deepEqual(rig.dropped, { closed: 1 });
});

Deno.test("DnsResolver in several workers gives synthetic addresses in the first one", () => {
  const sent: [number, Direction][] = [];
  const others = {
    place: { index: 1, count: 2 },
    send: (_packet: unknown, worker: number, _stage: number, direction: Direction) =>
      sent.push([worker, direction]) > 0,
  };
  const rig = new Rig(
    ...([new DnsResolver({ address: RESOLVER, fakeIp: new FakeIp() }), { others }] as unknown as [
      DnsResolver,
    ]),
  );
  rig.ask("a.example");
  assert.deepEqual(rig.answers(), []);
  assert.deepEqual(sent, [[0, Direction.Outbound]]);
});

Deno.test("DnsResolver.restore() restores cache and names, and answers as before", async () => {
  const upstream = new PlayedUpstream();
  const make = () =>
    new DnsResolver({ address: RESOLVER, upstream, fakeIp: new FakeIp({ except: ["real.example"] }) });
  const first = make();
  const before = new Rig(first);
  before.ask("a.real.example");
  upstream.answer([address("a.real.example")]);
  await before.turns();
  before.answers();
  await before.answer("x.example");
  before.after(20_000);
  const saved = JSON.parse(JSON.stringify(first.save()));
  const second = make();
  const after = new Rig(second);
  second.restore(saved);
  assert.deepEqual((await after.answer("y.example")).records, ["y.example 5 A 198.18.0.2"]);
  assert.deepEqual((await after.answer("x.example")).records, ["x.example 5 A 198.18.0.1"]);
  assert.deepEqual((await after.answer("a.real.example")).records, ["a.real.example 280 A 192.0.2.7"]);
  assert.equal(upstream.queries.length, 1);
  for (
    const state of [undefined, null, 7, {}, { cache: [], fakeIp: null }, {
      cache: [[1]],
      fakeIp: saved.fakeIp,
    }]
  ) {
    assert.throws(() => make().restore(state), TypeError);
  }
  const [[key, message, age, left]] = saved.cache;
  const broken = [[7, message, age, left], [key, 1234, age, left], [key, message, `${age}`, left]];
  broken.push([key, message, age, "5"], [key, message, Infinity, left], [key, message, age, Infinity]);
  for (const entry of broken) {
    assert.throws(() => make().restore({ ...saved, cache: [entry] }), /Cannot restore a resolver/);
  }
  const unchanged = make();
  assert.throws(() => unchanged.restore({ ...saved, fakeIp: {} }), TypeError);
  assert.equal(unchanged.cacheSize, 0);
  const patient = make();
  patient.restore({ ...saved, cache: [[key, message, 0, 1e300]] });
  const later = new Rig(patient);
  later.after(86_400_000);
  later.ask("a.real.example");
  assert.equal(patient.cacheSize, 0);
});

Deno.test("DnsResolver with `prefetch` refreshes an answer before it expires", async () => {
  const upstream = new PlayedUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, cache: { prefetch: true } }));
  rig.ask("a.example");
  upstream.answer([address("a.example", "192.0.2.1", 100)]);
  await rig.turns();
  rig.answers();
  rig.after(89_000);
  await rig.answer("a.example");
  assert.equal(upstream.queries.length, 1);
  rig.after(2000);
  assert.deepEqual((await rig.answer("a.example")).records, ["a.example 9 A 192.0.2.1"]);
  assert.equal(upstream.queries.length, 2);
  upstream.answer([address("a.example", "192.0.2.2", 100)]);
  await rig.turns();
  assert.deepEqual((await rig.answer("a.example")).records, ["a.example 100 A 192.0.2.2"]);
});

Deno.test("DnsResolver serves stale answers with a TTL of 30 s while no upstream answers", async () => {
  const upstream = new PlayedUpstream();
  const resolver = new DnsResolver({ address: RESOLVER, upstream, cache: { stale: 3_600_000 } });
  const rig = new Rig(resolver);
  rig.ask("a.example");
  upstream.answer([address("a.example", "192.0.2.1", 100)]);
  await rig.turns();
  rig.answers();
  rig.after(200_000);
  rig.ask("a.example");
  assert.deepEqual(rig.answers(), []);
  upstream.fail();
  await rig.turns();
  assert.deepEqual(rig.answers().map(({ records }) => records), [["a.example 30 A 192.0.2.1"]]);
  assert.equal(resolver.counters.stale, 1);
  rig.after(3_700_000);
  rig.ask("a.example");
  upstream.fail();
  await rig.turns();
  assert.equal(rig.answers()[0]!.rcode, "SERVFAIL");
});

Deno.test("DnsResolver caches negative answers by their SOA, and none without one", async () => {
  const upstream = new PlayedUpstream();
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream }));
  const ask = async (name: string, authorities: ReturnType<typeof soa>[], rcode: string) => {
    const before = upstream.queries.length;
    rig.ask(name);
    if (upstream.queries.length > before) upstream.answer([], { authorities, rcode });
    await rig.turns();
    assert.equal(rig.answers()[0]!.rcode, rcode);
    return upstream.queries.length - before;
  };
  assert.equal(await ask("a.example", [soa("example", 900, 60)], "NXDOMAIN"), 1);
  rig.after(59_000);
  assert.equal(await ask("a.example", [soa("example", 900, 60)], "NXDOMAIN"), 0);
  rig.after(1000);
  assert.equal(await ask("a.example", [soa("example", 30, 60)], "NXDOMAIN"), 1);
  rig.after(30_000);
  assert.equal(await ask("a.example", [], "NXDOMAIN"), 1);
  assert.equal(await ask("a.example", [], "NXDOMAIN"), 1);
  assert.equal(await ask("b.example", [soa("example", 900, 60)], "NOERROR"), 1);
  assert.equal(await ask("b.example", [soa("example", 900, 60)], "NOERROR"), 0);
});

Deno.test("DnsResolver rejects invalid options", () => {
  const upstream = new PlayedUpstream();
  assert.throws(() => new DnsResolver({ address: [] }), TypeError);
  assert.throws(() => new DnsResolver({ address: "10.9.0" }), SyntaxError);
  for (
    const wrong of [{ timeout: 0 }, { inFlight: 0 }, { waiting: 1.5 }, { answerLimit: 1453 }, {
      blockTtl: -1,
    }]
  ) {
    assert.throws(() => new DnsResolver({ address: RESOLVER, upstream, ...wrong }), RangeError);
  }
  assert.throws(() => new DnsResolver({ address: RESOLVER, cache: { entries: -1 } }), RangeError);
  assert.throws(() => new DnsResolver({ address: RESOLVER, split: { "a..b": upstream } }), SyntaxError);
  assert.throws(() => new DnsResolver({ address: RESOLVER, blockAnswer: ["nowhere"] }), SyntaxError);
  const mistyped: [options: object, message: RegExp][] = [
    [
      { blockAnswer: "NXDOMAIN" },
      /^Cannot resolve names: blockAnswer must be "nxdomain", "null" or an array of addresses, got "NXDOMAIN"$/,
    ],
    [{ blockAnswer: "0.0.0.0" }, /an array of addresses, got "0\.0\.0\.0"$/],
    [{ block: ["ads.example"] }, /block must be a BlockList, got "ads.example"/],
    [
      { upstream: "192.0.2.1" },
      /upstream must be an object with query\(\), got "192.0.2.1": write parseUpstream/,
    ],
    [{ split: { lan: ["192.0.2.1"] } }, /upstream must be an object with query\(\)/],
    [{ fakeIp: {} }, /fakeIp must be a FakeIp, got an object$/],
    [{ cache: { entires: 5 } }, /there is no option "entires"/],
  ];
  for (const [options, message] of mistyped) {
    assert.throws(() => new DnsResolver({ address: RESOLVER, ...options }), {
      name: "TypeError",
      message,
    });
  }
  assert.throws(() => new DnsResolver({ address: RESOLVER, cache: { entries: "5" as never } }), TypeError);
});

Deno.test("DnsResolver takes a single record and zone", async () => {
  const resolver = new DnsResolver({ address: RESOLVER, records: "a.lan A 10.9.0.1", zones: "lan" });
  const rig = new Rig(resolver);
  assert.deepEqual((await rig.answer("a.lan")).records, ["a.lan 60 A 10.9.0.1"]);
  assert.equal((await rig.answer("b.lan")).rcode, "NXDOMAIN");
});
