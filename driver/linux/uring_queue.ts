/**
 * A queue of a TUN device by io_uring: many packets a system call.
 *
 *     read:  lent slots ─► multishot read ─► completions ─► the slots themselves (a small packet that came in a large
 *            slot moves to a small one, and the large one is lent again)
 *     write: packets ─► submissions ─► one enter a batch ─► completions: their slots go back
 */

import {
  type EndHost,
  HEADROOM,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  PacketQueue,
  SMALL_ROOM,
} from "../../lib/core/mod.ts";
import { addressOf } from "../posix/memory.ts";
import { Errno } from "./errno.ts";
import type { DeviceQueue, QueueOptions } from "./queue.ts";
import { type Completions, Uring } from "./uring.ts";
import { readVnetHeader, VNET_HEADER, writeVnetHeader } from "./virtio_net.ts";

// Implementation
/** Packets under way in each direction; powers of two. */
const WRITES = 256;
const SMALL_LENT = 256;
const LARGE_LENT = 64;
/** Packets that have come or may come, until the loop takes them. */
const MOST_ARRIVED = 512;

/** Moves packets between a descriptor and the loop's pool, by the rings of io_uring. */
export class UringQueue implements DeviceQueue, Completions {
  readonly #fd: number;
  readonly #header: number;
  readonly #refused: QueueOptions["refused"];
  readonly #lose: QueueOptions["lose"];
  readonly #uring: Uring;
  /** Packets that have come, and that nobody has read yet. */
  readonly #arrived = new PacketQueue({ packets: MOST_ARRIVED });
  #host: EndHost | undefined;
  #base = 0;
  /** The room of the slots that are lent. */
  #room = SMALL_ROOM;
  #lent = 0;
  #reading = false;
  /** Whether the device is, and nothing more can be read. */
  #gone = false;
  #writing = 0;
  #closed = false;

  private constructor(uring: Uring, { fd, offload, refused, lose }: QueueOptions) {
    this.#uring = uring;
    this.#fd = fd;
    this.#header = offload ? VNET_HEADER : 0;
    this.#refused = refused;
    this.#lose = lose;
  }

  /** A queue over this descriptor; `undefined` where the kernel lacks what it needs, or forbids it. */
  static open(options: QueueOptions): UringQueue | undefined {
    const uring = Uring.open(WRITES, SMALL_LENT);
    return uring === undefined ? undefined : new UringQueue(uring, options);
  }

  /** The ring's descriptor. */
  get waitable(): number {
    return this.#uring.descriptor;
  }

  /** Packets that the kernel has not written yet. */
  get queued(): number {
    return this.#writing;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#base = addressOf(host.pool.bytes);
  }

  /** Appends what has come. */
  read(batch: PacketBatch, room: number): number {
    if (this.#closed) return 0;
    this.#room = this.#header === 0 ? room : LARGE_ROOM;
    this.#turn();
    const arrived = this.#arrived;
    let count = 0;
    for (; !batch.full && arrived.length > 0; count++) batch.push(arrived.shift());
    return count;
  }

  /** Hands packets to the kernel, as many as its ring takes. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const uring = this.#uring;
    const { packets, length } = batch;
    const header = this.#header;
    let count = 0;
    for (; count < length && this.#writing < WRITES && !uring.full; count++) {
      const packet = packets[count]!;
      if (header === 0) {
        packet.finish();
      } else if (packet.headroom < header) {
        this.#host!.drop(packet, "no headroom");
        continue;
      } else {
        writeVnetHeader(packet, packet.view, packet.offset - header);
      }
      packet.owner = this;
      uring.write(this.#fd, packet.slot, this.#base + packet.offset - header, packet.length + header);
      this.#writing++;
    }
    batch.shift(count);
    if (count > 0) this.#turn();
    return count;
  }

  /** Lends, submits and reaps; a read that has ended is asked for anew, as nothing else would wake the loop. */
  #turn(): void {
    const uring = this.#uring;
    do {
      this.#lend();
      if (uring.pending) uring.enter();
      uring.reap(this);
    } while (!this.#reading && this.#lent > 0 && !this.#gone);
  }

  /** See {@linkcode Completions}. */
  arrived(slot: number, result: number): void {
    const { pool } = this.#host!;
    const lent = pool.packets[slot]!;
    const length = result - this.#header;
    if (length <= 0) {
      this.#lent--;
      pool.give(lent);
      return;
    }
    let packet = lent;
    const isWaste = this.#room > SMALL_ROOM && length <= SMALL_ROOM && this.#hasRoom;
    const small = isWaste ? pool.take(length) : undefined;
    if (small !== undefined) {
      const start = lent.offset - this.#header;
      lent.bytes.copyWithin(small.offset - this.#header, start, start + result);
      packet = small;
      this.#uring.lend(slot, this.#base + start, this.#header + this.#room);
      this.#uring.publish();
    } else {
      this.#lent--;
      packet.length = length;
    }
    if (this.#header !== 0) readVnetHeader(packet, packet.offset - VNET_HEADER);
    this.#arrived.push(packet);
  }

  /** See {@linkcode Completions}. */
  readEnded(error: number): void {
    this.#reading = false;
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
    const uring = this.#uring;
    if (this.#reading || this.#writing > 0) {
      uring.cancel();
      while (this.#reading || this.#writing > 0) {
        uring.enter(1);
        uring.reap(this);
      }
    }
    uring[Symbol.dispose]();
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
    return this.#arrived.length + this.#lent < MOST_ARRIVED;
  }

  /** Lends slots, and reads on. */
  #lend(): void {
    const { pool } = this.#host!;
    const uring = this.#uring;
    const room = this.#room;
    const most = room > SMALL_ROOM ? LARGE_LENT : SMALL_LENT;
    const before = this.#lent;
    for (; this.#lent < most && this.#hasRoom; this.#lent++) {
      const packet = pool.take(room);
      if (packet === undefined) break;
      packet.owner = this;
      uring.lend(packet.slot, this.#base + packet.offset - this.#header, this.#header + room);
    }
    if (this.#lent > before) uring.publish();
    if (this.#reading || this.#gone || this.#lent === 0) return;
    this.#reading = true;
    uring.read(this.#fd);
  }
}
