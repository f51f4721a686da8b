/** The surfaces that a script works with, where they meet its own memory and its own end. */

import assert from "node:assert/strict";
import { PacketBatch } from "../../lib/core/mod.ts";
import { Ip } from "../../lib/ip.ts";
import { Ipv4 } from "../../lib/ipv4.ts";
import { Udp } from "../../lib/udp.ts";
import { openTunnel, type Tunnel } from "../../runtime/mod.ts";
import { StreamSurface } from "../../runtime/surfaces.ts";
import { TestHost } from "../kit/host.ts";
import { assertBalanced, assertNothingLeft, ManualEnd, QUIET, RestWatch } from "../kit/tunnel.ts";

async function openManual(): Promise<{ tunnel: Tunnel; device: ManualEnd }> {
  const device = new ManualEnd();
  return { tunnel: await openTunnel({ device, ...QUIET }), device };
}

Deno.test("Tunnel.writable copies at each write, so that the writer may use its buffer anew", async () => {
  const { tunnel, device } = await openManual();
  const writer = tunnel.writable.getWriter();
  const buffer = new Uint8Array(100);
  for (let i = 1; i <= 5; i++) {
    buffer.fill(i);
    await writer.write(buffer);
  }
  buffer.fill(0xa5);
  await device.wrote(5);
  assert.deepEqual(device.written, [1, 2, 3, 4, 5].map((byte) => new Uint8Array(100).fill(byte)));
  tunnel.close();
  await tunnel.closed;
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.writable sends a part of a buffer as it is", async () => {
  const { tunnel, device } = await openManual();
  const writer = tunnel.writable.getWriter();
  await writer.write(Uint8Array.of(1, 2, 3, 4, 5).subarray(1, 4));
  await device.wrote(1);
  assert.deepEqual(device.written, [Uint8Array.of(2, 3, 4)]);
  tunnel.close();
  await tunnel.closed;
});

Deno.test("StreamSurface cuts super-packets, and drops one that cannot be cut", async () => {
  const surface = new StreamSurface(() => {});
  const host = new TestHost();
  surface.attach(host);
  const batch = new PacketBatch();
  for (const protocol of [17, 1]) {
    const packet = host.pool.from(new Uint8Array(2500))!;
    Udp.encode(packet, { srcPort: 1, dstPort: 2 });
    Ipv4.encode(packet, { src: 1, dst: 2, protocol });
    packet.segmentSize = 1000;
    batch.push(packet);
  }
  const reader = surface.readable.getReader();
  const first = reader.read();
  assert.equal(surface.write(batch), 2);
  const lengths = [(await first).value!.length];
  for (let i = 0; i < 2; i++) lengths.push((await reader.read()).value!.length);
  assert.deepEqual(lengths, [1028, 1028, 528]);
  assert.deepEqual(host.dropped, { "super-packet malformed": 1 });
  assert.equal(host.pool.taken, 0);
  surface.close();
  await reader.closed;
});

Deno.test("Tunnel.readable gives bytes that no later packet changes", async () => {
  const { tunnel, device } = await openManual();
  const reader = tunnel.readable.getReader();
  const got: Uint8Array[] = [];
  for (let i = 1; i <= 100; i++) {
    device.come(new Uint8Array(50).fill(i));
    got.push((await reader.read()).value!);
  }
  assert.deepEqual(got, Array.from({ length: 100 }, (_, i) => new Uint8Array(50).fill(i + 1)));
  tunnel.close();
  assert.equal((await reader.read()).done, true);
  await tunnel.closed;
  assertNothingLeft(tunnel);
});

/** The ways in which a script finishes with a stream. */
const ENDS = {
  "readable.cancel()": (tunnel: Tunnel) => tunnel.readable.cancel(),
  "writable.close()": (tunnel: Tunnel) => tunnel.writable.close(),
  "writable.abort()": (tunnel: Tunnel) => tunnel.writable.abort(),
} as const;

for (
  const [first, second] of [
    ["readable.cancel()", "writable.close()"],
    ["writable.close()", "readable.cancel()"],
    ["readable.cancel()", "writable.abort()"],
    ["writable.abort()", "readable.cancel()"],
  ] as const
) {
  Deno.test(`Tunnel closes after ${first} and ${second}, and not before`, async () => {
    const { tunnel, device } = await openManual();
    using loop = new RestWatch();
    await ENDS[first](tunnel);
    await loop.rests();
    assert.equal(device.closes, 0);
    await ENDS[second](tunnel);
    await tunnel.closed;
    assert.equal(device.closes, 1);
    assertNothingLeft(tunnel);
  });
}

Deno.test("Tunnel.readable goes on after writable.close(), and writable after readable.cancel()", async () => {
  const { tunnel, device } = await openManual();
  await tunnel.writable.close();
  const reader = tunnel.readable.getReader();
  device.come(7);
  assert.deepEqual((await reader.read()).value, Uint8Array.of(7));
  await reader.cancel();
  await tunnel.closed;

  const { tunnel: second, device: secondDevice } = await openManual();
  await second.readable.cancel();
  secondDevice.come(1, 2);
  const writer = second.writable.getWriter();
  await writer.write(Uint8Array.of(9));
  await secondDevice.wrote(1);
  assert.deepEqual(secondDevice.writtenBytes, [9]);
  await writer.close();
  await second.closed;
  assert.deepEqual(second.stats.dropped, { "readable cancelled": 2 });
  assertNothingLeft(second);
});

Deno.test("Tunnel.writable.close() sends what was written before, however little the device takes", async () => {
  const { tunnel, device } = await openManual();
  await tunnel.readable.cancel();
  device.room = 0;
  const writer = tunnel.writable.getWriter();
  const bytes = Array.from({ length: 200 }, (_, i) => i);
  const writes = bytes.map((byte) => writer.write(Uint8Array.of(byte)));
  const closing = writer.close();
  for (let count = 1; count <= bytes.length; count++) {
    device.makeRoom(1);
    await device.wrote(count);
  }
  await Promise.all([...writes, closing]);
  await tunnel.closed;
  assert.deepEqual(device.writtenBytes, bytes);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.readable and writable fail with what the tunnel fails with", async () => {
  const { tunnel, device } = await openManual();
  const reader = tunnel.readable.getReader();
  const writer = tunnel.writable.getWriter();
  device.room = 0;
  const reading = assert.rejects(reader.read(), /^Error: pulled away$/);
  const ended = assert.rejects(writer.closed, /^Error: pulled away$/);
  device.fail(new Error("pulled away"));
  await assert.rejects(tunnel.closed, /^Error: pulled away$/);
  await Promise.all([reading, ended]);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel counts malformed packets that for await looked at, each once", async () => {
  const { tunnel, device } = await openManual();
  // Two headers that are cut short, one packet of neither version, one that nobody looks at.
  device.come(0x45, 0x60, 0x00, 0x45);
  let seen = 0;
  for await (const batch of tunnel) {
    for (const packet of batch) {
      if (seen++ === 3) break;
      assert.equal(Ip.of(packet), undefined);
      assert.equal(Ip.of(packet), undefined);
    }
    if (seen >= 4) break;
  }
  assert.equal(tunnel.stats.malformed, 3);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel counts a malformed packet once that for await has sent on", async () => {
  const { tunnel, device } = await openManual();
  device.come(0x45, 0x60);
  const wrote = device.wrote(2);
  let seen = 0;
  for await (const batch of tunnel) {
    for (const packet of batch) {
      seen++;
      Ip.of(packet);
      assert.equal(tunnel.send(packet), true);
    }
    if (seen === 2) {
      await wrote;
      break;
    }
  }
  assert.deepEqual(device.writtenBytes, [0x45, 0x60]);
  assert.equal(tunnel.stats.malformed, 2);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel balances while for await has a batch, and after each is given back", async () => {
  const { tunnel, device } = await openManual();
  device.come(...Array.from({ length: 200 }, (_, i) => i));
  const got: number[] = [];
  for await (const batch of tunnel) {
    assertBalanced(tunnel);
    for (const packet of batch) got.push(packet.data[0]!);
    if (got.length === 200) break;
  }
  assert.deepEqual(got, Array.from({ length: 200 }, (_, i) => i));
  assertNothingLeft(tunnel);
});
