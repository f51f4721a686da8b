/**
 * A TUN device queue that uses io_uring under load: many packets per system call.
 *
 *     few packets:   read(2) and write(2), one packet per call, which costs less than waking a ring for each
 *     many, read:    slots as provided buffers ─► multishot read ─► completions ─► the same slots
 *                    (before Linux 6.7: linked reads of one packet each, when the device is readable)
 *     many, write:   packets ─► submissions ─► one io_uring_enter per batch ─► completions ─► slots returned
 *
 * Used for devices without offload whose MTU fits small slots. With offload, super-packets save more calls than a ring
 * does, and a ring costs 10% more (`deno task bench relay`).
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
/** Number of packets in one call of `read` at which the ring starts to read. */
const BUSY_READ = 32;
/** Number of consecutive calls of `read` with fewer packets after which the ring stops reading. */
const MAX_QUIET_READS = 32;
/** Number of packets in a batch at which the ring writes. */
const MIN_RING_WRITE = 4;
/** Maximum number of pending writes; a power of two. */
const MAX_WRITES = 256;
/** Maximum number of provided buffers; a power of two. */
const MAX_BUFFERS = 256;
/** Number of linked reads submitted together, in kernels without multishot reads. */
const LINKED_READS = 64;
/** Maximum number of cancellations. Each linked read needs one, and so does each signal that interrupts the wait. */
const MAX_CANCELLATIONS = 1000;
/** Maximum number of received packets plus provided buffers. */
const MAX_RECEIVED = 512;

/** A queue that moves many packets per call. */
export class UringQueue implements DeviceQueue, Completions {
  readonly #plain: TunQueue;
  readonly #options: QueueOptions;
  readonly #uring: Uring;
  /** Received packets that `read` has not returned yet. */
  readonly #received = new PacketQueue({ packets: MAX_RECEIVED });
  #host: EndHost | undefined;
  /** Memory address of the pool. */
  #base = 0;
  /** Number of provided buffers. */
  #provided = 0;
  /** True while io_uring, rather than read(2), reads. */
  #ringReads = false;
  /** Number of consecutive reads that returned few packets. */
  #quietReads = 0;
  /** Number of pending reads. */
  #reads = 0;
  /** True after a read failed because the device no longer exists. */
  #isGone = false;
  /** Number of pending writes. */
  #writes = 0;
  #closed = false;

  private constructor(uring: Uring, options: QueueOptions) {
    this.#plain = new TunQueue(options);
    this.#options = options;
    this.#uring = uring;
  }

  /** Opens a queue; returns `undefined` when the kernel does not support or allow io_uring. */
  static open(options: QueueOptions, multishot: boolean): UringQueue | undefined {
    // Half of the entries are for writes, half for reads or a cancellation.
    const uring = Uring.open(2 * MAX_WRITES, MAX_BUFFERS, multishot);
    return uring === undefined ? undefined : new UringQueue(uring, options);
  }

  /** Descriptor of the ring while its reads are pending or about to be submitted; otherwise that of the device. */
  get waitable(): Waitable {
    const { multishot, descriptor } = this.#uring;
    return this.#ringReads && (multishot || this.#reads > 0) ? descriptor : this.#options.fd;
  }

  /** Number of pending writes. */
  get queued(): number {
    return this.#writes;
  }

  /** Attaches the queue to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#plain.attach(host);
    this.#base = addressOf(host.pool.bytes);
  }

  /** Reads packets, with the ring or, under little load, with read(2). */
  read(batch: PacketBatch, room: number): number {
    if (this.#closed) return 0;
    const received = this.#received;
    if (!this.#ringReads && received.length === 0) {
      const count = this.#plain.read(batch, room);
      if (count >= BUSY_READ && room === SMALL_ROOM) this.#start();
      return count;
    }
    if (this.#ringReads) this.#submitAndReap(true);
    let count = 0;
    for (; !batch.full && received.length > 0; count++) batch.push(received.shift());
    this.#quietReads = count < BUSY_READ ? this.#quietReads + 1 : 0;
    if (this.#ringReads && (this.#quietReads >= MAX_QUIET_READS || room > SMALL_ROOM)) this.#stop();
    return count;
  }

  /** Writes packets until the ring is full. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { packets, length } = batch;
    // A plain write must not overtake pending writes.
    if (this.#writes === 0 && length < MIN_RING_WRITE) return this.#plain.write(batch);
    const uring = this.#uring;
    const { fd } = this.#options;
    let count = 0;
    for (; count < length && this.#writes < MAX_WRITES && !uring.full; count++) {
      const packet = packets[count]!;
      packet.finish();
      packet.owner = this;
      uring.write(fd, packet.slot, this.#base + packet.offset, packet.length);
      this.#writes++;
    }
    batch.shift(count);
    if (count === 0) return 0;
    this.#submitAndReap(false);
    // The ring's descriptor does not signal packets that were reaped here.
    if (this.#received.length > 0) this.#host!.wake();
    return count;
  }

  /** Starts reading with the ring. */
  #start(): void {
    if (!this.#uring.registerBuffers()) return;
    this.#ringReads = true;
    this.#quietReads = 0;
    this.#submitAndReap(true);
  }

  /** Stops reading with the ring. Received packets remain for `read`. */
  #stop(): void {
    this.#ringReads = false;
    this.#cancelAll();
    this.#uring.unregisterBuffers();
    for (const packet of this.#host!.pool.packets) if (packet.owner === this) packet.pool.give(packet);
    this.#provided = 0;
    if (this.#received.length > 0) this.#host!.wake();
  }

  /** Cancels pending operations and waits for their completions: a short wait, as the descriptor is non-blocking. */
  #cancelAll(): void {
    const uring = this.#uring;
    for (let i = 0; this.#reads + this.#writes > 0 && i < MAX_CANCELLATIONS; i++) {
      // When a linked read is cancelled, the next one becomes pending.
      uring.cancel();
      uring.enter(1);
      uring.reap(this);
    }
  }

  /**
   * Submits operations and reaps completions. A multishot read that has ended is submitted again at once, as otherwise
   * nothing would wake the loop. Linked reads are submitted only if `reads` is true.
   */
  #submitAndReap(reads: boolean): void {
    const uring = this.#uring;
    const { multishot } = uring;
    do {
      if (this.#ringReads && (multishot || reads)) this.#provideAndRead();
      if (uring.pending) uring.enter();
      uring.reap(this);
    } while (multishot && this.#ringReads && this.#reads === 0 && this.#provided > 0 && !this.#isGone);
  }

  /** Callback of {@linkcode Completions}. */
  received(slot: number, length: number): void {
    const packet = this.#host!.pool.packets[slot]!;
    this.#provided--;
    if (length === SMALL_ROOM) this.#host!.refuse(length, TRUNCATED);
    if (length <= 0 || length === SMALL_ROOM) return packet.pool.give(packet);
    packet.length = length;
    this.#received.push(packet);
  }

  /** Callback of {@linkcode Completions}. */
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
        this.#isGone = true;
        this.#options.onGone("read from", "read", -error);
    }
  }

  /** Callback of {@linkcode Completions}. */
  written(slot: number, result: number): void {
    this.#writes--;
    const packet = this.#host!.pool.packets[slot]!;
    if (result >= 0) this.#host!.finish(packet);
    else this.#options.onWriteError(packet, -result);
    if (result === -Errno.EBADFD) this.#options.onGone("write to", "write", Errno.EBADFD);
  }

  /** Cancels pending operations, returns packets to the pool and frees memory. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelAll();
    this.#uring[Symbol.dispose]();
    this.#plain.close();
    if (this.#host === undefined) return;
    const { pool } = this.#host;
    while (this.#received.length > 0) {
      const packet = this.#received.shift();
      this.#host.refuse(packet.length, "closed");
      pool.give(packet);
    }
    for (const packet of pool.packets) if (packet.owner === this) pool.give(packet);
  }

  /** Provides slots as buffers and submits reads into them. */
  #provideAndRead(): void {
    const { pool } = this.#host!;
    const uring = this.#uring;
    const before = this.#provided;
    const limit = Math.min(MAX_BUFFERS, MAX_RECEIVED - this.#received.length);
    for (; this.#provided < limit; this.#provided++) {
      const packet = pool.take(SMALL_ROOM);
      if (packet === undefined) break;
      packet.owner = this;
      uring.provide(packet.slot, this.#base + packet.offset, SMALL_ROOM);
    }
    if (this.#provided > before) uring.publish();
    if (this.#reads > 0 || this.#isGone || this.#provided === 0) return;
    this.#reads = uring.read(this.#options.fd, Math.min(LINKED_READS, this.#provided));
  }
}
