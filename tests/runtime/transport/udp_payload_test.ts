/** UDP with `payload: "any"`: any bytes, and peers that a stage chooses. Needs --allow-ffi, and --allow-net for other senders. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { createSocket } from "node:dgram";
import { formatEndpoint, MemoryDevice } from "../../../driver/mod.ts";
import { type Address, formatAddress } from "../../../lib/wire/address.ts";
import { type Packet, PacketBatch, SMALL_ROOM, type Stage, Verdict } from "../../../lib/core/mod.ts";
import { openTunnel } from "../../../runtime/tunnel/open_tunnel.ts";
import type { Tunnel } from "../../../runtime/tunnel/tunnel.ts";
import { WITHOUT_TUNNEL } from "../../../runtime/transport/end_opener.ts";
import { udp } from "../../../runtime/transport/udp.ts";
import type { UdpTransport } from "../../../runtime/transport/udp_transport.ts";
import { numbered, pattern, receive, sequenceOf } from "../../conformance/end.ts";
import { TestHost, until } from "../../kit/host.ts";
import { encodePacket, formatPacket } from "../../kit/packet_text.ts";
import { Seal } from "../../kit/seal.ts";
import { openSockets } from "../../kit/sockets.ts";
import { assertBalanced, QUIET } from "../../kit/tunnel.ts";
import { type AttachedUdp, attachUdp, udpPort, writeNumbered } from "../../kit/udp_end.ts";
import { copy } from "../../../lib/split/copy.ts";

await openSockets();

for (const here of ["127.0.0.1:0", "[::1]:0"]) {
  Deno.test(`udp() with payload "any" takes any bytes up to its MTU, but no empty datagrams, on ${here}`, async () => {
    await using server = await attachUdp(udp({ listen: here, payload: "any", mtu: 3000 }));
    await using client = await attachUdp(udp({ peer: server.end.local!, payload: "any", mtu: 9000 }));
    const sent = [Uint8Array.of(0), Uint8Array.of(0xff, 1), pattern(3000).fill(7), new Uint8Array(1500)];
    for (const bytes of [...sent, new Uint8Array(3001)]) send(client, bytes);
    const got = await receive(server.end, server.host, sent.length);
    deepStrictEqual(got, sent);
    await using stranger = await strangerTo(server);
    await stranger(new Uint8Array(0));
    await until(() => (server.end.read(new PacketBatch()), server.host.lost === 2), "both were refused");
    deepStrictEqual(server.host.refused, { "longer than the MTU": 1, empty: 1 });
    strictEqual(server.end.peer, undefined);
  });
}

Deno.test("udp() has room by default for what a stage adds to an Ethernet's packet, with payload any alone", async () => {
  await using any = await attachUdp(udp({ listen: "127.0.0.1:0", payload: "any" }));
  await using ip = await attachUdp(udp({ listen: "127.0.0.1:0" }));
  deepStrictEqual([any.end.mtu, any.end.payload, ip.end.mtu, ip.end.payload], [
    SMALL_ROOM - 1,
    "any",
    1500,
    "ip",
  ]);
});

Deno.test("udp() with payload any sends each packet to its endpoint: many peers on one port", async () => {
  await using server = await attachUdp(udp({ listen: "127.0.0.1:0", payload: "any" }));
  const clients: AttachedUdp[] = [];
  await using stack = new AsyncDisposableStack();
  for (let i = 0; i < 3; i++) {
    clients.push(stack.use(await attachUdp(udp({ peer: server.end.local!, payload: "any" }))));
  }
  const endpoints = new Map<number, Uint8Array>();
  for (const [i, client] of clients.entries()) {
    writeNumbered(client, i);
    const [packet] = await take(server, 1);
    strictEqual(formatEndpoint(packet!.endpoint, 4), `127.0.0.1:${udpPort(client)}`);
    endpoints.set(i, packet!.endpoint.slice());
    packet!.pool.give(packet!);
  }
  const batch = new PacketBatch();
  // By turns, so that neighbours in the batch go to different peers, and some to the same.
  const order = [0, 1, 2, 2, 1, 1, 0, 2, 0];
  for (const [number, to] of order.entries()) {
    const packet = numbered(server.host.pool, number);
    packet.sendTo(endpoints.get(to)!);
    batch.push(packet);
  }
  batch.push(numbered(server.host.pool, 99));
  strictEqual(server.end.write(batch), 10);
  deepStrictEqual(server.host.dropped, { "no peer": 1 });
  for (const [i, client] of clients.entries()) {
    const expected = order.flatMap((to, number) => to === i ? [number] : []);
    deepStrictEqual((await receive(client.end, client.host, expected.length)).map(sequenceOf), expected);
  }
});

Deno.test("udp() with payload any and a peer sends there what has no endpoint, and refuses what comes from elsewhere", async () => {
  await using peer = await attachUdp(udp({ listen: "127.0.0.1:0", payload: "any" }));
  await using other = await attachUdp(udp({ listen: "127.0.0.1:0", payload: "any" }));
  await using client = await attachUdp(
    udp({ peer: peer.end.local!, listen: "127.0.0.1:0", payload: "any" }),
  );
  writeNumbered(client, 1);
  const [came] = await take(peer, 1);
  const back = came!.endpoint.slice();
  came!.pool.give(came!);
  const batch = new PacketBatch();
  const reply = numbered(other.host.pool, 2);
  reply.sendTo(back);
  batch.push(reply);
  other.end.write(batch);
  await until(() => (client.end.read(new PacketBatch()), client.host.lost === 1), "it was refused");
  deepStrictEqual(client.host.refused, { "not from the peer": 1 });
  strictEqual(client.end.peer, peer.end.local);
});

Deno.test("udp() with IP packets sends to its peer, whatever endpoint a stage has set", async () => {
  await using server = await attachUdp(udp({ listen: "127.0.0.1:0" }));
  await using client = await attachUdp(udp({ peer: server.end.local! }));
  await using other = await attachUdp(udp({ peer: server.end.local! }));
  writeNumbered(other, 1);
  const [packet] = await take(server, 1);
  const elsewhere = packet!.endpoint.slice();
  packet!.pool.give(packet!);
  writeNumbered(client, 2);
  await receive(server.end, server.host, 1);
  const batch = new PacketBatch();
  const reply = numbered(server.host.pool, 3);
  reply.sendTo(elsewhere);
  batch.push(reply);
  server.end.write(batch);
  deepStrictEqual((await receive(client.end, client.host, 1)).map(sequenceOf), [3]);
});

Deno.test("udp() bypasses each peer that a stage addresses, once", async () => {
  const bypassed: string[] = [];
  const context = {
    ...WITHOUT_TUNNEL,
    bypass: (address: Address) => void bypassed.push(formatAddress(address)),
  };
  await using server = await attachUdp(() => udp({ listen: "[::]:0", payload: "any" })(context));
  await using one = await attachUdp(udp({ peer: `127.0.0.1:${udpPort(server)}`, payload: "any" }));
  await using other = await attachUdp(udp({ peer: `[::1]:${udpPort(server)}`, payload: "any" }));
  for (let round = 0; round < 3; round++) {
    for (const client of [one, other]) {
      writeNumbered(client, round);
      const batch = new PacketBatch();
      await until(() => server.end.read(batch) === 1, "it arrived");
      server.end.write(batch);
      await receive(client.end, client.host, 1);
    }
  }
  deepStrictEqual(bypassed, ["127.0.0.1", "::1"]);
});

Deno.test("a packet that a stage turns round goes back to its sender, with payload any", async () => {
  await using site = await open({ listen: "127.0.0.1:0" }, () => Verdict.Reply);
  const { end } = site;
  await using one = await attachUdp(udp({ peer: end.local!, payload: "any" }));
  await using other = await attachUdp(udp({ peer: end.local!, payload: "any" }));
  for (const [i, client] of [one, other, one].entries()) {
    send(client, Uint8Array.of(0xee, i));
    deepStrictEqual(await receive(client.end, client.host, 1), [Uint8Array.of(0xee, i)]);
  }
});

for (const offload of [false, true]) {
  Deno.test(`a stage that seals joins two tunnels, ${offload ? "with" : "without"} super-packets, and forged datagrams move no peer`, async () => {
    const text = "tcp 10.9.0.2:5000 > 10.9.0.1:80 A payload 1200";
    const seals = [new Seal(0x5a, true), new Seal(0x5a, false)] as const;
    await using server = await open({ listen: "127.0.0.1:0" }, seals[0]);
    await using client = await open({ peer: server.end.local! }, seals[1]);
    await using stranger = await strangerTo(server);
    for (let round = 0; round < 3; round++) {
      // The stranger speaks last: bytes, an IP packet, and one sealed with another key.
      client.write(text, offload ? 300 : 0);
      const there = await server.took(offload ? 4 : 1);
      strictEqual(there[0], offload ? text.replace("1200", "300") : text);
      strictEqual(formatEndpoint(seals[0].peer!, 4), `127.0.0.1:${client.end.local!.split(":")[1]}`);
      for (const bytes of [Uint8Array.of(1, 2, 3), encodePacket(text), sealed(0x77, text)]) {
        await stranger(bytes);
      }
      await until(
        () => server.tunnel.stats.dropped["seal: forged"] === 3 * (round + 1),
        "three were dropped",
      );
      strictEqual(formatEndpoint(seals[0].peer!, 4), `127.0.0.1:${client.end.local!.split(":")[1]}`);
      server.write(text);
      strictEqual((await client.took(1))[0], text);
    }
    for (const { tunnel } of [server, client]) assertBalanced(tunnel);
    deepStrictEqual(client.tunnel.stats.dropped, {});
  });
}

Deno.test("a peer that a stage has moved is where the next genuine datagram came from", async () => {
  const seal = new Seal(1, true);
  await using server = await open({ listen: "127.0.0.1:0" }, seal);
  const text = "udp 10.9.0.2:5000 > 10.9.0.1:53 payload 100";
  for (let round = 0; round < 3; round++) {
    await using client = await open({ peer: server.end.local! }, new Seal(1, false));
    client.write(text);
    await server.took(1);
    server.write(text);
    deepStrictEqual(await client.took(1), [text]);
  }
});

interface Site extends AsyncDisposable {
  readonly tunnel: Tunnel;
  readonly end: UdpTransport;
  /** Sends a packet from the system; with a segment size, a super-packet. */
  write(text: string, segmentSize?: number): void;
  /** Waits for so many packets to the system. */
  took(count: number): Promise<string[]>;
}

/** A tunnel with this last stage, on a device in memory. */
async function open(
  options: { listen: string } | { peer: string },
  stage: Stage | (() => Verdict),
): Promise<Site> {
  const [device, system] = MemoryDevice.pair();
  const host = new TestHost();
  system.attach(host);
  const far = udp({ ...options, payload: "any" });
  const tunnel = await openTunnel({ ...QUIET, device, far, stages: [stage] });
  const running = tunnel.run();
  return {
    tunnel,
    end: tunnel.far as UdpTransport,
    write(text, segmentSize = 0) {
      const batch = new PacketBatch();
      const packet = host.pool.from(encodePacket(text))!;
      packet.segmentSize = segmentSize;
      batch.push(packet);
      strictEqual(system.write(batch), 1);
    },
    async took(count) {
      const batch = new PacketBatch();
      await until(() => (system.read(batch), batch.length >= count), `${count} packets came`);
      return Array.from(batch, (packet) => {
        const [bytes] = copy(packet);
        packet.pool.give(packet);
        return formatPacket(bytes!);
      });
    },
    async [Symbol.asyncDispose]() {
      tunnel.close();
      await running;
      system.close();
      strictEqual(host.pool.taken, 0);
    },
  };
}

/** A packet sealed with a key. */
function sealed(key: number, text: string): Uint8Array {
  const { pool } = new TestHost();
  const batch = new PacketBatch();
  batch.push(pool.from(encodePacket(text))!);
  new Seal(key, false).outbound(batch);
  return batch.packets[0]!.data.slice();
}

function send({ end, host }: AttachedUdp, bytes: Uint8Array): void {
  const batch = new PacketBatch();
  const packet = host.pool.take(bytes.length)!;
  packet.bytes.set(bytes, packet.offset);
  batch.push(packet);
  strictEqual(end.write(batch), 1);
}

/** Reads `count` packets, which the caller gives back. */
async function take({ end }: AttachedUdp, count: number): Promise<Packet[]> {
  const batch = new PacketBatch();
  await until(() => (end.read(batch), batch.length >= count), `${count} packets came`);
  return [...batch];
}

/** A socket of Deno's that sends to an end. */
async function strangerTo(
  { end }: { end: UdpTransport },
): Promise<AsyncDisposable & ((bytes: Uint8Array) => Promise<void>)> {
  const family = end.local!.startsWith("[") ? "udp6" : "udp4";
  const socket = createSocket(family);
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.bind(0, family === "udp4" ? "127.0.0.1" : "::1", resolve);
  await promise;
  const send = (bytes: Uint8Array) =>
    new Promise<void>((resolve, reject) =>
      socket.send(
        bytes,
        Number(end.local!.split(":").at(-1)),
        family === "udp4" ? "127.0.0.1" : "::1",
        (error) => error ? reject(error) : resolve(),
      )
    );
  return Object.assign(send, {
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void socket.close(() => resolve())),
  });
}
