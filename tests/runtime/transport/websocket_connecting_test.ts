/** A connecting WebSocket transport: its errors, hostile servers, addresses, and ends at any time. Needs --allow-net. */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { formatAddress } from "../../../lib/wire/address.ts";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { Connector, type ConnectorOptions } from "../../../runtime/transport/_connector.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "../../../runtime/transport/end_opener.ts";
import { parseFarUrl } from "../../../runtime/transport/far_url.ts";
import { websocket } from "../../../runtime/transport/websocket.ts";
import { WebSocketTransport } from "../../../runtime/transport/websocket_transport.ts";
import { numbered, pattern, receive, sequenceOf } from "../../conformance/end.ts";
import { CERTIFICATE, EXPIRED_CERTIFICATE, KEY } from "../../kit/certificates.ts";
import { TestHost, turn, until } from "../../kit/host.ts";
import { BINARY, CLOSE, frame, PING, RawPeer } from "../../kit/raw_websocket.ts";

const UNMASKED = { key: undefined };
const CHECK_IT = "check the port, and write wss:// if it speaks TLS";

for (
  const [what, response, reason] of [
    ["404", "HTTP/1.1 404 Not Found\r\n\r\n", "the server answered HTTP/1.1 404 Not Found: check the path"],
    ["401", "HTTP/1.1 401 Unauthorized\r\n\r\n", /401 Unauthorized: access is denied: /],
    ["403", "HTTP/1.1 403 Forbidden\r\n\r\n", /403 Forbidden: access is denied: /],
    [
      "426",
      "HTTP/1.1 426 Upgrade Required\r\n\r\n",
      /426 Upgrade Required: configure the proxy in between to forward /,
    ],
    ["502", "HTTP/1.1 502 Bad Gateway\r\n\r\n", /502 Bad Gateway: its proxy cannot reach the other side: /],
    ["503", "HTTP/1.1 503 Busy\r\n\r\n", /503 Busy: another machine is connected already, or /],
    ["504", "HTTP/1.0 504 Late\r\n\r\n", /504 Late: its proxy cannot reach the other side: /],
    [
      "a status without a text",
      "HTTP/1.1 418\r\n\r\n",
      /the server answered HTTP\/1\.1 418: check the address/,
    ],
    [
      "a redirection",
      "HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n",
      /301 Moved: use the address that it redirects to$/,
    ],
    ["a port for TLS", "HTTP/1.1 400 Bad Request\r\n\r\n", new RegExp(`400 Bad Request: ${CHECK_IT}$`)],
    [
      "C1 controls",
      "HTTP/1.1 404 \x9b31m\xff\r\n\r\n",
      "the server answered HTTP/1.1 404 \\u009b31m\\u00ff: check the path",
    ],
    ["escapes", "HTTP/1.1 404 \x1b[31mred\r\n\r\n", /^Cannot read an HTTP head: it has control characters: /],
    ["a long text", `HTTP/1.1 404 ${"x".repeat(5000)}\r\n\r\n`, /x{100}\.\.\.: check the path$/],
    ["endless headers", "HTTP/1.1 101 X\r\n" + "A: b\r\n".repeat(2000), /it is longer than 8192 bytes: /],
    ["no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", `the server's response is not HTTP: ${CHECK_IT}`],
    ["a wrong key", upgrade("AAAA"), /the server's response is not a WebSocket handshake: /],
    [
      "compression",
      upgrade("", "Sec-WebSocket-Extensions: permessage-deflate"),
      /the server's response is not a WebSocket handshake/,
    ],
    [
      "nothing",
      "",
      "the server closed the connection without a response: check the address, the port and the path",
    ],
  ] as const
) {
  Deno.test(`websocket() rejects with one line when the server answers ${what}`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = serve(listener, response);
    const url = `ws://127.0.0.1:${listener.addr.port}/tunnel`;
    await rejects(websocket({ url: `${url}?token=secret` })(), (error: Error) => {
      const start = `Cannot connect to ${url}: `;
      ok(error.message.startsWith(start), error.message);
      const rest = error.message.slice(start.length);
      if (typeof reason === "string") strictEqual(rest, reason);
      else ok(reason.test(rest), rest);
      ok(/^[\x20-\x7e]*$/.test(error.message) && !error.message.includes("secret"), error.message);
      ok(error.cause instanceof Error);
      return true;
    });
    await serving;
  });
}

for (
  const [what, certificate, reason] of [
    [
      "of an unknown authority",
      CERTIFICATE,
      /the server's certificate is from an unknown authority: pass .* --cert FILE, /,
    ],
    [
      "that has expired",
      EXPIRED_CERTIFICATE,
      /the server's certificate has expired: renew it, or correct this machine's clock$/,
    ],
  ] as const
) {
  Deno.test(`websocket() rejects a certificate ${what}`, async () => {
    using listener = Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert: certificate, key: KEY });
    const serving = listener.accept().then(async (socket) => {
      await socket.handshake().catch(() => {});
      socket.close();
    });
    await rejects(websocket({ url: `wss://127.0.0.1:${listener.addr.port}/` })(), (error: Error) => {
      ok(error instanceof Deno.errors.InvalidData);
      ok(reason.test(error.message), error.message);
      return true;
    });
    await serving;
  });
}

Deno.test("websocket() rejects with the reason for a port without TLS, one with TLS, a closed one, and an unknown name", async () => {
  using plain = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = serve(plain, "HTTP/1.1 400 Bad Request\r\n\r\n");
  await rejects(websocket({ url: `wss://127.0.0.1:${plain.addr.port}/` })(), {
    name: "InvalidData",
    message:
      /: the server does not speak TLS on this port: write ws:\/\/ for a server without TLS, or check the port$/,
  });
  await serving;
  {
    using secured = Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert: CERTIFICATE, key: KEY });
    const serving = secured.accept().then(async (socket) => {
      await socket.handshake().catch(() => {});
      socket.close();
    });
    await rejects(websocket({ url: `ws://127.0.0.1:${secured.addr.port}/` })(), (error: Error) => {
      ok(error.message.endsWith(CHECK_IT) || error.message.includes("without a response"), error.message);
      return true;
    });
    await serving;
    await rejects(websocket({ url: `ws://127.0.0.1:${closedPort()}/` })(), {
      name: "ConnectionRefused",
      message: /: Connection refused \(os error \d+\): check the address, and start the other side first$/,
    });
  }
  await rejects(websocket({ url: "ws://warren.invalid/" })(), {
    message:
      /^Cannot connect to ws:\/\/warren\.invalid\/: it has no address \(.*\): check the name, or write its address$/,
  });
});

for (const scheme of ["ws", "wss"]) {
  Deno.test(`A server that accepts ${scheme}:// connections and says nothing is given up in time`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepted = listener.accept();
    await using client = connecting(`${scheme}://127.0.0.1:${listener.addr.port}/`, { connectTimeout: 50 });
    await rejects(client.connector.open(), {
      name: "TimedOut",
      message: /: no connection within 0\.05 s: check the address, and start the other side first$/,
    });
    (await accepted).close();
  });

  Deno.test(`A tunnel that closes while its ${scheme}:// far end connects ends the attempt at once`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepted = listener.accept();
    const closing = new AbortController();
    const context = { ...WITHOUT_TUNNEL, signal: closing.signal };
    const opening = websocket({ url: `${scheme}://127.0.0.1:${listener.addr.port}/` })(context);
    const socket = await accepted;
    closing.abort(new Error("the tunnel is closed"));
    await rejects(opening, { message: "the tunnel is closed" });
    socket.close();
  });
}

Deno.test("A name whose look-up hangs holds nothing up", async () => {
  const closing = new AbortController();
  const context: FarEndContext = {
    ...WITHOUT_TUNNEL,
    signal: closing.signal,
    lookUp: () => new Promise(() => {}),
  };
  const opening = websocket({ url: "ws://warren.invalid/" })(context);
  await turn();
  closing.abort(new Error("the tunnel is closed"));
  await rejects(opening, { message: "the tunnel is closed" });
  await using client = connecting("ws://warren.invalid/", { connectTimeout: 50 }, context.lookUp);
  await rejects(client.connector.open(), { name: "TimedOut" });
});

Deno.test("WebSocketTransport tries all addresses of a name in their order, each beside the tunnel, anew at each connection", async () => {
  const server = await websocket({ listen: "127.0.0.1:0" })();
  const port = new URL(`tcp://${server.local}`).port;
  const bypassed: string[] = [];
  let lookUps = 0;
  const context: FarEndContext = {
    ...WITHOUT_TUNNEL,
    bypass: (address) => bypassed.push(formatAddress(address)),
    lookUp: <Result>() => {
      lookUps++;
      const addresses = ["::1", "127.0.0.2", "127.0.0.1"];
      return Promise.resolve(addresses.map((host) => ({ host, port: Number(port), family: 4 })) as Result);
    },
  };
  const client = await websocket({ url: `ws://warren.invalid:${port}/`, retryAfter: 1 })(context);
  await until(() => server.connected, "it was connected");
  deepStrictEqual(bypassed, ["::1", "127.0.0.2", "127.0.0.1"]);
  using _stranger = await RawPeer.open(server.local!);
  server.close();
  await until(() => !client.connected, "the connection was lost");
  await server.closed;
  const again = await websocket({ listen: server.local! })();
  await until(() => client.connected && again.connected, "it was connected again");
  ok(lookUps >= 2);
  ok(client.lastError === undefined);
  client.close();
  again.close();
  await Promise.all([client.closed, again.closed]);
});

Deno.test("An address that does not reply delays the next one only briefly", async () => {
  // Its queue is full: further connections to it are neither made nor refused.
  using full = Deno.listen({ hostname: "127.0.0.2", port: 0, tcpBacklog: 1 });
  const { port } = full.addr;
  using good = Deno.listen({ hostname: "127.0.0.1", port });
  await using held = new AsyncDisposableStack();
  const stop = new AbortController();
  const waiting: Promise<unknown>[] = [];
  for (let i = 0; i < 8; i++) {
    waiting.push(
      Deno.connect({ hostname: "127.0.0.2", port, signal: stop.signal }).then(
        (socket) => held.use(socket),
        () => {},
      ),
    );
  }
  await until(
    async () => (await Promise.race([Promise.all(waiting), turn()])) === undefined,
    "its queue was full",
  );
  const accepted = RawPeer.accept(good);
  const lookUp = <Result>() =>
    Promise.resolve(["127.0.0.2", "127.0.0.1"].map((host) => ({ host, port, family: 4 })) as Result);
  await using client = connecting(`ws://warren.invalid:${port}/`, {}, lookUp);
  await client.connector.open();
  using _peer = await accepted;
  stop.abort();
  await Promise.all(waiting);
});

Deno.test("WebSocketTransport.lastError has the reason of a failed attempt, and each wait is longer", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = RawPeer.accept(listener);
  const client = await websocket({ url: `ws://127.0.0.1:${listener.addr.port}/`, retryAfter: 1 })();
  (await accepted)[Symbol.dispose]();
  await serve(listener, "HTTP/1.1 502 Bad Gateway\r\n\r\n");
  await until(() => client.lastError !== undefined, "it failed");
  ok(/502 Bad Gateway/.test(client.lastError!.message));
  strictEqual(client.failure, undefined);
  const next = RawPeer.accept(listener);
  using _peer = await next;
  await until(() => client.connected, "it was connected");
  strictEqual(client.lastError, undefined);
  client.close();
  await client.closed;
});

for (
  const [what, bytes, code] of [
    ["a frame of 1.5 GiB", frame(BINARY, pattern(100), { ...UNMASKED, announced: 1.5 * 2 ** 30 }), 1009],
    ["a masked frame", frame(BINARY, pattern(100)), 1002],
    ["pings without end", repeat(frame(PING, undefined, UNMASKED), 1002), 1008],
    ["messages of one byte without end", repeat(frame(BINARY, Uint8Array.of(1), UNMASKED), 10_001), 1008],
  ] as const
) {
  Deno.test(`A connecting WebSocketTransport closes at ${what} of a server, and connects again`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepted = RawPeer.accept(listener);
    const client = await websocket({ url: `ws://127.0.0.1:${listener.addr.port}/`, retryAfter: 1 })();
    const host = new TestHost();
    client.attach(host);
    using peer = await accepted;
    await peer.send(bytes);
    strictEqual(await peer.closeCode(), code);
    using next = await RawPeer.accept(listener);
    await until(() => client.connected, "it was connected again");
    await next.send(frame(BINARY, pattern(100), UNMASKED));
    deepStrictEqual(await receive(client, host, 1), [pattern(100)]);
    next[Symbol.dispose]();
    client.close();
    await client.closed;
    strictEqual(host.pool.taken, 0);
  });
}

Deno.test("A server that vanished is noticed in time, and connected to again", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = RawPeer.accept(listener);
  const client = await websocket({
    url: `ws://127.0.0.1:${listener.addr.port}/`,
    retryAfter: 1,
    timeout: 500,
  })();
  using silent = await accepted;
  using _next = await RawPeer.accept(listener);
  await silent.ended();
  client.close();
  await client.closed;
});

Deno.test("A connecting WebSocketTransport masks each message with a new key, and sends its Close frame last", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = RawPeer.accept(listener);
  const client = await websocket({ url: `ws://127.0.0.1:${listener.addr.port}/` })();
  const host = new TestHost();
  client.attach(host);
  using peer = await accepted;
  const batch = new PacketBatch();
  for (let i = 0; i < 40; i++) batch.push(numbered(host.pool, i));
  client.write(batch);
  client.close();
  const numbers: number[] = [];
  let heard;
  while ((heard = await peer.frame())?.opcode !== CLOSE) {
    if (heard?.opcode === BINARY) numbers.push(sequenceOf(heard.payload));
  }
  deepStrictEqual(numbers, Array.from({ length: 40 }, (_, i) => i));
  deepStrictEqual(heard!.payload, Uint8Array.of(0x03, 0xe8));
  await peer.send(frame(CLOSE, heard!.payload, UNMASKED));
  await client.closed;
  strictEqual(host.pool.taken, 0);
});

Deno.test("WebSocketTransport speaks with Deno's own server, in messages of every length of a frame", async () => {
  let socket: WebSocket | undefined;
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { socket: upgraded, response } = Deno.upgradeWebSocket(request);
    upgraded.binaryType = "arraybuffer";
    upgraded.onmessage = ({ data }) => upgraded.send(data);
    socket = upgraded;
    return response;
  });
  const client = await websocket({ url: `ws://127.0.0.1:${server.addr.port}/`, payload: "any" })();
  const host = new TestHost();
  client.attach(host);
  for (const length of [1, 2, 3, 4, 5, 125, 126, 127, 65_535]) {
    const batch = new PacketBatch();
    batch.push(host.pool.from(pattern(length))!);
    client.write(batch);
    deepStrictEqual(await receive(client, host, 1), [pattern(length)]);
  }
  client.close();
  await client.closed;
  strictEqual(host.pool.taken, 0);
  await until(() => socket!.readyState === WebSocket.CLOSED, "the server saw the end");
});

Deno.test("parseFarUrl() keeps payload=any from the server, and the rest of the query for it", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  for (
    const [query, sent] of [["?token=1&payload=any", "?token=1"], ["?payload=any", ""], ["?a&b", "?a&b"]]
  ) {
    const accepted = listener.accept();
    const opening = parseFarUrl(`ws://127.0.0.1:${listener.addr.port}/tunnel${query}`)();
    using peer = new RawPeer(await accepted);
    ok((await peer.head()).startsWith(`GET /tunnel${sent} HTTP/1.1\r\n`));
    await peer.send("HTTP/1.1 404 Not Found\r\n\r\n");
    await rejects(async () => await opening);
  }
});

/** The response to a request, with a wrong key, or further lines. */
function upgrade(key: string, ...lines: string[]): string {
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Accept: ${key}`,
    ...lines,
    "\r\n",
  ].join("\r\n");
}

/** Responds to one request with these bytes, and closes. */
async function serve(listener: Deno.Listener, response: string): Promise<void> {
  using peer = new RawPeer(await listener.accept());
  if (response === "") return;
  await peer.flood(Uint8Array.from(response, (character) => character.charCodeAt(0)), once());
  await peer.closeWrite().catch(() => {});
  await peer.ended();
}

function once(): () => boolean {
  let turns = 0;
  return () => turns++ > 0;
}

function repeat(bytes: Uint8Array, times: number): Uint8Array {
  const all = new Uint8Array(bytes.length * times);
  for (let i = 0; i < times; i++) all.set(bytes, i * bytes.length);
  return all;
}

function closedPort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A connector with shorter times. */
function connecting(url: string, options: Partial<ConnectorOptions>, lookUp = WITHOUT_TUNNEL.lookUp) {
  let connector: Connector;
  const all = { retryAfter: 1, timeout: 30_000, proxy: undefined, ...options };
  const context = { ...WITHOUT_TUNNEL, lookUp };
  const end = new WebSocketTransport(
    url,
    undefined,
    {},
    (owner) => connector = new Connector(new URL(url), all, context, owner),
  );
  return {
    end,
    connector: connector!,
    [Symbol.asyncDispose]: async () => {
      end.close();
      await end.closed;
    },
  };
}
