/**
 * Packets on their way from one worker to another: a ring of records in shared memory, one writer, one reader.
 *
 *     head ───► record │ record │ record ◄─── tail          what lies behind the tail is not there until `commit`
 *
 *     record:  length, tag, segmentSize, checksumStart, checksumOffset, flags │ from, to, mark │ endpoint │ bytes
 *
 * A record never wraps round: where the rest of the memory is too short for one, a mark there says to go on at its
 * start. Both ends count bytes, modulo 2^32; each is written by one side alone.
 */

import type { Packet } from "../../lib/core/mod.ts";

// Implementation
/** The ends, as words of 32 bits: in cache lines of their own. */
const HEAD = 0;
const TAIL = 16;
/** Where the records start (bytes). */
const START = 128;
/** What a record has before its bytes. */
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
/** In the place of a length: go on at the start. */
const TURN = 0xffff_ffff;
/** Room for 15 super-packets, or 650 packets of 1,500 bytes. */
const CAPACITY = 1 << 20;

/** The memory of a ring with room for so many bytes, a power of two. */
export function makeRing(capacity: number = CAPACITY): SharedArrayBuffer {
  return new SharedArrayBuffer(START + capacity);
}

/** One side's view of a ring. */
export class PacketRing {
  readonly #ends: Int32Array;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #capacity: number;
  /** Where the writer is; beyond the tail that the reader sees. */
  #written: number;
  /** Where the reader is. */
  #read: number;

  /** A view of what {@linkcode makeRing} made. */
  constructor(memory: SharedArrayBuffer) {
    this.#ends = new Int32Array(memory, 0, START / 4);
    this.#view = new DataView(memory, START);
    this.#bytes = new Uint8Array(memory, START);
    this.#capacity = this.#bytes.length;
    this.#written = Atomics.load(this.#ends, TAIL);
    this.#read = Atomics.load(this.#ends, HEAD);
  }

  /**
   * Copies a packet behind the others, with a number of the writer's; returns whether there was room. There is none for
   * a packet that was moved out of its slot: no reader could take it.
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
      this.#view.setUint32(at, TURN);
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

  /** Shows the reader what was pushed. */
  commit(): void {
    Atomics.store(this.#ends, TAIL, this.#written);
  }

  /** The length of the packet whose turn it is; -1 when there is none. */
  get nextLength(): number {
    if (Atomics.load(this.#ends, TAIL) === this.#read) return -1;
    let at = this.#read & this.#capacity - 1;
    if (this.#view.getUint32(at) === TURN) {
      this.#read = this.#read + this.#capacity - at | 0;
      at = 0;
    }
    return this.#view.getUint32(at + RECORD.length);
  }

  /** The number that was pushed with it; `nextLength` was asked for before, and there is one. */
  get nextTag(): number {
    return this.#view.getUint32((this.#read & this.#capacity - 1) + RECORD.tag);
  }

  /** Copies it into a packet of its length, and frees its room. */
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

  /** Frees the room of the packet whose turn it is, and that has this length. */
  skip(length: number): void {
    this.#read = this.#read + recordSize(length) | 0;
    Atomics.store(this.#ends, HEAD, this.#read);
  }
}

function recordSize(length: number): number {
  return RECORD.bytes + length + ALIGNMENT - 1 & -ALIGNMENT;
}
