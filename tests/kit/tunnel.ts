/** Tunnels whose ends are the test's hands: what comes is said, what goes is kept, and nothing is waited for in time. */

import assert from "node:assert/strict";
import type {
  Device,
  DeviceEvent,
  DeviceStatistics,
  EndHost,
  EndWait,
  PacketBatch,
  Rescue,
} from "../../lib/core/mod.ts";
import { Breath, currentLoop, type LoopMember } from "../../runtime/engine/loop.ts";
import type { Tunnel } from "../../runtime/mod.ts";

/** The runtime's own signals and thread, for which tests without permissions have none. */
export const QUIET = { signals: false, watchdog: 0 } as const;

/**
 * An end, device or far, that reads what the test gives it and keeps what it is written. It wakes the loop when the
 * test gives it something, and never else: a wake that is lost leaves the test without anything to wait for.
 */
export class ManualEnd implements Device {
  readonly name: string;
  readonly mtu = 1500;
  readonly offload: boolean = false;
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  readonly queued = 0;
  failure: Error | undefined;
  /** The packets that it was written, in their order. */
  readonly written: Uint8Array[] = [];
  /** How many packets it still takes. */
  room = Infinity;
  /** How often it was closed. */
  closes = 0;

  readonly #incoming: Uint8Array[] = [];
  #host: EndHost | undefined;
  /** Whoever waits for a call of it. */
  #news = Promise.withResolvers<void>();

  /** @param name What messages call it. */
  constructor(name = "manual") {
    this.name = name;
  }

  /** What it was attached to. */
  get host(): EndHost {
    return this.#host!;
  }

  /** The first bytes of the packets that it was written. */
  get writtenBytes(): number[] {
    return this.written.map((bytes) => bytes[0]!);
  }

  /** Packets that it has to read from now on. */
  come(...packets: (Uint8Array | number)[]): void {
    for (const packet of packets) {
      this.#incoming.push(typeof packet === "number" ? Uint8Array.of(packet) : packet);
    }
    this.#host?.wake();
  }

  /** Takes so many more packets. */
  makeRoom(packets: number): void {
    this.room = packets;
    this.#host!.wake();
  }

  /** Fails, as a device does that is pulled away. */
  fail(error: Error): void {
    this.failure = error;
    this.#host!.wake();
  }

  /** Settled when it was written so many packets in all. */
  async wrote(count: number): Promise<void> {
    while (this.written.length < count) await this.touched();
  }

  /** Settled when it is next read or written, with whatever outcome. */
  touched(): Promise<void> {
    return this.#news.promise;
  }

  attach(host: EndHost): void {
    this.#host = host;
  }

  read(batch: PacketBatch): number {
    let count = 0;
    while (this.#incoming.length > 0 && !batch.full) {
      const packet = this.host.pool.from(this.#incoming[0]!);
      if (packet === undefined) break;
      this.#incoming.shift();
      batch.push(packet);
      count++;
    }
    this.#tell();
    return count;
  }

  write(batch: PacketBatch): number {
    const taken = Math.min(batch.length, this.room);
    for (let i = 0; i < taken; i++) {
      const packet = batch.packets[i]!;
      this.written.push(packet.data.slice());
      packet.pool.give(packet);
    }
    this.room -= taken;
    batch.shift(taken);
    this.#tell();
    return taken;
  }

  async *events(): AsyncGenerator<DeviceEvent, void, void> {
  }

  statistics(): DeviceStatistics | undefined {
    return undefined;
  }

  rescue(): Rescue | undefined {
    return undefined;
  }

  close(): void {
    this.closes++;
    this.#tell();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #tell(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }
}

/** A member of the loop that has nothing to do, and sees when the loop rests. */
export class RestWatch implements LoopMember, Disposable {
  readonly name = "rest watch";
  readonly due: number = Infinity;
  readonly waitable = false;
  readonly busyPoll = 0;
  #rests = Promise.withResolvers<void>();

  constructor() {
    currentLoop().join(this);
  }

  /** Settled when everything that is asked for up to now is done, and the loop waits for more. */
  rests(): Promise<void> {
    currentLoop().wake();
    return this.#rests.promise;
  }

  breathe(): Breath {
    return Breath.Idle;
  }

  arm(): void {
    this.#rests.resolve();
    this.#rests = Promise.withResolvers();
  }

  fail(error: unknown): void {
    throw error;
  }

  [Symbol.dispose](): void {
    currentLoop().leave(this);
  }
}

/** That what came in went out, was dropped or is inside. */
export function assertBalanced(tunnel: Tunnel): void {
  const { outbound, inbound, created, consumed, dropped, queued } = tunnel.stats;
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const [came, went] = [outbound.packetsIn + inbound.packetsIn, outbound.packetsOut + inbound.packetsOut];
  assert.equal(came + created, went + consumed + lost + queued, JSON.stringify(tunnel.stats));
}

/** That a tunnel that has ended holds nothing: its packets are back, and counted. */
export function assertNothingLeft(tunnel: Tunnel): void {
  assertBalanced(tunnel);
  assert.equal(tunnel.stats.queued, 0);
  assert.equal(currentLoop().pool.taken, 0);
}
