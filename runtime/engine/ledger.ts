/** The books of one tunnel: what it counts, and where packets go that it is done with. */

import {
  Counters,
  Direction,
  type FlowStats,
  type Packet,
  type PacketBatch,
  type PacketPool,
} from "../../lib/core/mod.ts";
import { OUT_OF_SLOT } from "../../lib/core/packet.ts";

/** Counts the packets of a tunnel that go no further, and gives them back. */
export class Ledger {
  /** What happened so far. */
  readonly counters: Counters = new Counters();
  /** Where packets live. */
  readonly pool: PacketPool;

  /** Nothing has happened yet. */
  constructor(pool: PacketPool) {
    this.pool = pool;
  }

  /** The counters of one direction. */
  flow(direction: Direction): FlowStats {
    return direction === Direction.Outbound ? this.counters.outbound : this.counters.inbound;
  }

  /** Throws a packet away and counts it. */
  discard(packet: Packet, reason: string): void {
    this.counters.drop(reason);
    this.giveBack(packet);
  }

  /** Throws away all packets of a batch. */
  discardAll(batch: PacketBatch, reason: string): void {
    for (let i = 0; i < batch.length; i++) this.discard(batch.packets[i]!, reason);
    batch.clear();
  }

  /** Throws away the packets of a batch that are not in their slots, and forgets those that left it. */
  discardOutside(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const packet = batch.packets[i]!;
      if (packet.owner === batch && !packet.isInSlot) this.discard(packet, OUT_OF_SLOT);
    }
    batch.compact();
  }

  /**
   * Gives a packet back to the pool, counted if it was malformed.
   *
   * @throws {TypeError} when it is free already.
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
