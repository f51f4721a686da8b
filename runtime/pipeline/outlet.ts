/**
 * Where packets leave a tunnel for one of its ends: what waits is looked at, cut if the end takes no super-packets, and
 * written.
 */

import type { Direction, FlowStats, Packet, PacketBatch, TunnelEnd } from "../../lib/core/mod.ts";
import type { Ledger } from "../ledger.ts";
import { Cutting } from "./cutting.ts";

// Specification: UDP_MAX_SEGMENTS, linux/udp.h; GSO_BY_FRAGS, linux/skbuff.h
const MOST_SEGMENTS = 128;
const GSO_BY_FRAGS = 65_535;

/** The way out to one end. */
export class Outlet {
  readonly #ledger: Ledger;
  readonly #flow: FlowStats;
  readonly #cutting: Cutting;

  /** The way out where this direction leads. */
  constructor(ledger: Ledger, direction: Direction) {
    this.#ledger = ledger;
    this.#flow = ledger.flow(direction);
    this.#cutting = new Cutting(ledger);
  }

  /** Packets that have left their batch and are not with the end. */
  get queued(): number {
    return this.#cutting.queued;
  }

  /**
   * Writes a batch to the end; returns whether it took anything. Ends hand the bytes to the system by address: a packet
   * that a script has moved out of its slot goes no further than here.
   */
  exhale(end: TunnelEnd, batch: PacketBatch): boolean {
    const cutting = this.#cutting;
    const { packets } = batch;
    let outside = false;
    const whole = end.offload === true;
    let isSuper = cutting.queued > 0;
    for (let i = 0; i < batch.length; i++) {
      const packet = packets[i]!;
      if (packet.malformed) this.#ledger.countMalformed(packet);
      if (!packet.isInSlot) outside = true;
      if (packet.segmentSize !== 0 && !(whole && passesWhole(packet))) isSuper = true;
    }
    if (outside) {
      this.#ledger.discardOutside(batch);
      return true;
    }
    if (!isSuper) return this.#write(end, batch);
    let moved = false;
    do {
      cutting.fill(batch);
      if (!this.#write(end, cutting.segments)) return moved;
      moved = true;
      // An end that has taken everything so far may not call for the rest; the pool does when it has a slot.
    } while (
      cutting.segments.length === 0 &&
      (batch.length > 0 || cutting.queued > 0 && this.#ledger.pool.available(1) > 0)
    );
    return true;
  }

  /** Throws away what {@linkcode queued} counts. */
  clear(reason: string): void {
    this.#cutting.clear(reason);
  }

  #write(end: TunnelEnd, batch: PacketBatch): boolean {
    let bytes = 0;
    for (let i = 0; i < batch.length; i++) bytes += batch.packets[i]!.length;
    const taken = end.write(batch);
    for (let i = 0; i < batch.length; i++) bytes -= batch.packets[i]!.length;
    this.#flow.packetsOut += taken;
    this.#flow.bytesOut += bytes;
    return taken > 0;
  }
}

/** Whether every end with offload takes a super-packet: Linux takes those of 128 datagrams, and no segments of 65,535 bytes. */
function passesWhole({ segmentSize, length }: Packet): boolean {
  return segmentSize >>> 0 === segmentSize && segmentSize < GSO_BY_FRAGS &&
    length <= segmentSize * MOST_SEGMENTS;
}
