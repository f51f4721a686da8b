/**
 * A queue of a TUN device by io_uring, while there is much to do: many packets a system call.
 *
 *     few packets:  read and write, one packet a call, which costs less than a ring that is woken for each
 *     many, read:   lent slots ─► multishot read ─► completions ─► the slots themselves
 *                   (before Linux 6.7: a chain of reads, one a packet, whenever there is something to read)
 *           write:  packets ─► submissions ─► one enter a batch ─► completions: their slots go back
 *
 * It serves devices without offload and with an MTU that small slots hold. With offload, super-packets save more calls
 * than a ring does, and a ring costs a tenth more (`deno task bench relay`).
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
import { CUT, type DeviceQueue, type QueueOptions } from "./queue.ts";
import { TunQueue } from "./tun_queue.ts";
import { type Completions, Uring } from "./uring.ts";

// Implementation
/** As many packets in one read have the ring read on; after so many reads of fewer, it ends. */
const MANY = 32;
const CALM_READS = 32;
/** The batch from which on the ring writes it. */
const MANY_WRITES = 4;
/** Packets under way in each direction; powers of two. */
const WRITES = 256;
const LENT = 256;
/** Reads in a chain, where a read brings one packet. */
const CHAIN = 64;
/** Calls that end what is under way: one, or one for each read, and as many as signals interrupt. */
const MAX_TURNS = 1000;
/** Packets that have come or may come, until the loop takes them. */
const MAX_ARRIVED = 512;

/** Moves packets between a descriptor and the loop's pool, by the rings of io_uring. */
export class UringQueue implements DeviceQueue, Completions {
  readonly #plain: TunQueue;
  readonly #fd: number;
  readonly #refused: QueueOptions["refused"];
  readonly #lose: QueueOptions["lose"];
  readonly #uring: Uring;
  /** Packets that have come, and that nobody has read yet. */
  readonly #arrived = new PacketQueue({ packets: MAX_ARRIVED });
  #host: EndHost | undefined;
  #base = 0;
  #lent = 0;
  /** Whether the ring reads, and not calls of `read`. */
  #ringing = false;
  /** How many reads in a row brought few packets. */
  #calmReads = 0;
  /** Reads under way. */
  #reads = 0;
  /** Whether the device is, and nothing more can be read. */
  #gone = false;
  #writing = 0;
  #closed = false;

  private constructor(uring: Uring, options: QueueOptions) {
    const { fd, refused, lose } = options;
    this.#plain = new TunQueue(options);
    this.#uring = uring;
    this.#fd = fd;
    this.#refused = refused;
    this.#lose = lose;
  }

  /** A queue over this descriptor; `undefined` where the kernel lacks what it needs, or forbids it. */
  static open(options: QueueOptions, multishot: boolean): UringQueue | undefined {
    // Writes, and reads or a cancel besides.
    const uring = Uring.open(2 * WRITES, LENT, multishot);
    return uring === undefined ? undefined : new UringQueue(uring, options);
  }

  /** The ring's descriptor while a read of it waits, or is to wait again; else the device's. */
  get waitable(): Waitable {
    return this.#ringing && (this.#uring.multishot || this.#reads > 0) ? this.#uring.descriptor : this.#fd;
  }

  /** Packets that the kernel has not written yet. */
  get queued(): number {
    return this.#writing;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#plain.attach(host);
    this.#base = addressOf(host.pool.bytes);
  }

  /** Appends what has come. */
  read(batch: PacketBatch, room: number): number {
    if (this.#closed) return 0;
    const arrived = this.#arrived;
    if (!this.#ringing && arrived.length === 0) {
      const count = this.#plain.read(batch, room);
      if (count >= MANY && room === SMALL_ROOM) this.#start();
      return count;
    }
    if (this.#ringing) this.#turn(true);
    let count = 0;
    for (; !batch.full && arrived.length > 0; count++) batch.push(arrived.shift());
    this.#calmReads = count < MANY ? this.#calmReads + 1 : 0;
    if (this.#ringing && (this.#calmReads >= CALM_READS || room > SMALL_ROOM)) this.#stop();
    return count;
  }

  /** Hands packets to the kernel, as many as its ring takes. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { packets, length } = batch;
    // Nothing overtakes what is under way.
    if (this.#writing === 0 && length < MANY_WRITES) return this.#plain.write(batch);
    const uring = this.#uring;
    let count = 0;
    for (; count < length && this.#writing < WRITES && !uring.full; count++) {
      const packet = packets[count]!;
      packet.finish();
      packet.owner = this;
      uring.write(this.#fd, packet.slot, this.#base + packet.offset, packet.length);
      this.#writing++;
    }
    batch.shift(count);
    if (count === 0) return 0;
    this.#turn(false);
    // Packets that came meanwhile no longer end a wait.
    if (this.#arrived.length > 0) this.#host!.wake();
    return count;
  }

  /** Has the ring read from now on. */
  #start(): void {
    if (!this.#uring.openBuffers()) return;
    this.#ringing = true;
    this.#calmReads = 0;
    this.#turn(true);
  }

  /** Has the ring read no longer; what it has read already is still to be taken. */
  #stop(): void {
    this.#ringing = false;
    this.#settle();
    this.#uring.closeBuffers();
    for (const packet of this.#host!.pool.packets) if (packet.owner === this) packet.pool.give(packet);
    this.#lent = 0;
    if (this.#arrived.length > 0) this.#host!.wake();
  }

  /** Ends what is under way, and waits for that, which is soon: the descriptor does not block. */
  #settle(): void {
    const uring = this.#uring;
    for (let turn = 0; this.#reads + this.#writing > 0 && turn < MAX_TURNS; turn++) {
      // The next one of a chain waits where one is cancelled.
      uring.cancel();
      uring.enter(1);
      uring.reap(this);
    }
  }

  /**
   * Lends, submits and reaps. A multishot read that has ended is asked for anew, as nothing else would wake the loop;
   * others when the loop reads.
   */
  #turn(reads: boolean): void {
    const uring = this.#uring;
    const { multishot } = uring;
    do {
      if (this.#ringing && (multishot || reads)) this.#lend();
      if (uring.pending) uring.enter();
      uring.reap(this);
    } while (multishot && this.#ringing && this.#reads === 0 && this.#lent > 0 && !this.#gone);
  }

  /** See {@linkcode Completions}. */
  arrived(slot: number, length: number): void {
    const packet = this.#host!.pool.packets[slot]!;
    this.#lent--;
    if (length === SMALL_ROOM) this.#host!.refuse(length, CUT);
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
        this.#lose("read from", "read", -error);
    }
  }

  /** See {@linkcode Completions}. */
  written(slot: number, result: number): void {
    this.#writing--;
    const packet = this.#host!.pool.packets[slot]!;
    if (result >= 0) this.#host!.done(packet);
    else this.#refused(packet, -result);
    if (result === -Errno.EBADFD) this.#lose("write to", "write", Errno.EBADFD);
  }

  /** Ends what is under way, and gives back what it holds. */
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

  /** Whether another packet may be on its way here. */
  get #hasRoom(): boolean {
    return this.#arrived.length + this.#lent < MAX_ARRIVED;
  }

  /** Lends slots, and reads on. */
  #lend(): void {
    const { pool } = this.#host!;
    const uring = this.#uring;
    const before = this.#lent;
    for (; this.#lent < LENT && this.#hasRoom; this.#lent++) {
      const packet = pool.take(SMALL_ROOM);
      if (packet === undefined) break;
      packet.owner = this;
      uring.lend(packet.slot, this.#base + packet.offset, SMALL_ROOM);
    }
    if (this.#lent > before) uring.publish();
    if (this.#reads > 0 || this.#gone || this.#lent === 0) return;
    this.#reads = uring.read(this.#fd, Math.min(CHAIN, this.#lent));
  }
}
