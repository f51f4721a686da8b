/**
 * A handle to a packet in its slot of the pool's memory.
 *
 *     slotStart             offset                      slotEnd
 *         │ headroom, 256 bytes │ packet, length bytes │ tailroom │ endpoint, 48 bytes │
 */

import { finishChecksum } from "./checksum.ts";
import { OneLine } from "./one_line.ts";
import { gotValue } from "./options.ts";

/**
 * Free space before a new packet (bytes), for headers to be added without a copy: several times those of IPv6, UDP,
 * WireGuard and a driver.
 */
export const HEADROOM = 256;

/** Maximum packet length, that of an IP packet (bytes). */
export const LARGE_ROOM = 65_535;

/** Space at the end of each slot for the outer addresses (bytes). */
export const ENDPOINT_ROOM = 48;

/** Remote `sockaddr_in6` (28 bytes), then the local address (16 bytes) and interface index (4 bytes). */
export const ENDPOINT_LENGTH = 48;

/** Drop reason of a packet outside its slot, whose bytes may belong to other packets. */
export const OUT_OF_SLOT = "moved out of its slot";

/** Bytes in the text of a packet: an IPv4 header and the ports after it. */
const SHOWN_BYTES = 24;

/** Memory of packets, implemented by `PacketPool`. */
export interface PacketMemory {
  /** All slots, one after the other. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** View of the same memory. */
  readonly view: DataView;
  /** All handles, by slot number. */
  readonly packets: readonly Packet[];
  /** Returns a packet of `length` uninitialized bytes; `undefined` when no slot is free. */
  take(length: number): Packet | undefined;
  /** Takes a packet back. */
  give(packet: Packet): void;
}

/** Current holder of a packet: the pool (the packet is free), a batch, or a stage's context. */
export type PacketOwner = object;

/**
 * A handle to one packet: `length` bytes of the pool's memory `bytes`, from `offset`. Handles are created with the pool
 * and reused. A packet belongs to a handler or stage until that returns; `copy(packet)` or `context.hold` keep it longer.
 *
 * A *super-packet* is a GSO/TSO packet, received by GRO: one TCP or UDP packet of up to 65,535 bytes that stands for
 * several, with `segmentSize` payload bytes each. A *partial checksum* is a transport checksum left to the device, as
 * in virtio: its field holds only the pseudo-header's sum.
 *
 * **Fields that can be set**: `offset` and `length` (bytes, within the slot), `segmentSize` (bytes; 0 for none),
 * `checksumStart` and `checksumOffset` (bytes; 0 for none), `from`, `to` and `mark` (numbers), `time` (monotonic
 * milliseconds), `hasEndpoint`, with `endpoint`'s bytes, and `malformed` (booleans). Header fields are set through
 * `Ipv4`, `Ipv6`, `Tcp`, `Udp`, `Icmpv4` and `Icmpv6`.
 *
 * @example Adding and removing a header
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 *
 * const packet = new PacketPool().from(Uint8Array.of(7, 8, 9))!;
 * packet.prepend(2);
 * packet.view.setUint16(packet.offset, 0x0102);
 * assert.deepEqual([...packet.data], [1, 2, 7, 8, 9]);
 * packet.strip(3);
 * assert.deepEqual([...packet.data], [8, 9]);
 * ```
 */
export class Packet extends OneLine {
  /** Memory of the whole pool. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** View of the same memory, for fields of several bytes (big-endian); out of bounds throws `RangeError`. */
  readonly view: DataView;
  /** Offset of the packet's slot in {@linkcode Packet.bytes}. */
  readonly slotStart: number;
  /** Offset of the end of the packet's space in {@linkcode Packet.bytes}; the endpoint follows. */
  readonly slotEnd: number;
  /** Offset of the packet in {@linkcode Packet.bytes}. */
  offset: number;
  /** Length of the packet (bytes). */
  length = 0;
  /** Current holder; `undefined` while an end has the packet. For the runtime. */
  owner: PacketOwner | undefined;
  /**
   * Set while the packet must not be added to a batch or given back: it is free, or on loan to a stage or a `for await`
   * loop, which move it with `StageContext` and `Tunnel.send`. For the runtime.
   */
  isFixed = true;
  /** Pool of this packet. */
  readonly pool: PacketMemory;
  /** Number of the slot in its pool, from 0. */
  readonly slot: number;

  /** Payload bytes of each segment of a super-packet; 0 for an ordinary packet. */
  segmentSize = 0;
  /** Start of the bytes that a partial checksum covers, from the packet's start; 0 for a complete checksum. */
  checksumStart = 0;
  /** Offset of the partial checksum's field, from {@linkcode Packet.checksumStart}; 0 for none. */
  checksumOffset = 0;
  /** Number of the end or peer that the packet came from; 0 unless there are several. */
  from = 0;
  /** Number of the end or peer that the packet goes to; 0 unless a stage chose one. */
  to = 0;
  /** Policy mark for stages, like `fwmark` in Linux. */
  mark = 0;
  /** Time of arrival (monotonic milliseconds). */
  time = 0;
  /** Set if {@linkcode Packet.endpoint} is valid: by `sendTo` and by ends of datagrams, the only ones that send to it. */
  hasEndpoint = false;
  /** Set by a header view that finds a truncated or inconsistent header; each tunnel counts such packets once. */
  malformed = false;
  /** Header views of this handle, by the number of their class. For `lib/wire`. */
  readonly views: unknown[] = [];

  #endpoint: Uint8Array | undefined;

  /** Creates the handle of a slot. For `PacketPool`. */
  constructor(pool: PacketMemory, slot: number, slotStart: number, slotLength: number) {
    super();
    this.pool = pool;
    this.bytes = pool.bytes;
    this.view = pool.view;
    this.slot = slot;
    this.slotStart = slotStart;
    this.slotEnd = slotStart + slotLength - ENDPOINT_ROOM;
    this.offset = slotStart + HEADROOM;
    this.owner = pool;
  }

  /**
   * Outer addresses: the remote `sockaddr` (28 bytes), the local address that the packet was sent to (16 bytes, zeros if
   * unknown), and its interface (4 bytes). Valid if {@linkcode Packet.hasEndpoint}. A copy of all 48 bytes identifies a
   * peer; replies to it leave from the address that the peer wrote to.
   */
  get endpoint(): Uint8Array {
    return this.#endpoint ??= this.bytes.subarray(this.slotEnd, this.slotEnd + ENDPOINT_LENGTH);
  }

  /**
   * The packet's bytes as a new view of its slot; empty if {@linkcode Packet.isInSlot} is `false`. Allocates: per-packet
   * code uses `bytes` and `offset`. The buffer is the pool's and cannot be transferred: keep or send a copy,
   * `packet.data.slice()`.
   */
  get data(): Uint8Array {
    const length = this.isInSlot ? this.length : 0;
    return this.bytes.subarray(this.offset, this.offset + length);
  }

  /** Bytes that {@linkcode Packet.prepend} can still add. */
  get headroom(): number {
    return this.offset - this.slotStart;
  }

  /** Bytes by which the packet can still grow at its end, by increasing `length`. */
  get tailroom(): number {
    return this.slotEnd - this.offset - this.length;
  }

  /**
   * Reports whether `offset` and `length` describe 1 to 65,535 bytes within the slot. Any other packet is never copied,
   * since bytes outside its slot belong to other packets, and is dropped when it leaves the stages.
   */
  get isInSlot(): boolean {
    const { offset, length } = this;
    return offset >>> 0 === offset && length >>> 0 === length && length > 0 && length <= LARGE_ROOM &&
      offset >= this.slotStart && offset + length <= this.slotEnd;
  }

  /** Number of the packet's bytes within its slot; 0 if it starts outside. Header views read only these bytes. */
  get lengthInSlot(): number {
    const { offset, length } = this;
    if (!(offset >= this.slotStart && length > 0)) return 0;
    const room = this.slotEnd - offset;
    return length < room ? length : room;
  }

  /**
   * Adds `count` uninitialized bytes at the front, for a header.
   *
   * @throws {RangeError} when the headroom is shorter.
   */
  prepend(count: number): void {
    if (count < 0 || count > this.headroom) {
      throw countError("prepend", "headroom", this.headroom, count);
    }
    this.offset -= count;
    this.length += count;
    if (this.checksumStart !== 0) this.checksumStart += count;
  }

  /**
   * Removes `count` bytes from the front.
   *
   * @throws {RangeError} when the packet is shorter.
   */
  strip(count: number): void {
    if (count < 0 || count > this.length) {
      throw countError("strip", "packet's length", this.length, count);
    }
    this.offset += count;
    this.length -= count;
    if (this.checksumStart !== 0) this.checksumStart = Math.max(0, this.checksumStart - count);
  }

  /** Addresses the packet to an endpoint, the 48 bytes of {@linkcode Packet.endpoint} of a received packet. */
  sendTo(endpoint: Uint8Array): void {
    this.endpoint.set(endpoint);
    this.hasEndpoint = true;
  }

  /** Completes a partial checksum, as ends without offload do before they send. */
  finish(): void {
    const { checksumStart, checksumOffset } = this;
    if (checksumStart === 0) return;
    this.checksumStart = 0;
    this.checksumOffset = 0;
    if (!this.isInSlot) return;
    finishChecksum(this.bytes, this.offset, this.length, checksumStart, checksumOffset);
  }

  /** Formats its length, offset in the slot, and first bytes: `Packet(28 bytes at 256: 45 00 00 1c ...)`. */
  override toString(): string {
    const { length, segmentSize } = this;
    const at = this.offset - this.slotStart;
    if (!this.isInSlot) return `Packet(${length} bytes at ${at}, ${OUT_OF_SLOT})`;
    const shown = Array.from(
      this.data.subarray(0, SHOWN_BYTES),
      (byte) => byte.toString(16).padStart(2, "0"),
    );
    if (length > SHOWN_BYTES) shown.push("...");
    const segments = segmentSize === 0 ? "" : `, segments of ${segmentSize}`;
    return `Packet(${length} bytes at ${at}${segments}: ${shown.join(" ")})`;
  }

  /** Resets all fields to those of an ordinary packet of `length` bytes after the default headroom. */
  reset(length: number): void {
    this.offset = this.slotStart + HEADROOM;
    this.length = length;
    this.segmentSize = 0;
    this.checksumStart = 0;
    this.checksumOffset = 0;
    this.from = 0;
    this.to = 0;
    this.mark = 0;
    this.time = 0;
    this.hasEndpoint = false;
    this.malformed = false;
  }
}

function countError(action: string, limit: string, max: number, count: unknown): RangeError {
  return new RangeError(
    `Cannot ${action} bytes: count must be from 0 to the ${limit}, ${max}, ${gotValue(count)}`,
  );
}

/** Returns the error for code that moves a packet that is free or on loan. */
export function fixedError(action: string, { owner, pool }: Packet): TypeError {
  return new TypeError(
    owner === pool
      ? `Cannot ${action}: it is free already`
      : `Cannot ${action}: it is on loan: use the context in a stage, and tunnel.send in for await`,
  );
}
