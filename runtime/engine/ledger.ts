/** Accounting of one tunnel: counters, and the return of packets to the pool. */

import {
  Direction,
  type FlowStats,
  type Packet,
  type PacketBatch,
  type PacketPool,
} from "../../lib/core/mod.ts";
import { Counters } from "../../lib/core/stats.ts";
import { OUT_OF_SLOT } from "../../lib/core/packet.ts";

/** Counts the packets that leave a tunnel without reaching an end, and returns them to the pool. */
export class Ledger {
  /** Counters of the tunnel. */
  readonly counters: Counters = new Counters();
  /** Pool of the packets of all tunnels of the loop. */
  readonly pool: PacketPool;

  constructor(pool: PacketPool) {
    this.pool = pool;
  }

  /** Returns the counters of one direction. */
  flow(direction: Direction): FlowStats {
    return direction === Direction.Outbound ? this.counters.outbound : this.counters.inbound;
  }

  /** Returns a packet for a stage to fill; `undefined` when the pool is empty. */
  take(length: number): Packet | undefined {
    return this.pool.take(length);
  }

  /**
   * Finishes a packet that the end to which a direction leads took: gives it back and, with a reason, counts it as dropped
   * instead of delivered.
   */
  finish(packet: Packet, direction: Direction, reason: string | undefined): void {
    if (reason === undefined) return this.giveBack(packet);
    const flow = this.flow(direction);
    flow.packetsOut--;
    flow.bytesOut -= packet.length;
    this.discard(packet, reason);
  }

  /** Counts a packet that came from the source of a direction and was dropped on arrival. */
  refuse(length: number, direction: Direction, reason: string): void {
    const flow = this.flow(direction);
    flow.packetsIn++;
    flow.bytesIn += length;
    this.counters.drop(reason);
  }

  /** Drops a packet and counts it under `reason`. */
  discard(packet: Packet, reason: string): void {
    this.counters.drop(reason);
    this.giveBack(packet);
  }

  /** Drops all packets of a batch. */
  discardAll(batch: PacketBatch, reason: string): void {
    for (let i = 0; i < batch.length; i++) this.discard(batch.packets[i]!, reason);
    batch.clear();
  }

  /** Drops the packets of a batch that a script has moved out of their slots, and compacts the batch. */
  discardOutside(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const packet = batch.packets[i]!;
      if (packet.owner === batch && !packet.isInSlot) this.discard(packet, OUT_OF_SLOT);
    }
    batch.compact();
  }

  /**
   * Returns a packet to the pool, and counts it if it is malformed.
   *
   * @throws {TypeError} when the packet is already free.
   */
  giveBack(packet: Packet): void {
    packet.isFixed = packet.owner === this.pool;
    if (packet.malformed) this.countMalformed(packet);
    this.pool.give(packet);
  }

  /** Counts a malformed packet, once. */
  countMalformed(packet: Packet): void {
    packet.malformed = false;
    this.counters.malformed++;
  }
}
