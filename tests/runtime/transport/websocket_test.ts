/** Tunnels over WebSocket on loopback, lost connections, and hostile messages. Needs --allow-net. */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { openTunnel } from "../../../runtime/tunnel/open_tunnel.ts";
import { websocket, type WebSocketOptions } from "../../../runtime/transport/websocket.ts";
import type { WebSocketTransport } from "../../../runtime/transport/websocket_transport.ts";
import { empty, numbered, pattern, receive, sequenceOf } from "../../conformance/end.ts";
import { TestHost, turn, until } from "../../kit/host.ts";
import { RawPeer } from "../../kit/raw_websocket.ts";

Deno.test("two tunnels joined by websocket() carry packets both ways, and count them", async () => {
  const right = await site(websocket({ listen: "127.0.0.1:0" }));
  const left = await site(websocket({ url: `ws://${right.far.local}/?token=secret` }));
  strictEqual(left.far.name, `ws://${right.far.local}/`);
  strictEqual(right.far.name, `ws listening on ${right.far.local}`);
  await until(() => left.far.connected && right.far.connected, "they were connected");
  const all = Array.from({ length: 1000 }, (_, i) => i);
  for (const [from, to] of [[left, right], [right, left]] as const) {
    const numbers: number[] = [];
    const batch = new PacketBatch();
    const got = new PacketBatch();
    for (let next = 0; numbers.length < all.length;) {
      while (next < all.length && batch.length < 64) batch.push(numbered(from.host.pool, next++));
      from.outside.write(batch);
      await turn();
      to.outside.read(got);
      numbers.push(...empty(got).map(sequenceOf));
    }
    deepStrictEqual(numbers, all);
  }
  for (const { tunnel } of [left, right]) {
    await until(() => tunnel.stats.queued === 0, "nothing was queued");
    const { outbound, inbound, dropped } = tunnel.stats;
    const flow = { packetsIn: 1000, bytesIn: 24_000, packetsOut: 1000, bytesOut: 24_000 };
    deepStrictEqual([outbound, inbound, dropped], [flow, flow, {}]);
  }
  await Promise.all([left.close(), right.close()]);
});

Deno.test("WebSocketTransport connects anew, and drops packets meanwhile", async () => {
  const first = await attached({ listen: "127.0.0.1:0" });
  const place = first.end.local!;
  const client = await attached({ url: `ws://${place}/`, retryAfter: 1 });
  await until(() => first.end.connected, "it was connected");
  first.end.close();
  await until(() => !client.end.connected, "the connection was lost");
  await first.end.closed;
  const { wakes } = client.host;
  strictEqual(write(client, 1), 1);
  deepStrictEqual(client.host.dropped, { "not connected": 1 });
  strictEqual(client.end.failure, undefined);
  const second = await attached({ listen: place });
  await until(() => client.end.connected && second.end.connected, "it was connected anew");
  ok(client.host.wakes > wakes);
  write(client, 2);
  deepStrictEqual((await receive(second.end, second.host, 1)).map(sequenceOf), [2]);
  write(second, 3);
  deepStrictEqual((await receive(client.end, client.host, 1)).map(sequenceOf), [3]);
  await close(client, second);
});

Deno.test("WebSocketTransport closes while it waits to connect anew", async () => {
  const server = await attached({ listen: "127.0.0.1:0" });
  const client = await attached({ url: `ws://${server.end.local}/`, retryAfter: 60_000 });
  await close(server);
  await until(() => !client.end.connected, "the connection was lost");
  await close(client);
});

Deno.test("WebSocketTransport counts what was under way when the connection was lost", async () => {
  // A server that opens the connection and reads nothing, so that messages pile up.
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = RawPeer.accept(listener);
  const client = await attached({ url: `ws://127.0.0.1:${listener.addr.port}/`, retryAfter: 60_000 });
  const peer = await accepted;
  const batch = new PacketBatch();
  let written = 0;
  // What the kernel's buffers take is sent; then nothing is taken any more.
  for (let still = 0; still < 20;) {
    for (let packet; batch.length < 16 && (packet = client.host.pool.from(pattern(20_000))) !== undefined;) {
      batch.push(packet);
    }
    const count = client.end.write(batch);
    written += count;
    still = count === 0 ? still + 1 : 0;
    await turn();
  }
  const { queued } = client.end;
  ok(queued > 0 && written > queued);
  const { wakes } = client.host;
  peer[Symbol.dispose]();
  await until(() => !client.end.connected, "the connection was lost");
  deepStrictEqual(client.host.dropped, { "connection lost": queued });
  strictEqual(client.end.queued, 0);
  ok(client.host.wakes > wakes);
  empty(batch);
  await close(client);
});

Deno.test("websocket() that listens takes one peer at a time, and no web page", async () => {
  const server = await attached({
    listen: "127.0.0.1:0",
    path: "/tunnel",
    origins: ["https://good.example"],
  });
  const base = `http://${server.end.local}`;
  const upgrade = { connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
  const key = { "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==" };
  strictEqual(await status(`${base}/tunnel`, {}), 426);
  strictEqual(await status(`${base}/other`, { ...upgrade, ...key }), 404);
  strictEqual(await status(`${base}/tunnel`, { ...upgrade, ...key, origin: "https://evil.example" }), 403);
  strictEqual(await status(`${base}/tunnel`, upgrade), 400);
  const url = `ws://${server.end.local}/tunnel`;
  const peer = await attached({ url });
  await until(() => server.end.connected, "it was connected");
  strictEqual(await status(`${base}/tunnel`, { ...upgrade, ...key }), 503);
  await rejects(websocket({ url })(), {
    message:
      /^Cannot connect to ws:\/\/127\.0\.0\.1:\d+\/tunnel: the server answered HTTP\/1\.1 503 [^:]*: another machine is connected already, or the server is busy: try later$/,
  });
  await close(peer);
  await until(() => !server.end.connected, "the peer was gone");
  const next = await attached({ url });
  await until(() => server.end.connected, "the next one was connected");
  await close(next, server);
});

Deno.test("WebSocketTransport refuses messages that are not packets", async () => {
  const server = await attached({ listen: "127.0.0.1:0", queueLength: 2 });
  const socket = new WebSocket(`ws://${server.end.local}/`);
  await new Promise((resolve) => socket.onopen = resolve);
  await until(() => server.end.connected, "it was connected");
  const messages = [
    "text",
    "",
    new Uint8Array(0),
    Uint8Array.of(0x55, 1),
  ];
  for (const message of messages) socket.send(message);
  await until(() => server.host.lost === messages.length, "all were refused");
  deepStrictEqual(server.host.refused, {
    "not a binary message": 2,
    "not an IP packet": 2,
  });
  for (let i = 0; i < 5; i++) socket.send(pattern(65_535).fill(i, 1));
  await until(() => server.host.refused["receive queue full"] === 3, "the rest was refused");
  const arrived = await receive(server.end, server.host, 2);
  deepStrictEqual(arrived.map((bytes) => bytes[1]), [0, 1]);
  strictEqual(server.end.failure, undefined);
  const closed = new Promise((resolve) => socket.onclose = resolve);
  await close(server);
  await closed;
});

Deno.test("WebSocketTransport gives its message the bytes that the packet had when it was taken", async () => {
  const server = await attached({ listen: "127.0.0.1:0" });
  const client = await attached({ url: `ws://${server.end.local}/` });
  const packet = client.host.pool.from(pattern(1000))!;
  const batch = new PacketBatch();
  batch.push(packet);
  client.end.write(batch);
  packet.bytes.fill(0xa5, packet.offset, packet.offset + 1000);
  deepStrictEqual(await receive(server.end, server.host, 1), [pattern(1000)]);
  await close(server, client);
});

Deno.test("websocket() rejects with the reason and the remedy when it cannot open", async () => {
  const server = await attached({ listen: "127.0.0.1:0" });
  const place = server.end.local!;
  await rejects(websocket({ listen: place })(), {
    name: "AddrInUse",
    message: `Cannot listen on ${place}: the port is in use: use another one`,
  });
  await close(server);
  await rejects(websocket({ url: `ws://${place}/?token=secret` })(), (error: Error) => {
    ok(error.message.startsWith(`Cannot connect to ws://${place}/: `), error.message);
    ok(error.message.endsWith(": check the address, and start the other side first"), error.message);
    ok(!error.message.includes("secret"), error.message);
    return true;
  });
});

interface Attached {
  readonly end: WebSocketTransport;
  readonly host: TestHost;
}

async function attached(options: WebSocketOptions): Promise<Attached> {
  const end = await websocket(options)();
  const host = new TestHost();
  end.attach(host);
  return { end, host };
}

async function close(...all: Attached[]): Promise<void> {
  for (const { end } of all) end.close();
  for (const { end, host } of all) {
    await end.closed;
    strictEqual(host.pool.taken, 0);
  }
}

function write({ end, host }: Attached, number: number): number {
  const batch = new PacketBatch();
  batch.push(numbered(host.pool, number));
  return end.write(batch);
}

async function site(opener: () => Promise<WebSocketTransport>) {
  const [device, outside] = MemoryDevice.pair();
  const host = new TestHost();
  outside.attach(host);
  const far = await opener();
  const tunnel = await openTunnel({ device, far, signals: false, watchdog: 0 });
  tunnel.run();
  const close = async () => {
    await tunnel[Symbol.asyncDispose]();
    await far.closed;
    outside.close();
    strictEqual(host.pool.taken, 0);
  };
  return { tunnel, far, outside, host, close };
}

/** The status of a raw request, with headers that fetch() does not allow. */
async function status(url: string, headers: Record<string, string>): Promise<number> {
  const { hostname, port, pathname, host } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const lines = Object.entries({ host, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  await connection.write(new TextEncoder().encode(`GET ${pathname} HTTP/1.1\r\n${lines.join("")}\r\n`));
  const answer = new Uint8Array(1024);
  const count = await connection.read(answer);
  return Number(/^HTTP\/1\.1 (\d+)/.exec(new TextDecoder().decode(answer.subarray(0, count ?? 0)))?.[1]);
}
