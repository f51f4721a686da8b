/** Tunnels over devices in memory: surfaces, ends of life, counting. */

import assert from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import type { PacketHandler, Stage } from "../../../lib/core/mod.ts";
import { openTunnel, type Tunnel, Verdict } from "../../../runtime/mod.ts";
import { FaultyDevice } from "../../kit/faulty_device.ts";
import { Random } from "../../../lib/core/random.ts";

/** Signals and the watchdog require permissions that these tests lack. */
const QUIET = { signals: false, watchdog: 0 };

/** A tunnel, and another one on the other side of its device. */
async function openPair(queueLength = 500): Promise<[Tunnel, Tunnel]> {
  const [device, outside] = MemoryDevice.pair({ queueLength });
  return [await openTunnel({ device, ...QUIET }), await openTunnel({ device: outside, ...QUIET })];
}

/** Sends packets of one byte and collects replies, until there are as many as expected. */
async function exchange(tester: Tunnel, bytes: number[], expected: number): Promise<number[]> {
  for (const byte of bytes) assert.equal(tester.send(Uint8Array.of(byte)), true);
  const got: number[] = [];
  if (expected === 0) return got;
  for await (const batch of tester) {
    for (const packet of batch) got.push(packet.data[0]!);
    if (got.length >= expected) break;
  }
  return got;
}

function lost(tunnel: Tunnel): number {
  return Object.values(tunnel.stats.dropped).reduce((sum, count) => sum + count, 0);
}

function assertBalanced(tunnel: Tunnel): void {
  const { outbound, inbound, created, queued } = tunnel.stats;
  assert.equal(
    outbound.packetsIn + inbound.packetsIn + created,
    outbound.packetsOut + inbound.packetsOut + lost(tunnel) + queued,
  );
}

Deno.test("Tunnel.run() gives each packet to the handler and takes Pass, Drop and Reply", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run(function sieve(packet) {
    const byte = packet.data[0]!;
    return byte === 1 ? Verdict.Drop : byte === 2 ? Verdict.Reply : byte === 3 ? Verdict.Pass : undefined;
  });
  assert.deepEqual(await exchange(tester, [1, 2, 3, 4, 2], 2), [2, 2]);
  await assert.rejects(run, Deno.errors.NotFound);
  assert.deepEqual(tunnel.stats.dropped, { sieve: 1, "no far end": 2 });
  assertBalanced(tunnel);
});

Deno.test("Tunnel.run() passes packets both ways between a device and a far end", async () => {
  const [device, near] = MemoryDevice.pair();
  const [far, beyond] = MemoryDevice.pair();
  const directions: number[] = [];
  const tunnel = await openTunnel({ device, far, ...QUIET });
  const run = tunnel.run((_, context) => void directions.push(context.direction));
  const left = await openTunnel({ device: near, ...QUIET });
  const right = await openTunnel({ device: beyond, ...QUIET });
  const echo = right.run(() => Verdict.Reply);
  assert.deepEqual(await exchange(left, [1, 2], 2), [1, 2]);
  await assert.rejects(run);
  assert.deepEqual(directions, [0, 0, 1, 1]);
  assertBalanced(tunnel);
  await assert.rejects(echo);
});

Deno.test("Tunnel.run() rejects with the stage's name when a handler throws", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run(function picky() {
    throw new Error("no such luck");
  });
  tester.send(Uint8Array.of(1));
  const watching = tester.run();
  await assert.rejects(run, /^Error: Cannot go on with "memory": stage "picky" threw: no such luck$/);
  await assert.rejects(watching, /"memory" was closed/);
});

Deno.test("Tunnel.run() refuses promises and other results that are not verdicts", async () => {
  for (
    const [verdict, got] of [[7, "got 7"], [
      Promise.resolve(),
      "got a promise: a handler cannot wait",
    ]] as const
  ) {
    const [tunnel, tester] = await openPair();
    const run = tunnel.run((() => verdict) as unknown as PacketHandler);
    tester.send(Uint8Array.of(1));
    tester.run().catch(() => {});
    await assert.rejects(
      run,
      new RegExp(`Cannot use a handler's result: it must be a Verdict or undefined, ${got}`),
    );
    tester.close();
  }
});

Deno.test("Tunnel is held by one surface at a time", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run();
  assert.throws(() => tunnel.run(), /^TypeError: Cannot use run on "memory": run holds the tunnel$/);
  assert.throws(() => tunnel.readable, TypeError);
  assert.throws(() => tunnel.use(() => Verdict.Pass), TypeError);
  await assert.rejects(async () => {
    for await (const _ of tunnel);
  }, TypeError);
  tunnel.close();
  await run;
  assert.throws(() => tunnel.send(Uint8Array.of(1)), Deno.errors.BadResource);
  tester.close();
});

Deno.test("Tunnel with a far end refuses for await and streams", async () => {
  const [device, near] = MemoryDevice.pair();
  const [far, beyond] = MemoryDevice.pair({ name: "far" });
  await using tunnel = await openTunnel({ device, far, ...QUIET });
  assert.throws(() => tunnel.readable, /its far end is far: use run\(\)/);
  near.close();
  beyond.close();
});

Deno.test("Tunnel.close() inside its own handler ends run()", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run(() => {
    tunnel.close();
    tunnel.close();
    return Verdict.Reply;
  });
  tester.send(Uint8Array.of(1));
  const other = tester.run();
  await run;
  await assert.rejects(other, Deno.errors.NotFound);
  assertBalanced(tunnel);
});

Deno.test("Tunnel ends when its signal is aborted, before and while it runs", async () => {
  for (const early of [true, false]) {
    const abort = new AbortController();
    const [device, outside] = MemoryDevice.pair();
    if (early) abort.abort();
    const tunnel = await openTunnel({ device, signal: abort.signal, ...QUIET });
    if (early) assert.throws(() => tunnel.run(), Deno.errors.BadResource);
    else {
      const run = tunnel.run();
      abort.abort();
      await run;
    }
    await tunnel.closed;
    outside.close();
  }
});

Deno.test("Tunnel rejects run() with the failure of its device", async () => {
  const [device, outside] = MemoryDevice.pair();
  const tunnel = await openTunnel({ device, ...QUIET });
  const run = tunnel.run();
  outside.close();
  await assert.rejects(run, /^NotFound: Cannot use "memory": "memory-far" was closed$/);
});

Deno.test("Tunnel iterates batches that are the script's until the next", async () => {
  const [tunnel, tester] = await openPair();
  const echo = (async () => {
    for await (const batch of tunnel) for (const packet of batch) tunnel.send(packet);
  })();
  const bytes = Array.from({ length: 200 }, (_, i) => i);
  assert.deepEqual(await exchange(tester, bytes, 200), bytes);
  await assert.rejects(echo, Deno.errors.NotFound);
  assertBalanced(tunnel);
});

Deno.test("Tunnel.send() refuses packets of no current batch, and invalid lengths", async () => {
  const [tunnel, tester] = await openPair();
  assert.throws(() => tester.send(new Uint8Array(0)), TypeError);
  assert.throws(() => tester.send(new Uint8Array(65_536)), TypeError);
  tester.send(Uint8Array.of(1));
  const other = tester.run();
  for await (const batch of tunnel) {
    const packet = batch.packets[0]!;
    assert.equal(tunnel.send(packet), true);
    assert.throws(() => tunnel.send(packet), TypeError);
    break;
  }
  assertBalanced(tunnel);
  await assert.rejects(other);
});

Deno.test("Tunnel.send() drops and counts when too much waits", async () => {
  const [tunnel, tester] = await openPair();
  const sent = Array.from({ length: 1030 }, () => tester.send(Uint8Array.of(1)));
  assert.equal(sent.filter((taken) => !taken).length, 6);
  assert.deepEqual(tester.stats.dropped, { "send queue full": 6 });
  assertBalanced(tester);
  tunnel.close();
  tester.close();
});

Deno.test("Tunnel.readable and writable carry owned bytes both ways", async () => {
  const [tunnel, tester] = await openPair();
  const echo = tunnel.readable.pipeTo(tunnel.writable);
  const bytes = Array.from({ length: 300 }, (_, i) => i % 256);
  assert.deepEqual(await exchange(tester, bytes, 300), bytes);
  await assert.rejects(echo, Deno.errors.NotFound);
  assertBalanced(tunnel);
});

Deno.test("Tunnel.writable refuses values that are not packets", async () => {
  const [tunnel, tester] = await openPair();
  const writer = tunnel.writable.getWriter();
  await assert.rejects(writer.write("text" as unknown as Uint8Array), /a packet must be a Uint8Array/);
  tunnel.close();
  tester.close();
});

Deno.test("Tunnel reads no more while its far end is full, so the device's own queue fills", async () => {
  const [tunnel, tester] = await openPair(100);
  const reader = tunnel.readable.getReader();
  for (let i = 0; i < 600; i++) tester.send(Uint8Array.of(i % 256));
  const other = tester.run();
  await reader.read();
  // 64 in the stream, 64 on the way to it, 100 in the device; the rest still waits to be sent.
  const { inbound, queued } = tester.stats;
  assert.equal(inbound.packetsOut + queued, 600);
  assert.ok(queued >= 600 - 64 - 1 - 128 - 100, `${queued} wait`);
  assertBalanced(tunnel);
  tester.close();
  await other;
  tunnel.close();
});

Deno.test("Tunnel runs stages in order out and in reverse in", async () => {
  const [device, near] = MemoryDevice.pair();
  const order: string[] = [];
  const note = (name: string): Stage => ({
    name,
    outbound: () => void order.push(`${name} out`),
    inbound: () => void order.push(`${name} in`),
  });
  const tunnel = await openTunnel({ device, stages: [note("a")], ...QUIET });
  const run = tunnel.use(note("b")).run(() => Verdict.Reply);
  const tester = await openTunnel({ device: near, ...QUIET });
  await exchange(tester, [1], 1);
  assert.deepEqual(order, ["a out", "b out", "b in", "a in"]);
  await assert.rejects(run);
});

Deno.test("Several tunnels share one loop and end one by one", async () => {
  const pairs = await Promise.all(Array.from({ length: 5 }, () => openPair()));
  const runs = pairs.map(([tunnel]) => tunnel.run(() => Verdict.Reply));
  for (const [i, [, tester]] of pairs.entries()) {
    assert.deepEqual(await exchange(tester, [i], 1), [i]);
    await assert.rejects(runs[i]!);
  }
});

Deno.test("Tunnel drops packets that a handler has moved out of their slots", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run((packet) => {
    const byte = packet.data[0]!;
    if (byte === 1) packet.length = 100_000;
    if (byte === 2) packet.offset = -5;
    if (byte === 3) packet.length = 0;
    if (byte === 4) packet.length = 1.5;
    return Verdict.Reply;
  });
  assert.deepEqual(await exchange(tester, [0, 1, 2, 3, 4, 5], 2), [0, 5]);
  await run.catch(() => {});
  assert.deepEqual(tunnel.stats.dropped, { "moved out of its slot": 4 });
  assertBalanced(tunnel);
});

Deno.test("Tunnel.stats add up in the middle of a handler", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run((packet) => {
    assertBalanced(tunnel);
    return packet.data[0]! % 3 as Verdict;
  });
  const bytes = Array.from({ length: 90 }, (_, i) => i);
  assert.equal((await exchange(tester, bytes, 30)).length, 30);
  await assert.rejects(run, Deno.errors.NotFound);
});

Deno.test("Tunnel.send() works from inside a handler, in both directions", async () => {
  const [tunnel, tester] = await openPair();
  const run = tunnel.run((packet) => {
    const byte = packet.data[0]!;
    if (byte < 5) tunnel.send(Uint8Array.of(byte + 10));
    assertBalanced(tunnel);
    return byte < 5 ? Verdict.Drop : Verdict.Pass;
  });
  assert.deepEqual(await exchange(tester, [1, 2, 3], 3), [11, 12, 13]);
  await assert.rejects(run, Deno.errors.NotFound);
  assertBalanced(tunnel);
});

Deno.test("openTunnel() refuses a device of another tunnel, options of the wrong type, mistyped names, and watchdogs out of range", async () => {
  const [device, outside] = MemoryDevice.pair();
  const tunnel = await openTunnel({ device, ...QUIET });
  const opening = (options: object) => openTunnel({ device: MemoryDevice.pair()[0], ...QUIET, ...options });
  await assert.rejects(
    opening({ device }),
    /^TypeError: Cannot open a tunnel: "memory" belongs to another tunnel$/,
  );
  await assert.rejects(
    opening({ stages: [null] }),
    /^TypeError: Cannot use a stage: it must be a function or an object, got null$/,
  );
  await assert.rejects(
    opening({ stages: [{ name: "s", outbound: 5 }] }),
    /Cannot use stage "s": outbound must be a function, got 5$/,
  );
  await assert.rejects(
    opening({ stages: [{ nmae: "s" }] }),
    /Cannot use a stage: its name must be a string, got undefined$/,
  );
  await assert.rejects(
    opening({ stages: {} }),
    /^TypeError: Cannot open a tunnel: stages must be an array, got an object$/,
  );
  for (const far of [5, null, { url: "udp://192.0.2.1:4500" }, () => 5, () => undefined]) {
    await assert.rejects(
      opening({ far }),
      /^TypeError: Cannot open a tunnel: far must be a URL, an end or an opener of one, got /,
    );
  }
  for (const device of [null, {}, "tun0"]) {
    await assert.rejects(
      opening({ device }),
      /^TypeError: Cannot open a tunnel: device must be an open device, got .*$/,
    );
  }
  for (const signal of [null, {}, new AbortController()]) {
    await assert.rejects(
      opening({ signal }),
      /^TypeError: Cannot open a tunnel: signal must be an AbortSignal, got /,
    );
  }
  await assert.rejects(
    opening({ routes: [] }),
    /^TypeError: Cannot open a tunnel: there is no option "routes": options are name,/,
  );
  for (const watchdog of [-1, 1.5, NaN, 2 ** 31]) await assert.rejects(opening({ watchdog }), RangeError);
  tunnel.close();
  outside.close();
});

Deno.test("Tunnel counts a packet with a truncated header once", async () => {
  const { Ip } = await import("../../../lib/wire/ip.ts");
  const [tunnel, tester] = await openPair();
  const run = tunnel.run((packet) => {
    Ip.of(packet);
    Ip.of(packet);
    return Verdict.Reply;
  });
  await exchange(tester, [0x45, 0x60, 0], 3);
  await run.catch(() => {});
  assert.equal(tunnel.stats.malformed, 3);
});

Deno.test("Counters add up to what faulty devices counted, whatever they and the stages do", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const device = new FaultyDevice("left", random, 3000);
    const far = new FaultyDevice("right", random, 3000);
    const tunnel = await openTunnel({ device, far, ...QUIET });
    const run = tunnel.run((packet) => {
      const choice = packet.bytes[packet.offset + 3]! % 10;
      return choice === 0 ? Verdict.Drop : choice === 1 ? Verdict.Reply : Verdict.Pass;
    });
    while (device.counts.given + far.counts.given < 6000 || tunnel.stats.queued > 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      assertBalanced(tunnel);
    }
    const { outbound, inbound, dropped } = tunnel.stats;
    const message = `seed ${seed}`;
    assert.deepEqual([outbound.packetsIn, inbound.packetsIn], [3000, 3000], message);
    assert.deepEqual([inbound.packetsOut, outbound.packetsOut], [
      device.counts.delivered,
      far.counts.delivered,
    ]);
    assert.equal(dropped.faulty ?? 0, device.counts.refused + far.counts.refused, message);
    assert.equal(device.counts.delivered + far.counts.delivered + lost(tunnel), 6000, message);
    // Each row keeps its order: what passed comes in the order in which the other side gave it.
    for (const { got } of [device, far]) {
      const passed = got.filter((number) => number % 256 % 10 > 1);
      assert.deepEqual(passed, passed.toSorted((a, b) => a - b), message);
    }
    tunnel.close();
    await run;
  }
});
