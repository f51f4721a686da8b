/**
 * Wakeups: each event that brings a packet or frees room wakes the loop. The ends here wake it only when they get a
 * packet, so a missing wakeup leaves the test with promises that never settle.
 */

import assert from "node:assert/strict";
import { Direction, type Packet, type PacketHandler, type Stage } from "../../../lib/core/mod.ts";
import { currentLoop } from "../../../runtime/engine/loop.ts";
import { openTunnel, type Tunnel, Verdict } from "../../../runtime/mod.ts";
import { assertBalanced, assertNothingLeft, ManualEnd, QUIET, RestWatch } from "../../kit/tunnel.ts";

const { Outbound, Inbound } = Direction;
/** More than fill a batch. */
const BURST = 65;

const pass = (name: string): Stage => ({ name, outbound() {}, inbound() {} });

/** A tunnel over ends that the test drives, at work until the test is over. */
async function start(stages: (Stage | PacketHandler)[], handler?: PacketHandler): Promise<
  & { tunnel: Tunnel; device: ManualEnd; far: ManualEnd }
  & AsyncDisposable
> {
  const [device, far] = [new ManualEnd("device"), new ManualEnd("far")];
  const tunnel = await openTunnel({ device, far, stages, ...QUIET });
  const run = tunnel.run(handler);
  return {
    tunnel,
    device,
    far,
    async [Symbol.asyncDispose]() {
      tunnel.close();
      await run;
      assertNothingLeft(tunnel);
    },
  };
}

/** Replies to packets from one side, and passes those from the other. */
function answer(direction: Direction): PacketHandler {
  return (_, context) => context.direction === direction ? Verdict.Reply : Verdict.Pass;
}

for (const direction of [Inbound, Outbound]) {
  const way = direction === Inbound ? "inbound" : "outbound";
  for (const count of [1, BURST]) {
    const what = count === 1 ? "An" : `${count} at a time of the`;
    Deno.test(`${what} ${way} packet${count === 1 ? "" : "s"} answered by Reply leave${count === 1 ? "s" : ""} at once`, async () => {
      for (const others of [0, 1, 2]) {
        // The one that answers stands first, in the middle, or last, where run() puts its handler.
        for (let place = 0; place <= others; place++) {
          const stages: (Stage | PacketHandler)[] = Array.from(
            { length: others },
            (_, i) => pass(`stage ${i}`),
          );
          stages.splice(place, 0, answer(direction));
          await using work = await start(stages);
          const end = direction === Inbound ? work.far : work.device;
          for (let round = 1; round <= 10; round++) {
            end.come(...Array.from({ length: count }, (_, i) => i));
            await end.wrote(round * count);
            assert.equal(work.tunnel.stats.queued, 0);
          }
          const expected = Array.from({ length: 10 * count }, (_, i) => i % count);
          assert.deepEqual(end.writtenBytes, expected);
        }
      }
    });
  }
}

Deno.test("Replies in both directions leave at once", async () => {
  await using work = await start([pass("between")], () => Verdict.Reply);
  for (let round = 1; round <= 10; round++) {
    const bytes = Array.from({ length: BURST }, (_, i) => i);
    work.device.come(...bytes);
    work.far.come(...bytes);
    await Promise.all([work.device.wrote(round * BURST), work.far.wrote(round * BURST)]);
  }
});

Deno.test("Packets that a stage makes while it looks at others leave at once, in both directions", async () => {
  for (const direction of [Inbound, Outbound]) {
    const act: Stage["outbound"] = (batch, context) => {
      for (const packet of batch) {
        const twin = context.take(packet.length)!;
        twin.data.set(packet.data);
        context.emit(twin, direction);
        context.drop(packet, "replaced");
      }
    };
    await using work = await start([pass("a"), { name: "twin", outbound: act, inbound: act }, pass("b")]);
    const to = direction === Inbound ? work.device : work.far;
    for (let round = 1; round <= 10; round++) {
      (round % 2 === 0 ? work.device : work.far).come(round);
      await to.wrote(round);
    }
    assert.deepEqual(to.writtenBytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  }
});

Deno.test("StageContext.wake() outside of a breath brings a tick, and what that emits leaves at once", async () => {
  for (const direction of [Outbound, Inbound]) {
    const first = Promise.withResolvers<() => void>();
    let ticks = 0;
    await using work = await start([pass("before"), {
      name: "ticker",
      tick(context) {
        first.resolve(() => context.wake());
        if (ticks++ === 0) return undefined;
        const packet = context.take(1)!;
        packet.data[0] = ticks;
        context.emit(packet, direction);
        return undefined;
      },
    }, pass("behind")]);
    const wake = await first.promise;
    const to = direction === Outbound ? work.far : work.device;
    for (let round = 1; round <= 10; round++) {
      wake();
      await to.wrote(round);
    }
    assert.equal(ticks, 11);
  }
});

Deno.test("Tunnel reads an end again when the one that it leads to has room", async () => {
  await using work = await start([]);
  for (const [from, to] of [[work.device, work.far], [work.far, work.device]] as const) {
    to.room = 0;
    from.come(...Array.from({ length: 3 * BURST }, (_, i) => i));
    do await to.touched(); while (work.tunnel.stats.queued === 0);
    for (let room = BURST; room <= 3 * BURST; room += BURST) {
      to.makeRoom(BURST);
      await to.wrote(room);
    }
    assert.deepEqual(to.writtenBytes, Array.from({ length: 3 * BURST }, (_, i) => i));
  }
});

Deno.test("PacketPool.give() to an empty pool wakes the loop, whichever size comes back", async () => {
  const { pool } = currentLoop();
  using loop = new RestWatch();
  for (const length of [1, 60_000]) {
    await using work = await start([], () => Verdict.Reply);
    const hoard: Packet[] = [];
    for (let packet = pool.take(length); packet !== undefined; packet = pool.take(length)) hoard.push(packet);
    const bytes = new Uint8Array(length).fill(7);
    work.device.come(bytes);
    await loop.rests();
    assert.equal(work.tunnel.stats.outbound.packetsIn, 0);
    pool.give(hoard.pop()!);
    await work.device.wrote(1);
    assert.deepEqual(work.device.written, [bytes]);
    for (const packet of hoard) pool.give(packet);
  }
});

Deno.test("Tunnels that wait for slots get those that another tunnel's end gives back", async () => {
  const { pool } = currentLoop();
  using loop = new RestWatch();
  await using rich = await start([]);
  await using poor = await start([], () => Verdict.Reply);
  // 128 packets of one tunnel wait for its far end; everything else is gone.
  rich.far.room = 0;
  rich.device.come(...Array.from({ length: 2 * BURST }, (_, i) => i));
  do await rich.far.touched(); while (rich.tunnel.stats.queued === 0);
  const hoard: Packet[] = [];
  for (let packet = pool.take(1); packet !== undefined; packet = pool.take(1)) hoard.push(packet);
  poor.device.come(7);
  await loop.rests();
  assert.equal(poor.tunnel.stats.outbound.packetsIn, 0);
  rich.far.makeRoom(1);
  await poor.device.wrote(1);
  assert.deepEqual(poor.device.writtenBytes, [7]);
  for (const packet of hoard) pool.give(packet);
  rich.far.makeRoom(Infinity);
  await rich.far.wrote(2 * BURST);
});

for (const count of [0, 1, 3]) {
  Deno.test(`Tunnel.send() is bounded by 1024 with ${count} stages and a device that takes nothing`, async () => {
    const stages = Array.from({ length: count }, (_, i) => pass(`stage ${i}`));
    await using work = await start(stages);
    using loop = new RestWatch();
    const { tunnel, device } = work;
    device.room = 0;
    let taken = 0;
    // Each time the loop carries what it has towards the device, which makes room for nothing.
    for (let round = 0; round < 40; round++) {
      for (let i = 0; i < 100; i++) {
        const byte = taken % 256;
        if (tunnel.send(Uint8Array.of(byte))) taken++;
      }
      assert.ok(taken <= 1024, `${taken} are inside after ${round + 1} rounds`);
      await loop.rests();
    }
    assert.equal(taken, 1024);
    assert.deepEqual(tunnel.stats.dropped, { "send queue full": 4000 - 1024 });
    assertBalanced(tunnel);
    device.makeRoom(Infinity);
    await device.wrote(1024);
    assert.deepEqual(device.writtenBytes, Array.from({ length: 1024 }, (_, i) => i % 256));
    assert.equal(tunnel.send(Uint8Array.of(9)), true);
    await device.wrote(1025);
  });
}
