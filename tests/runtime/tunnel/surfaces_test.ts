/** The surfaces, with memory of the script and at the end of their tunnel. */

import assert from "node:assert/strict";
import { type Packet, PacketBatch, PacketQueue } from "../../../lib/core/mod.ts";
import { Ip } from "../../../lib/wire/ip.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { Udp } from "../../../lib/wire/udp.ts";
import { openTunnel, type Tunnel } from "../../../runtime/mod.ts";
import { StreamSurface } from "../../../runtime/tunnel/surfaces.ts";
import { TestHost } from "../../kit/host.ts";
import { assertBalanced, assertNothingLeft, ManualEnd, QUIET, RestWatch } from "../../kit/tunnel.ts";

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

Deno.test("StreamSurface segments super-packets, and drops one that cannot be segmented", async () => {
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
    await ENDS[first](tunnel);
    {
      // The loop's last turn is over when the tunnel has closed, unless another member keeps the loop turning.
      using loop = new RestWatch();
      await loop.rests();
    }
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

/** Misuse of the batch in the body of `for await`. */
const OVERSTEPS: Record<string, (batch: PacketBatch) => unknown> = {
  "calls shift": (batch) => batch.shift(1),
  "calls clear": (batch) => batch.clear(),
  "calls compact": (batch) => batch.compact(),
  "calls moveTo": (batch) => batch.moveTo(new PacketBatch()),
  "pushes a packet": (batch) => batch.push(batch.packets[0]!),
  "collects a packet in a batch": ({ packets }) => new PacketBatch().push(packets[0]!),
  "collects a packet in a queue": ({ packets }) => new PacketQueue({ packets: 9 }).push(packets[0]!),
  "gives a packet back": ({ packets }) => packets[0]!.pool.give(packets[0]!),
};

for (const [what, overstep] of Object.entries(OVERSTEPS)) {
  Deno.test(`Tunnel throws a TypeError in for await that ${what}, and has every slot back`, async () => {
    const { tunnel, device } = await openManual();
    device.come(1, 2, 3);
    await assert.rejects(async () => {
      for await (const batch of tunnel) overstep(batch);
    }, TypeError);
    assert.equal(tunnel.stats.outbound.packetsOut, 3);
    assertNothingLeft(tunnel);
  });
}

Deno.test("Tunnel leaves the list of a batch to for await: its packets are given back all the same", async () => {
  const { tunnel, device } = await openManual();
  device.come(...Array.from({ length: 300 }, (_, i) => i & 0xff));
  const changes: ((batch: PacketBatch) => void)[] = [
    ({ packets }) => void packets.reverse(),
    ({ packets }) => void packets.splice(0, 7),
    (batch) => void (batch.length = 1),
    (batch) => void (batch.packets.length = batch.length = 0),
    ({ packets }) => void packets.sort((a, b) => b.offset - a.offset),
  ];
  let turns = 0;
  for await (const batch of tunnel) {
    changes[turns % changes.length]!(batch);
    assertBalanced(tunnel);
    turns++;
    if (tunnel.stats.outbound.packetsOut === 300) break;
  }
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.send() sends a packet of the current batch once, in the order of the calls", async () => {
  const { tunnel, device } = await openManual();
  device.come(1, 2, 3);
  const kept: Packet[] = [];
  for await (const batch of tunnel) {
    if (kept.length > 0) {
      // A slot is used again for the next packet.
      for (const packet of kept) {
        if (packet !== batch.packets[0]) assert.throws(() => tunnel.send(packet), TypeError);
      }
      break;
    }
    kept.push(...batch);
    for (const packet of [...kept].reverse()) assert.ok(tunnel.send(packet));
    assert.throws(
      () => tunnel.send(kept[0]!),
      /^TypeError: Cannot send: data must be a Uint8Array or a packet/,
    );
    await device.wrote(3);
    device.come(4);
  }
  assert.deepEqual(device.writtenBytes, [3, 2, 1]);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.send() refuses a packet that was moved out of its slot, and values that are not packets", async () => {
  const { tunnel, device } = await openManual();
  device.come(1);
  for await (const batch of tunnel) {
    const packet = batch.packets[0]!;
    const { length } = packet;
    packet.length = 5000;
    assert.throws(
      () => tunnel.send(packet),
      /^TypeError: Cannot send a packet that was moved out of its slot$/,
    );
    packet.length = length;
    const others = [
      undefined,
      null,
      "text",
      5,
      [1],
      new ArrayBuffer(4),
      new Uint16Array(4),
      {
        owner: packet.owner,
        length: 40,
      },
      Object.create(packet),
      new Proxy(packet, {}),
      new Proxy(new Uint8Array(4), {}),
    ];
    for (const other of others) {
      assert.throws(() => tunnel.send(other as Packet), /^TypeError: Cannot send: data must be a Uint8Array/);
    }
    break;
  }
  assert.equal(tunnel.stats.inbound.packetsIn, 0);
  assertNothingLeft(tunnel);
});

/** Arrays whose class reports a wrong length. */
class Liar extends Uint8Array {
  override get length(): number {
    return 4;
  }
  static get [Symbol.species](): Uint8ArrayConstructor {
    return new Proxy(Uint8Array, { construct: () => new Uint8Array(70_000) });
  }
}

Deno.test("Tunnel.send() and writable take the bytes of an array, whatever its class reports", async () => {
  const { tunnel, device } = await openManual();
  const shrunk = new ArrayBuffer(40, { maxByteLength: 80 });
  const arrays = [
    new Liar(9).fill(1),
    Object.defineProperty(new Uint8Array(8).fill(2), "length", { value: 60_000 }),
    new Uint8Array(new SharedArrayBuffer(7, { maxByteLength: 99 })).fill(3),
    new Uint8Array(shrunk).fill(4),
    new Uint8Array(shrunk, 8),
  ];
  shrunk.resize(6);
  const writer = tunnel.writable.getWriter();
  for (const array of arrays.slice(0, 4)) {
    assert.ok(tunnel.send(array));
    await writer.write(array);
  }
  await device.wrote(8);
  assert.deepEqual(device.written.map(({ length }) => length).sort(), [6, 6, 7, 7, 8, 8, 9, 9]);
  const detached = new Uint8Array(50);
  structuredClone(detached, { transfer: [detached.buffer] });
  for (const empty of [arrays[4]!, detached]) {
    assert.throws(
      () => tunnel.send(empty),
      /^TypeError: Cannot send a packet: its length must be from 1 to 65535, got 0$/,
    );
  }
  for (const long of [new Liar(70_000), new Uint8Array(65_536)]) {
    assert.throws(
      () => tunnel.send(long),
      /^TypeError: Cannot send a packet: its length must be from 1 to 65535, got (70000|65536)$/,
    );
  }
  await assert.rejects(writer.write(new Proxy(new Uint8Array(4), {})), /must be a Uint8Array/);
  tunnel.close();
  await tunnel.closed;
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.run() rejects with the remedy when a handler transfers a packet's memory", async () => {
  const { tunnel, device } = await openManual();
  const running = tunnel.run(function thief(packet) {
    void new ReadableStream({
      type: "bytes",
      start: (controller) => controller.enqueue(packet.data as Uint8Array<ArrayBuffer>),
    });
  });
  device.come(1);
  await assert.rejects(
    running,
    /stage "thief" threw: Cannot transfer a packet's memory: the pool owns it: transfer a copy, packet.data.slice\(\)$/,
  );
  assertNothingLeft(tunnel);
});
