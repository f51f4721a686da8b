/**
 * The exit of a tunnel to one of its ends: packets are checked, segmented if the end takes no super-packets, and
 * written.
 */

import type { Direction, FlowStats, Packet, PacketBatch, TunnelEnd } from "../../lib/core/mod.ts";
import { writeTo } from "../../lib/core/write_to.ts";
import type { Ledger } from "./ledger.ts";
import { Segmenting } from "./segmenting.ts";

// Specification: UDP_MAX_SEGMENTS, linux/udp.h; GSO_BY_FRAGS, linux/skbuff.h
const MAX_SEGMENTS = 128;
const GSO_BY_FRAGS = 65_535;

/** The way out to one end. */
export class Outlet {
  readonly #ledger: Ledger;
  readonly #flow: FlowStats;
  readonly #segmenting: Segmenting;

  /** The way out where this direction leads. */
  constructor(ledger: Ledger, direction: Direction) {
    this.#ledger = ledger;
    this.#flow = ledger.flow(direction);
    this.#segmenting = new Segmenting(ledger);
  }

  /** Packets that have left their batch and are not with the end. */
  get queued(): number {
    return this.#segmenting.queued;
  }

  /**
   * Writes a batch to the end; returns whether it took anything. Ends hand the bytes to the system by address: a packet
   * that a script has moved out of its slot goes no further than here.
   */
  exhale(end: TunnelEnd, batch: PacketBatch): boolean {
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
      // An end that has taken everything so far may not call for the rest; the pool does when it has a slot.
    } while (
      segmenting.segments.length === 0 &&
      (batch.length > 0 || segmenting.queued > 0 && this.#ledger.pool.available(1) > 0)
    );
    return true;
  }

  /** Throws away what {@linkcode queued} counts. */
  clear(reason: string): void {
    this.#segmenting.clear(reason);
  }

  #writeSegments(end: TunnelEnd): boolean {
    const { segments } = this.#segmenting;
    let bytes = 0;
    for (let i = 0; i < segments.length; i++) {
      const packet = segments.packets[i]!;
      bytes += packet.length;
      packet.isFixed = false;
    }
    return this.#write(end, segments, bytes);
  }

  /** Writes packets of so many bytes, which are the end's to take; returns whether it took any. */
  #write(end: TunnelEnd, batch: PacketBatch, bytes: number): boolean {
    const { length } = batch;
    try {
      writeTo(end, batch);
    } catch (error) {
      // It has taken packets all the same.
      this.#count(length, bytes, batch);
      throw error;
    }
    this.#count(length, bytes, batch);
    return batch.length < length;
  }

  /** Counts the packets that have left a batch since it had this length and these bytes. */
  #count(length: number, bytes: number, batch: PacketBatch): void {
    let left = 0;
    for (let i = 0; i < batch.length; i++) left += batch.packets[i]!.length;
    this.#flow.packetsOut += length - batch.length;
    this.#flow.bytesOut += bytes - left;
  }
}

/** Whether every end with offload takes a super-packet: Linux takes those of 128 datagrams, and no segments of 65,535 bytes. */
function passesWhole({ segmentSize, length }: Packet): boolean {
  return segmentSize >>> 0 === segmentSize && segmentSize < GSO_BY_FRAGS &&
    length <= segmentSize * MAX_SEGMENTS;
}
