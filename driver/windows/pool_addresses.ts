/** Memory addresses of a pool's packets as bigint, cached so that none is allocated per packet. */

import { HEADROOM, type Packet, type PacketPool } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";

/** Memory addresses of the packets of one pool. */
export class PoolAddresses {
  readonly #base: number;
  /** Address of each slot's packet at its initial offset. */
  readonly #fresh: readonly bigint[];
  /** Most recent other offset of each slot's packet, which is likely to occur again; its address is in `#moved`. */
  readonly #offsets: Float64Array;
  readonly #moved: bigint[];

  /** Computes the addresses once: a pool's memory never moves. */
  constructor(pool: PacketPool) {
    this.#base = addressOf(pool.bytes);
    this.#fresh = pool.packets.map(({ slotStart }) => BigInt(this.#base + slotStart + HEADROOM));
    this.#offsets = Float64Array.from(pool.packets, ({ slotStart }) => slotStart + HEADROOM);
    this.#moved = [...this.#fresh];
  }

  /** Returns the address of a packet just taken from the pool. */
  ofFresh({ slot }: Packet): bigint {
    return this.#fresh[slot]!;
  }

  /** Returns the address of a packet. */
  of({ slot, slotStart, offset }: Packet): bigint {
    if (offset === slotStart + HEADROOM) return this.#fresh[slot]!;
    if (this.#offsets[slot] !== offset) {
      this.#offsets[slot] = offset;
      this.#moved[slot] = BigInt(this.#base + offset);
    }
    return this.#moved[slot]!;
  }
}
