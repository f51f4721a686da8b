/** A device that does all that a device may: takes part of a batch, gives nothing, refuses, delays, fails. */

import type {
  Device,
  DeviceEvent,
  DeviceStatistics,
  EndHost,
  EndWait,
  PacketBatch,
  Rescue,
} from "../../lib/core/mod.ts";
import type { Random } from "../../lib/core/random.ts";

/** What a {@linkcode FaultyDevice} has counted, which is not the tunnel's count. */
export interface FaultyCounts {
  /** Packets that it gave to the tunnel. */
  given: number;
  /** Packets that it kept. */
  delivered: number;
  /** Packets that it dropped after taking them. */
  refused: number;
}

/** A device whose behaviour a seed decides. Packets carry a sequence number in their first four bytes. */
export class FaultyDevice implements Device {
  readonly mtu = 1500;
  readonly offload = false;
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  readonly queued = 0;
  failure: Error | undefined;
  /** Its own counts. */
  readonly counts: FaultyCounts = { given: 0, delivered: 0, refused: 0 };
  /** The sequence numbers that it was given, in their order. */
  readonly got: number[] = [];
  readonly name: string;
  readonly #random: Random;
  readonly #limit: number;
  #host: EndHost | undefined;

  /** Gives `limit` packets in all. */
  constructor(name: string, random: Random, limit: number) {
    this.name = name;
    this.#random = random;
    this.#limit = limit;
  }

  attach(host: EndHost): void {
    this.#host = host;
    host.wake();
  }

  read(batch: PacketBatch): number {
    const wanted = this.#random.below(80);
    let count = 0;
    while (count < wanted && !batch.full && this.counts.given < this.#limit) {
      const packet = this.#host!.pool.take(4 + this.#random.below(1400));
      if (packet === undefined) break;
      packet.view.setUint32(packet.offset, this.counts.given++);
      batch.push(packet);
      count++;
    }
    this.#soon();
    return count;
  }

  write(batch: PacketBatch): number {
    const taken = Math.min(batch.length, this.#random.below(80));
    for (let i = 0; i < taken; i++) {
      const packet = batch.packets[i]!;
      if (this.#random.below(10) === 0) {
        this.counts.refused++;
        this.#host!.finish(packet, "faulty");
      } else {
        this.counts.delivered++;
        this.got.push(packet.view.getUint32(packet.offset));
        packet.pool.give(packet);
      }
    }
    batch.shift(taken);
    this.#soon();
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
  }

  [Symbol.dispose](): void {
  }

  #soon(): void {
    queueMicrotask(() => this.#host!.wake());
  }
}
