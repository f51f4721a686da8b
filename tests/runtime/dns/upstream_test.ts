/** Upstreams against simulated name servers on local sockets. */

import assert from "node:assert/strict";
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { decodeMessage, DnsResolver } from "../../../lib/stage/dns/mod.ts";
import { dohUpstream, parseUpstream, tcpUpstream, udpUpstream } from "../../../runtime/dns/mod.ts";
import { address, queryOf, reply, RESOLVER, Rig } from "../../lib/stage/dns/_ask.ts";

const QUERY = queryOf("www.example.com", { id: 0, edns: 1232 });
const ANSWER = [address("www.example.com")];
const TRUNCATED = 0x0200;
const never = (): AbortSignal => new AbortController().signal;

type UdpHandler = (query: Uint8Array, from: RemoteInfo, socket: Socket) => void;

/** A name server over UDP; disposing of it closes it. */
async function udpServer(
  handler: UdpHandler,
  host = "127.0.0.1",
  port = 0,
): Promise<Disposable & { port: number }> {
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("message", (message, from) => handler(Uint8Array.from(message), from, socket));
  socket.bind(port, host, () => resolve());
  await promise;
  return { port: socket.address().port, [Symbol.dispose]: () => void socket.close() };
}

/** A name server over TCP, which sends back what the handler makes of a query, a byte at a time. */
function tcpServer(
  handler: (query: Uint8Array) => Uint8Array | undefined,
): AsyncDisposable & { port: number } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    for await (const connection of listener) {
      using _ = connection;
      const query = new Uint8Array(1000);
      let length = 0;
      while (length < 2 || length < 2 + query[0]! * 256 + query[1]!) {
        length += await connection.read(query.subarray(length)) ?? 1000;
      }
      const answer = handler(query.slice(2, length));
      if (answer === undefined) continue;
      for (const byte of [answer.length >> 8, answer.length & 255, ...answer]) {
        await connection.write(Uint8Array.of(byte));
      }
    }
  })();
  return {
    port: listener.addr.port,
    async [Symbol.asyncDispose]() {
      listener.close();
      await serving.catch(() => {});
    },
  };
}

function records(message: Uint8Array): unknown[] {
  return decodeMessage(message)!.answers!.map(({ data }) => data);
}

Deno.test("udpUpstream() uses another id and port for each query, over IPv4 and IPv6", async () => {
  for (const host of ["127.0.0.1", "::1"]) {
    const seen = new Set<string>();
    using server = await udpServer((query, from, socket) => {
      seen.add(`${query[0]! * 256 + query[1]!} ${from.port}`);
      socket.send(reply(query, ANSWER), from.port, from.address);
    }, host);
    using upstream = udpUpstream(host === "::1" ? `[::1]:${server.port}` : `${host}:${server.port}`);
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
    }
    assert.equal(seen.size, 3);
  }
});

Deno.test("udpUpstream() ignores other messages, and those with another id, question or port", async () => {
  const other = createSocket("udp4");
  using server = await udpServer((query, { port, address: host }, socket) => {
    const wrongId = reply(query, [address("www.example.com", "192.0.2.66")]);
    wrongId[0]! ^= 1;
    const wrongName = reply(query, [address("www.example.com", "192.0.2.66")]);
    wrongName[13]! ^= 1;
    for (const bytes of [wrongId, wrongName, query, Uint8Array.of(1), new Uint8Array(12)]) {
      socket.send(bytes, port, host);
    }
    other.send(reply(query, [address("www.example.com", "192.0.2.66")]), port, host, () => {
      socket.send(reply(query, ANSWER), port, host);
    });
  });
  using upstream = udpUpstream(`127.0.0.1:${server.port}`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
  other.close();
});

Deno.test("udpUpstream() retransmits a query without a response", async () => {
  let queries = 0;
  using server = await udpServer((query, from, socket) => {
    if (++queries === 2) socket.send(reply(query, ANSWER), from.port, from.address);
  });
  using upstream = udpUpstream(`127.0.0.1:${server.port}`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
});

Deno.test("udpUpstream() asks again over TCP after a truncated response", async () => {
  await using tcp = tcpServer((query) => reply(query, ANSWER));
  using _udp = await udpServer(
    (query, from, socket) => {
      socket.send(reply(query, [], { flags: TRUNCATED }), from.port, from.address);
    },
    "127.0.0.1",
    tcp.port,
  );
  using upstream = udpUpstream(`127.0.0.1:${tcp.port}`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
});

Deno.test("udpUpstream() ends queries with their signal, and at its disposal", async () => {
  using server = await udpServer(() => {});
  const upstream = udpUpstream(`127.0.0.1:${server.port}`);
  const controller = new AbortController();
  const aborted = upstream.query(QUERY, controller.signal);
  controller.abort(new Error("too late"));
  await assert.rejects(aborted, /too late/);
  await assert.rejects(upstream.query(QUERY, controller.signal), /too late/);
  const closed = upstream.query(QUERY, never());
  upstream[Symbol.dispose]();
  await assert.rejects(closed, /^BadResource: Cannot query udp 127\.0\.0\.1:\d+: the upstream is closed$/);
  await assert.rejects(upstream.query(QUERY, never()), Deno.errors.BadResource);
});

Deno.test("tcpUpstream() reassembles responses from several reads, and rejects those to another query", async () => {
  await using right = tcpServer((query) => reply(query, ANSWER));
  using upstream = tcpUpstream(`127.0.0.1:${right.port}`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
  await using wrong = tcpServer((query) => reply(query, ANSWER).with(0, query[0]! ^ 1));
  using lied = tcpUpstream(`127.0.0.1:${wrong.port}`);
  await assert.rejects(lied.query(QUERY, never()), /the response belongs to another query/);
  await using mute = tcpServer(() => undefined);
  using silent = tcpUpstream(`127.0.0.1:${mute.port}`);
  await assert.rejects(silent.query(QUERY, never()), /the connection was closed/);
});

Deno.test("tcpUpstream() ends queries with their signal, and without a listener", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  using upstream = tcpUpstream(`127.0.0.1:${port}`);
  const controller = new AbortController();
  const aborted = upstream.query(QUERY, controller.signal);
  using _connection = await listener.accept();
  controller.abort(new Error("too late"));
  await assert.rejects(aborted, /too late/);
  listener.close();
  await assert.rejects(upstream.query(QUERY, never()), Deno.errors.ConnectionRefused);
});

Deno.test("dohUpstream() posts the message, and rejects other media types, HTTP errors and long responses", async () => {
  const type = "application/dns-message";
  const seen: string[] = [];
  const answers: ((query: Uint8Array) => Response)[] = [
    (query) => new Response(reply(query, ANSWER) as BodyInit, { headers: { "content-type": type } }),
    // RFC 9110 section 8.3.1: its letters are the same in upper and lower case.
    (query) =>
      new Response(reply(query, ANSWER) as BodyInit, {
        headers: { "content-type": "Application/DNS-Message" },
      }),
    () => new Response("hello"),
    () => new Response("gone", { status: 404 }),
    () => new Response(new Uint8Array(70_000), { headers: { "content-type": type } }),
    () => new Response(null, { status: 302, headers: { location: "/elsewhere" } }),
  ];
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    seen.push(`${request.method} ${new URL(request.url).pathname} ${request.headers.get("content-type")}`);
    return answers.shift()!(await request.bytes());
  });
  using upstream = dohUpstream(`http://127.0.0.1:${server.addr.port}/dns-query`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
  await assert.rejects(upstream.query(QUERY, never()), /the response has status 200 and type text\/plain/);
  await assert.rejects(upstream.query(QUERY, never()), /the response has status 404/);
  await assert.rejects(upstream.query(QUERY, never()), /longer than 65535 bytes/);
  await assert.rejects(upstream.query(QUERY, never()));
  assert.deepEqual(new Set(seen), new Set([`POST /dns-query ${type}`]));
});

Deno.test("parseUpstream() parses every form, and reports errors", () => {
  const names = {
    "192.0.2.1": "udp 192.0.2.1:53",
    "192.0.2.1:5353": "udp 192.0.2.1:5353",
    "2001:db8::1": "udp [2001:db8::1]:53",
    "[2001:db8::1]": "udp [2001:db8::1]:53",
    "udp://[2001:db8::1]:5353": "udp [2001:db8::1]:5353",
    "tcp://192.0.2.1": "tcp 192.0.2.1:53",
    "https://dns.example/dns-query": "https://dns.example/dns-query",
    "HTTPS://dns.example/dns-query": "https://dns.example/dns-query",
    "https://who:secret@dns.example/dns-query?key=secret": "https://dns.example/dns-query",
    "UDP://192.0.2.1": "udp 192.0.2.1:53",
  };
  for (const [text, name] of Object.entries(names)) {
    using upstream = parseUpstream(text);
    assert.equal(upstream.name, name);
  }
  for (
    const text of [
      "",
      "dns.example",
      "192.0.2",
      "192.0.2.1:",
      "192.0.2.1:0",
      "tls://192.0.2.1",
      "::",
      "https://",
    ]
  ) {
    assert.throws(() => parseUpstream(text), { name: "SyntaxError", message: /^Cannot parse / }, text);
  }
});

Deno.test({
  name: "udpUpstream() reports that it needs --allow-net",
  permissions: { net: false },
  fn: () => {
    for (const make of [udpUpstream, tcpUpstream]) {
      assert.throws(() => make("192.0.2.1"), { name: "NotCapable", message: /run again with --allow-net$/ });
    }
    assert.throws(() => dohUpstream("https://192.0.2.1/"), Deno.errors.NotCapable);
  },
});

/** A server that answers queries with EDNS as one that does not know it: with a code, and without the question. */
function formatError(query: Uint8Array): Uint8Array {
  if (query[11] === 0) return reply(query, ANSWER);
  return Uint8Array.of(query[0]!, query[1]!, 0x81, 0x81, ...new Uint8Array(8));
}

/** A resolver's answer by way of a real upstream. */
async function resolve(text: string): Promise<string[]> {
  using upstream = parseUpstream(text);
  const rig = new Rig(new DnsResolver({ address: RESOLVER, upstream, timeout: 10_000 }));
  rig.ask("www.example.com", { edns: 1232 });
  for (let i = 0; i < 1000; i++) {
    const [answer] = rig.answers();
    if (answer !== undefined) return answer.records;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return [];
}

Deno.test("Upstreams of every transport are asked without EDNS after FORMERR without a question", async () => {
  const expected = ["www.example.com 300 A 192.0.2.7"];
  using udp = await udpServer((query, from, socket) =>
    socket.send(formatError(query), from.port, from.address)
  );
  assert.deepEqual(await resolve(`udp://127.0.0.1:${udp.port}`), expected);
  await using tcp = tcpServer(formatError);
  assert.deepEqual(await resolve(`tcp://127.0.0.1:${tcp.port}`), expected);
  await using http = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const query = await request.bytes();
    return new Response(Uint8Array.from(formatError(query)), {
      headers: { "content-type": "application/dns-message" },
    });
  });
  assert.deepEqual(await resolve(`http://127.0.0.1:${http.addr.port}/dns-query`), expected);
});

Deno.test("udpUpstream() ignores responses without a question that are not errors, or have another id", async () => {
  using server = await udpServer((query, { port, address: host }, socket) => {
    const good = formatError(query);
    const noError = good.slice();
    noError[3] = 0x80;
    const wrongId = good.slice();
    wrongId[0]! ^= 1;
    for (const bytes of [noError, wrongId, good.subarray(0, 11), reply(query, ANSWER)]) {
      socket.send(bytes, port, host);
    }
  });
  using upstream = udpUpstream(`127.0.0.1:${server.port}`);
  assert.deepEqual(records(await upstream.query(QUERY, never())), ["192.0.2.7"]);
});
