/** A list of packets that move together, bounded by count and bytes. */

import type { Packet } from "./packet.ts";

// Implementation
const BATCH_PACKETS = 64;
const BATCH_BYTES = 512 * 1024;

/** Options for {@linkcode PacketBatch}. */
export interface PacketBatchOptions {
  /** How many packets fill it. @default {64} */
  packets?: number;
  /** How many bytes fill it. @default {524288} */
  bytes?: number;
}

/**
 * Packets in their order, in `packets[0]` to `packets[length - 1]`; what lies behind is stale. A batch owns
 * its packets: pushing one moves it here. Whoever fills a batch stops at {@linkcode PacketBatch.full}.
 *
 * A stage changes the packets of a batch and never the batch itself: what it drops, holds or emits through its
 * context leaves the batch when it returns.
 */
export class PacketBatch {
  /** The handles; only the first `length` count. */
  readonly packets: Packet[] = [];
  /** How many packets are in it. */
  length = 0;
  readonly #packetLimit: number;
  readonly #byteLimit: number;
  #bytes = 0;

  /**
   * An empty batch.
   *
   * @throws {RangeError} when a bound is not at least 1.
   */
  constructor(options: PacketBatchOptions = {}) {
    const { packets = BATCH_PACKETS, bytes = BATCH_BYTES } = options;
    if (!(packets >= 1) || !(bytes >= 1)) {
      throw new RangeError(`Cannot bound a batch at ${packets} packets and ${bytes} bytes`);
    }
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
  }

  /** Whether what reads into it should stop. */
  get full(): boolean {
    return this.length >= this.#packetLimit || this.#bytes >= this.#byteLimit;
  }

  /** How many more packets of this length make it full. */
  roomFor(length: number): number {
    return Math.min(this.#packetLimit - this.length, Math.ceil((this.#byteLimit - this.#bytes) / length));
  }

  /** Appends a packet and becomes its owner. */
  push(packet: Packet): void {
    packet.owner = this;
    this.packets[this.length++] = packet;
    this.#bytes += packet.length;
  }

  /** Takes `count` packets off the front, which their new owner has claimed already. */
  shift(count: number): void {
    if (count >= this.length) return this.clear();
    this.packets.copyWithin(0, count, this.length);
    this.#cut(this.length - count);
  }

  /** Moves all packets to the end of another batch. */
  moveTo(batch: PacketBatch): void {
    for (let i = 0; i < this.length; i++) batch.push(this.packets[i]!);
    this.clear();
  }

  /** Removes the packets that have got another owner since they were pushed, keeping the order. */
  compact(): void {
    const { packets } = this;
    let kept = 0;
    for (let i = 0; i < this.length; i++) {
      const packet = packets[i]!;
      if (packet.owner === this) packets[kept++] = packet;
    }
    this.#cut(kept);
  }

  /** Forgets all packets; whoever calls it has seen to them. */
  clear(): void {
    this.length = 0;
    this.#bytes = 0;
  }

  /** The packets in their order. */
  *[Symbol.iterator](): Generator<Packet, void, void> {
    for (let i = 0; i < this.length; i++) yield this.packets[i]!;
  }

  #cut(length: number): void {
    this.length = length;
    this.#bytes = 0;
    for (let i = 0; i < length; i++) this.#bytes += this.packets[i]!.length;
  }
}
