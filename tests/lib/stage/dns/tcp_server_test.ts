/** DNS over TCP: answers of any length, unreliable networks, misbehaving clients. */

import assert from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { decodeMessage, DnsResolver, type DnsResolverOptions, FakeIp } from "@warren/tunnel/dns";
import { Random } from "../../../../lib/core/random.ts";
import { address, answering, PlayedUpstream, queryOf, RESOLVER, RESOLVER6, Rig } from "./_ask.ts";
import { type ClientOptions, readSegment, segmentTo, TcpClient } from "./_tcp_client.ts";

const TXT = (name: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({ name, type: "TXT", ttl: 60, data: [`${i}`.padEnd(230, "x")] }));

function rigOf(options: Partial<DnsResolverOptions> = {}) {
  const upstream = answering((name, type) =>
    type === "TXT" ? TXT(name, Number(/\d+/.exec(name)?.[0])) : [address(name)]
  );
  const resolver = new DnsResolver({ address: [RESOLVER, RESOLVER6], upstream, ...options });
  return { resolver, rig: new Rig(resolver) };
}

function read(bytes: Uint8Array) {
  const { id, answers, flags } = decodeMessage(bytes)!;
  return { id, count: answers!.length, isTruncated: (flags! & 0x0200) !== 0 };
}

/** Sends a segment, and takes what comes back. */
async function exchange(rig: Rig, fields: Parameters<typeof segmentTo>[0], options: ClientOptions = {}) {
  rig.test.send(Direction.Outbound, segmentTo(fields, options));
  rig.test.settle();
  await rig.turns();
  return rig.test.receive().device.map(readSegment);
}

/** Opens a connection by hand; returns the number of the resolver's first byte. */
async function open(rig: Rig, seq: number, options: ClientOptions = {}): Promise<number> {
  const [synAck] = await exchange(rig, { seq, flags: "S" }, { mss: 1460, ...options });
  assert.equal(synAck!.flags, "SA");
  const ack = synAck!.seq + 1 >>> 0;
  const sent = await exchange(rig, { seq: seq + 1, ack, flags: "A" }, options);
  assert.deepEqual(sent.filter(({ dst }) => dst === (options.src ?? "10.9.0.1")), []);
  return ack;
}

const framed = (message: Uint8Array) => Uint8Array.of(message.length >> 8, message.length & 255, ...message);

Deno.test("DnsResolver answers over TCP, over IPv4 and IPv6, and closes when the client does", async () => {
  for (const dst of [RESOLVER, RESOLVER6]) {
    const { rig, resolver } = rigOf();
    const client = new TcpClient(rig, { dst });
    client.ask(queryOf("a.example", { id: 77 }));
    assert.ok(await client.until(() => client.answers.length === 1, 1000));
    assert.deepEqual(read(client.answers[0]!), { id: 77, count: 1, isTruncated: false });
    client.close();
    assert.ok(await client.until(() => client.isClosed, 1000));
    assert.equal(client.isReset, false);
    assert.equal(resolver.connections, 0);
    assert.ok(rig.test.balanced);
  }
});

Deno.test("DnsResolver sends answers of 20 and 64 KB in segments of the client's size", async () => {
  for (const mss of [536, 1220, 1460, 9000]) {
    const { rig } = rigOf();
    const client = new TcpClient(rig, { mss });
    client.ask(queryOf("t90.example", { type: "TXT" }), queryOf("t250.example", { type: "TXT", id: 8 }));
    assert.ok(await client.until(() => client.answers.length === 2, 10_000));
    assert.deepEqual(client.answers.map((answer) => read(answer).count), [90, 250]);
    assert.ok(client.answers[1]!.length > 60_000);
    assert.equal(client.longest, Math.min(mss, 1460));
  }
});

Deno.test("DnsResolver answers with TC over UDP, and in full over TCP", async () => {
  const { rig } = rigOf();
  assert.equal((await rig.answer("t5.example", { type: "TXT", edns: 512 })).isTruncated, true);
  const client = new TcpClient(rig);
  client.ask(queryOf("t5.example", { type: "TXT", edns: 512 }));
  assert.ok(await client.until(() => client.answers.length === 1, 1000));
  assert.deepEqual(read(client.answers[0]!), { id: 7, count: 5, isTruncated: false });
});

Deno.test("DnsResolver answers pipelined queries over TCP as their answers come", async () => {
  const upstream = new PlayedUpstream();
  const { rig } = rigOf({ upstream, records: ["router.lan A 10.9.0.1"] });
  const client = new TcpClient(rig);
  client.ask(
    queryOf("slow.example", { id: 1 }),
    queryOf("router.lan", { id: 2 }),
    queryOf("x.onion", { id: 3 }),
  );
  assert.ok(await client.until(() => client.answers.length === 2, 1000));
  upstream.answer([address("slow.example")]);
  assert.ok(await client.until(() => client.answers.length === 3, 1000));
  assert.deepEqual(client.answers.map((answer) => read(answer).id), [2, 3, 1]);
  // Two hundred more, which are more than its window has room for.
  client.ask(...Array.from({ length: 200 }, (_, i) => queryOf("router.lan", { id: 100 + i })));
  assert.ok(await client.until(() => client.answers.length === 203, 60_000));
  assert.deepEqual(
    client.answers.slice(3).map((answer) => read(answer).id),
    Array.from({ length: 200 }, (_, i) => 100 + i),
  );
});

Deno.test("DnsResolver answers each pipelined query once, including those that waited behind slow ones", async () => {
  const upstream = new PlayedUpstream();
  const { rig } = rigOf({ upstream, records: ["router.lan A 10.9.0.1"] });
  const client = new TcpClient(rig);
  client.ask(...Array.from({ length: 16 }, (_, i) => queryOf(`slow${i}.example`, { id: i })));
  // They wait until a slow one is answered, and are known at once.
  client.ask(...Array.from({ length: 40 }, (_, i) => queryOf("router.lan", { id: 16 + i })));
  await client.until(() => upstream.queries.length === 16, 1000);
  assert.equal(client.answers.length, 0);
  for (let i = 0; i < 16; i++) upstream.answer([address(`slow${i}.example`)]);
  assert.ok(await client.until(() => client.answers.length >= 56, 10_000));
  await client.until(() => false, 1000);
  assert.deepEqual(
    client.answers.map((answer) => read(answer).id!).sort((a, b) => a - b),
    Array.from({ length: 56 }, (_, i) => i),
  );
  assert.equal(client.isReset, false);
});

Deno.test("DnsResolver resets a connection at the first message that is not a query", async () => {
  for (const message of [new Uint8Array(), new Uint8Array(5000), Uint8Array.of(1, 2, 3)]) {
    const upstream = new PlayedUpstream();
    const { rig, resolver } = rigOf({ upstream });
    const client = new TcpClient(rig);
    client.ask(...Array.from({ length: 16 }, (_, i) => queryOf(`slow${i}.example`, { id: i })), message);
    await client.until(() => upstream.queries.length === 16, 1000);
    upstream.answer([address("slow0.example")]);
    assert.ok(await client.until(() => client.isReset, 1000));
    assert.equal(resolver.connections, 0);
    assert.ok(rig.test.balanced);
    for (let i = 1; i < 16; i++) upstream.answer([address(`slow${i}.example`)]);
    await rig.turns();
    assert.ok(rig.test.balanced);
  }
});

Deno.test("DnsResolver answers over TCP despite loss, duplication and reordering", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new Random(seed);
    const faults = { loss: 0.1, duplicates: 0.2, reordering: 0.3, random: () => random.below(1000) / 1000 };
    const { rig, resolver } = rigOf();
    const options = { dst: seed % 2 === 0 ? RESOLVER : RESOLVER6, mss: seed % 3 === 0 ? 536 : 1460 };
    const client = new TcpClient(rig, options, faults);
    client.ask(queryOf("a.example", { id: 1 }), queryOf("t40.example", { type: "TXT", id: 2 }));
    client.ask(queryOf("t90.example", { type: "TXT", id: 3 }), queryOf("b.example", { id: 4 }));
    assert.ok(
      await client.until(() => client.answers.length === 4, 300_000),
      `seed ${seed}: ${client.answers.length} answers, reset ${client.isReset}, ${resolver.connections} connections`,
    );
    const counts = client.answers.map((answer) => read(answer)).sort((a, b) => a.id! - b.id!);
    assert.deepEqual(counts.map(({ count }) => count), [1, 40, 90, 1], `seed ${seed}`);
    assert.equal(client.isReset, false, `seed ${seed}`);
    client.close();
    await client.until(() => client.isClosed, 60_000);
    assert.ok(await client.until(() => resolver.connections === 0, 60_000), `seed ${seed}`);
    assert.ok(rig.test.balanced, `seed ${seed}`);
  }
});

Deno.test("DnsResolver keeps nothing of half-open connections, and answers each SYN once", async () => {
  const { rig, resolver } = rigOf();
  for (let i = 0; i < 5000; i++) {
    const sent = await exchange(rig, { seq: i, flags: "S" }, {
      src: `10.10.${i >> 8}.${i & 255}`,
      srcPort: 1000 + i,
      mss: 1460,
    });
    assert.deepEqual(sent.map(({ flags, payload }) => [flags, payload.length]), [["SA", 0]]);
  }
  rig.after(600_000);
  assert.deepEqual(rig.test.receive().device, []);
  assert.equal(resolver.connections, 0);
  const client = new TcpClient(rig);
  client.ask(queryOf("a.example"));
  assert.ok(await client.until(() => client.answers.length === 1, 1000));
});

Deno.test("DnsResolver rejects connections without a valid cookie", async () => {
  const { rig, resolver } = rigOf();
  const [synAck] = await exchange(rig, { seq: 100, flags: "S" }, { mss: 1460 });
  const ack = synAck!.seq + 1 >>> 0;
  const payload = framed(queryOf("a.example"));
  const wrong: [object, ClientOptions][] = [
    [{ ack: ack ^ 0x10000 }, {}],
    [{ ack: ack ^ 0x80000000 }, {}],
    [{}, { srcPort: 5001 }],
    [{}, { src: "10.9.0.2" }],
    [{}, { dst: RESOLVER6 }],
  ];
  for (const [fields, options] of wrong) {
    const sent = await exchange(rig, { seq: 101, ack, flags: "PA", payload, ...fields }, options);
    assert.deepEqual(sent.map(({ flags }) => flags), ["R"]);
  }
  // Another number than the SYN's, as of a segment that came too early: the first one is still to come.
  assert.deepEqual(await exchange(rig, { seq: 500, ack, flags: "PA", payload }), []);
  assert.equal(resolver.connections, 0);
  rig.after(129_000);
  assert.deepEqual((await exchange(rig, { seq: 101, ack, flags: "A" })).map(({ flags }) => flags), ["R"]);
  // The handshake's last segment may be lost: data does as well.
  const [again] = await exchange(rig, { seq: 100, flags: "S" }, { mss: 1460 });
  const sent = await exchange(rig, { seq: 101, ack: again!.seq + 1, flags: "PA", payload });
  assert.equal(resolver.connections, 1);
  assert.ok(sent.some(({ payload }) => payload.length > 0));
});

Deno.test("DnsResolver accepts RST and SYN only as RFC 5961 allows", async () => {
  const { rig, resolver } = rigOf();
  const ack = await open(rig, 100);
  assert.deepEqual(await exchange(rig, { seq: 9000, ack, flags: "R" }), []);
  const inWindow = await exchange(rig, { seq: 103, ack, flags: "R" });
  assert.deepEqual(inWindow.map(({ flags, ack }) => [flags, ack]), [["A", 101]]);
  rig.after(600);
  const syn = await exchange(rig, { seq: 5555, flags: "S" }, { mss: 1460 });
  assert.deepEqual(syn.map(({ flags, ack }) => [flags, ack]), [["A", 101]]);
  // Challenges are few.
  for (let i = 0; i < 50; i++) assert.deepEqual(await exchange(rig, { seq: 103 + i, ack, flags: "R" }), []);
  rig.after(600);
  const future = await exchange(rig, { seq: 101, ack: ack + 5, flags: "A" });
  assert.deepEqual(future.map(({ flags }) => flags), ["A"]);
  assert.equal(resolver.connections, 1);
  assert.deepEqual(await exchange(rig, { seq: 101, ack, flags: "R" }), []);
  assert.equal(resolver.connections, 0);
});

Deno.test("DnsResolver closes idle TCP connections, including those that send a byte now and then", async () => {
  const { rig, resolver } = rigOf({ idleTimeout: 5000 });
  const ack = await open(rig, 100);
  for (let i = 0; i < 4; i++) {
    rig.after(1200);
    await exchange(rig, { seq: 101 + i, ack, flags: "PA", payload: Uint8Array.of(i === 1 ? 100 : 0) });
  }
  rig.after(300);
  assert.deepEqual(rig.test.receive().device.map((bytes) => readSegment(bytes).flags), ["FA"]);
  // The client acknowledges, and never closes its own side.
  await exchange(rig, { seq: 105, ack: ack + 1, flags: "A" });
  rig.after(6000);
  assert.equal(resolver.connections, 0);
  assert.ok(rig.test.balanced);
});

Deno.test("DnsResolver ends TCP connections of clients that vanish or accept no data, with few packets", async () => {
  for (const window of [65_535, 0, 1]) {
    const { rig, resolver } = rigOf();
    const ack = await open(rig, 100, { window });
    await exchange(rig, {
      seq: 101,
      ack,
      flags: "PA",
      payload: framed(queryOf("t90.example", { type: "TXT" })),
    }, {
      window,
    });
    await rig.turns();
    let packets = 0;
    for (let time = 0; time < 120_000; time += 100) {
      rig.after(100);
      packets += rig.test.receive().device.length;
    }
    assert.equal(resolver.connections, 0, `${window}`);
    assert.ok(packets >= 6 && packets <= 40, `${packets}`);
    assert.ok(rig.test.balanced);
  }
});

Deno.test("DnsResolver ends TCP connections of clients that accept a byte at a time", async () => {
  const { rig, resolver } = rigOf();
  const ack = await open(rig, 100, { window: 1 });
  const query = framed(queryOf("t90.example", { type: "TXT" }));
  await exchange(rig, { seq: 101, ack, flags: "PA", payload: query }, { window: 1 });
  await rig.turns();
  for (let i = 1; i < 400 && resolver.connections > 0; i++) {
    rig.after(100);
    rig.test.receive();
    await exchange(rig, { seq: 101 + query.length, ack: ack + i, flags: "A" }, { window: 1 });
  }
  assert.equal(resolver.connections, 0);
});

Deno.test("DnsResolver leaves TCP connections for others when a client, or many, take all", async () => {
  const { rig, resolver } = rigOf({ connections: 20 });
  const flood = async (src: string, count: number) => {
    for (let i = 0; i < count; i++) {
      const options = { src, srcPort: 1000 + i, mss: 1460 };
      const [synAck] = await exchange(rig, { seq: 1, flags: "S" }, options);
      await exchange(rig, { seq: 2, ack: synAck!.seq + 1, flags: "A" }, options);
    }
  };
  const asks = async (src: string) => {
    const client = new TcpClient(rig, { src });
    client.ask(queryOf("a.example"));
    return await client.until(() => client.answers.length === 1, 1000);
  };
  await flood("10.9.0.66", 100);
  assert.equal(resolver.connections, 20);
  assert.ok(await asks("10.9.0.2"));
  for (let i = 0; i < 30; i++) await flood(`10.9.1.${i}`, 3);
  assert.equal(resolver.connections, 20);
  assert.ok(await asks("10.9.0.3"));
  assert.ok(rig.test.balanced);
});

Deno.test("DnsResolver leaves a client its few TCP connections while many others come and stay", async () => {
  const { rig, resolver } = rigOf({ connections: 64 });
  const clients = Array.from(
    { length: 3 },
    (_, i) => new TcpClient(rig, { src: "10.9.0.2", srcPort: 700 + i }),
  );
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 20; i++) await open(rig, 1, { src: `10.9.${1 + round}.${i}` });
    rig.after(10);
    for (const client of clients) client.ask(queryOf(`t90.r${round}.example`, { type: "TXT" }));
    for (const client of clients) {
      assert.ok(await client.until(() => client.answers.length === round + 1, 2000));
    }
  }
  assert.equal(resolver.connections, 64);
  assert.equal(clients.some(({ isReset }) => isReset), false);
});

Deno.test("DnsResolver buffers at most 8 MiB of answers that clients do not acknowledge", async () => {
  const { rig, resolver } = rigOf();
  const query = framed(queryOf("t250.example", { type: "TXT" }));
  let resets = 0;
  for (let i = 0; i < 200; i++) {
    const options = { src: `10.9.1.${i}` };
    const ack = await open(rig, 100, options);
    const sent = await exchange(rig, { seq: 101, ack, flags: "PA", payload: query }, options);
    sent.push(...(await exchange(rig, { seq: 0, flags: "R" }, options)));
    resets += sent.filter(({ flags }) => flags.includes("R")).length;
  }
  // 63,000 bytes each.
  assert.ok(resolver.connections * 63_000 <= 8 * 1024 * 1024, `${resolver.connections}`);
  assert.equal(resolver.connections + resets, 200);
  const client = new TcpClient(rig, { src: "10.9.0.2" });
  client.ask(queryOf("a.example"));
  assert.ok(await client.until(() => client.answers.length === 1, 1000));
  assert.ok(rig.test.balanced);
});

Deno.test("DnsResolver's limit of questions applies to TCP and UDP together", async () => {
  const upstream = new PlayedUpstream();
  const { rig, resolver } = rigOf({ upstream, inFlight: 4 });
  const client = new TcpClient(rig, { src: "10.9.0.66" });
  client.ask(...[1, 2, 3, 4, 5, 6].map((id) => queryOf(`x${id}.example`, { id })));
  assert.ok(await client.until(() => client.answers.length === 2, 1000));
  assert.deepEqual(client.answers.map((answer) => decodeMessage(answer)!.rcode), ["SERVFAIL", "SERVFAIL"]);
  rig.ask("good.example", { src: "10.9.0.2" });
  assert.equal(upstream.queries.length, 5);
  assert.equal(resolver.counters.displaced, 1);
});

Deno.test("DnsResolver resets TCP connections whose client sends no queries", async () => {
  const nonsense = [
    Uint8Array.of(0, 3, 1, 2, 3),
    Uint8Array.of(0xff, 0xff, 1, 2, 3),
    framed(queryOf("a.example", { flags: 0x8100 }).map((byte, i) => i === 2 ? byte | 0x80 : byte)),
  ];
  for (const payload of nonsense) {
    const { rig, resolver } = rigOf();
    const ack = await open(rig, 100);
    const sent = await exchange(rig, { seq: 101, ack, flags: "PA", payload });
    assert.deepEqual(sent.map(({ flags }) => flags), ["RA"]);
    assert.equal(resolver.connections, 0);
    assert.ok(rig.test.balanced);
  }
});

Deno.test("DnsResolver reads queries over TCP from super-packets and partial checksums", async () => {
  const { rig } = rigOf({ records: ["a.lan A 10.0.0.1"] });
  const ack = await open(rig, 100);
  const payload = Uint8Array.of(...[1, 2, 3, 4].flatMap((id) => [...framed(queryOf("a.lan", { id }))]));
  const packet = rig.test.pool.from(segmentTo({ seq: 101, ack, flags: "PA", payload }))!;
  packet.segmentSize = 40;
  packet.checksumStart = 20;
  packet.checksumOffset = 16;
  packet.view.setUint16(packet.offset + 36, 0x1234);
  rig.test.pipeline.outbound[0]!.push(packet);
  rig.test.pipeline.ledger.counters.outbound.packetsIn++;
  await rig.turns();
  const sent = rig.test.receive().device.map(readSegment);
  const bytes = sent.flatMap(({ payload }) => [...payload]);
  assert.equal(bytes.length, 4 * (2 + 12 + 11 + 16));
});

Deno.test("DnsResolver survives any TCP segments, and accounts for all packets", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const random = new Random(seed);
    const { rig, resolver } = rigOf({ connections: 8, idleTimeout: 3000 });
    const opened: { options: ClientOptions; ack: number }[] = [];
    for (let step = 0; step < 600; step++) {
      if (random.below(20) === 0) {
        const options = { src: `10.9.0.${1 + random.below(3)}`, srcPort: 1 + random.below(60_000) };
        const [synAck] = await exchange(rig, { seq: 0xffffff00, flags: "S" }, {
          ...options,
          mss: random.below(2000),
        });
        if (synAck?.flags === "SA") opened.push({ options, ack: synAck.seq + 1 });
      }
      const { options, ack } = opened[random.below(opened.length || 1)] ?? { options: {}, ack: 0 };
      const flags = Array.from("FSRPA").filter((letter) =>
        random.below(letter === "A" ? 20 : 5) === 0 !== (letter === "A")
      );
      const name = random.below(2) === 0 ? "a.example" : "t60.example";
      const query = framed(queryOf(name, { type: name === "a.example" ? "A" : "TXT" }));
      const payload = random.below(3) === 0
        ? Uint8Array.from({ length: random.below(40) }, () => random.below(256))
        : query.slice(0, random.below(query.length + 1));
      const offset = [0, 0, 0, random.below(100) - 50, random.below(20_000) - 10_000][random.below(5)]!;
      await exchange(rig, {
        seq: 0xffffff01 + offset,
        ack: ack + [0, 0, random.below(3000), random.below(2 ** 31)][random.below(4)]!,
        flags: flags.join(""),
        payload,
      }, { ...options, window: [0, 1, 500, 65_535][random.below(4)]! });
      if (random.below(4) === 0) rig.after(random.below(800));
      assert.ok(resolver.connections <= 8);
    }
    rig.after(0);
    for (let i = 0; i < 300; i++) rig.after(1000);
    rig.test.receive();
    assert.equal(resolver.connections, 0, `seed ${seed}`);
    assert.ok(rig.test.balanced, `seed ${seed}`);
  }
});

Deno.test("DnsResolver drops malformed TCP, and resets other connections at a limited rate", async () => {
  const { rig, resolver } = rigOf();
  const broken = segmentTo({ seq: 1, flags: "S" });
  broken[broken.length - 1]! ^= 1;
  rig.test.send(Direction.Outbound, broken);
  for (const src of ["127.0.0.1", "224.0.0.1", "0.0.0.0"]) {
    await exchange(rig, { seq: 1, flags: "S" }, { src });
  }
  await exchange(rig, { seq: 1, flags: "S" }, { srcPort: 0 });
  assert.deepEqual(await exchange(rig, { seq: 1, flags: "R" }), []);
  assert.deepEqual(
    await exchange(rig, { seq: 1, flags: "SA" }).then((sent) => sent.map(({ flags }) => flags)),
    ["R"],
  );
  assert.deepEqual(
    await exchange(rig, { seq: 1, flags: "F" }).then((sent) => sent.map(({ flags }) => flags)),
    ["RA"],
  );
  assert.equal(resolver.connections, 0);
  const none = rigOf({ connections: 0 });
  assert.deepEqual((await exchange(none.rig, { seq: 1, flags: "S" })).map(({ flags }) => flags), ["RA"]);
});

Deno.test("DnsResolver.close() removes TCP connections", async () => {
  const { rig, resolver } = rigOf({ upstream: new PlayedUpstream() });
  const client = new TcpClient(rig);
  client.ask(queryOf("a.example"));
  await client.until(() => resolver.inFlight === 1, 1000);
  rig.test.pipeline.close();
  assert.equal(resolver.connections, 0);
  assert.ok(rig.test.balanced);
});

Deno.test("DnsResolver in several workers hands TCP to the one that has the synthetic addresses", () => {
  const sent: number[] = [];
  const others = {
    place: { index: 1, count: 2 },
    send: (_packet: unknown, worker: number) => sent.push(worker) > 0,
  };
  const stages = [new DnsResolver({ address: RESOLVER, fakeIp: new FakeIp() }), { others }];
  const rig = new Rig(...(stages as unknown as [DnsResolver]));
  rig.test.send(Direction.Outbound, segmentTo({ seq: 1, flags: "S" }));
  rig.test.settle();
  assert.deepEqual(sent, [0]);
});
