/** Connected devices in memory, for tests and examples that have no permissions. */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  type EndWait,
  type Packet,
  type PacketBatch,
  PacketQueue,
} from "../lib/core/mod.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../lib/core/options.ts";

/** Options for {@linkcode MemoryDevice.pair}. */
export interface MemoryDeviceOptions {
  /** Name of the first device; the second one's ends in `-far`. @default {"memory"} */
  name?: string;
  /** MTU (bytes). @default {1500} */
  mtu?: number;
  /** Maximum number of packets waiting in each direction; `write` takes no more. @default {500} */
  queueLength?: number;
  /** Content of packets: `"ip"`, or `"any"` for an end below a VPN protocol. @default {"ip"} */
  payload?: "ip" | "any";
}

const NAMES: OptionKinds<MemoryDeviceOptions> = {
  name: "text",
  mtu: "number",
  queueLength: "number",
  payload: ["ip", "any"],
};

/**
 * One of two connected devices: a packet written to one is read from the other. If both belong to one loop, packets are
 * not copied; otherwise they are copied once, from pool to pool.
 *
 * @example A tunnel without privileges
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
 * for await (const [packet] of tester) {
 *   assert.deepEqual(packet!.data, Uint8Array.of(0x45, 0, 0, 20));
 *   break;
 * }
 * // Leaving the loop closes the tester and its device, so the other device fails as if it had been removed.
 * await assert.rejects(running, Deno.errors.NotFound);
 * ```
 */
export class MemoryDevice implements Device {
  readonly name: string;
  /** MTU (bytes); `write` drops longer packets, except super-packets. */
  readonly mtu: number;
  readonly payload: "ip" | "any";
  /** True: super-packets and packets with partial checksums pass unchanged. */
  readonly offload = true;
  /** No descriptor: the device calls `EndHost.wake`. */
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  /** Always 0: written packets belong to the other device. */
  readonly queued = 0;
  /** Set when the other device is closed. */
  failure: Error | undefined;

  readonly #incoming: PacketQueue;
  #partner!: MemoryDevice;
  #host: EndHost | undefined;
  #closed = false;
  #writtenPackets = 0;
  #writtenBytes = 0;
  #dropped = 0;

  private constructor(name: string, { mtu, queueLength, payload }: Required<MemoryDeviceOptions>) {
    this.name = name;
    this.mtu = mtu;
    this.payload = payload;
    this.#incoming = new PacketQueue({ packets: queueLength });
  }

  /**
   * Creates two connected devices.
   *
   * @throws {RangeError} when `mtu` is not an integer from 1 to 65535, or `queueLength` is not a positive integer.
   */
  static pair(options: MemoryDeviceOptions = {}): [MemoryDevice, MemoryDevice] {
    const attempt = "create memory devices";
    checkOptions(attempt, options, NAMES);
    const { name = "memory", mtu = 1500, queueLength = 500, payload = "ip" } = options;
    checkInteger(attempt, "mtu", mtu, 1, 65_535);
    checkInteger(attempt, "queueLength", queueLength, 1, Number.MAX_SAFE_INTEGER);
    const parts = { name, mtu, queueLength, payload };
    const [near, far] = [new MemoryDevice(name, parts), new MemoryDevice(`${name}-far`, parts)];
    near.#partner = far;
    far.#partner = near;
    return [near, far];
  }

  attach(host: EndHost): void {
    this.#host = host;
  }

  read(batch: PacketBatch): number {
    const host = this.#host!;
    const incoming = this.#incoming;
    const wasFull = incoming.full;
    let count = 0;
    while (!batch.full) {
      const packet = incoming.first;
      if (packet === undefined) break;
      let taken: Packet | undefined = packet;
      if (packet.pool !== host.pool) {
        taken = host.pool.from(packet.data);
        if (taken === undefined) break;
        taken.segmentSize = packet.segmentSize;
        taken.checksumStart = packet.checksumStart;
        taken.checksumOffset = packet.checksumOffset;
        packet.pool.give(packet);
      }
      incoming.shift();
      batch.push(taken);
      count++;
    }
    if (wasFull && count > 0) this.#partner.#host?.wake();
    return count;
  }

  write(batch: PacketBatch): number {
    const { packets, length } = batch;
    const queue = this.#partner.#incoming;
    if (this.#closed || this.#partner.#closed) return 0;
    let count = 0;
    for (; count < length && !queue.full; count++) {
      const packet = packets[count]!;
      if (packet.length > this.mtu && packet.segmentSize === 0) {
        this.#dropped++;
        this.#host!.finish(packet, "longer than the MTU");
        continue;
      }
      this.#writtenPackets++;
      this.#writtenBytes += packet.length;
      queue.push(packet);
    }
    batch.shift(count);
    if (count > 0) this.#partner.#host?.wake();
    return count;
  }

  /** No events, because the device never changes. */
  async *events(): AsyncGenerator<DeviceEvent, void, void> {
  }

  /** Counters in which the other device plays the role of the system. */
  statistics(): DeviceStatistics {
    return {
      rxPackets: this.#writtenPackets,
      rxBytes: this.#writtenBytes,
      rxDropped: this.#dropped,
      txPackets: this.#partner.#writtenPackets,
      txBytes: this.#partner.#writtenBytes,
      txDropped: 0,
    };
  }

  /** Always `undefined`, because there is nothing to undo. */
  rescue(): undefined {
  }

  /** Discards unread packets. The other device fails as if it had been removed. */
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

  /** Calls {@linkcode MemoryDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
