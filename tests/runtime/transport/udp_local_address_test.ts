/** Replies over UDP leave from the address that the peer has sent to; on loopback, which has many. Needs --allow-ffi. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openUdpSocket } from "../../../driver/mod.ts";
import { clearLocal, Endpoint, hasLocal, isFromLocal } from "../../../driver/udp_socket.ts";
import { parseAddress } from "../../../lib/wire/address.ts";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { udp } from "../../../runtime/transport/udp.ts";
import { UdpTransport } from "../../../runtime/transport/udp_transport.ts";
import { numbered, receive, sequenceOf } from "../../conformance/end.ts";
import { TestHost, until } from "../../kit/host.ts";
import { openSockets } from "../../kit/sockets.ts";
import { attachUdp, udpPort, writeNumbered } from "../../kit/udp_end.ts";

await openSockets();

const hasMany = Deno.build.os === "linux";
if (!hasMany) console.log("Skipped: replies from several addresses: 127.0.0.1 is loopback's only one here");
if (hasMany) {
  for (const wildcard of ["0.0.0.0", "[::]"]) {
    Deno.test(`udp() that listens on ${wildcard} replies from whichever IPv4 address was written to`, async () => {
      await using server = await attachUdp(udp({ listen: `${wildcard}:0` }));
      for (const [i, address] of ["127.0.0.2", "127.0.0.3", "127.0.0.2"].entries()) {
        await using client = await attachUdp(udp({ peer: `${address}:${udpPort(server)}` }));
        writeNumbered(client, i);
        await receive(server.end, server.host, 1);
        for (let reply = 0; reply < 3; reply++) writeNumbered(server, 10 * i + reply);
        const replies = await receive(client.end, client.host, 3);
        deepStrictEqual(replies.map(sequenceOf), [10 * i, 10 * i + 1, 10 * i + 2]);
        deepStrictEqual(client.host.refused, {});
      }
    });
  }

  Deno.test("udp() with both peer and listen replies from the address that the peer has sent to", async () => {
    await using one = await attachUdp(udp({ listen: "127.0.0.1:0" }));
    await using other = await attachUdp(udp({ peer: `127.0.0.1:${udpPort(one)}`, listen: 0 }));
    await using elsewhere = await attachUdp(
      () => openClosable(one.end, `127.0.0.4:${udpPort(other)}`),
    );
    writeNumbered(elsewhere, 1);
    await receive(other.end, other.host, 1);
    writeNumbered(other, 2);
    deepStrictEqual((await receive(elsewhere.end, elsewhere.host, 1)).map(sequenceOf), [2]);
    deepStrictEqual(elsewhere.host.refused, {});

    /** The same place, now with a peer. */
    async function openClosable(end: UdpTransport, peer: string): Promise<UdpTransport> {
      const listen = end.local!;
      end.close();
      await end.closed;
      return await udp({ peer, listen })();
    }
  });
}

Deno.test("a UdpSocket has local addresses in endpoints only with localAddresses", async () => {
  const address = parseAddress("0.0.0.0");
  for (const localAddresses of [false, true]) {
    using socket = await openUdpSocket({ address, localAddresses });
    strictEqual(socket.localAddresses, localAddresses && Deno.build.os !== "windows");
  }
});

Deno.test("UdpTransport sends from any address after the local one is removed", async () => {
  for (
    const [wildcard, loopback, gone] of [["0.0.0.0", "127.0.0.1", "192.0.2.77"], [
      "::",
      "::1",
      "2001:db8::77",
    ]]
  ) {
    const address = parseAddress(wildcard!);
    const socket = await openUdpSocket({ address, localAddresses: true });
    await using server = await attachUdp(() => new UdpTransport(socket, { payload: "any" }));
    const host = address.family === 4 ? loopback : `[${loopback}]`;
    await using client = await attachUdp(udp({ peer: `${host}:${udpPort(server)}` }));
    writeNumbered(client, 1);
    const batch = new PacketBatch();
    await until(() => server.end.read(batch) === 1, "it arrived");
    const [packet] = batch;
    const endpoint = packet!.endpoint.slice();
    packet!.pool.give(packet!);
    endpoint.set(parseAddress(gone!).bytes, Endpoint.Local);
    const replies = new PacketBatch();
    for (let i = 0; i < 5; i++) {
      const reply = numbered(server.host.pool, i);
      reply.sendTo(endpoint);
      replies.push(reply);
    }
    strictEqual(server.end.write(replies), 5);
    deepStrictEqual((await receive(client.end, client.host, 5)).map(sequenceOf), [0, 1, 2, 3, 4]);
    deepStrictEqual(server.host.dropped, {});
  }
});

Deno.test("hasLocal() compares addresses and interfaces, isFromLocal() is about addresses", () => {
  const { pool } = new TestHost();
  const [one, other] = [pool.take(1)!, pool.take(1)!];
  for (const packet of [one, other]) clearLocal(packet);
  strictEqual(isFromLocal(one, 6), false);
  for (let at: number = Endpoint.Local; at < Endpoint.Size; at++) {
    strictEqual(hasLocal(one, other.view, other.slotEnd, 6), true);
    one.bytes[one.slotEnd + at] = 1;
    strictEqual(hasLocal(one, other.view, other.slotEnd, 6), false, `byte ${at}`);
    strictEqual(isFromLocal(one, 6), at < Endpoint.Interface);
    strictEqual(isFromLocal(one, 4), at < Endpoint.Local + 4);
    one.bytes[one.slotEnd + at] = 0;
  }
  for (const packet of [one, other]) pool.give(packet);
});
