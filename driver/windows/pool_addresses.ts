/** Where a pool's packets are in this process's memory, as calls take it: bigints that are not made for each packet. */

import { HEADROOM, type Packet, type PacketPool } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";

/** The addresses of a pool's packets. */
export class PoolAddresses {
  readonly #base: number;
  /** By slot: of a packet that nothing was put in front of or taken off. */
  readonly #fresh: readonly bigint[];
  /** By slot: where its packet started when it was last asked for elsewhere, mostly where it does again. */
  readonly #offsets: Float64Array;
  readonly #moved: bigint[];

  /** Of this pool, whose memory stays where it is. */
  constructor(pool: PacketPool) {
    this.#base = addressOf(pool.bytes);
    this.#fresh = pool.packets.map(({ slotStart }) => BigInt(this.#base + slotStart + HEADROOM));
    this.#offsets = Float64Array.from(pool.packets, ({ slotStart }) => slotStart + HEADROOM);
    this.#moved = [...this.#fresh];
  }

  /** Where a packet is that was just taken from the pool. */
  ofFresh({ slot }: Packet): bigint {
    return this.#fresh[slot]!;
  }

  /** Where a packet is. */
  of({ slot, slotStart, offset }: Packet): bigint {
    if (offset === slotStart + HEADROOM) return this.#fresh[slot]!;
    if (this.#offsets[slot] !== offset) {
      this.#offsets[slot] = offset;
      this.#moved[slot] = BigInt(this.#base + offset);
    }
    return this.#moved[slot]!;
  }
}
