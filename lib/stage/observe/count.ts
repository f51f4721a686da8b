/** A stage that counts packets and bytes. */

import { Direction, type Packet, type PacketBatch, type Stage } from "../../core/mod.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";

/** Options of {@linkcode Count}. */
export interface CountOptions {
  /** Name of the stage in statistics and errors. @default {"count"} */
  readonly name?: string;
  /** Selects the packets to count. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
}

const NAMES: OptionKinds<CountOptions> = { name: "text", filter: "function" };

/** Packets and bytes of one direction. */
export interface Counted {
  /** Packets; a super-packet counts once. */
  packets: number;
  /** Bytes, IP headers included. */
  bytes: number;
}

/**
 * Counts packets and bytes by direction.
 *
 * **Outbound** and **inbound**: counts each packet that the filter selects; passes all packets unchanged.
 * **Options**: {@linkcode CountOptions}. **Counters**: `counted.outbound` and `counted.inbound`, exact up to 2^53.
 *
 * @example Counting the packets to one port
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool } from "@warren/tunnel/core";
 * import { Count } from "@warren/tunnel/count";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const count = new Count({ name: "dns", filter: (packet) => Udp.of(packet)?.dstPort === 53 });
 * const pool = new PacketPool();
 * const batch = new PacketBatch();
 * for (const dstPort of [53, 80, 53]) {
 *   const packet = pool.from(new Uint8Array(12))!;
 *   Udp.encode(packet, { srcPort: 5000, dstPort });
 *   Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 17 });
 *   batch.push(packet);
 * }
 * count.outbound(batch);
 * assert.deepEqual(count.counted.outbound, { packets: 2, bytes: 80 });
 * ```
 */
export class Count implements Stage {
  readonly name: string;
  /** Totals by direction. */
  readonly counted: { readonly outbound: Counted; readonly inbound: Counted } = {
    outbound: { packets: 0, bytes: 0 },
    inbound: { packets: 0, bytes: 0 },
  };
  readonly #filter: CountOptions["filter"];

  /** Starts at zero. */
  constructor(options: CountOptions = {}) {
    checkOptions("count", options, NAMES);
    const { name = "count", filter } = options;
    this.name = name;
    this.#filter = filter;
  }

  outbound(batch: PacketBatch): void {
    this.#count(batch, Direction.Outbound, this.counted.outbound);
  }

  inbound(batch: PacketBatch): void {
    this.#count(batch, Direction.Inbound, this.counted.inbound);
  }

  /** Returns a copy of {@linkcode Count.counted}. */
  save(): unknown {
    return { outbound: { ...this.counted.outbound }, inbound: { ...this.counted.inbound } };
  }

  /**
   * Replaces the totals with those of {@linkcode Count.save}.
   *
   * @throws {TypeError} when `state` does not come from a `Count`; the totals are then unchanged.
   */
  restore(state: unknown): void {
    const saved = state as Partial<Record<"outbound" | "inbound", Partial<Counted>>> | null;
    for (const way of ["outbound", "inbound"] as const) {
      const { packets, bytes } = saved?.[way] ?? {};
      if (!Number.isSafeInteger(packets) || !Number.isSafeInteger(bytes)) {
        throw new TypeError(`Cannot restore "${this.name}": the state has no counters "${way}"`);
      }
    }
    Object.assign(this.counted.outbound, saved!.outbound);
    Object.assign(this.counted.inbound, saved!.inbound);
  }

  #count({ packets, length }: PacketBatch, direction: Direction, counted: Counted): void {
    const filter = this.#filter;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (filter !== undefined && !filter(packet, direction)) continue;
      counted.packets++;
      counted.bytes += packet.length;
    }
  }
}
