/** Tunnels over UDP on loopback, and datagrams of other senders. Needs --allow-ffi, and --allow-net for other senders. */

import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import * as fc from "fast-check";
import {
  formatEndpoint,
  MemoryDevice,
  openUdpSocket,
  openWaiter,
  type UdpSocket,
} from "../../../driver/mod.ts";
import { parseAddress } from "../../../lib/wire/address.ts";
import { type Packet, PacketBatch } from "../../../lib/core/mod.ts";
import { openTunnel } from "../../../runtime/tunnel/open_tunnel.ts";
import type { Tunnel, TunnelOptions } from "../../../runtime/mod.ts";
import { udp } from "../../../runtime/transport/udp.ts";
import { UdpTransport } from "../../../runtime/transport/udp_transport.ts";
import { empty, numbered, pattern, receive, sequenceOf } from "../../conformance/end.ts";
import { TestHost, turn, until } from "../../kit/host.ts";
import { openSockets } from "../../kit/sockets.ts";
import { type AttachedUdp, attachUdp, writeNumbered } from "../../kit/udp_end.ts";

await openSockets();

Deno.test("two tunnels joined by udp() carry packets both ways, and count them", async () => {
  await using right = await site({ far: udp({ listen: HERE }) });
  await using left = await site({ far: udp({ peer: right.far.local!, listen: HERE }) });
  strictEqual(left.far.name, `udp ${right.far.local}`);
  strictEqual(right.far.name, `udp listening on ${right.far.local}`);
  deepStrictEqual(await carry(left, right, 250), Array.from({ length: 250 }, (_, i) => i));
  deepStrictEqual(await carry(right, left, 250), Array.from({ length: 250 }, (_, i) => i));
  for (const { tunnel } of [left, right]) {
    await until(() => tunnel.stats.queued === 0, "nothing was queued");
    const { outbound, inbound, dropped } = tunnel.stats;
    const [packets, bytes] = [250, 250 * 24];
    deepStrictEqual(outbound, { packetsIn: packets, bytesIn: bytes, packetsOut: packets, bytesOut: bytes });
    deepStrictEqual(inbound, { packetsIn: packets, bytesIn: bytes, packetsOut: packets, bytesOut: bytes });
    deepStrictEqual(dropped, {});
  }
});

Deno.test("udp() without a peer drops packets until someone sends, and follows who sends", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  await using home = await attachUdp(udp({ peer: server.end.local!, listen: HERE }));
  await using roaming = await attachUdp(udp({ peer: server.end.local!, listen: HERE }));
  strictEqual(server.end.peer, undefined);
  writeNumbered(server, 1);
  deepStrictEqual(server.host.dropped, { "no peer": 1 });
  for (const [round, client] of [home, roaming, home].entries()) {
    writeNumbered(client, round);
    deepStrictEqual((await receive(server.end, server.host, 1)).map(sequenceOf), [round]);
    strictEqual(server.end.peer, `127.0.0.1:${client.end.local!.split(":")[1]}`);
    writeNumbered(server, 100 + round);
    deepStrictEqual((await receive(client.end, client.host, 1)).map(sequenceOf), [100 + round]);
  }
  deepStrictEqual(server.host.refused, {});
});

Deno.test("UdpTransport refuses datagrams without an IP packet, whose sender does not become the peer", async () => {
  await using server = await attachUdp(udp({ listen: HERE, mtu: 200 }));
  await using client = await attachUdp(udp({ peer: server.end.local!, listen: HERE }));
  writeNumbered(client, 1);
  await receive(server.end, server.host, 1);
  const { peer } = server.end;
  await using stranger = await rawSocket();
  let arrived = 0;
  const datagram = fc.oneof(
    fc.constant(new Uint8Array(0)),
    fc.uint8Array({ minLength: 1, maxLength: 300 }).filter((bytes) => ![4, 6].includes(bytes[0]! >> 4)),
    fc.integer({ min: 201, max: 60_000 }).map((length) => pattern(length)),
  );
  const hostile = fc.sample(datagram, { numRuns: 200, seed: 7 });
  for (const bytes of hostile) {
    await stranger.send(bytes, server.end.local!);
    arrived++;
    await refused(server, arrived);
  }
  strictEqual(server.end.read(new PacketBatch()), 0);
  strictEqual(server.end.peer, peer);
  strictEqual(server.end.failure, undefined);
  deepStrictEqual(Object.keys(server.host.refused).toSorted(), ["longer than the MTU", "not an IP packet"]);
  const long = hostile.filter(({ length, [0]: first }) => length > 200 && first! >> 4 === 4).length;
  strictEqual(server.host.refused["longer than the MTU"], long);
});

Deno.test("UdpTransport with a peer refuses datagrams of anyone else", async () => {
  await using peer = await attachUdp(udp({ listen: HERE }));
  await using client = await attachUdp(udp({ peer: peer.end.local!, listen: HERE }));
  await using stranger = await rawSocket();
  await stranger.send(pattern(100), client.end.local!);
  await stranger.send(new Uint8Array(0), client.end.local!);
  await refused(client, 2);
  deepStrictEqual(client.host.refused, { "not from the peer": 2 });
  strictEqual(client.end.read(new PacketBatch()), 0);
  writeNumbered(client, 5);
  deepStrictEqual((await receive(peer.end, peer.host, 1)).map(sequenceOf), [5]);
});

Deno.test("UdpTransport drops what is longer than its MTU, and what the system refuses, with the reason", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  await using client = await attachUdp(udp({ peer: server.end.local!, listen: HERE, mtu: 100 }));
  const batch = new PacketBatch();
  batch.push(client.host.pool.from(pattern(101))!);
  strictEqual(client.end.write(batch), 1);
  deepStrictEqual(client.host.dropped, { "longer than the MTU": 1 });
});

Deno.test("UdpTransport drops what the system refuses, with the reason, and goes on", () => {
  const socket = new FakeSocket();
  const host = new TestHost();
  using end = new UdpTransport(socket, { peer: [PEER] });
  end.attach(host);
  socket.answers = ["EMSGSIZE", "ENETUNREACH", "", "EMSGSIZE", ""];
  const batch = new PacketBatch();
  for (let i = 0; i < 5; i++) batch.push(numbered(host.pool, i));
  strictEqual(end.write(batch), 5);
  strictEqual(batch.length, 0);
  deepStrictEqual(socket.sent, [2, 4]);
  deepStrictEqual(host.dropped, {
    "refused by the system: EMSGSIZE": 2,
    "refused by the system: ENETUNREACH": 1,
  });
  strictEqual(end.failure, undefined);
  strictEqual(host.pool.taken, 0);
});

Deno.test("UdpTransport leaves in the batch what the system has no room for", () => {
  const socket = new FakeSocket();
  const host = new TestHost();
  using end = new UdpTransport(socket, { peer: [PEER] });
  end.attach(host);
  socket.answers = ["", "", undefined];
  const batch = new PacketBatch();
  for (let i = 0; i < 5; i++) batch.push(numbered(host.pool, i));
  batch.packets[3]!.length = 1501;
  batch.packets[4]!.checksumStart = 8;
  strictEqual(end.write(batch), 3);
  deepStrictEqual(host.dropped, { "longer than the MTU": 1 });
  deepStrictEqual(socket.sent, [0, 1]);
  const [third, last] = batch;
  const bytes = last!.data.slice();
  socket.answers = [undefined];
  strictEqual(end.write(batch), 0);
  deepStrictEqual([...batch], [third, last]);
  // A sum is finished once.
  deepStrictEqual(last!.data, bytes);
  socket.answers = ["", ""];
  strictEqual(end.write(batch), 2);
  deepStrictEqual(socket.sent, [0, 1, 2, 4]);
  strictEqual(host.pool.taken, 0);
});

Deno.test("UdpTransport fails when its socket does", () => {
  const socket = new FakeSocket();
  using end = new UdpTransport(socket, { peer: [PEER] });
  end.attach(new TestHost());
  strictEqual(end.failure, undefined);
  socket.failure = new Error("Cannot use UDP");
  strictEqual(end.failure, socket.failure);
});

Deno.test("UdpTransport requests another breath when it has refused a packet", async () => {
  await using peer = await attachUdp(udp({ listen: HERE }));
  await using client = await attachUdp(udp({ peer: peer.end.local!, listen: HERE }));
  await using stranger = await rawSocket();
  await stranger.send(pattern(100), client.end.local!);
  await refused(client, 1);
  strictEqual(client.host.wakes, 1);
});

Deno.test("UdpTransport.read() sets packet.endpoint to the sender", async () => {
  for (const here of [HERE, "[::1]:0"]) {
    await using server = await attachUdp(udp({ listen: here }));
    await using client = await attachUdp(udp({ peer: server.end.local!, listen: here }));
    writeNumbered(client, 1);
    const batch = new PacketBatch();
    await until(() => server.end.read(batch) === 1, "it arrived");
    const [packet] = batch as Iterable<Packet>;
    strictEqual(formatEndpoint(packet!.endpoint, here === HERE ? 4 : 6), client.end.local);
    empty(batch);
  }
});

Deno.test("udp() that listens on [::] also has IPv4 peers", async () => {
  await using server = await attachUdp(udp({ listen: "[::]:0" }));
  const port = server.end.local!.split(":").at(-1);
  await using client = await attachUdp(udp({ peer: `127.0.0.1:${port}`, listen: HERE }));
  writeNumbered(client, 1);
  await receive(server.end, server.host, 1);
  strictEqual(server.end.peer, `[::ffff:127.0.0.1]:${client.end.local!.split(":")[1]}`);
  writeNumbered(server, 2);
  deepStrictEqual((await receive(client.end, client.host, 1)).map(sequenceOf), [2]);
});

Deno.test("UdpTransport continues when the peer's port is closed", async () => {
  await using gone = await attachUdp(udp({ listen: HERE }));
  const place = gone.end.local!;
  gone.end.close();
  await gone.end.closed;
  await using client = await attachUdp(udp({ peer: place, listen: HERE }));
  for (let i = 0; i < 10; i++) {
    writeNumbered(client, i);
    await until(() => client.end.queued === 0, "it was sent");
  }
  await using back = await attachUdp(udp({ listen: place }));
  writeNumbered(client, 77);
  deepStrictEqual((await receive(back.end, back.host, 1)).map(sequenceOf), [77]);
  strictEqual(client.end.failure, undefined);
});

Deno.test("udp() finishes sums that its device left unfinished", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  await using client = await attachUdp(udp({ peer: server.end.local!, listen: HERE }));
  const packet = client.host.pool.from(new Uint8Array(28).fill(0))!;
  packet.bytes[packet.offset] = 0x45;
  packet.view.setUint16(packet.offset + 20, 0x1234);
  packet.checksumStart = 20;
  packet.checksumOffset = 6;
  const batch = new PacketBatch();
  batch.push(packet);
  client.end.write(batch);
  const [arrived] = await receive(server.end, server.host, 1);
  strictEqual(new DataView(arrived!.buffer).getUint16(26), ~0x1234 & 0xffff);
});

Deno.test("a wait ends for datagrams for which there was no slot when an earlier wait had ended", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  await using client = await attachUdp(udp({ peer: server.end.local!, listen: HERE }));
  using waiter = await openWaiter();
  const wait = () => {
    waiter.clear();
    waiter.add(server.end.waits[0]!.waitable!, true, false);
    return waiter.wait(DEADLINE);
  };
  const { pool } = server.host;
  const hoard = pool.packets.map(() => pool.take(1) ?? pool.take(9000)!);
  writeNumbered(client, 5);
  for (let round = 0; round < 3; round++) {
    strictEqual(wait(), true, `wait ${round}`);
    strictEqual(server.end.read(new PacketBatch()), 0);
  }
  for (const packet of hoard) pool.give(packet);
  strictEqual(wait(), true, "the wait when there are slots");
  deepStrictEqual((await receive(server.end, server.host, 1)).map(sequenceOf), [5]);
});

Deno.test("udp() resolves a peer's name when it opens", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  const port = server.end.local!.split(":")[1];
  await using client = await attachUdp(udp({ peer: `localhost:${port}`, listen: HERE }));
  strictEqual(client.end.name, `udp 127.0.0.1:${port}`);
});

Deno.test("udp() rejects with the reason and the remedy when it cannot open", async () => {
  await using server = await attachUdp(udp({ listen: HERE }));
  await rejects(udp({ listen: server.end.local! })(), {
    name: "AddrInUse",
    message:
      /^Cannot receive on 127\.0\.0\.1:\d+: (WSA)?EADDRINUSE \(\d+\): another program has this port: use another one$/,
  });
  // Wine lets a socket have any address.
  if (Deno.build.os !== "windows") {
    await rejects(udp({ listen: "192.0.2.1:0" })(), {
      name: "DriverError",
      message: /EADDRNOTAVAIL \(\d+\): use an address of this machine, or a port alone$/,
    });
  }
  for (const name of ["not there", "a-name-of-sixteen", "lo\n"]) {
    await rejects(udp({ listen: HERE, interface: name })(), {
      name: "NotFound",
      message: /^Cannot use interface "[^"]+": /,
    });
  }
});

Deno.test("a tunnel whose UDP socket fails ends with the reason", async () => {
  const [device] = MemoryDevice.pair();
  const socket = await openUdpSocket({ address: parseAddress("127.0.0.1") });
  const failing = new UdpTransport(socket, { peer: [PEER] });
  const tunnel = await openTunnel({ device, signals: false, watchdog: 0, far: failing });
  const running = tunnel.run();
  Object.assign(socket, { failure: new Error("Cannot use udp: the test says so") });
  tunnel.send(pattern(20));
  await rejects(running, { message: "Cannot use udp: the test says so" });
  strictEqual(socket.waitable, undefined);
  await failing.closed;
});

/** So that permission for loopback is enough. */
const HERE = "127.0.0.1:0";
/** Time for packets that must arrive (milliseconds). */
const DEADLINE = 5000;
const PEER = { host: "192.0.2.1", port: 4500, family: 4 } as const;

/** A socket whose results of sending the test sets. */
class FakeSocket implements UdpSocket {
  readonly waitable = 1;
  readonly family = 4;
  readonly localAddresses = false;
  readonly local = new Uint8Array(48);
  readonly closed = Promise.resolve();
  failure: Error | undefined;
  refusal: string | undefined;
  /** For each datagram: `""` for sent, the system's words, or `undefined` for no room. */
  answers: (string | undefined)[] = [];
  readonly sent: number[] = [];

  attach(): void {
  }

  endpoint(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(48);
  }

  receive(): number {
    return 0;
  }

  send(packets: readonly Packet[], start: number, end: number): number {
    for (let at = start; at < end; at++) {
      this.refusal = this.answers.shift();
      if (this.refusal !== "") return at - start;
      this.sent.push(sequenceOf(packets[at]!.data));
    }
    return end - start;
  }

  close(): void {
  }

  [Symbol.dispose](): void {
  }
}

interface Site extends AsyncDisposable {
  readonly tunnel: Tunnel;
  readonly far: UdpTransport;
  readonly outside: MemoryDevice;
  readonly host: TestHost;
}

/** A tunnel on a device in memory, whose other side is the test's. */
async function site(options: TunnelOptions): Promise<Site> {
  const [device, outside] = MemoryDevice.pair();
  const host = new TestHost();
  outside.attach(host);
  const tunnel = await openTunnel({ ...options, device, signals: false, watchdog: 0 });
  const far = tunnel.far as UdpTransport;
  tunnel.run();
  return {
    tunnel,
    far,
    outside,
    host,
    async [Symbol.asyncDispose]() {
      await tunnel[Symbol.asyncDispose]();
      await far.closed;
      outside.close();
      strictEqual(host.pool.taken, 0);
    },
  };
}

/** Few enough that the system's socket buffer holds all, if the other side gets no turn. */
async function carry(from: Site, to: Site, count: number): Promise<number[]> {
  const numbers: number[] = [];
  const batch = new PacketBatch();
  const got = new PacketBatch();
  for (let next = 0; numbers.length < count;) {
    while (next < count && batch.length < 16) batch.push(numbered(from.host.pool, next++));
    from.outside.write(batch);
    await turn();
    to.outside.read(got);
    numbers.push(...empty(got).map(sequenceOf));
  }
  return numbers;
}

/** Reads until `count` datagrams were refused. */
async function refused({ end, host }: AttachedUdp, count: number): Promise<void> {
  await until(() => (end.read(new PacketBatch()), host.lost === count), `${count} datagrams were refused`);
}

/** A socket of another sender. */
async function rawSocket(): Promise<
  AsyncDisposable & { send(bytes: Uint8Array, to: string): Promise<void> }
> {
  const socket: Socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return {
    send: (bytes, to) => {
      const [host, port] = to.split(":");
      return new Promise((resolve, reject) =>
        socket.send(bytes, Number(port), host, (error) => error === null ? resolve() : reject(error))
      );
    },
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void socket.close(() => resolve())),
  };
}
