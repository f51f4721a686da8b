/** A stage that counts what passes. */

import { Direction, type Packet, type PacketBatch, type Stage } from "../../core/mod.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

/** Options of a {@linkcode Count}. */
export interface CountOptions {
  /** What the stage is called. @default {"count"} */
  readonly name?: string;
  /** Which packets count. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
}

const NAMES: OptionNames<CountOptions> = { name: "optional", filter: "optional" };

/** Packets and their bytes. */
export interface Counted {
  /** A super-packet is one. */
  packets: number;
  /** From the IP header on. */
  bytes: number;
}

/**
 * Counts packets and bytes.
 *
 * **Outbound** and **inbound**: counted, and passed on untouched.
 *
 * **Options**: `name` (`count`), `filter` (all).
 *
 * **Counters**: `out` and `in`.
 *
 * **Limits**: counters are exact up to 2 to the 53rd.
 *
 * @example Counting pings
 * ```ts
 * import assert from "node:assert/strict";
 * import { Count } from "@warren/tunnel/count";
 * import { Icmpv4 } from "@warren/tunnel/icmpv4";
 *
 * const pings = new Count({ name: "pings", filter: (packet) => Icmpv4.of(packet) !== undefined });
 * // tunnel.use(pings);
 * assert(pings.out.packets === 0);
 * ```
 */
export class Count implements Stage {
  readonly name: string;
  /** Outbound ones. */
  readonly out: Counted = { packets: 0, bytes: 0 };
  /** Inbound ones. */
  readonly in: Counted = { packets: 0, bytes: 0 };
  readonly #filter: CountOptions["filter"];

  /** Counts from 0 on. */
  constructor(options: CountOptions = {}) {
    checkNames("count", options, NAMES);
    const { name = "count", filter } = options;
    this.name = name;
    this.#filter = filter;
  }

  outbound(batch: PacketBatch): void {
    this.#count(batch, Direction.Outbound, this.out);
  }

  inbound(batch: PacketBatch): void {
    this.#count(batch, Direction.Inbound, this.in);
  }

  /** Both counters. */
  save(): unknown {
    return { out: { ...this.out }, in: { ...this.in } };
  }

  /**
   * Goes on from counters that were saved.
   *
   * @throws {TypeError} when it is no state of a `Count`.
   */
  restore(state: unknown): void {
    const saved = state as Partial<Record<"out" | "in", Partial<Counted>>> | null;
    for (const way of ["out", "in"] as const) {
      const { packets, bytes } = saved?.[way] ?? {};
      if (!Number.isSafeInteger(packets) || !Number.isSafeInteger(bytes)) {
        throw new TypeError(`Cannot restore "${this.name}": its state has no counters "${way}"`);
      }
    }
    Object.assign(this.out, saved!.out);
    Object.assign(this.in, saved!.in);
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
