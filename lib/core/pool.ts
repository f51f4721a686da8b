/** Memory of packets, in slots of two sizes. */

import { bytesOf } from "./bytes_of.ts";
import { OneLine } from "./one_line.ts";
import { checkInteger, gotValue } from "./options.ts";
import { ENDPOINT_ROOM, fixedError, HEADROOM, LARGE_ROOM, Packet } from "./packet.ts";

// Implementation
const SMALL_SLOT = 2 * 1024;
const LARGE_SLOT = 68 * 1024;
/** WebAssembly Core Specification 2.0, section 4.2.8. */
const WASM_PAGE = 65_536;

/** Maximum length of a packet in a 2 KiB slot (bytes). */
export const SMALL_ROOM: number = SMALL_SLOT - HEADROOM - ENDPOINT_ROOM;

/** Options for {@linkcode PacketPool}. */
export interface PacketPoolOptions {
  /** Number of 2 KiB slots. @default {2048} */
  small?: number;
  /** Number of 68 KiB slots. @default {64} */
  large?: number;
}

/**
 * Slots of 2 KiB and 68 KiB in one memory, each with a {@linkcode Packet}. The default pool reserves 8.25 MiB, of which the
 * system backs the pages that were used. Slots are reused last in, first out, so that a light load stays in the
 * processor's cache. Each loop has one pool.
 *
 * @example Taking a slot and giving it back
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 *
 * const pool = new PacketPool({ small: 1, large: 0 });
 * const packet = pool.take(1500)!;
 * assert(pool.take(1500) === undefined);
 * pool.give(packet);
 * ```
 */
export class PacketPool extends OneLine {
  /** All slots, one after the other. The address never changes, and the buffer cannot be transferred. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** View of the same memory. */
  readonly view: DataView<ArrayBuffer>;
  /** All handles, by slot number. */
  readonly packets: readonly Packet[];
  /** Called when the first slot of a size that ran out is given back. For the loop. */
  onRoom: (() => void) | undefined;
  /** Set after a failed request for a small slot, until one is given back. */
  #wantsSmall = false;
  #wantsLarge = false;
  readonly #small: Packet[] = [];
  readonly #large: Packet[] = [];
  readonly #smallEnd: number;

  /**
   * Creates a pool of free slots.
   *
   * @throws {RangeError} when a count is not an integer from 0, or both are 0.
   */
  constructor(options: PacketPoolOptions = {}) {
    super();
    const { small = 2048, large = 64 } = options;
    checkInteger("create a packet pool", "small", small, 0, Infinity);
    checkInteger("create a packet pool", "large", large, 0, Infinity);
    if (small + large === 0) throw new RangeError("Cannot create a packet pool: small and large are both 0");
    const size = small * SMALL_SLOT + large * LARGE_SLOT;
    this.bytes = new Uint8Array(fixedMemory(size), 0, size);
    this.view = new DataView(this.bytes.buffer, 0, size);
    this.#smallEnd = small;
    const packets: Packet[] = [];
    for (let slot = 0; slot < small; slot++) {
      packets.push(new Packet(this, slot, slot * SMALL_SLOT, SMALL_SLOT));
    }
    for (let slot = 0; slot < large; slot++) {
      packets.push(new Packet(this, small + slot, small * SMALL_SLOT + slot * LARGE_SLOT, LARGE_SLOT));
    }
    this.packets = packets;
    for (let slot = packets.length - 1; slot >= 0; slot--) {
      (slot < small ? this.#small : this.#large).push(packets[slot]!);
    }
  }

  /** Number of free slots of both sizes. */
  get free(): number {
    return this.#small.length + this.#large.length;
  }

  /** Number of taken slots: packets in batches, held by stages, and queued in ends. */
  get taken(): number {
    return this.packets.length - this.free;
  }

  /** Number of packets of this length that `take` could return now. If it is 0, `onRoom` is called later. */
  available(length: number): number {
    if (length > LARGE_ROOM) return 0;
    const isSmall = length <= SMALL_ROOM;
    const count = isSmall ? this.#small.length : this.#large.length;
    if (count === 0) this.#miss(isSmall);
    return count;
  }

  /** Reports whether the pool has slots for packets of this length, free or taken. */
  holds(length: number): boolean {
    const count = length <= SMALL_ROOM ? this.#smallEnd : this.packets.length - this.#smallEnd;
    return length <= LARGE_ROOM && count > 0;
  }

  /** Reports whether a value is one of the pool's packets, not a script's imitation. */
  owns(value: unknown): value is Packet {
    const slot = (value as Packet | null | undefined)?.slot;
    return slot !== undefined && this.packets[slot] === value;
  }

  /**
   * Returns a packet of `length` uninitialized bytes; `undefined` when all slots of its size are taken, or `length` exceeds
   * {@linkcode LARGE_ROOM}.
   */
  take(length: number): Packet | undefined {
    const isSmall = length <= SMALL_ROOM;
    const list = isSmall ? this.#small : this.#large;
    if (length > LARGE_ROOM) return undefined;
    const packet = list.pop();
    if (packet === undefined) {
      this.#miss(isSmall);
      return undefined;
    }
    packet.reset(length);
    packet.owner = undefined;
    packet.isFixed = false;
    return packet;
  }

  /**
   * Returns a packet with a copy of these bytes; `undefined` in the same cases as {@linkcode PacketPool.take}.
   *
   * @throws {TypeError} when `data` is not a `Uint8Array`.
   */
  from(data: Uint8Array): Packet | undefined {
    const plain = bytesOf(data);
    if (plain === undefined) {
      throw new TypeError(`Cannot create a packet: data must be a Uint8Array, ${gotValue(data)}`);
    }
    const packet = this.take(plain.length);
    packet?.bytes.set(plain, packet.offset);
    return packet;
  }

  /**
   * Takes a packet back. Its handle and bytes are reused by the next {@linkcode PacketPool.take}.
   *
   * @throws {TypeError} when the packet is free already, of another pool, or on loan to a stage or script.
   */
  give(packet: Packet): void {
    if (packet.isFixed) throw fixedError("give back a packet", packet);
    if (packet.pool !== this) throw new TypeError("Cannot give back a packet: it belongs to another pool");
    packet.owner = this;
    packet.isFixed = true;
    if (packet.slot < this.#smallEnd) {
      this.#small.push(packet);
      if (!this.#wantsSmall) return;
      this.#wantsSmall = false;
    } else {
      this.#large.push(packet);
      if (!this.#wantsLarge) return;
      this.#wantsLarge = false;
    }
    this.onRoom?.();
  }

  /** Formats its use: `PacketPool(12 of 2112 slots taken)`. */
  override toString(): string {
    return `PacketPool(${this.taken} of ${this.packets.length} slots taken)`;
  }

  #miss(isSmall: boolean): void {
    if (isSmall) this.#wantsSmall = true;
    else this.#wantsLarge = true;
  }
}

/** Allocates memory that never moves and cannot be transferred: no script detaches it while the system reads into it. */
function fixedMemory(size: number): ArrayBuffer {
  const pages = Math.ceil(size / WASM_PAGE);
  return new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer as ArrayBuffer;
}
