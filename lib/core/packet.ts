/** A network packet in its slot of the pool's memory. */

import { finishChecksum } from "./checksum.ts";
import { OneLine } from "./one_line.ts";

/**
 * The bytes kept free before a packet, so that a header is added by moving a number (bytes).
 * Room for an outer IPv6, UDP and WireGuard header, and a driver's own prefix, several times over.
 */
export const HEADROOM = 256;

/** The longest packet, in any slot: an IP packet of 65,535 bytes. */
export const LARGE_ROOM = 65_535;

/** The bytes at the end of each slot that hold the outer addresses. */
export const ENDPOINT_ROOM = 48;

/** The remote side's `sockaddr_in6` (28 bytes), then the local address (16 bytes) and interface index (4 bytes). */
export const ENDPOINT_LENGTH = 48;

/** The drop reason of a packet that is not within its slot: its bytes may be other packets'. */
export const OUT_OF_SLOT = "moved out of its slot";

/** The bytes that a packet's line shows: IPv4's header and the ports behind it. */
const SHOWN_BYTES = 24;

/** The memory that packets live in, as a packet sees its pool. */
export interface PacketMemory {
  /** All slots, one behind the other. */
  readonly bytes: Uint8Array;
  /** The same memory. */
  readonly view: DataView;
  /** Every handle, by its slot's number. */
  readonly packets: readonly Packet[];
  /** A packet of `length` bytes, whose bytes are whatever was there; `undefined` when no slot is free. */
  take(length: number): Packet | undefined;
  /** Takes a packet back. */
  give(packet: Packet): void;
}

/** What holds a packet at the moment: the pool (it is free), a batch, a stage's context, an end's queue. */
export type PacketOwner = object;

/**
 * A handle to one packet. Handles are made once, with the pool, and reused: a packet is only yours until you
 * return from the handler or stage that got it. Keep one with `copy(packet)` or `context.hold`.
 *
 * The packet is `length` bytes of `bytes`, from `offset` on. Offsets are into the pool's whole memory; both
 * are unsigned and big-endian accessors of `view` take them as they are.
 *
 * **Fields that can be set**: `offset` and `length` (bytes, within the slot), `segmentSize` (bytes; 0 for none),
 * `checksumStart` and `checksumOffset` (bytes; 0 for none), `from`, `to` and `mark` (numbers), `time` (monotonic
 * milliseconds), `hasEndpoint`, with `endpoint`'s bytes, and `malformed` (booleans). Headers have fields of their own:
 * `Ipv4`, `Ipv6`, `Tcp`, `Udp`, `Icmpv4`, `Icmpv6`.
 *
 * @example Reading the IP version
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 *
 * const pool = new PacketPool();
 * const packet = pool.from(Uint8Array.of(0x45, 0, 0, 20));
 * assert(packet !== undefined && packet.bytes[packet.offset]! >> 4 === 4);
 * ```
 */
export class Packet extends OneLine {
  /** The pool's memory. */
  readonly bytes: Uint8Array;
  /** The pool's memory, for fields of several bytes; out of bounds throws `RangeError`. */
  readonly view: DataView;
  /** Where this packet's slot starts in {@linkcode Packet.bytes}. */
  readonly slotStart: number;
  /** Where this packet's room ends in {@linkcode Packet.bytes}; the endpoint follows. */
  readonly slotEnd: number;
  /** Offset of the packet in {@linkcode Packet.bytes}. */
  offset: number;
  /** The packet's bytes. */
  length = 0;
  /** Its present holder; `undefined` while an end has it. For the runtime; a script never needs it. */
  owner: PacketOwner | undefined;
  /**
   * Tells whether nobody may add it to a batch or give it back: it is free, or stages or `for await` have it and move it
   * by `StageContext` and `Tunnel.send` alone. For the runtime.
   */
  isFixed = true;
  /** The pool that this packet belongs to. */
  readonly pool: PacketMemory;
  /** This slot's number in its pool, from 0. */
  readonly slot: number;

  /** 0: an ordinary packet. Else a super-packet, of segments with this many payload bytes. */
  segmentSize = 0;
  /** Where a partial checksum's bytes start, from the packet's start; 0 for none: the checksum is complete. */
  checksumStart = 0;
  /** Where the partial checksum is stored, from {@linkcode Packet.checksumStart}; 0 for none. */
  checksumOffset = 0;
  /** Which end or peer it came from; 0 unless the end has several. */
  from = 0;
  /** Which end or peer it is meant for; 0 unless a stage chose one. */
  to = 0;
  /** A policy mark for stages, as `fwmark` is in Linux. */
  mark = 0;
  /** When it arrived (monotonic milliseconds). */
  time = 0;
  /**
   * Tells whether {@linkcode Packet.endpoint} is valid: set for what arrives by datagrams, and by
   * {@linkcode Packet.sendTo}. Only ends that say so send to it.
   */
  hasEndpoint = false;
  /** Whether a view found a header cut short or inconsistent; each tunnel counts such packets once. */
  malformed = false;
  /** The header views made for this handle, by their class's number. For `lib`'s views. */
  readonly views: unknown[] = [];

  #endpoint: Uint8Array | undefined;

  /** For `PacketPool` alone. */
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
   * The outer addresses: the remote side's `sockaddr` (28 bytes), then the local address that the packet was sent to
   * (16 bytes, zeros for unknown) and its interface (4 bytes). Valid if {@linkcode Packet.hasEndpoint}. Copy all 48
   * bytes to remember a peer: replies then leave from the address that the peer wrote to.
   */
  get endpoint(): Uint8Array {
    return this.#endpoint ??= this.bytes.subarray(this.slotEnd, this.slotEnd + ENDPOINT_LENGTH);
  }

  /**
   * The packet's bytes, as a fresh view of its slot: allocates, so hot code uses `bytes` and `offset`. Empty while
   * {@linkcode Packet.isInSlot} is `false`. Its buffer is the pool's and cannot be transferred: what a stream, a worker
   * or anything else is to keep is a copy, `packet.data.slice()`.
   */
  get data(): Uint8Array {
    const length = this.isInSlot ? this.length : 0;
    return this.bytes.subarray(this.offset, this.offset + length);
  }

  /** How many bytes {@linkcode Packet.prepend} can still add. */
  get headroom(): number {
    return this.offset - this.slotStart;
  }

  /** How many bytes the packet can still grow at its end, by raising `length`. */
  get tailroom(): number {
    return this.slotEnd - this.offset - this.length;
  }

  /**
   * Tells whether `offset` and `length` describe 1 to 65,535 bytes within the slot. A packet for which they do not is
   * copied nowhere, since the bytes beside the slot are other packets', and is dropped where it leaves the stages.
   */
  get isInSlot(): boolean {
    const { offset, length } = this;
    return offset >>> 0 === offset && length >>> 0 === length && length > 0 && length <= LARGE_ROOM &&
      offset >= this.slotStart && offset + length <= this.slotEnd;
  }

  /** The number of the packet's bytes within its slot; 0 when it starts outside. Header views read these bytes only. */
  get lengthInSlot(): number {
    const { offset, length } = this;
    if (!(offset >= this.slotStart && length > 0)) return 0;
    const room = this.slotEnd - offset;
    return length < room ? length : room;
  }

  /**
   * Makes room for a header in front; its bytes are whatever was there.
   *
   * @throws {RangeError} when the headroom is used up.
   */
  prepend(count: number): void {
    if (count < 0 || count > this.headroom) {
      throw new RangeError(`Cannot prepend ${count} bytes: the headroom is ${this.headroom}`);
    }
    this.offset -= count;
    this.length += count;
    if (this.checksumStart !== 0) this.checksumStart += count;
  }

  /**
   * Takes a header off the front.
   *
   * @throws {RangeError} when the packet is shorter.
   */
  strip(count: number): void {
    if (count < 0 || count > this.length) {
      throw new RangeError(`Cannot strip ${count} bytes: the packet has ${this.length}`);
    }
    this.offset += count;
    this.length -= count;
    if (this.checksumStart !== 0) this.checksumStart = Math.max(0, this.checksumStart - count);
  }

  /** Addresses the packet to an endpoint: the 48 bytes that {@linkcode Packet.endpoint} had of a received one. */
  sendTo(endpoint: Uint8Array): void {
    this.endpoint.set(endpoint);
    this.hasEndpoint = true;
  }

  /** Finishes the partial checksum, if there is one; ends without offload do so first. */
  finish(): void {
    const { checksumStart, checksumOffset } = this;
    if (checksumStart === 0) return;
    this.checksumStart = 0;
    this.checksumOffset = 0;
    if (!this.isInSlot) return;
    finishChecksum(this.bytes, this.offset, this.length, checksumStart, checksumOffset);
  }

  /** Its length, where it starts in its slot, and its first bytes: `Packet(28 bytes at 256: 45 00 00 1c ...)`. */
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

  /** Back to an ordinary packet of `length` bytes at the default offset, as `PacketPool.take` gives it. */
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

/** The error for code that moves a free packet, or one that it has on loan. */
export function fixedError(action: string, { owner, pool }: Packet): TypeError {
  return new TypeError(
    owner === pool
      ? `Cannot ${action}: it is free already`
      : `Cannot ${action}: it is on loan: use the context in a stage, and tunnel.send in for await`,
  );
}
