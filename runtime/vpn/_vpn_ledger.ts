/** Accounting of a VPN end: its own counters, and reports about the tunnel's packets to the tunnel. */

import type { Direction, EndHost, Packet, PacketBatch } from "../../lib/core/mod.ts";
import { Ledger } from "../engine/ledger.ts";

/**
 * Knows which packets are the tunnel's, which are datagrams that the end below received, and which the protocol has
 * created. Only the first two kinds are reported, since the tunnel never sees the third.
 */
export class VpnLedger extends Ledger {
  /** Number of the tunnel's packets in the VPN end. */
  inside = 0;
  /** Number of the tunnel's packets that the end below has taken. */
  handedOn = 0;
  readonly #host: EndHost;
  /** By slot: length of a packet as the tunnel counted it, negated length of a datagram as received, 0 for neither. */
  readonly #lengths: Int32Array;
  readonly #overhead: number;

  /** @param overhead Number of bytes for which there must be room after each of the tunnel's packets. */
  constructor(host: EndHost, overhead: number) {
    super(host.pool);
    this.#overhead = overhead;
    this.#host = host;
    this.#lengths = new Int32Array(host.pool.packets.length);
  }

  /** Counts the packets of a batch that the tunnel writes. */
  enter({ packets, length }: PacketBatch): void {
    const { outbound } = this.counters;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      this.#lengths[packet.slot] = packet.length;
      outbound.bytesIn += packet.length;
      if (packet.slotEnd - packet.offset - packet.length < this.#overhead) {
        moveForward(packet, this.#overhead);
      }
    }
    outbound.packetsIn += length;
    this.inside += length;
  }

  /** Notes the datagrams of a batch that have been read from the end below, from index `first` on. */
  arrive({ packets, length }: PacketBatch, first: number): void {
    for (let i = first; i < length; i++) this.#lengths[packets[i]!.slot] = -packets[i]!.length;
  }

  /** Returns the number of the tunnel's packets in a batch. */
  ownIn({ packets, length }: PacketBatch): number {
    let count = 0;
    for (let i = 0; i < length; i++) if (this.#lengths[packets[i]!.slot]! > 0) count++;
    return count;
  }

  override take(length: number): Packet | undefined {
    const packet = super.take(length);
    if (packet !== undefined) this.#lengths[packet.slot] = 0;
    return packet;
  }

  /** Finishes a packet that the end below took. */
  override finish(packet: Packet, direction: Direction, reason: string | undefined): void {
    const { slot } = packet;
    if (this.#lengths[slot]! > 0) this.inside++;
    // A datagram that was sent back has been counted as received.
    else this.#lengths[slot] = 0;
    super.finish(packet, direction, reason);
  }

  override refuse(length: number, direction: Direction, reason: string): void {
    super.refuse(length, direction, reason);
    this.#host.refuse(length, reason);
  }

  override discard(packet: Packet, reason: string): void {
    const length = this.#lengths[packet.slot]!;
    if (length < 0) this.#host.refuse(-length, reason);
    if (length <= 0) return super.discard(packet, reason);
    this.counters.drop(reason);
    this.inside--;
    packet.isFixed = packet.owner === this.pool;
    // The tunnel subtracts the length that it added.
    packet.length = length;
    this.#host.finish(packet, reason);
  }

  override giveBack(packet: Packet): void {
    if (this.#lengths[packet.slot]! > 0) this.inside--;
    super.giveBack(packet);
  }
}

/** Moves a packet in its slot, so that there is room after it. */
function moveForward(packet: Packet, room: number): void {
  const { bytes, offset, length, slotStart, slotEnd } = packet;
  packet.offset = Math.max(slotStart, slotEnd - room - length);
  bytes.copyWithin(packet.offset, offset, offset + length);
}
