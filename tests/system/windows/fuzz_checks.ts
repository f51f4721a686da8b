/** The Windows driver against a system that does anything, from a seed; device_test.ts runs it under Wine. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type Packet, PacketBatch, PacketPool } from "../../../lib/core/mod.ts";
import type { WintunDevice } from "../../../driver/windows/device.ts";
import { openTunnel, Verdict } from "../../../runtime/mod.ts";
import { turn, until } from "../../kit/host.ts";
import { Random } from "../../../lib/core/random.ts";
import { assertAccounted, countersSince, driverTest, MIN_RING, Rig, standIn, writtenSince } from "./rig.ts";
import { type Counters, countersOf, wide } from "./stand_in.ts";

/** Number of steps of the system. */
const OPERATIONS = 1_000_000;
/** Number of these with the loop of a tunnel. */
const OPERATIONS_OF_LOOP = 100_000;
/** Maximum steps between two turns of the script. */
const MAX_AT_ONCE = 96;
/** Maximum steps with a loop, which does more in a turn. */
const MAX_IN_LOOP = 400;
/** Turns after which the system takes nothing once, until packets are dropped. */
const STALL = 1500;
const NAME = "fuzz";
const SYSTEM = wide(NAME);

const SEED = Number(Deno.env.get("FUZZ_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);

/** Declares a test with random errors; its failure names the seed. */
function fuzzTest(name: string, body: (random: Random) => Promise<void>): void {
  driverTest(name, async () => {
    standIn.StandInSeed(BigInt(SEED | 1));
    try {
      await body(new Random(SEED));
    } catch (error) {
      throw new Error(`FUZZ_SEED=${SEED}: ${(error as Error).message}`, { cause: error });
    }
  });
}

/** Checks that the counters of the stand-in are consistent. */
function assertSystem(since: Counters): void {
  strictEqual(since.misuses, 0);
  strictEqual(since.injected, since.delivered + since.overflowed + since.unreadAtEnd);
  deepStrictEqual([since.releases, since.allocated, since.unsentAtEnd], [since.delivered, since.sent, 0]);
}

const sum = (counts: Record<string, number>) =>
  Object.values(counts).reduce((total, count) => total + count, 0);

/** A script that reads, keeps, forwards and creates packets at random. */
class Script {
  /** Packets read, and their bytes. */
  read = 0;
  readBytes = 0;
  /** Packets given to `write`. */
  given = 0;
  readonly #rig: Rig;
  readonly #random: Random;
  readonly #out = new PacketBatch();
  #kept: Packet[] = [];

  constructor(rig: Rig, random: Random) {
    this.#rig = rig;
    this.#random = random;
  }

  /** Reads once, and writes once. */
  turn(): void {
    const random = this.#random;
    const { device, host: { pool } } = this.#rig;
    const batch = new PacketBatch({ packets: 1 + random.below(64) });
    strictEqual(device.read(batch), batch.length);
    this.read += batch.length;
    for (const packet of batch) {
      this.readBytes += packet.length;
      ok(packet.length > 0 && packet.length <= 0xffff);
      const fate = random.below(4);
      if (fate === 0) this.#kept.push(packet);
      else if (fate === 1) this.#send(packet);
      else pool.give(packet);
    }
    if (random.below(8) === 0) {
      for (const packet of this.#kept) this.#send(packet);
      this.#kept = [];
    }
    for (let count = random.below(8); count > 0; count--) this.#make();
    const before = this.#out.length;
    strictEqual(device.write(this.#out), before - this.#out.length);
  }

  /** Frees everything. */
  end(): void {
    this.given -= this.#out.length;
    for (const packet of [...this.#out, ...this.#kept]) packet.pool.give(packet);
    this.#out.clear();
    this.#kept = [];
  }

  #make(): void {
    const random = this.#random;
    const length = random.below(16) === 0 ? random.below(0x1_0000) : random.below(1600);
    const packet = this.#rig.host.pool.take(length);
    if (packet === undefined) return;
    packet.bytes[packet.offset] = random.below(3) === 0
      ? random.below(256)
      : random.below(2) === 0
      ? 0x45
      : 0x60;
    this.#send(packet);
  }

  #send(packet: Packet): void {
    // Sometimes at another offset in the slot.
    if (packet.length > 8 && this.#random.below(4) === 0) packet.strip(this.#random.below(8));
    this.given++;
    this.#out.push(packet);
  }
}

fuzzTest(
  `WintunDevice accounts for every packet in ${OPERATIONS} random operations of the system`,
  async (random) => {
    // Few, so that at times none is free.
    const pool = new PacketPool({ small: 96, large: 6 });
    const all = { read: 0, sent: 0, nudges: 0, restarts: 0, empty: 0, removals: 0, full: 0 };
    for (let operations = 0; operations < OPERATIONS;) {
      const before = countersOf(standIn);
      const rig = await Rig.open(NAME, {}, pool);
      const { device, host } = rig;
      const script = new Script(rig, random);
      while (operations < OPERATIONS && device.failure === undefined) {
        const some = random.below(MAX_AT_ONCE);
        standIn.StandInFuzz(SYSTEM, some);
        operations += some;
        script.turn();
        if (device.waitable === undefined) {
          await until(() => device.waitable !== undefined, `the session starts again: FUZZ_SEED=${SEED}`);
        }
        if (random.below(STALL) === 0) {
          const full = host.dropped["ring full"] ?? 0;
          standIn.StandInStall(1);
          await until(() => {
            script.turn();
            return (host.dropped["ring full"] ?? 0) > full || device.waitable === undefined ||
              device.failure !== undefined;
          }, `the ring is full: FUZZ_SEED=${SEED}`);
          standIn.StandInStall(0);
        }
      }
      await rig[Symbol.asyncDispose]();
      script.end();
      const since = countersSince(before);
      assertSystem(since);
      const { "corrupt ring": corrupt = 0, ...refused } = host.refused;
      strictEqual(script.read + sum(refused), since.delivered);
      strictEqual(script.readBytes + host.refusedBytes, since.deliveredBytes);
      deepStrictEqual([device.restarts, corrupt], [since.invalidReads, since.invalidReads]);
      const written = writtenSince(before, device);
      strictEqual(script.given, written + sum(host.dropped));
      strictEqual(pool.taken, 0);
      all.read += script.read;
      all.sent += written;
      all.nudges += device.nudges;
      all.restarts += device.restarts;
      all.empty += refused.empty ?? 0;
      all.full += host.dropped["ring full"] ?? 0;
      if (device.failure !== undefined) all.removals++;
    }
    console.log(JSON.stringify(all));
    // Each kind of fault occurred.
    for (const [what, count] of Object.entries(all)) ok(count > 0, `${what}: ${count}`);
  },
);

fuzzTest(
  `a tunnel accounts for every packet in ${OPERATIONS_OF_LOOP} random operations of the system`,
  async (random) => {
    for (let operations = 0; operations < OPERATIONS_OF_LOOP;) {
      const before = countersOf(standIn);
      const tunnel = await openTunnel({
        name: NAME,
        windows: { ringCapacity: MIN_RING },
        signals: false,
        watchdog: 0,
      });
      let ended = false;
      const running = tunnel.run(() => [Verdict.Reply, Verdict.Drop, Verdict.Pass][random.below(3)]!)
        .catch(() => {}).finally(() => ended = true);
      while (operations < OPERATIONS_OF_LOOP && !ended) {
        const some = random.below(MAX_IN_LOOP);
        standIn.StandInFuzz(SYSTEM, some);
        operations += some;
        await turn();
      }
      tunnel.close();
      await running;
      const { stats } = tunnel;
      assertAccounted(stats);
      const since = countersSince(before);
      assertSystem(since);
      strictEqual(stats.outbound.packetsIn, since.delivered + since.invalidReads);
      strictEqual(stats.inbound.packetsOut, writtenSince(before, tunnel.device as WintunDevice));
      strictEqual(stats.dropped["corrupt ring"] ?? 0, since.invalidReads);
      ok(since.delivered > 0);
    }
  },
);
