/**
 * A queue of a TUN device by io_uring under load: many packets per system call.
 *
 *     few packets:   read and write, one packet per call, which costs less than waking a ring for each
 *     many, read:    lent slots ─► multishot read ─► completions ─► the same slots
 *                    (before Linux 6.7: a chain of reads, one per packet, when the device is readable)
 *     many, write:   packets ─► submissions ─► one enter per batch ─► completions ─► slots returned
 *
 * It serves devices without offload whose MTU fits small slots. With offload, super-packets save more calls than a ring
 * does, and a ring costs a tenth more (`deno task bench relay`).
 */

import {
  type EndHost,
  type PacketBatch,
  PacketQueue,
  SMALL_ROOM,
  type Waitable,
} from "../../../lib/core/mod.ts";
import { addressOf } from "../../native_memory.ts";
import { Errno } from "../errno.ts";
import { type DeviceQueue, type QueueOptions, TRUNCATED } from "./queue.ts";
import { TunQueue } from "./tun_queue.ts";
import { type Completions, Uring } from "./uring.ts";

// Implementation
/** Packets in one read from which on the ring reads, and reads in a row with fewer after which it stops. */
const BUSY_READ = 32;
const CALM_READS = 32;
/** Packets in a batch from which on the ring writes. */
const MIN_RING_WRITE = 4;
/** Maximum pending writes and maximum lent slots; powers of two. */
const MAX_WRITES = 256;
const MAX_LENT = 256;
/** Reads in a chain, where a read brings one packet. */
const CHAIN_LENGTH = 64;
/** Maximum calls to end pending operations: one, or one per read, and one per interrupting signal. */
const MAX_TURNS = 1000;
/** Maximum packets that have arrived or may arrive before the loop takes them. */
const MAX_ARRIVED = 512;

/** Moves packets between a descriptor and the pool of the loop by io_uring. */
export class UringQueue implements DeviceQueue, Completions {
  readonly #plain: TunQueue;
  readonly #fd: number;
  readonly #refuse: QueueOptions["refuse"];
  readonly #fail: QueueOptions["fail"];
  readonly #uring: Uring;
  /** Packets that have arrived and wait for the loop. */
  readonly #arrived = new PacketQueue({ packets: MAX_ARRIVED });
  #host: EndHost | undefined;
  #base = 0;
  #lent = 0;
  /** True while the ring reads instead of `read`. */
  #ringReads = false;
  /** Reads in a row that brought few packets. */
  #calmReads = 0;
  /** Pending reads. */
  #reads = 0;
  /** True when the device is gone and nothing more can be read. */
  #gone = false;
  /** Pending writes. */
  #writing = 0;
  #closed = false;

  private constructor(uring: Uring, options: QueueOptions) {
    const { fd, refuse, fail } = options;
    this.#plain = new TunQueue(options);
    this.#uring = uring;
    this.#fd = fd;
    this.#refuse = refuse;
    this.#fail = fail;
  }

  /** Opens a queue on a descriptor of the device; `undefined` when the kernel lacks or forbids io_uring. */
  static open(options: QueueOptions, multishot: boolean): UringQueue | undefined {
    // Room for the writes, and for reads or a cancellation.
    const uring = Uring.open(2 * MAX_WRITES, MAX_LENT, multishot);
    return uring === undefined ? undefined : new UringQueue(uring, options);
  }

  /** Descriptor of the ring while one of its reads is pending or about to be; else that of the device. */
  get waitable(): Waitable {
    return this.#ringReads && (this.#uring.multishot || this.#reads > 0) ? this.#uring.descriptor : this.#fd;
  }

  /** Packets accepted that the kernel has not taken yet. */
  get queued(): number {
    return this.#writing;
  }

  /** Attaches the queue to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#plain.attach(host);
    this.#base = addressOf(host.pool.bytes);
  }

  /** Appends packets that have arrived. */
  read(batch: PacketBatch, room: number): number {
    if (this.#closed) return 0;
    const arrived = this.#arrived;
    if (!this.#ringReads && arrived.length === 0) {
      const count = this.#plain.read(batch, room);
      if (count >= BUSY_READ && room === SMALL_ROOM) this.#start();
      return count;
    }
    if (this.#ringReads) this.#turn(true);
    let count = 0;
    for (; !batch.full && arrived.length > 0; count++) batch.push(arrived.shift());
    this.#calmReads = count < BUSY_READ ? this.#calmReads + 1 : 0;
    if (this.#ringReads && (this.#calmReads >= CALM_READS || room > SMALL_ROOM)) this.#stop();
    return count;
  }

  /** Writes packets, as many as the ring has room for. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { packets, length } = batch;
    // A plain write must not overtake pending writes.
    if (this.#writing === 0 && length < MIN_RING_WRITE) return this.#plain.write(batch);
    const uring = this.#uring;
    let count = 0;
    for (; count < length && this.#writing < MAX_WRITES && !uring.full; count++) {
      const packet = packets[count]!;
      packet.finish();
      packet.owner = this;
      uring.write(this.#fd, packet.slot, this.#base + packet.offset, packet.length);
      this.#writing++;
    }
    batch.shift(count);
    if (count === 0) return 0;
    this.#turn(false);
    // Packets that this turn has reaped no longer end a wait.
    if (this.#arrived.length > 0) this.#host!.wake();
    return count;
  }

  /** Starts reading by the ring. */
  #start(): void {
    if (!this.#uring.openBuffers()) return;
    this.#ringReads = true;
    this.#calmReads = 0;
    this.#turn(true);
  }

  /** Stops reading by the ring; packets that have arrived stay for the loop. */
  #stop(): void {
    this.#ringReads = false;
    this.#settle();
    this.#uring.closeBuffers();
    for (const packet of this.#host!.pool.packets) if (packet.owner === this) packet.pool.give(packet);
    this.#lent = 0;
    if (this.#arrived.length > 0) this.#host!.wake();
  }

  /** Cancels pending operations and waits until they have ended, which is soon: the descriptor does not block. */
  #settle(): void {
    const uring = this.#uring;
    for (let turn = 0; this.#reads + this.#writing > 0 && turn < MAX_TURNS; turn++) {
      // After a cancelled read, the next one of its chain becomes pending.
      uring.cancel();
      uring.enter(1);
      uring.reap(this);
    }
  }

  /**
   * Lends, submits and reaps. An ended multishot read is submitted again at once, as nothing else would wake the loop;
   * single reads when the loop reads.
   */
  #turn(reads: boolean): void {
    const uring = this.#uring;
    const { multishot } = uring;
    do {
      if (this.#ringReads && (multishot || reads)) this.#lend();
      if (uring.pending) uring.enter();
      uring.reap(this);
    } while (multishot && this.#ringReads && this.#reads === 0 && this.#lent > 0 && !this.#gone);
  }

  /** See {@linkcode Completions}. */
  arrived(slot: number, length: number): void {
    const packet = this.#host!.pool.packets[slot]!;
    this.#lent--;
    if (length === SMALL_ROOM) this.#host!.refuse(length, TRUNCATED);
    if (length <= 0 || length === SMALL_ROOM) return packet.pool.give(packet);
    packet.length = length;
    this.#arrived.push(packet);
  }

  /** See {@linkcode Completions}. */
  readEnded(error: number): void {
    this.#reads--;
    switch (-error) {
      case 0:
      case Errno.EAGAIN:
      case Errno.EINTR:
      case Errno.ENOBUFS:
      case Errno.ECANCELED:
        break;
      default:
        this.#gone = true;
        this.#fail("read from", "read", -error);
    }
  }

  /** See {@linkcode Completions}. */
  written(slot: number, result: number): void {
    this.#writing--;
    const packet = this.#host!.pool.packets[slot]!;
    if (result >= 0) this.#host!.finish(packet);
    else this.#refuse(packet, -result);
    if (result === -Errno.EBADFD) this.#fail("write to", "write", Errno.EBADFD);
  }

  /** Cancels pending operations and returns the packets and memory that it holds. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#settle();
    this.#uring[Symbol.dispose]();
    this.#plain.close();
    if (this.#host === undefined) return;
    const { pool } = this.#host;
    while (this.#arrived.length > 0) {
      const packet = this.#arrived.shift();
      this.#host.refuse(packet.length, "closed");
      pool.give(packet);
    }
    for (const packet of pool.packets) if (packet.owner === this) pool.give(packet);
  }

  /** True if another slot may be lent. */
  get #hasRoom(): boolean {
    return this.#arrived.length + this.#lent < MAX_ARRIVED;
  }

  /** Lends slots and submits reads. */
  #lend(): void {
    const { pool } = this.#host!;
    const uring = this.#uring;
    const before = this.#lent;
    for (; this.#lent < MAX_LENT && this.#hasRoom; this.#lent++) {
      const packet = pool.take(SMALL_ROOM);
      if (packet === undefined) break;
      packet.owner = this;
      uring.lend(packet.slot, this.#base + packet.offset, SMALL_ROOM);
    }
    if (this.#lent > before) uring.publish();
    if (this.#reads > 0 || this.#gone || this.#lent === 0) return;
    this.#reads = uring.read(this.#fd, Math.min(CHAIN_LENGTH, this.#lent));
  }
}
