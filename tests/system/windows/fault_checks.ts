/** Faults of Wintun while packets move; device_test.ts runs it under Wine. */

import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import { DriverError, openDevice } from "../../../driver/mod.ts";
import type { WintunDevice } from "../../../driver/windows/device.ts";
import { EventWaiter } from "../../../driver/windows/waiter.ts";
import { Direction, type Packet, PacketBatch, PacketPool } from "../../../lib/core/mod.ts";
import { currentLoop } from "../../../runtime/engine/loop.ts";
import { openTunnel, type Tunnel, type TunnelOptions, Verdict } from "../../../runtime/mod.ts";
import { empty, numbered } from "../../conformance/end.ts";
import { turn, until } from "../../kit/host.ts";
import {
  assertAccounted,
  countersSince,
  driverTest,
  Far,
  MIN_RING,
  Rig,
  standIn,
  writtenSince,
} from "./rig.ts";
import { countersOf, wide } from "./stand_in.ts";

const ERROR_HANDLE_EOF = 38;
const ERROR_NO_SYSTEM_RESOURCES = 1450;
/** Time that the driver gives a full ring (milliseconds), less the resolution of the clock. */
const TIMEOUT = 250 - 20;
/** Timeout of expected events (milliseconds). */
const DEADLINE = 20_000;
/** Attempts of the driver to restart a session. */
const MAX_RESTARTS = 20;
/** Slots that a pool has left; packets that come then; and packets that are sent, more than a tunnel bears to wait. */
const SPARE = 50;
const FLOOD = 160;
const BACKLOG = 303;
/** More turns of the microtask queue than a restart takes. */
const MOMENTS = 16;

function open(name: string, options: TunnelOptions = {}): Promise<Tunnel> {
  return openTunnel({
    name,
    windows: { ringCapacity: MIN_RING },
    signals: false,
    watchdog: 0,
    ...options,
  });
}

const deviceOf = (tunnel: Tunnel) => tunnel.device as WintunDevice;
const bytesOf = (number: number) => Uint8Array.from({ length: 60 }, (_, i) => [0x45, number][i] ?? 0xa5);

/* Removal. */

driverTest(
  "a device removed during read() ends run() with the error, every packet accounted for",
  async () => {
    const before = countersOf(standIn);
    const tunnel = await open("read");
    const far = new Far("read");
    const events: string[] = [];
    const listening = (async () => {
      for await (const { kind } of tunnel.device.events()) events.push(kind);
    })();
    const running = tunnel.run(() => Verdict.Reply);
    for (let number = 0; number < 100; number++) far.inject(bytesOf(number));
    let taken = 0;
    await until(() => (taken += far.take() === undefined ? 0 : 1) === 100, "100 packets came back");
    far.remove();
    await rejects(running, (error) => {
      ok(error instanceof DriverError);
      strictEqual(
        error.message,
        'Cannot read from "read": ERROR_HANDLE_EOF (38): the adapter was removed or disabled',
      );
      deepStrictEqual([error.operation, error.errno], ["WintunReceivePacket", ERROR_HANDLE_EOF]);
      return true;
    });
    await listening;
    deepStrictEqual(events, ["gone"]);
    assertAccounted(tunnel.stats);
    const { delivered } = countersSince(before);
    deepStrictEqual([delivered, writtenSince(before, deviceOf(tunnel))], [100, 100]);
    deepStrictEqual([tunnel.stats.outbound.packetsIn, tunnel.stats.inbound.packetsOut], [100, 100]);
  },
);

driverTest(
  "a device removed during write() ends run() with the error, every packet accounted for",
  async () => {
    const before = countersOf(standIn);
    const tunnel = await open("write");
    const far = new Far("write");
    let seen = 0;
    const running = tunnel.run(() => {
      if (++seen === 50) far.remove();
      return Verdict.Reply;
    });
    for (let number = 0; number < 200; number++) far.inject(bytesOf(number));
    await rejects(running, {
      name: "DriverError",
      message: 'Cannot write to "write": ERROR_HANDLE_EOF (38): the adapter was removed or disabled',
      operation: "WintunAllocateSendPacket",
      errno: ERROR_HANDLE_EOF,
    });
    const { stats } = tunnel;
    assertAccounted(stats);
    const { delivered } = countersSince(before);
    const written = writtenSince(before, deviceOf(tunnel));
    strictEqual(stats.outbound.packetsIn, delivered);
    strictEqual(stats.inbound.packetsOut, written);
    ok(delivered > written, "some came that could not go back");
    deepStrictEqual(stats.dropped, { closed: delivered - written });
  },
);

/* A full ring. */

driverTest(
  "write() retries a full ring for 250 ms, then drops packets as ring full, and keeps the order",
  async () => {
    const before = countersOf(standIn);
    await using rig = await Rig.open("full");
    const { device, far, host } = rig;
    standIn.StandInStall(1);
    let next = 0;
    const batch = new PacketBatch();
    const fill = () => {
      for (; batch.length < 64; next++) batch.push(numbered(host.pool, next));
    };
    do fill(); while (device.write(batch) > 0);
    const inRing = next - batch.length;
    ok(inRing > 1000, `${inRing} packets fit`);
    const start = performance.now();
    deepStrictEqual(host.dropped, {}, "none is dropped at once");
    await until(() => device.write(batch) > 0, "it gave up");
    const took = performance.now() - start;
    ok(took >= TIMEOUT, `it gave up after ${took} ms`);
    deepStrictEqual(host.dropped, { "ring full": 64 });
    strictEqual(batch.length, 0);
    // Still full: later packets are dropped at once.
    fill();
    strictEqual(device.write(batch), 64);
    deepStrictEqual(host.dropped, { "ring full": 128 });
    strictEqual(writtenSince(before, device), inRing);
    ok(countersSince(before).allocationsRefused >= 128);

    standIn.StandInStall(0);
    const expected = Array.from({ length: inRing }, (_, number) => number);
    deepStrictEqual(far.takeNumbers(), expected);
    fill();
    strictEqual(device.write(batch), 64);
    deepStrictEqual(far.takeNumbers(), Array.from({ length: 64 }, (_, i) => inRing + 128 + i));
    deepStrictEqual(host.dropped, { "ring full": 128 });
    // Room in between restarts the timeout.
    standIn.StandInStall(1);
    do fill(); while (device.write(batch) > 0);
    deepStrictEqual(host.dropped, { "ring full": 128 }, "a ring that took something is tried again");
    standIn.StandInStall(0);
    far.takeNumbers();
    while (batch.length > 0) device.write(batch);
    strictEqual(host.pool.taken, 0);
  },
);

driverTest("write() completes a partial checksum once, even if a full ring makes it retry", async () => {
  await using rig = await Rig.open("sum");
  const { device, far, host } = rig;
  standIn.StandInStall(1);
  const batch = new PacketBatch();
  do for (let i = batch.length; i < 64; i++) batch.push(numbered(host.pool, i)); while (
    device.write(batch) > 0
  );
  empty(batch);
  const packet = host.pool.from(Uint8Array.from({ length: 28 }, (_, i) => i === 0 ? 0x45 : 0))!;
  packet.view.setUint16(packet.offset + 20, 0x1234);
  packet.checksumStart = 20;
  packet.checksumOffset = 6;
  batch.push(packet);
  for (let attempt = 0; attempt < 3; attempt++) strictEqual(device.write(batch), 0, `attempt ${attempt}`);
  standIn.StandInStall(0);
  while (far.take() !== undefined) continue;
  strictEqual(device.write(batch), 1);
  const arrived = far.take()!;
  strictEqual(arrived.length, 28);
  strictEqual(new DataView(arrived.buffer).getUint16(26), ~0x1234 & 0xffff);
});

driverTest("write() sends a packet from its current offset, which headers move", async () => {
  await using rig = await Rig.open("moved", {}, new PacketPool({ small: 1, large: 0 }));
  const { device, far, host } = rig;
  const batch = new PacketBatch();
  for (const moved of [0, -8, -8, 4, 0, 4, -8]) {
    const packet = host.pool.from(bytesOf(moved & 0xff))!;
    if (moved < 0) packet.prepend(-moved);
    else packet.strip(moved);
    packet.bytes[packet.offset] = 0x45;
    const expected = packet.data.slice();
    batch.push(packet);
    strictEqual(device.write(batch), 1);
    deepStrictEqual(far.take(), expected, `moved by ${moved}`);
  }
});

driverTest(
  "a tunnel drops and counts packets for a full ring, and continues when there is room",
  async () => {
    const before = countersOf(standIn);
    const tunnel = await open("stall");
    const far = new Far("stall");
    standIn.StandInStall(1);
    const running = tunnel.run(() => Verdict.Reply);
    let injected = 0;
    const dropped = () => tunnel.stats.dropped["ring full"] ?? 0;
    await until(() => {
      for (let i = 0; i < 64 && far.inject(bytesOf(injected)); i++) injected++;
      return dropped() > 100;
    }, "the ring was full for long");
    standIn.StandInStall(0);
    await until(() => {
      for (let i = 0; i < 64; i++) far.take();
      const { stats } = tunnel;
      return stats.queued === 0 && stats.outbound.packetsIn === injected;
    }, "what waited was written");
    const lost = dropped();
    while (far.take() !== undefined) continue;
    far.inject(bytesOf(1));
    await until(() => far.take() !== undefined, "a packet passes");
    tunnel.close();
    await running;
    const { stats } = tunnel;
    assertAccounted(stats);
    deepStrictEqual(stats.dropped, { "ring full": lost });
    const { delivered, taken } = countersSince(before);
    deepStrictEqual([writtenSince(before, deviceOf(tunnel)), taken], [delivered - lost, delivered - lost]);
    strictEqual(delivered, injected + 1);
  },
);

driverTest(
  "a tunnel whose pool was empty continues when slots are free, though it could not read at that moment",
  async () => {
    const before = countersOf(standIn);
    const { pool } = currentLoop();
    // With an end that is not a handle, the loop waits on another thread and looks at nothing until that wait ends.
    await using other = await openTunnel({ device: MemoryDevice.pair()[0], signals: false, watchdog: 0 });
    const otherRunning = other.run();
    await using tunnel = await open("dry");
    const far = new Far("dry");
    const hoard: Packet[] = [];
    while (pool.available(1) > SPARE) hoard.push(pool.take(1)!);
    let sent = 0;
    let free = -1;
    // Two of these fill the ring to the system, which takes nothing; behind the third one so many wait that the
    // tunnel reads no more. What came is thrown away, so that there are slots by now.
    const running = tunnel.run((_packet, { direction }) => {
      if (direction === Direction.Inbound) return Verdict.Pass;
      if (sent === 0) {
        free = pool.available(1);
        for (const packet of hoard.splice(0)) pool.give(packet);
        standIn.StandInStall(1);
        for (; sent < 3; sent++) ok(tunnel.send(new Uint8Array(60_000).fill(0x45)));
        for (; sent < BACKLOG; sent++) ok(tunnel.send(bytesOf(sent)));
      }
      return Verdict.Drop;
    });
    // Until the loop waits, of which there is no sign.
    for (let i = 0; i < 10; i++) await turn();
    // Many packets, and the event is set once: the wait consumes it.
    standIn.StandInFlood(wide("dry"), BigInt(FLOOD));
    await until(() => sent === BACKLOG, "the first ones came");
    strictEqual(free, 0, "the pool was empty");
    await until(() => countersSince(before).allocationsRefused > 2, "the ring is full");
    standIn.StandInStall(0);
    await until(() => {
      while (far.take() !== undefined) continue;
      return tunnel.stats.queued === 0;
    }, "what waited was written");
    await until(() => tunnel.stats.outbound.packetsIn === FLOOD, "the others came");
    other.close();
    await otherRunning;
    tunnel.close();
    await running;
    assertAccounted(tunnel.stats);
    strictEqual(countersSince(before).delivered, FLOOD);
  },
);

/* A corrupt ring. */

driverTest("a corrupt ring restarts the session and is counted; packets pass again", async () => {
  const before = countersOf(standIn);
  await using rig = await Rig.open("corrupt");
  const { device, far, host } = rig;
  far.injectNumbers(host.pool, 0, 3);
  far.corrupt();
  far.injectNumbers(host.pool, 3, 2);
  deepStrictEqual(rig.readNumbers(), [0, 1, 2]);
  strictEqual(device.waitable, undefined, "there is no session now");
  strictEqual(device.restarts, 1);
  deepStrictEqual(host.refused, { "corrupt ring": 1 });
  const batch = new PacketBatch();
  batch.push(numbered(host.pool, 9));
  strictEqual(device.write(batch), 0, "what is written waits");
  const { wakes } = host;
  await until(() => host.wakes > wakes, "it woke the loop");
  ok(device.waitable !== undefined);
  far.injectNumbers(host.pool, 5, 3);
  deepStrictEqual(rig.readNumbers(), [5, 6, 7]);
  strictEqual(device.write(batch), 1);
  deepStrictEqual(far.takeNumbers(), [9]);
  strictEqual(device.failure, undefined);
  deepStrictEqual(host.refused, { "corrupt ring": 1 });
  const { sessionsStarted, invalidReads, unreadAtEnd } = countersSince(before);
  deepStrictEqual([sessionsStarted, invalidReads, unreadAtEnd], [2, 1, 2]);
});

driverTest("a packet without bytes is counted as empty, not as corruption", async () => {
  await using rig = await Rig.open("empty");
  const { device, far, host } = rig;
  far.injectNumbers(host.pool, 0, 2);
  ok(far.inject(new Uint8Array(0)));
  far.injectNumbers(host.pool, 2, 2);
  deepStrictEqual(rig.readNumbers(), [0, 1, 2, 3]);
  deepStrictEqual(host.refused, { empty: 1 });
  strictEqual(device.restarts, 0);
  ok(far.inject(new Uint8Array(0)));
  const { wakes } = host;
  strictEqual(device.read(new PacketBatch()), 0);
  strictEqual(host.wakes, wakes + 1, "a breath that moved nothing is no sign that nothing is there");
});

driverTest(
  "a ring that is corrupt again and again does not stop a tunnel; each time is counted",
  async () => {
    const rounds = 20;
    const before = countersOf(standIn);
    const tunnel = await open("again");
    const device = deviceOf(tunnel);
    const far = new Far("again");
    const running = tunnel.run(() => Verdict.Reply);
    let passed = 0;
    for (let round = 1; round <= rounds; round++) {
      far.inject(bytesOf(round));
      await until(() => (passed += far.take() === undefined ? 0 : 1) === round, `packet ${round} came back`);
      far.corrupt();
      await until(() => device.restarts === round && device.waitable !== undefined, `restart ${round}`);
    }
    tunnel.close();
    await running;
    const { stats } = tunnel;
    assertAccounted(stats);
    deepStrictEqual(stats.dropped, { "corrupt ring": rounds });
    strictEqual(stats.outbound.packetsIn, 2 * rounds);
    const { sessionsStarted, invalidReads, delivered } = countersSince(before);
    deepStrictEqual([sessionsStarted, invalidReads], [rounds + 1, rounds]);
    deepStrictEqual([delivered, writtenSince(before, device)], [rounds, rounds]);
  },
);

driverTest(
  "a session that cannot be restarted at once is tried again, and written packets wait for it",
  async () => {
    const before = countersOf(standIn);
    await using rig = await Rig.open("retry");
    const { device, far, host } = rig;
    standIn.StandInRefuseSessions(4, ERROR_NO_SYSTEM_RESOURCES);
    far.corrupt();
    deepStrictEqual(rig.readNumbers(), []);
    const batch = new PacketBatch();
    for (let number = 0; number < 5; number++) batch.push(numbered(host.pool, number));
    await until(() => device.write(batch) > 0, "a session took them");
    deepStrictEqual(far.takeNumbers(), [0, 1, 2, 3, 4]);
    strictEqual(device.failure, undefined);
    strictEqual(device.restarts, 1);
    const { sessionsRefused, sessionsStarted } = countersSince(before);
    deepStrictEqual([sessionsRefused, sessionsStarted], [4, 2]);
  },
);

driverTest("a session that cannot be restarted ends run() with the log of Wintun", async () => {
  const before = countersOf(standIn);
  const tunnel = await open("never");
  const far = new Far("never");
  const events: string[] = [];
  const listening = (async () => {
    for await (const { kind } of tunnel.device.events()) events.push(kind);
  })();
  const running = tunnel.run(() => Verdict.Reply);
  standIn.StandInRefuseSessions(1000, ERROR_NO_SYSTEM_RESOURCES);
  far.corrupt();
  await rejects(running, (error) => {
    ok(error instanceof DriverError);
    match(error.message, /^Cannot restart the session of "never": error 1450: .*Failed to register rings/);
    match(error.operation, /^WintunStartSession/);
    return true;
  });
  standIn.StandInRefuseSessions(0, 0);
  await listening;
  deepStrictEqual(events, ["gone"]);
  assertAccounted(tunnel.stats);
  deepStrictEqual(tunnel.stats.dropped, { "corrupt ring": 1 });
  const { sessionsRefused, sessionsStarted } = countersSince(before);
  deepStrictEqual([sessionsRefused, sessionsStarted], [MAX_RESTARTS, 1]);
});

driverTest("a device may be closed at any moment of a restart", async () => {
  for (const refused of [0, 1000]) {
    for (let moment = 0; moment < MOMENTS; moment++) {
      const rig = await Rig.open("midway");
      standIn.StandInRefuseSessions(refused, ERROR_NO_SYSTEM_RESOURCES);
      rig.far.corrupt();
      deepStrictEqual(rig.readNumbers(), []);
      for (let i = 0; i < moment; i++) await Promise.resolve();
      await rig[Symbol.asyncDispose]();
      standIn.StandInRefuseSessions(0, 0);
      strictEqual(rig.device.failure, undefined);
    }
  }
});

/* Closing. */

driverTest(
  "neither a restart nor close() ends a session while a wait on another thread holds its event",
  async () => {
    using waiter = new EventWaiter();
    const rig = await Rig.open("parked");
    const park = () => {
      waiter.clear();
      waiter.add(rig.device.waitable!, true, false);
      return waiter.park(DEADLINE);
    };
    rig.far.corrupt();
    strictEqual(await park(), true, "the event of what came");
    let parked = park();
    // Until the other thread waits, of which there is no sign.
    for (let i = 0; i < 5; i++) await turn();
    rig.readNumbers();
    strictEqual(rig.device.restarts, 1);
    await until(() => rig.device.waitable !== undefined, "another session is there");
    waiter.wake();
    await parked;
    parked = park();
    for (let i = 0; i < 5; i++) await turn();
    await rig[Symbol.asyncDispose]();
    waiter.wake();
    await parked;
  },
);

driverTest("close() releases and counts a packet for which there was no slot", async () => {
  const before = countersOf(standIn);
  const rig = await Rig.open("hoard");
  const { device, far, host } = rig;
  const { pool } = host;
  far.injectNumbers(pool, 0, 3);
  const hoard = pool.packets.map(() => pool.take(1) ?? pool.take(9000));
  strictEqual(pool.free, 0);
  strictEqual(device.read(new PacketBatch()), 0);
  strictEqual(countersSince(before).delivered, 1, "one is received and waits for a slot");
  await rig[Symbol.asyncDispose]();
  deepStrictEqual(host.refused, { closed: 1 });
  for (const packet of hoard) pool.give(packet!);
  strictEqual(pool.taken, 0);
});

/** Adapters whose link loops back: packets sent to the system come back from it. */
const LOOPS = ["loop0", "loop1"] as const;
const ROUNDS = 12;

driverTest(
  "a tunnel that ends while packets pass in both directions leaves nothing and counts every packet",
  async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const before = countersOf(standIn);
      const abort = new AbortController();
      const far = new Far(LOOPS[0]);
      const tunnel = await open(LOOPS[0], { signal: abort.signal });
      const end = [() => tunnel.close(), () => abort.abort(), () => far.remove()][round % 3]!;
      const enough = 500 + round * 97;
      let seen = 0;
      const running = tunnel.run(() => {
        // Every other time, in the middle of a batch.
        if (++seen === enough && round % 2 === 0) end();
        return Verdict.Reply;
      });
      for (let number = 0; number < 150; number++) far.inject(bytesOf(number));
      if (round % 2 === 1) {
        await until(() => seen > enough, "packets fly");
        end();
      }
      if (round % 3 === 2) await rejects(running, /ERROR_HANDLE_EOF/);
      else await running;
      const { stats } = tunnel;
      assertAccounted(stats);
      const { delivered } = countersSince(before);
      const written = writtenSince(before, deviceOf(tunnel));
      deepStrictEqual([stats.outbound.packetsIn, stats.inbound.packetsOut], [delivered, written]);
      ok(delivered >= enough && written > 0);
    }
  },
);

driverTest("two devices connected by a tunnel are closed while packets pass between them", async () => {
  for (let round = 0; round < ROUNDS / 2; round++) {
    const before = countersOf(standIn);
    const far = await openDevice({ name: LOOPS[1], windows: { ringCapacity: MIN_RING } }) as WintunDevice;
    const tunnel = await open(LOOPS[0], { far });
    const running = tunnel.run();
    for (const name of LOOPS) {
      const system = new Far(name);
      for (let number = 0; number < 100; number++) system.inject(bytesOf(number));
    }
    await until(() => countersSince(before).delivered > 400 + round * 131, "packets fly");
    tunnel.close();
    await running;
    const { outbound, inbound } = tunnel.stats;
    assertAccounted(tunnel.stats);
    strictEqual(outbound.packetsIn + inbound.packetsIn, countersSince(before).delivered);
    strictEqual(outbound.packetsOut + inbound.packetsOut, writtenSince(before, deviceOf(tunnel), far));
  }
});
