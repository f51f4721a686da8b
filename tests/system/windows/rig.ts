/**
 * A Windows device whose system is played by the test, in deno.exe under Wine. Environment variables name the
 * stand-ins.
 */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { checkDeviceOptions, type DeviceOptions } from "../../../driver/options.ts";
import { openWintunDevice, type WintunDevice } from "../../../driver/windows/device.ts";
import { iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { isAdministrator } from "../../../driver/windows/shell32.ts";
import { collectErrors } from "../../../driver/windows/wintun.ts";
import { PacketBatch, type PacketPool, type TunnelStats } from "../../../lib/core/mod.ts";
import { empty, numbered, sequenceOf } from "../../conformance/end.ts";
import { TestHost } from "../../kit/host.ts";
import { type Counters, countersOf, openStandIn, type StandIn, wide } from "./stand_in.ts";

/** Minimum size of Wintun's rings (bytes). */
export const MIN_RING = 0x2_0000;
const LONGEST = 0xffff;

/** The stand-in loaded by the driver. */
export const standIn: StandIn = openStandIn();

// Libraries and the logger stay open, so they are opened outside the tests' leak checks.
iphlpapi();
isAdministrator();
await collectErrors(() => Promise.resolve());

/** Returns the counters of the stand-in since `before`. */
export function countersSince(before: Counters): Counters {
  return Object.fromEntries(
    Object.entries(countersOf(standIn)).map((
      [name, count],
    ) => [name, count - before[name as keyof Counters]]),
  ) as Counters;
}

/** Returns the number of packets sent since `before`, without nudges, and checks the nudges counted by these devices. */
export function writtenSince(before: Counters, ...devices: readonly WintunDevice[]): number {
  const { allocated, sent, nudges } = countersSince(before);
  strictEqual(nudges, devices.reduce((sum, device) => sum + device.nudges, 0), "nudges");
  strictEqual(allocated, sent, "what was allocated was sent");
  return sent - nudges;
}

/** The system's side of an adapter, by name. */
export class Far {
  readonly #name: Uint16Array<ArrayBuffer>;
  readonly #room = new Uint8Array(LONGEST);

  /** Finds the adapter of this name. */
  constructor(name: string) {
    this.#name = wide(name);
  }

  /** Sends a packet to the script; returns false if the ring is full. */
  inject(bytes: Uint8Array): boolean {
    return standIn.StandInInject(this.#name, bytes as Uint8Array<ArrayBuffer>, bytes.length) !== 0;
  }

  /** Sends packets with these numbers. */
  injectNumbers(pool: PacketPool, from: number, count: number): void {
    for (let number = from; number < from + count; number++) {
      const packet = numbered(pool, number);
      ok(this.inject(packet.data.slice()), "the ring has room");
      pool.give(packet);
    }
  }

  /** Returns the next packet from the script, or `undefined`. */
  take(): Uint8Array | undefined {
    const length = standIn.StandInTake(this.#name, this.#room, this.#room.length);
    return length > 0 ? this.#room.slice(0, length) : undefined;
  }

  /** Returns the numbers of all packets from the script. */
  takeNumbers(): number[] {
    const numbers: number[] = [];
    for (let bytes; (bytes = this.take()) !== undefined;) numbers.push(sequenceOf(bytes));
    return numbers;
  }

  /** Corrupts the ring to the script. */
  corrupt(): void {
    ok(standIn.StandInCorrupt(this.#name) !== 0, "the ring has room");
  }

  /** Removes the adapter. */
  remove(): void {
    ok(standIn.StandInEnd(this.#name) !== 0, "there is a session");
  }
}

/** A device without a loop, and its system's side. */
export class Rig implements AsyncDisposable {
  /** The device. */
  readonly device: WintunDevice;
  /** Its system. */
  readonly far: Far;
  /** Its loop. */
  readonly host: TestHost;

  /** For {@linkcode Rig.open}. */
  constructor(device: WintunDevice, pool?: PacketPool) {
    this.device = device;
    this.far = new Far(device.name);
    this.host = new TestHost(pool);
    device.attach(this.host);
  }

  /** Opens a device with the smallest rings, unless the options say otherwise. */
  static async open(name: string, options: DeviceOptions = {}, pool?: PacketPool): Promise<Rig> {
    const { windows, ...rest } = options;
    return new Rig(
      await openWintunDevice(
        checkDeviceOptions({ name, windows: { ringCapacity: MIN_RING, ...windows }, ...rest }),
      ),
      pool,
    );
  }

  /** Returns the numbers of the packets that are ready. */
  readNumbers(): number[] {
    const numbers: number[] = [];
    const batch = new PacketBatch();
    while (this.device.read(batch) > 0) numbers.push(...empty(batch).map(sequenceOf));
    return numbers;
  }

  /** Closes the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.device.close();
    await this.device.closed;
  }
}

/**
 * Declares a test and checks at its end that the library has everything back, that no rule of wintun.h was broken, that
 * Windows discarded only nudges, and that every sent packet is accounted for.
 */
export function driverTest(name: string, body: () => void | Promise<void>): void {
  Deno.test(name, async () => {
    const before = countersOf(standIn);
    try {
      await body();
    } finally {
      standIn.StandInStall(0);
      standIn.StandInRefuseSessions(0, 0);
      standIn.StandInSeed(0n);
    }
    const since = countersSince(before);
    deepStrictEqual(
      {
        misuses: since.misuses,
        discarded: since.discarded - since.nudgesDiscarded,
        lost: since.sent - since.taken - since.discarded - since.untakenAtEnd,
        handlesOpen: since.handlesOpen,
        adaptersOpen: since.adaptersCreated - since.adaptersClosed,
        sessionsOpen: since.sessionsStarted - since.sessionsEnded,
        unsentAtEnd: since.unsentAtEnd,
        unreleased: since.delivered - since.releases,
      },
      {
        misuses: 0,
        discarded: 0,
        lost: 0,
        handlesOpen: 0,
        adaptersOpen: 0,
        sessionsOpen: 0,
        unsentAtEnd: 0,
        unreleased: 0,
      },
    );
  });
}

/** Checks that every packet left, was consumed or was dropped with a reason, and that none is queued. */
export function assertAccounted(stats: TunnelStats): void {
  const dropped = Object.values(stats.dropped).reduce((sum, count) => sum + count, 0);
  strictEqual(stats.queued, 0);
  strictEqual(
    stats.outbound.packetsIn + stats.inbound.packetsIn + stats.created,
    stats.outbound.packetsOut + stats.inbound.packetsOut + dropped,
    JSON.stringify(stats),
  );
}
