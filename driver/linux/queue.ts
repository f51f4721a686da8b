/**
 * A queue of a TUN device: a descriptor that gives and takes one packet a call.
 *
 *     with offload, read:  header ─┐                      ordinary packet: stays in the small slot
 *                          packet ─┴► small slot ─► large slot: a super-packet, whose beginning is copied there
 *     write:               header in the headroom, packet behind it
 */

import {
  type EndHost,
  HEADROOM,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  SMALL_ROOM,
  type Waitable,
} from "../../lib/core/mod.ts";
import { addressOf, setAddress } from "../posix/memory.ts";
import { Errno } from "./errno.ts";
import { errno, libc } from "./libc.ts";
import { readVnetHeader, VNET_HEADER, writeVnetHeader } from "./virtio_net.ts";

// Specification
// struct iovec { void *iov_base; size_t iov_len; };   sys/uio.h; a uint64_t each, in words of 32 bits
const IOVEC_WORDS = 4;

// Implementation
/** Lengths as the size_t that read and write take: made once, not once a packet. Those of large slots are rare. */
const LENGTHS: readonly bigint[] = Array.from(
  { length: VNET_HEADER + SMALL_ROOM + 1 },
  (_, length) => BigInt(length),
);

function length64(length: number): bigint {
  return length < LENGTHS.length ? LENGTHS[length]! : BigInt(length);
}

/** Puts a piece of memory into an array of `struct iovec`. */
function setIovec(iovecs: Uint32Array, index: number, address: number, length: number): void {
  const word = index * IOVEC_WORDS;
  setAddress(iovecs, word, address);
  iovecs[word + 2] = length;
}

/** What a queue is made of. */
export interface QueueOptions {
  /** A descriptor of the device, which does not block. */
  readonly fd: number;
  /** Whether it has virtio's header before each packet. */
  readonly offload: boolean;
  /** Told of a packet that the kernel does not take, and has dropped it. */
  readonly refused: (packet: Packet, errno: number) => void;
  /** Told when the device is gone. */
  readonly lose: (verb: string, operation: string, errno: number) => void;
}

/** A queue of a TUN device, however it speaks with the kernel. */
export interface DeviceQueue {
  /** What the loop waits for. */
  readonly waitable: Waitable;
  /** Packets taken, and not written yet. */
  readonly queued: number;
  /** Gives it its loop. */
  attach(host: EndHost): void;
  /** Reads packets no longer than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number;
  /** Writes packets until the kernel takes no more. */
  write(batch: PacketBatch): number;
  /** Gives back what it holds. */
  close(): void;
}

/** Moves packets between a descriptor and the loop's pool, one a call. */
export class TunQueue implements DeviceQueue {
  /** Nothing waits here: a write hands the packet to the kernel. */
  readonly queued = 0;
  readonly #libc = libc();
  readonly #fd: number;
  /** The bytes before each packet: a header's, or 0. */
  readonly #header: number;
  readonly #refused: QueueOptions["refused"];
  readonly #lose: QueueOptions["lose"];
  #host: EndHost | undefined;
  /** Where each slot's packet, with its header, starts in this process's memory. */
  #addresses: bigint[] = [];
  /** The pool's address. */
  #base = 0;
  /** The large slot that the next super-packet goes into. */
  #spare: Packet | undefined;
  readonly #iovecs = new Uint32Array(2 * IOVEC_WORDS);
  /** For a packet that has no headroom left. */
  readonly #scratch = new DataView(new ArrayBuffer(VNET_HEADER));

  /** A queue over this descriptor. */
  constructor({ fd, offload, refused, lose }: QueueOptions) {
    this.#fd = fd;
    this.#header = offload ? VNET_HEADER : 0;
    this.#refused = refused;
    this.#lose = lose;
  }

  /** The device's descriptor. */
  get waitable(): Waitable {
    return this.#fd;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    const { pool } = host;
    this.#base = addressOf(pool.bytes);
    const start = this.#base + HEADROOM - this.#header;
    this.#addresses = pool.packets.map((packet) => BigInt(start + packet.slotStart));
  }

  /** Reads packets no longer than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number {
    if (this.#header !== 0) return this.#readSuper(batch);
    const { pool } = this.#host!;
    const { read } = this.#libc;
    const fd = this.#fd;
    const room64 = length64(room);
    let count = 0;
    while (!batch.full) {
      const packet = pool.take(room);
      if (packet === undefined) break;
      const length = read(fd, this.#addresses[packet.slot]!, room64);
      if (length <= 0) {
        const failed = errno();
        pool.give(packet);
        this.#readFailed(failed);
        break;
      }
      packet.length = length;
      batch.push(packet);
      count++;
    }
    return count;
  }

  /** Reads packets that may be super-packets. */
  #readSuper(batch: PacketBatch): number {
    const { pool } = this.#host!;
    const { readv } = this.#libc;
    const fd = this.#fd;
    const iovecs = this.#iovecs;
    let count = 0;
    while (!batch.full) {
      const small = pool.take(SMALL_ROOM);
      if (small === undefined) break;
      const large = this.#spare ??= pool.take(LARGE_ROOM);
      if (large === undefined) {
        pool.give(small);
        break;
      }
      const at = small.offset - VNET_HEADER;
      setIovec(iovecs, 0, this.#base + at, VNET_HEADER + SMALL_ROOM);
      setIovec(iovecs, 1, this.#base + large.offset + SMALL_ROOM, LARGE_ROOM - SMALL_ROOM);
      const length = readv(fd, iovecs, 2) - VNET_HEADER;
      if (length <= 0) {
        const failed = errno();
        pool.give(small);
        this.#readFailed(failed);
        break;
      }
      let packet = small;
      if (length > SMALL_ROOM) {
        packet = large;
        this.#spare = undefined;
        packet.bytes.copyWithin(large.offset - VNET_HEADER, at, small.offset + SMALL_ROOM);
        pool.give(small);
      }
      packet.length = length;
      readVnetHeader(packet, packet.offset - VNET_HEADER);
      batch.push(packet);
      count++;
    }
    return count;
  }

  /** Writes packets until the kernel takes no more. */
  write(batch: PacketBatch): number {
    const { packets, length } = batch;
    const { write } = this.#libc;
    const fd = this.#fd;
    const header = this.#header;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      let written: number;
      if (header === 0) packet.finish();
      if (packet.offset === packet.slotStart + HEADROOM) {
        if (header !== 0) writeVnetHeader(packet, packet.view, packet.offset - VNET_HEADER);
        written = write(fd, this.#addresses[packet.slot]!, length64(header + packet.length));
      } else {
        written = this.#writeMoved(packet);
      }
      if (written >= 0) packet.pool.give(packet);
      else if (!this.#writeFailed(packet, errno())) break;
    }
    batch.shift(count);
    return count;
  }

  /** Gives back what it holds. */
  close(): void {
    if (this.#spare !== undefined) this.#spare.pool.give(this.#spare);
    this.#spare = undefined;
  }

  /**
   * Writes a packet that does not start where its slot's packets do: by writev, whose addresses are numbers in
   * memory and no bigint. It costs 90 ns more than write (`deno task bench relay`), so it is the exception.
   */
  #writeMoved(packet: Packet): number {
    const iovecs = this.#iovecs;
    const address = this.#base + packet.offset;
    if (this.#header === 0) {
      setIovec(iovecs, 0, address, packet.length);
      return this.#libc.writev(this.#fd, iovecs, 1);
    }
    writeVnetHeader(packet, this.#scratch, 0);
    setIovec(iovecs, 0, addressOf(this.#scratch), VNET_HEADER);
    setIovec(iovecs, 1, address, packet.length);
    return this.#libc.writev(this.#fd, iovecs, 2);
  }

  #readFailed(failed: number): void {
    if (failed === Errno.EAGAIN || failed === Errno.EINTR) return;
    this.#lose("read from", "read", failed);
  }

  /** Whether the packet is dealt with, and the next one may be tried. */
  #writeFailed(packet: Packet, failed: number): boolean {
    switch (failed) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return false;
      case Errno.EBADFD:
      case Errno.EBADF:
        this.#lose("write to", "write", failed);
        return false;
      default:
        this.#refused(packet, failed);
        return true;
    }
  }
}
