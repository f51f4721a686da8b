/** Lists of packets that move together, limited in packets and bytes. */

import { OneLine } from "./one_line.ts";
import { checkMin } from "./options.ts";
import { fixedError, type Packet } from "./packet.ts";

// Implementation
const BATCH_PACKETS = 64;
const BATCH_BYTES = 512 * 1024;

/** Options for {@linkcode PacketBatch}. */
export interface PacketBatchOptions {
  /** Number of packets that fill it. @default {64} */
  packets?: number;
  /** Number of bytes that fill it. @default {524288} */
  bytes?: number;
}

/**
 * A list of packets in order, `packets[0]` to `packets[length - 1]`; entries after those are stale. A batch owns its
 * packets: `push` takes ownership. Code that fills a batch stops at {@linkcode PacketBatch.full}.
 *
 * A stage and the body of `for await` get a batch on loan: they change the packets and never the list, and the methods
 * that move packets throw a `TypeError`. Packets that a stage drops, holds, emits, ends or hands over leave the batch
 * when the stage returns; to change the order, it emits all packets in the new order.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool } from "@warren/tunnel/core";
 *
 * const pool = new PacketPool();
 * const batch = new PacketBatch({ packets: 2 });
 * while (!batch.full) batch.push(pool.take(100)!);
 * assert.deepEqual([...batch].map(({ length }) => length), [100, 100]);
 * ```
 */
export class PacketBatch extends OneLine {
  /** Packets; only the first `length` count. */
  readonly packets: Packet[] = [];
  /** Number of packets. */
  length = 0;
  readonly #packetLimit: number;
  readonly #byteLimit: number;
  /** Bytes of the packets. */
  protected bytes = 0;
  /** Value of {@linkcode Packet.isFixed} for its packets. */
  protected readonly fixes: boolean = false;

  /**
   * Creates an empty batch.
   *
   * @throws {RangeError} when a limit is below 1.
   */
  constructor(options: PacketBatchOptions = {}) {
    super();
    const { packets = BATCH_PACKETS, bytes = BATCH_BYTES } = options;
    checkMin("create a packet batch", "packets", packets, 1);
    checkMin("create a packet batch", "bytes", bytes, 1);
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
  }

  /** Set when a limit is reached. */
  get full(): boolean {
    return this.length >= this.#packetLimit || this.bytes >= this.#byteLimit;
  }

  /** Returns the number of packets of this length that would fill the batch. */
  roomFor(length: number): number {
    return Math.min(this.#packetLimit - this.length, Math.ceil((this.#byteLimit - this.bytes) / length));
  }

  /**
   * Appends a packet and becomes its owner.
   *
   * @throws {TypeError} when the packet is in this batch already, free, or on loan to a stage or script.
   */
  push(packet: Packet): void {
    if (packet.isFixed || packet.owner === this) throw pushError(packet, this);
    packet.owner = this;
    this.packets[this.length++] = packet;
    this.bytes += packet.length;
  }

  /** Removes `count` packets from the front; their new owner has claimed them already. */
  shift(count: number): void {
    if (count >= this.length) return this.clear();
    this.packets.copyWithin(0, count, this.length);
    this.#truncate(this.length - count);
  }

  /** Moves its packets to the end of another batch, except those that no longer belong to it. */
  moveTo(batch: PacketBatch): void {
    batch.adopt(this);
    this.clear();
  }

  /** Appends the packets of another batch. */
  protected adopt(other: PacketBatch): void {
    const { packets, length } = other;
    let kept = this.length;
    let bytes = this.bytes;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.owner !== other) continue;
      packet.owner = this;
      packet.isFixed = this.fixes;
      this.packets[kept++] = packet;
      bytes += packet.length;
    }
    this.length = kept;
    this.bytes = bytes;
  }

  /** Removes packets that no longer belong to it; keeps the order. */
  compact(): void {
    const { packets } = this;
    let kept = 0;
    for (let i = 0; i < this.length; i++) {
      const packet = packets[i]!;
      if (packet.owner === this) packets[kept++] = packet;
    }
    this.#truncate(kept);
  }

  /** Removes all packets; the caller has given them back or passed them on. */
  clear(): void {
    this.length = 0;
    this.bytes = 0;
  }

  /** Formats the number of packets: `PacketBatch(3 packets)`. */
  override toString(): string {
    return `PacketBatch(${this.length} packets)`;
  }

  /** Iterates over the packets in order. */
  [Symbol.iterator](): Iterator<Packet, void, void> {
    return new PacketIterator(this);
  }

  #truncate(length: number): void {
    this.length = length;
    this.bytes = 0;
    for (let i = 0; i < length; i++) this.bytes += this.packets[i]!.length;
  }
}

/** Iterates over a batch in half the time of a generator. */
class PacketIterator implements Iterator<Packet, void, void> {
  readonly #batch: PacketBatch;
  #index = 0;

  constructor(batch: PacketBatch) {
    this.#batch = batch;
  }

  next(): IteratorResult<Packet, void> {
    const { packets, length } = this.#batch;
    return this.#index < length
      ? { done: false, value: packets[this.#index++]! }
      : { done: true, value: undefined };
  }
}

function pushError(packet: Packet, batch: PacketBatch): TypeError {
  return packet.owner === batch
    ? new TypeError("Cannot add a packet to a batch: it is in the batch already")
    : fixedError("add a packet to a batch", packet);
}

/** A stage or script that has a batch on loan, as named in errors. */
export interface Borrower {
  /** Name, such as `stage "nat"`. */
  readonly title: string;
  /** Advice in errors, such as `use context.emit`. */
  readonly remedy: string;
}

/** Returns the error for a borrower that changed its batch. */
export function changedError({ title, remedy }: Borrower): TypeError {
  return new TypeError(`Cannot change the batch of ${title}: it is on loan: ${remedy}`);
}

/** A borrower's view of a {@linkcode LendingBatch}: the same packets, without the methods that move them. */
export class LoanedBatch extends PacketBatch {
  /** See {@linkcode PacketBatch.packets}; a borrower may have assigned another array. */
  declare packets: Packet[];
  /** Current borrower. */
  borrower: Borrower = { title: "nobody", remedy: "" };

  /** Error of the methods that would change the batch. */
  get error(): TypeError {
    return changedError(this.borrower);
  }

  override push(): void {
    throw this.error;
  }

  override shift(): void {
    throw this.error;
  }

  override moveTo(): void {
    throw this.error;
  }

  protected override adopt(): void {
    throw this.error;
  }

  override compact(): void {
    throw this.error;
  }

  override clear(): void {
    throw this.error;
  }
}

/**
 * A batch that is lent to code that might change its list: borrowers in turn get one copy of the list. The packets are
 * fixed (see {@linkcode Packet.isFixed}), so that no other code becomes their owner.
 */
export class LendingBatch extends PacketBatch {
  readonly #loan = new LoanedBatch();
  /** Copy of the list, as long as this batch while it is on loan. */
  readonly #list: Packet[] = this.#loan.packets;
  /** Number of packets already in the copy. */
  #listed = 0;
  protected override readonly fixes: boolean = true;

  /** Lends the list until the next call. */
  lend(borrower: Borrower): LoanedBatch {
    const { length, packets } = this;
    const list = this.#list;
    for (let i = this.#listed; i < length; i++) list[i] = packets[i]!;
    this.#listed = length;
    const loan = this.#loan;
    loan.borrower = borrower;
    loan.packets = list;
    loan.length = length;
    return loan;
  }

  /** Reports whether the borrower left the list unchanged. */
  isIntact(): boolean {
    const { length, packets } = this;
    const list = this.#list;
    const loan = this.#loan;
    if (loan.length !== length || loan.packets !== list) return false;
    for (let i = 0; i < length; i++) if (list[i] !== packets[i]) return false;
    return true;
  }

  override push(packet: Packet): void {
    if (packet.isFixed) throw pushError(packet, this);
    this.append(packet);
  }

  /** Appends a packet that its former owner has released, and fixes it. */
  append(packet: Packet): void {
    packet.owner = this;
    packet.isFixed = true;
    this.packets[this.length++] = packet;
    this.bytes += packet.length;
  }

  override shift(count: number): void {
    this.#listed = 0;
    super.shift(count);
  }

  override compact(): void {
    this.#listed = 0;
    super.compact();
  }

  override clear(): void {
    this.#listed = 0;
    super.clear();
  }
}
