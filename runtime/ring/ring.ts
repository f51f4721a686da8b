/**
 * Ring of packets in shared memory, written by one worker and read by another.
 *
 *     head ───► record │ record │ record ◄─── tail          the reader does not see records behind the tail
 *
 *     record:  length, tag, segmentSize, checksumStart, checksumOffset, flags │ from, to, mark │ endpoint │ bytes
 *
 * A record is contiguous: if the rest of the memory is too short for it, a mark tells the reader to continue at the
 * start. Head and tail count bytes modulo 2^32. The reader writes the head, and the writer writes the tail (`commit`).
 */

import type { Packet } from "../../lib/core/mod.ts";

// Implementation
/** Indexes of head and tail (32-bit words), which are in different cache lines. */
const HEAD = 0;
const TAIL = 16;
/** Offset of the first record (bytes). */
const START = 128;
/** Offsets of a record's fields; `bytes` is the packet. */
const RECORD = {
  length: 0,
  tag: 4,
  segmentSize: 8,
  checksumStart: 12,
  checksumOffset: 16,
  flags: 20,
  from: 24,
  to: 32,
  mark: 40,
  endpoint: 48,
  bytes: 96,
} as const;
/** Bits of `flags`. */
const MALFORMED = 1;
const HAS_ENDPOINT = 2;
const ALIGNMENT = 8;
/** Mark in place of a length: the next record is at the start. */
const WRAP = 0xffff_ffff;
/** Size of the records (bytes): 15 super-packets, or 650 packets of 1,500 bytes. */
const CAPACITY = 1 << 20;

/** Allocates the memory of a ring with room for `capacity` bytes, a power of two. */
export function allocateRing(capacity: number = CAPACITY): SharedArrayBuffer {
  return new SharedArrayBuffer(START + capacity);
}

/** A ring, as its writer or its reader uses it. */
export class PacketRing {
  readonly #ends: Int32Array;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #capacity: number;
  /** Position of the writer, which may be ahead of the tail. */
  #written: number;
  /** Position of the reader. */
  #read: number;

  /** Opens a ring in memory from {@linkcode allocateRing}. */
  constructor(memory: SharedArrayBuffer) {
    this.#ends = new Int32Array(memory, 0, START / 4);
    this.#view = new DataView(memory, START);
    this.#bytes = new Uint8Array(memory, START);
    this.#capacity = this.#bytes.length;
    this.#written = Atomics.load(this.#ends, TAIL);
    this.#read = Atomics.load(this.#ends, HEAD);
  }

  /**
   * Copies a packet into the ring, with a number for the reader. Returns false if the ring has no room, or if the
   * packet is not in a slot, because no reader could take it.
   */
  push(packet: Packet, tag: number): boolean {
    if (!packet.isInSlot) return false;
    const size = recordSize(packet.length);
    const used = this.#written - Atomics.load(this.#ends, HEAD) | 0;
    let at = this.#written & this.#capacity - 1;
    const rest = this.#capacity - at;
    const skipped = rest < size ? rest : 0;
    if (used + skipped + size > this.#capacity) return false;
    if (skipped > 0) {
      this.#view.setUint32(at, WRAP);
      at = 0;
    }
    const view = this.#view;
    view.setUint32(at + RECORD.length, packet.length);
    view.setUint32(at + RECORD.tag, tag);
    view.setUint32(at + RECORD.segmentSize, packet.segmentSize);
    view.setUint32(at + RECORD.checksumStart, packet.checksumStart);
    view.setUint32(at + RECORD.checksumOffset, packet.checksumOffset);
    const flags = (packet.malformed ? MALFORMED : 0) | (packet.hasEndpoint ? HAS_ENDPOINT : 0);
    view.setUint32(at + RECORD.flags, flags);
    view.setFloat64(at + RECORD.from, packet.from);
    view.setFloat64(at + RECORD.to, packet.to);
    view.setFloat64(at + RECORD.mark, packet.mark);
    this.#bytes.set(packet.endpoint, at + RECORD.endpoint);
    this.#bytes.set(packet.data, at + RECORD.bytes);
    this.#written = this.#written + skipped + size | 0;
    return true;
  }

  /** Makes pushed packets visible to the reader. */
  commit(): void {
    Atomics.store(this.#ends, TAIL, this.#written);
  }

  /** Length of the next packet (bytes); -1 if there is none. */
  get nextLength(): number {
    if (Atomics.load(this.#ends, TAIL) === this.#read) return -1;
    let at = this.#read & this.#capacity - 1;
    if (this.#view.getUint32(at) === WRAP) {
      this.#read = this.#read + this.#capacity - at | 0;
      at = 0;
    }
    return this.#view.getUint32(at + RECORD.length);
  }

  /** Number that was pushed with the next packet; valid only after `nextLength` has returned a length. */
  get nextTag(): number {
    return this.#view.getUint32((this.#read & this.#capacity - 1) + RECORD.tag);
  }

  /** Removes the next packet and copies it to `packet`, which has the same length. */
  shift(packet: Packet): void {
    const at = this.#read & this.#capacity - 1;
    const view = this.#view;
    packet.segmentSize = view.getUint32(at + RECORD.segmentSize);
    packet.checksumStart = view.getUint32(at + RECORD.checksumStart);
    packet.checksumOffset = view.getUint32(at + RECORD.checksumOffset);
    const flags = view.getUint32(at + RECORD.flags);
    packet.malformed = (flags & MALFORMED) !== 0;
    packet.hasEndpoint = (flags & HAS_ENDPOINT) !== 0;
    packet.from = view.getFloat64(at + RECORD.from);
    packet.to = view.getFloat64(at + RECORD.to);
    packet.mark = view.getFloat64(at + RECORD.mark);
    const { endpoint } = packet;
    endpoint.set(this.#bytes.subarray(at + RECORD.endpoint, at + RECORD.endpoint + endpoint.length));
    const start = at + RECORD.bytes;
    packet.bytes.set(this.#bytes.subarray(start, start + packet.length), packet.offset);
    this.skip(packet.length);
  }

  /** Removes the next packet, which has this length. */
  skip(length: number): void {
    this.#read = this.#read + recordSize(length) | 0;
    Atomics.store(this.#ends, HEAD, this.#read);
  }
}

function recordSize(length: number): number {
  return RECORD.bytes + length + ALIGNMENT - 1 & -ALIGNMENT;
}
