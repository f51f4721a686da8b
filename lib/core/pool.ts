/** The memory that packets live in: slots of two sizes, taken and given back. */

import { bytesOf } from "./bytes_of.ts";
import { OneLine } from "./one_line.ts";
import { ENDPOINT_ROOM, fixedError, HEADROOM, LARGE_ROOM, Packet } from "./packet.ts";

// Implementation
const SMALL_SLOT = 2 * 1024;
const LARGE_SLOT = 68 * 1024;
/** WebAssembly Core Specification 2.0, section 4.2.8. */
const WASM_PAGE = 65_536;

/** The longest packet that a 2 KiB slot holds behind its headroom (bytes). */
export const SMALL_ROOM: number = SMALL_SLOT - HEADROOM - ENDPOINT_ROOM;

/** Options for {@linkcode PacketPool}. */
export interface PacketPoolOptions {
  /** How many 2 KiB slots. @default {2048} */
  small?: number;
  /** How many 68 KiB slots. @default {64} */
  large?: number;
}

/**
 * Slots of 2 KiB and 68 KiB in one memory, with a handle each, all made at once; the default pool reserves
 * 8.25 MiB, of which the system backs the pages that were used. Free slots are last in, first out, so that a
 * light load stays in the processor's cache. One loop has one pool.
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
  /** All slots, one behind the other. Its address never changes, and its buffer cannot be transferred. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same memory. */
  readonly view: DataView<ArrayBuffer>;
  /** Every handle, by its slot's number. */
  readonly packets: readonly Packet[];
  /** Called when a slot comes back after one of its size was asked for in vain. For the loop. */
  onRoom: (() => void) | undefined;
  /** Tells whether a small slot, or a large one, was asked for in vain since the last one came back. */
  #wantsSmall = false;
  #wantsLarge = false;
  readonly #small: Packet[] = [];
  readonly #large: Packet[] = [];
  readonly #smallEnd: number;

  /**
   * A pool with all its slots free.
   *
   * @throws {RangeError} when a count is negative, not whole, or both are 0.
   */
  constructor(options: PacketPoolOptions = {}) {
    super();
    const { small = 2048, large = 64 } = options;
    if (
      !Number.isInteger(small) || !Number.isInteger(large) || small < 0 || large < 0 || small + large === 0
    ) {
      throw new RangeError(`Cannot make a pool of ${small} small and ${large} large slots`);
    }
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

  /** How many slots are free, of both sizes. */
  get free(): number {
    return this.#small.length + this.#large.length;
  }

  /** How many packets are somewhere else: in batches, held by stages, queued in ends. */
  get taken(): number {
    return this.packets.length - this.free;
  }

  /**
   * The number of packets of this length that {@linkcode PacketPool.take} could give now. With none, `onRoom` follows.
   */
  available(length: number): number {
    if (length > LARGE_ROOM) return 0;
    const isSmall = length <= SMALL_ROOM;
    const count = isSmall ? this.#small.length : this.#large.length;
    if (count === 0) this.#miss(isSmall);
    return count;
  }

  /** Tells whether it has slots for packets of this length at all, free or taken. */
  holds(length: number): boolean {
    const count = length <= SMALL_ROOM ? this.#smallEnd : this.packets.length - this.#smallEnd;
    return length <= LARGE_ROOM && count > 0;
  }

  /** Tells whether a value is one of its packets, and not an object that a script has made to look like one. */
  owns(value: unknown): value is Packet {
    const slot = (value as Packet | null | undefined)?.slot;
    return slot !== undefined && this.packets[slot] === value;
  }

  /**
   * A packet of `length` bytes, whose bytes are whatever was there. `undefined` when all slots of the size
   * that it needs are taken, or it would be longer than {@linkcode LARGE_ROOM}.
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
   * A packet with a copy of these bytes; `undefined` as {@linkcode PacketPool.take}.
   *
   * @throws {TypeError} when `data` is not a `Uint8Array`.
   */
  from(data: Uint8Array): Packet | undefined {
    const plain = bytesOf(data);
    if (plain === undefined) throw new TypeError("Cannot make a packet: data must be a Uint8Array");
    const packet = this.take(plain.length);
    packet?.bytes.set(plain, packet.offset);
    return packet;
  }

  /**
   * Takes a packet back. Its handle and bytes belong to whoever takes it next.
   *
   * @throws {TypeError} when it is free already, another pool's, or on loan to a stage or script.
   */
  give(packet: Packet): void {
    if (packet.isFixed) throw fixedError("give back a packet", packet);
    if (packet.pool !== this) throw new TypeError("Cannot give back a packet of another pool");
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

  /** Its slots: `PacketPool(12 of 2112 slots taken)`. */
  override toString(): string {
    return `PacketPool(${this.taken} of ${this.packets.length} slots taken)`;
  }

  #miss(isSmall: boolean): void {
    if (isSmall) this.#wantsSmall = true;
    else this.#wantsLarge = true;
  }
}

/**
 * Memory whose address drivers keep: it stays where it is and cannot be transferred, so that no script takes it from
 * under the system's reads. The system backs a page when it is first used.
 */
function fixedMemory(size: number): ArrayBuffer {
  const pages = Math.ceil(size / WASM_PAGE);
  return new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer as ArrayBuffer;
}
