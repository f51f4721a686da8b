/** The exit of a tunnel to one end: checks packets, segments super-packets unless the end takes them, and writes. */

import type { Direction, FlowStats, Packet, PacketBatch } from "../../lib/core/mod.ts";
import { type PacketSink, writeTo } from "../../lib/core/write_to.ts";
import type { Ledger } from "./ledger.ts";
import { SegmentQueue } from "./segment_queue.ts";

// Specification: UDP_MAX_SEGMENTS, linux/udp.h; GSO_BY_FRAGS, linux/skbuff.h
const MAX_SEGMENTS = 128;
const GSO_BY_FRAGS = 65_535;

/** The exit of a tunnel to one end. */
export class Outlet {
  readonly #ledger: Ledger;
  readonly #flow: FlowStats;
  readonly #segmenting: SegmentQueue;

  constructor(ledger: Ledger, direction: Direction) {
    this.#ledger = ledger;
    this.#flow = ledger.flow(direction);
    this.#segmenting = new SegmentQueue(ledger);
  }

  /** Number of packets between the batch and the end. */
  get queued(): number {
    return this.#segmenting.queued;
  }

  /**
   * Writes a batch to the end; returns true if any packet left the batch. Packets that a script has moved out of their
   * slots are dropped, because ends give the system the memory address of the bytes.
   */
  exhale(end: PacketSink, batch: PacketBatch): boolean {
    const segmenting = this.#segmenting;
    const { packets, length } = batch;
    let bytes = 0;
    let outside = false;
    const whole = end.offload === true;
    let isSuper = segmenting.queued > 0;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.malformed) this.#ledger.countMalformed(packet);
      if (!packet.isInSlot) outside = true;
      if (packet.segmentSize !== 0 && !(whole && passesWhole(packet))) isSuper = true;
      bytes += packet.length;
      packet.isFixed = false;
    }
    if (outside) {
      this.#ledger.discardOutside(batch);
      return true;
    }
    if (!isSuper) return this.#write(end, batch, bytes);
    let moved = false;
    do {
      segmenting.fill(batch);
      if (!this.#writeSegments(end)) return moved;
      moved = true;
      // Continues here because an end that has taken all packets may not request another breath; an empty pool, on the
      // other hand, wakes the loop when a slot is free.
    } while (
      segmenting.segments.length === 0 &&
      (batch.length > 0 || segmenting.queued > 0 && this.#ledger.pool.available(1) > 0)
    );
    return true;
  }

  /** Drops the packets between the batch and the end. */
  clear(reason: string): void {
    this.#segmenting.clear(reason);
  }

  #writeSegments(end: PacketSink): boolean {
    const { segments } = this.#segmenting;
    let bytes = 0;
    for (let i = 0; i < segments.length; i++) {
      const packet = segments.packets[i]!;
      bytes += packet.length;
      packet.isFixed = false;
    }
    return this.#write(end, segments, bytes);
  }

  /** Writes packets with a total of `bytes` bytes; returns true if the end took any. */
  #write(end: PacketSink, batch: PacketBatch, bytes: number): boolean {
    const { length } = batch;
    try {
      writeTo(end, batch);
    } catch (error) {
      // The end may have taken packets before it threw.
      this.#count(length, bytes, batch);
      throw error;
    }
    this.#count(length, bytes, batch);
    return batch.length < length;
  }

  /** Counts the packets that the end took from a batch that had `length` packets and `bytes` bytes. */
  #count(length: number, bytes: number, batch: PacketBatch): void {
    let left = 0;
    for (let i = 0; i < batch.length; i++) left += batch.packets[i]!.length;
    this.#flow.packetsOut += length - batch.length;
    this.#flow.bytesOut += bytes - left;
  }
}

/** Reports whether Linux takes a super-packet: at most 128 segments, each shorter than 65,535 bytes. */
function passesWhole({ segmentSize, length }: Packet): boolean {
  return segmentSize >>> 0 === segmentSize && segmentSize < GSO_BY_FRAGS &&
    length <= segmentSize * MAX_SEGMENTS;
}
