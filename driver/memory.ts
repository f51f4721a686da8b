/** A pair of devices in memory: what one writes, the other reads. Needs no permission and no system. */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  type Packet,
  type PacketBatch,
  PacketQueue,
  type Waitable,
} from "../lib/core/mod.ts";
import { checkNames, type OptionNames } from "../lib/core/options.ts";

/** Options for {@linkcode MemoryDevice.pair}. */
export interface MemoryDeviceOptions {
  /** What messages call the first device; the second is called the same with `-far`. @default {"memory"} */
  name?: string;
  /** The longest packet (bytes). @default {1500} */
  mtu?: number;
  /** How many packets wait in each direction before `write` takes no more. @default {500} */
  queueLength?: number;
}

const NAMES: OptionNames<MemoryDeviceOptions> = {
  name: "optional",
  mtu: "optional",
  queueLength: "optional",
};

/**
 * One of two joined devices. Handles move from one to the other as they are while both have the same loop;
 * between pools, the bytes are copied once.
 *
 * @example A tunnel that needs no privileges
 * ```ts
 * import assert from "node:assert/strict";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { openTunnel, Verdict } from "@warren/tunnel";
 *
 * const [device, outside] = MemoryDevice.pair();
 * await using echo = await openTunnel({ device });
 * await using tester = await openTunnel({ device: outside });
 * const running = echo.run(() => Verdict.Reply);
 * tester.send(Uint8Array.of(0x45, 0, 0, 20));
 * for await (const batch of tester) {
 *   assert(batch.length === 1);
 *   break;
 * }
 * // Leaving the loop closed the tester, and so its device; the other one fails, as one does that is pulled away.
 * await assert.rejects(running, Deno.errors.NotFound);
 * ```
 */
export class MemoryDevice implements Device {
  /** What messages call it. */
  readonly name: string;
  /** The longest packet that passes; `write` drops longer ones (bytes). */
  readonly mtu: number;
  /** Packets pass as they are, super-packets too. */
  readonly offload = true;
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** None: what it has accepted can be read by the other device. */
  readonly queued = 0;
  /** Why it is gone: the other device was closed. */
  failure: Error | undefined;

  readonly #incoming: PacketQueue;
  #partner!: MemoryDevice;
  #host: EndHost | undefined;
  #closed = false;
  #wrotePackets = 0;
  #wroteBytes = 0;
  #refused = 0;

  private constructor(name: string, mtu: number, queueLength: number) {
    this.name = name;
    this.mtu = mtu;
    this.#incoming = new PacketQueue({ packets: queueLength });
  }

  /**
   * Two devices, joined.
   *
   * @throws {RangeError} when the MTU or the queue length is not at least 1.
   */
  static pair(options: MemoryDeviceOptions = {}): [MemoryDevice, MemoryDevice] {
    checkNames("make devices in memory", options, NAMES);
    const { name = "memory", mtu = 1500, queueLength = 500 } = options;
    if (!(mtu >= 1) || mtu > 65_535) {
      throw new RangeError(`Cannot make "${name}": MTU ${mtu} is not 1 to 65535`);
    }
    if (!Number.isInteger(queueLength) || queueLength < 1) {
      throw new RangeError(`Cannot make "${name}": a queue of ${queueLength} packets is not at least 1`);
    }
    const near = new MemoryDevice(name, mtu, queueLength);
    const far = new MemoryDevice(`${name}-far`, mtu, queueLength);
    near.#partner = far;
    far.#partner = near;
    return [near, far];
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
  }

  /** Appends what the other device wrote. */
  read(batch: PacketBatch): number {
    const host = this.#host!;
    const incoming = this.#incoming;
    const wasFull = incoming.full;
    let count = 0;
    while (!batch.full) {
      const packet = incoming.first;
      if (packet === undefined) break;
      let own: Packet | undefined = packet;
      if (packet.pool !== host.pool) {
        own = host.pool.from(packet.data);
        if (own === undefined) break;
        own.segmentSize = packet.segmentSize;
        own.checksumStart = packet.checksumStart;
        own.checksumOffset = packet.checksumOffset;
        packet.pool.give(packet);
      }
      incoming.shift();
      batch.push(own);
      count++;
    }
    if (wasFull && count > 0) this.#partner.#host?.wake();
    return count;
  }

  /** Hands packets to the other device until its queue is full. */
  write(batch: PacketBatch): number {
    const { packets, length } = batch;
    const queue = this.#partner.#incoming;
    if (this.#closed || this.#partner.#closed) return 0;
    let count = 0;
    for (; count < length && !queue.full; count++) {
      const packet = packets[count]!;
      if (packet.length > this.mtu && packet.segmentSize === 0) {
        this.#refused++;
        this.#host!.drop(packet, "longer than the MTU");
        continue;
      }
      this.#wrotePackets++;
      this.#wroteBytes += packet.length;
      queue.push(packet);
    }
    batch.shift(count);
    if (count > 0) this.#partner.#host?.wake();
    return count;
  }

  /** Nothing changes on a device in memory; the iteration is over at once. */
  async *events(): AsyncGenerator<DeviceEvent, void, void> {
  }

  /** Its counters, seen from the other device as the system. */
  statistics(): DeviceStatistics {
    return {
      rxPackets: this.#wrotePackets,
      rxBytes: this.#wroteBytes,
      rxDropped: this.#refused,
      txPackets: this.#partner.#wrotePackets,
      txBytes: this.#partner.#wroteBytes,
      txDropped: 0,
    };
  }

  /** Nothing: what it holds dies with the process. */
  rescue(): undefined {
  }

  /** Gives back what it has not read; the other device fails, as a device does that is pulled away. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#incoming.length > 0) {
      const packet = this.#incoming.shift();
      packet.pool.give(packet);
    }
    if (this.#partner.#closed) return;
    this.#partner.failure = new Deno.errors.NotFound(
      `Cannot use "${this.#partner.name}": "${this.name}" was closed`,
    );
    this.#partner.#host?.wake();
  }

  /** The same as {@linkcode MemoryDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
