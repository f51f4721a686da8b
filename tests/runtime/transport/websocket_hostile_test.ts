/** Hostile and faulty peers of a listening WebSocket transport. Needs --allow-net. */

import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { Listener } from "../../../runtime/transport/_listener.ts";
import { WITHOUT_TUNNEL } from "../../../runtime/transport/end_opener.ts";
import { websocket, type WebSocketOptions } from "../../../runtime/transport/websocket.ts";
import { WebSocketTransport } from "../../../runtime/transport/websocket_transport.ts";
import { pattern, receive } from "../../conformance/end.ts";
import { TestHost, turn, until } from "../../kit/host.ts";
import {
  BINARY,
  CLOSE,
  CONTINUATION,
  frame,
  PING,
  PONG,
  RawPeer,
  request,
  TEXT,
} from "../../kit/raw_websocket.ts";

/** RFC 6455 section 7.4.1. */
const PROTOCOL = 1002, POLICY = 1008, TOO_LONG = 1009;

const KIB = new Uint8Array(1024).fill(0x45);

for (
  const [what, first, again, reason] of [
    [
      "one frame of 1.5 GiB",
      frame(BINARY, KIB, { announced: 1.5 * 2 ** 30 }),
      KIB,
      "longer than 65535 bytes",
    ],
    ["one text of 1.5 GiB", frame(TEXT, KIB, { announced: 1.5 * 2 ** 30 }), KIB, "longer than 65535 bytes"],
    ["a frame of 2^63 bytes", frame(BINARY, KIB, { announced: 2 ** 63 }), KIB, "longer than 65535 bytes"],
    ["a packet of 65,536 bytes", frame(BINARY, new Uint8Array(65_536)), KIB, "longer than 65535 bytes"],
    [
      "endless fragments",
      frame(BINARY, KIB, { fin: false }),
      frame(CONTINUATION, KIB, { fin: false }),
      "longer than 65535 bytes",
    ],
    [
      "endless fragments of a text",
      frame(TEXT, KIB, { fin: false }),
      frame(CONTINUATION, KIB, { fin: false }),
      "longer than 65535 bytes",
    ],
    [
      "empty fragments without end",
      frame(BINARY, undefined, { fin: false }),
      frame(CONTINUATION, undefined, { fin: false }),
      "too many fragments",
    ],
  ] as const
) {
  Deno.test(`A listening WebSocketTransport closes with 1009 at ${what}, and takes the next peer`, async () => {
    await using server = await listening();
    using peer = await RawPeer.open(server.place);
    await peer.send(first);
    const [code] = await Promise.all([peer.closeCode(), peer.flood(again)]);
    strictEqual(code, TOO_LONG);
    deepStrictEqual(server.host.refused, { [reason]: 1 });
    ok(server.host.refusedBytes <= 2 * 65_536, "what is counted has arrived");
    await server.takesAnotherPeer();
  });
}

for (
  const [what, bytes] of [
    ["a frame without mask", frame(BINARY, KIB, { key: undefined })],
    ["a compressed frame", frame(BINARY, KIB, { reserved: 0x40 })],
    ["reserved bits in a ping", frame(PING, undefined, { reserved: 0x10 })],
    ["an unknown data frame", frame(3)],
    ["an unknown control frame", frame(11)],
    ["a ping in fragments", frame(PING, undefined, { fin: false })],
    ["a ping of 126 bytes", frame(PING, new Uint8Array(126))],
    ["a continuation of nothing", frame(CONTINUATION, KIB)],
    ["a message within a message", [...frame(BINARY, KIB, { fin: false }), ...frame(BINARY, KIB)]],
  ] as const
) {
  Deno.test(`A listening WebSocketTransport closes with 1002 at ${what}`, async () => {
    await using server = await listening();
    using peer = await RawPeer.open(server.place);
    await peer.send(Uint8Array.from(bytes));
    strictEqual(await peer.closeCode(), PROTOCOL);
    strictEqual(server.host.lost, 1);
    await server.takesAnotherPeer();
  });
}

for (
  const [what, bytes, reason] of [
    ["pings", frame(PING), "too many control frames"],
    ["pongs with payload", frame(PONG, new Uint8Array(125)), "too many control frames"],
    ["messages of one byte", frame(BINARY, Uint8Array.of(0)), "too many messages that are not packets"],
    ["empty messages", frame(BINARY), "too many messages that are not packets"],
    ["texts", frame(TEXT, KIB), "too many messages that are not packets"],
    [
      "messages that are not IP",
      frame(BINARY, new Uint8Array(100)),
      "too many messages that are not packets",
    ],
  ] as const
) {
  Deno.test(`A flood of ${what} ends its connection with 1008, and everything else runs meanwhile`, async () => {
    await using server = await listening();
    using peer = await RawPeer.open(server.place);
    const many = new Uint8Array(64 * bytes.length);
    for (let i = 0; i < 64; i++) many.set(bytes, i * bytes.length);
    let turns = 0;
    const counting = setInterval(() => turns++);
    const [code] = await Promise.all([peer.closeCode(), peer.flood(many)]);
    clearInterval(counting);
    strictEqual(code, POLICY);
    strictEqual(server.host.refused[reason], 1);
    ok(turns > 3, `timers ran ${turns} times`);
    await server.takesAnotherPeer();
  });
}

Deno.test("A flood of packets that are not read is dropped with a reason, and other code runs meanwhile", async () => {
  await using server = await listening();
  using peer = await RawPeer.open(server.place);
  const bytes = frame(BINARY, pattern(1000));
  let turns = 0;
  const counting = setInterval(() => turns++);
  await peer.flood(bytes, () => (server.host.refused["receive queue full"] ?? 0) > 5000);
  clearInterval(counting);
  ok(turns > 3, `timers ran ${turns} times`);
  ok(server.end.connected, "it only came at a bad time");
});

Deno.test("A burst of short packets waits for the loop, and none is lost", async () => {
  await using server = await listening({ queueLength: 8 });
  using peer = await RawPeer.open(server.place);
  const packet = frame(BINARY, pattern(20));
  const burst = new Uint8Array(packet.length * 500);
  for (let i = 0; i < 500; i++) burst.set(packet, i * packet.length);
  await peer.send(burst);
  strictEqual((await receive(server.end, server.host, 500)).length, 500);
  strictEqual(server.host.lost, 0);
});

Deno.test("WebSocketTransport joins fragments, and replies to the newest ping between them", async () => {
  await using server = await listening();
  using peer = await RawPeer.open(server.place);
  const packet = pattern(3000);
  await peer.send(frame(BINARY, packet.subarray(0, 1), { fin: false }));
  await peer.send(frame(PING, Uint8Array.of(1, 2, 3)));
  await peer.send(frame(CONTINUATION, packet.subarray(1, 2999), { fin: false }));
  await peer.send(frame(CONTINUATION, undefined, { fin: false }));
  await peer.send(frame(CONTINUATION, packet.subarray(2999)));
  deepStrictEqual(await receive(server.end, server.host, 1), [packet]);
  let heard = await peer.frame();
  if (heard?.opcode === PING) heard = await peer.frame();
  deepStrictEqual(heard, { opcode: PONG, payload: Uint8Array.of(1, 2, 3) });
});

Deno.test("WebSocketTransport replies to a Close frame and ends", async () => {
  await using server = await listening();
  using peer = await RawPeer.open(server.place);
  await until(() => server.end.connected, "it was connected");
  await peer.send(frame(CLOSE, Uint8Array.of(0x03, 0xe9)));
  strictEqual(await peer.closeCode(), 1000);
  await peer.ended();
  ok(!server.end.connected);
});

Deno.test("A peer that half-closes or resets its connection is lost", async () => {
  await using server = await listening();
  {
    using peer = await RawPeer.open(server.place);
    await until(() => server.end.connected, "it was connected");
    await peer.closeWrite();
    await until(() => !server.end.connected, "the half-closed peer was gone");
  }
  const peer = await RawPeer.open(server.place);
  await until(() => server.end.connected, "another one was connected");
  peer[Symbol.dispose]();
  await until(() => !server.end.connected, "the peer that reset was gone");
  await server.takesAnotherPeer();
});

Deno.test("Peers that break the rules and stay have no more than a few connections between them", async () => {
  await using server = await listening();
  await using held = new AsyncDisposableStack();
  let ended = 0;
  for (let i = 0; i < 30; i++) {
    const peer = held.use(await until101(server.place));
    await peer.send(frame(3));
    peer.ended().then(() => ended++);
  }
  await turn();
  // By themselves, they would have ended a second later.
  ok(ended >= 15, `${ended} have ended`);
  await until(() => ended === 30, "all had ended");
});

Deno.test("Connections that say nothing keep no peer out, and newer ones take their room", async () => {
  await using server = await listening();
  await using held = new AsyncDisposableStack();
  const silent: RawPeer[] = [];
  for (let i = 0; i < 100; i++) silent.push(held.use(await RawPeer.connect(server.place)));
  await server.takesAnotherPeer();
  await Promise.all(silent.slice(0, 90).map((peer) => peer.ended()));
});

for (
  const [what, drip] of [
    ["nothing", ""],
    ["half a request", "GET / HTTP/1.1\r\nHost: "],
    ["everything but the end", request("/").slice(0, -2)],
  ] as const
) {
  Deno.test(`A connection that sends ${what} is closed in time`, async () => {
    await using server = await listening({}, 100);
    using peer = await RawPeer.connect(server.place);
    await peer.send(drip);
    await peer.ended();
    await server.takesAnotherPeer();
  });
}

Deno.test("A head that comes byte by byte has no more time than another one", async () => {
  await using server = await listening({}, 100);
  using peer = await RawPeer.connect(server.place);
  let hasEnded = false;
  const ended = peer.ended().then(() => hasEnded = true);
  while (!hasEnded) {
    await peer.flood(Uint8Array.of(0x41), turnOnce());
    await turn();
  }
  await ended;
});

Deno.test("Peers that reset in the middle of their handshake leave the listener usable", async () => {
  await using server = await listening();
  for (let i = 0; i < 40; i++) {
    using peer = await RawPeer.connect(server.place);
    await peer.send(request("/"));
    for (let turns = 0; turns < i % 4; turns++) await turn();
  }
  await until(() => !server.end.connected, "none of them was left");
  await server.takesAnotherPeer();
});

for (
  const [what, status, text] of [
    ["no HTTP", 400, "\x16\x03\x01\x02\0"],
    ["HTTP/2", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["a control character", 400, "GET / HTTP/1.1\r\nHost: \x1b[31m\r\n\r\n"],
    ["a line that is no field", 400, "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n"],
    ["CONNECT", 404, "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["another path", 404, request("/other")],
    ["two slashes", 404, request("//")],
    ["an absolute target", 101, request("http://host/?token=secret")],
    ["no upgrade", 426, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["another version", 426, request("/").replace("Version: 13", "Version: 8")],
    ["POST", 400, request("/").replace("GET", "POST")],
    ["no Host", 400, request("/").replace("Host: host\r\n", "")],
    ["an odd Host", 101, request("/").replace("Host: host", "Host: a b<>\xc2\x9b31m")],
    ["no connection to upgrade", 400, request("/").replace("Connection: Upgrade", "Connection: keep-alive")],
    ["a short key", 400, request("/").replace(/Key: .*/, "Key: AAAA")],
    ["a web page", 403, request("/", "Origin: https://evil.example")],
    ["an Origin that is null", 403, request("/", "Origin: null")],
    ["an empty Origin", 403, request("/", "Origin: ")],
    ["two Origins", 403, request("/", "Origin: https://good.example", "Origin: https://evil.example")],
    ["a page that may connect", 101, request("/", "Origin: https://good.example")],
    [
      "lists in other letters",
      101,
      request("/").replace("Connection: Upgrade", "connection: Keep-Alive, UPGRADE"),
    ],
    ["an offer of compression", 101, request("/", "Sec-WebSocket-Extensions: permessage-deflate")],
    ["a head of 70 KB", 431, request("/", `Cookie: ${"a".repeat(70_000)}`)],
  ] as const
) {
  Deno.test(`A request with ${what} is answered with ${status}, and nothing of it is repeated`, async () => {
    await using server = await listening({ origins: ["https://good.example"] });
    using peer = await RawPeer.connect(server.place);
    const sending = peer.flood(new TextEncoder().encode(text), turnOnce());
    const head = await peer.head();
    await sending;
    // A system that resets a connection with bytes unread may throw away the answer with it.
    if (status !== 431 || head !== "") strictEqual(head.slice(0, 13), `HTTP/1.1 ${status} `);
    ok(!/evil|secret|31m|deflate/.test(head), head);
    if (status === 101) return;
    await peer.closeWrite().catch(() => {});
    await peer.ended();
    await server.takesAnotherPeer();
  });
}

Deno.test("A listener without descriptors waits, and takes the next connection", async () => {
  const real = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let failures = 3;
  const listener = {
    addr: real.addr,
    accept: () =>
      failures-- > 0 ? Promise.reject(new Error("Too many open files (os error 24)")) : real.accept(),
    close: () => real.close(),
  } as Deno.Listener;
  await using server = listeningOn(listener);
  await server.takesAnotherPeer();
  strictEqual(server.end.failure, undefined);
});

Deno.test("A listener without descriptors gives up a slow handshake for the next connection", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accept = listener.accept.bind(listener);
  let isHeld = true;
  let calls = 0;
  listener.accept = () =>
    calls++ === 0 || !isHeld ? accept() : Promise.reject(new Error("Too many open files"));
  await using server = listeningOn(listener);
  using slow = await RawPeer.connect(server.place);
  const ended = slow.ended().then(() => isHeld = false);
  await server.takesAnotherPeer();
  await ended;
});

Deno.test("Connections that are reset before they are accepted cost the listener no time", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accept = listener.accept.bind(listener);
  const gone = [
    () =>
      Object.assign(new Deno.errors.NotConnected("Transport endpoint is not connected"), {
        code: "ENOTCONN",
      }),
    () => Object.assign(new Deno.errors.ConnectionAborted("aborted"), { code: "ECONNABORTED" }),
    () => Object.assign(new TypeError("Invalid argument"), { code: "EINVAL" }),
  ];
  let calls = 0;
  listener.accept = () => calls < 3000 ? Promise.reject(gone[calls++ % gone.length]!()) : accept();
  const start = performance.now();
  await using server = listeningOn(listener);
  await server.takesAnotherPeer();
  ok(performance.now() - start < 10_000, "pauses would make it two minutes");
  strictEqual(server.end.failure, undefined);
});

Deno.test("A listener that was closed by others is a failure", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accept = listener.accept.bind(listener);
  let calls = 0;
  listener.accept = () => calls++ === 0 ? Promise.reject(new Deno.errors.BadResource("gone")) : accept();
  await using server = listeningOn(listener);
  await until(() => server.end.failure !== undefined, "it had failed");
  ok(server.end.failure!.message.startsWith("Cannot use test: its listener is closed"));
});

Deno.test("A peer that does not reply to pings is replaced by a newer one, or times out", async () => {
  await using server = await listening({ timeout: 1000 });
  using silent = await RawPeer.open(server.place);
  await until(() => server.end.connected, "it was connected");
  using second = await until101(server.place);
  await silent.ended();
  ok(server.end.connected, "the newer one has its place");
  await second.closeCode();
  ok(!server.end.connected, "it was given up");
});

Deno.test("A peer that replies to pings is not replaced, however long it sends nothing else", async () => {
  await using server = await listening({ timeout: 1000 });
  const peer = await websocket({ url: `ws://${server.place}/`, timeout: 1000 })();
  await until(() => server.end.connected, "it was connected");
  for (const start = performance.now(); performance.now() - start < 2500;) {
    using stranger = await RawPeer.open(server.place);
    strictEqual(stranger.status, 503);
  }
  ok(peer.connected && server.end.connected);
  peer.close();
  await peer.closed;
});

Deno.test("A peer that reads counts as alive, however late it replies to pings", async () => {
  await using server = await listening({ timeout: 2000 });
  using peer = await RawPeer.open(server.place);
  await until(() => server.end.connected, "it was connected");
  const batch = new PacketBatch();
  const bytes = pattern(60_000);
  const stop = performance.now() + 3000;
  const reading = (async () => {
    while (performance.now() < stop) {
      await peer.skip(500_000).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  while (performance.now() < stop && server.end.connected) {
    for (let packet; batch.length < 16 && (packet = server.host.pool.from(bytes)) !== undefined;) {
      batch.push(packet);
    }
    server.end.write(batch);
    await turn();
  }
  for (const packet of batch.packets.slice(0, batch.length)) packet.pool.give(packet);
  ok(server.end.connected, "it was not given up");
  await reading;
});

Deno.test("WebSocketTransport closes within two seconds although its peer neither replies nor reads", async () => {
  const server = await listening();
  using _peer = await RawPeer.open(server.place);
  await until(() => server.end.connected, "it was connected");
  const batch = new PacketBatch();
  do {
    for (let packet; (packet = server.host.pool.from(pattern(20_000))) !== undefined;) batch.push(packet);
    server.end.write(batch);
    await turn();
  } while (server.end.queued < 10);
  for (const packet of batch.packets.slice(0, batch.length)) packet.pool.give(packet);
  const start = performance.now();
  await server[Symbol.asyncDispose]();
  const time = performance.now() - start;
  ok(time > 500 && time < 2000, `it took ${time} ms`);
});

Deno.test('websocket({ payload: "any" }) carries any bytes but none, up to 65,535, in both directions', async () => {
  await using server = await listening({ payload: "any" });
  const client = await websocket({ url: `ws://${server.place}/`, payload: "any" })();
  const host = new TestHost();
  client.attach(host);
  await until(() => server.end.connected, "it was connected");
  const packets = [1, 19, 1400, 65_535].map((length) => new Uint8Array(length).map((_, i) => i * 7));
  for (
    const [from, fromHost, to, toHost] of [[client, host, server.end, server.host], [
      server.end,
      server.host,
      client,
      host,
    ]] as const
  ) {
    const batch = new PacketBatch();
    for (const packet of packets) batch.push(fromHost.pool.from(packet)!);
    from.write(batch);
    deepStrictEqual(await receive(to, toHost, packets.length), packets);
  }
  client.close();
  await client.closed;
  strictEqual(host.pool.taken, 0);
  await until(() => !server.end.connected, "the client was gone");
  using peer = await RawPeer.open(server.place);
  await peer.send(frame(BINARY));
  await until(() => server.host.lost === 1, "the empty message was refused");
  deepStrictEqual(server.host.refused, { "empty": 1 });
});

Deno.test("websocket() names the invalid option", async () => {
  const wrong = { listen: 0, payload: "all" } as unknown as WebSocketOptions;
  await rejects(async () => await websocket(wrong)(), {
    name: "TypeError",
    message: 'Cannot open a WebSocket transport: payload must be "ip" or "any", got "all"',
  });
  for (const timeout of [0, 99, NaN, 2 ** 31]) {
    await rejects(async () => await websocket({ listen: 0, timeout })(), RangeError);
  }
  // A timer would take these as "at once".
  for (const retryAfter of [Infinity, 2 ** 31]) {
    throws(() => websocket({ listen: 0, retryAfter }), RangeError);
  }
  throws(() => websocket({ listen: 0, retryAfter: "5" as unknown as number }), TypeError);
  for (const path of ["", "tunnel", "//tunnel", "/a?b", "/a#b", "http://host/"]) {
    throws(() => websocket({ listen: 0, path }), { name: "SyntaxError", message: /^Cannot parse path / });
  }
  throws(() => websocket({ listen: 0, origins: "https://a.example" as unknown as string[] }), TypeError);
  for (
    const origins of [["https://a.example/"], ["a.example"], ["HTTPS://a.example"], [7]]
  ) {
    throws(() => websocket({ listen: 0, origins: origins as string[] }), {
      name: "SyntaxError",
      message: /^Cannot parse origins: /,
    });
  }
  throws(() => websocket({ url: "ws://host:0/" }), SyntaxError);
  await rejects(async () => await websocket({ listen: "192.0.2.77:0" })(), {
    name: "AddrNotAvailable",
    message: /^Cannot listen on 192\.0\.2\.77:0: this machine does not have that address: /,
  });
});

interface Listening extends AsyncDisposable {
  readonly end: WebSocketTransport;
  readonly host: TestHost;
  readonly place: string;
  /** Fails unless an honest peer is connected and its packet arrives. */
  takesAnotherPeer(): Promise<void>;
}

function listening(options: WebSocketOptions = {}, handshakeTimeout?: number): Promise<Listening> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return Promise.resolve(listeningOn(listener, options, handshakeTimeout));
}

function listeningOn(
  listener: Deno.Listener,
  options: WebSocketOptions = {},
  handshakeTimeout?: number,
): Listening {
  const { hostname, port } = listener.addr as Deno.NetAddr;
  const place = `${hostname}:${port}`;
  const { origins = [], timeout = 30_000 } = options;
  const rules = {
    path: "/",
    origins,
    timeout,
    ...(handshakeTimeout === undefined ? {} : { handshakeTimeout }),
  };
  const end = new WebSocketTransport(
    "test",
    place,
    options,
    (owner) => new Listener(listener, rules, WITHOUT_TUNNEL, owner),
  );
  const host = new TestHost();
  end.attach(host);
  return {
    end,
    host,
    place,
    takesAnotherPeer: async () => {
      using peer = await until101(place);
      const packet = pattern(100);
      packet[1] = 0x77;
      await peer.send(frame(BINARY, packet));
      await until(() => {
        const batch = new PacketBatch();
        end.read(batch);
        let found = false;
        for (const one of batch.packets.slice(0, batch.length)) {
          found ||= one.bytes[one.offset + 1] === 0x77;
          one.pool.give(one);
        }
        return found;
      }, "the next peer's packet arrived");
    },
    [Symbol.asyncDispose]: async () => {
      end.close();
      await end.closed;
      strictEqual(host.pool.taken, 0);
    },
  };
}

/** A peer that is in; the one before it may have its place for a moment. */
async function until101(place: string): Promise<RawPeer> {
  let peer: RawPeer & { status: number };
  await until(async () => {
    peer = await RawPeer.open(place);
    if (peer.status === 101) return true;
    peer[Symbol.dispose]();
    return false;
  }, "a new peer was in");
  return peer!;
}

/** Returns true after the first call. */
function turnOnce(): () => boolean {
  let turns = 0;
  return () => turns++ > 0;
}
