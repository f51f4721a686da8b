/** A list of packets that move together, bounded by count and bytes. */

import { OneLine } from "./one_line.ts";
import { fixedError, type Packet } from "./packet.ts";

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
 * A stage, and the body of `for await`, gets a batch on loan: it changes the packets and never the batch. What a stage
 * drops, holds, emits or is done with leaves the batch when it returns; to change the order, it emits its packets in
 * another one. The methods that move packets throw a `TypeError` then.
 */
export class PacketBatch extends OneLine {
  /** The handles; only the first `length` count. */
  readonly packets: Packet[] = [];
  /** How many packets are in it. */
  length = 0;
  readonly #packetLimit: number;
  readonly #byteLimit: number;
  /** The bytes of its packets. */
  protected bytes = 0;
  /** Tells whether its packets are fixed: see {@linkcode Packet.isFixed}. */
  protected readonly fixes: boolean = false;

  /**
   * An empty batch.
   *
   * @throws {RangeError} when a bound is not at least 1.
   */
  constructor(options: PacketBatchOptions = {}) {
    super();
    const { packets = BATCH_PACKETS, bytes = BATCH_BYTES } = options;
    if (!(packets >= 1) || !(bytes >= 1)) {
      throw new RangeError(`Cannot bound a batch at ${packets} packets and ${bytes} bytes`);
    }
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
  }

  /** Whether what reads into it should stop. */
  get full(): boolean {
    return this.length >= this.#packetLimit || this.bytes >= this.#byteLimit;
  }

  /** How many more packets of this length make it full. */
  roomFor(length: number): number {
    return Math.min(this.#packetLimit - this.length, Math.ceil((this.#byteLimit - this.bytes) / length));
  }

  /**
   * Appends a packet and becomes its owner.
   *
   * @throws {TypeError} when it is in this batch already, free, or on loan to a stage or script.
   */
  push(packet: Packet): void {
    if (packet.isFixed || packet.owner === this) throw pushError(packet, this);
    packet.owner = this;
    this.packets[this.length++] = packet;
    this.bytes += packet.length;
  }

  /** Takes `count` packets off the front, which their new owner has claimed already. */
  shift(count: number): void {
    if (count >= this.length) return this.clear();
    this.packets.copyWithin(0, count, this.length);
    this.#cut(this.length - count);
  }

  /** Moves all packets to the end of another batch, except those that have another owner by now. */
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

  /** Removes the packets that have another owner by now, keeping the order. */
  compact(): void {
    const { packets } = this;
    let kept = 0;
    for (let i = 0; i < this.length; i++) {
      const packet = packets[i]!;
      if (packet.owner === this) packets[kept++] = packet;
    }
    this.#cut(kept);
  }

  /** Forgets all packets; the caller has given them back or passed them on. */
  clear(): void {
    this.length = 0;
    this.bytes = 0;
  }

  /** The number of packets: `PacketBatch(3 packets)`. */
  override toString(): string {
    return `PacketBatch(${this.length} packets)`;
  }

  /** The packets in their order. */
  [Symbol.iterator](): Iterator<Packet, void, void> {
    return new PacketIterator(this);
  }

  #cut(length: number): void {
    this.length = length;
    this.bytes = 0;
    for (let i = 0; i < length; i++) this.bytes += this.packets[i]!.length;
  }
}

/** Goes through a batch in order, as a generator would; one of those costs twice as much a packet. */
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

/** A stage or script that has a batch on loan, as errors name it. */
export interface Borrower {
  /** Such as `stage "nat"`. */
  readonly title: string;
  /** Advice for one that changes the batch, such as `use context.emit`. */
  readonly remedy: string;
}

/** The error for a borrower that has changed its batch. */
export function changedError({ title, remedy }: Borrower): TypeError {
  return new TypeError(`Cannot change the batch of ${title}: it is on loan: ${remedy}`);
}

/**
 * A borrower's view of a {@linkcode LendingBatch}: a list of the same packets, with no way to move them. For the
 * runtime.
 */
export class LoanedBatch extends PacketBatch {
  /** See {@linkcode PacketBatch.packets}; a borrower may have put another array there. */
  declare packets: Packet[];
  /** The current borrower. */
  borrower: Borrower = { title: "nobody", remedy: "" };

  /** The error for a borrower that calls a method which would change the batch. */
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
 * A batch that is lent to code which may change its list. The borrower gets a copy of the list, made once for all
 * borrowers that get the batch in turn; the packets are fixed while they are here (see {@linkcode Packet.isFixed}), so
 * that nobody else becomes their owner. For the runtime.
 */
export class LendingBatch extends PacketBatch {
  readonly #loan = new LoanedBatch();
  /** The list that is lent; as long as this batch while it is on loan. */
  readonly #list: Packet[] = this.#loan.packets;
  /** The number of packets already in the list. */
  #listed = 0;
  protected override readonly fixes: boolean = true;

  /** Lends the list, until it is lent anew. */
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

  /** Tells whether the borrower has left the list as it was lent. */
  isIntact(): boolean {
    const { length, packets } = this;
    const list = this.#list;
    const loan = this.#loan;
    if (loan.length !== length || loan.packets !== list) return false;
    for (let i = 0; i < length; i++) if (list[i] !== packets[i]) return false;
    return true;
  }

  /** See {@linkcode PacketBatch.push}: what is in this batch already is fixed. */
  override push(packet: Packet): void {
    if (packet.isFixed) throw pushError(packet, this);
    this.append(packet);
  }

  /** Appends a packet that its former owner has let go, and fixes it. */
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
