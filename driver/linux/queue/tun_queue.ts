/**
 * A TUN device queue that uses read(2) and write(2), one packet per call.
 *
 *     read             into a small slot
 *     read, long       readv into a small and a large slot; the start of a long packet is then copied to the large slot
 *     with offload     the virtio header is in the headroom
 *     write, offload   writev of one flow's segments as one super-packet: header, first packet, payloads of the others
 */

import {
  type EndHost,
  HEADROOM,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  SMALL_ROOM,
  type Waitable,
} from "../../../lib/core/mod.ts";
import { Coalescer, MAX_GROUPED, type SegmentGroup } from "../../../lib/split/coalescer.ts";
import { addressOf } from "../../native_memory.ts";
import { IOVEC_WORDS, setIovec } from "../../posix/iovec.ts";
import { Errno } from "../errno.ts";
import { errno, libc } from "../libc.ts";
import { type DeviceQueue, type QueueOptions, TRUNCATED } from "./queue.ts";
import { readVnetHeader, VNET_HEADER, writeVnetHeader } from "./virtio_net.ts";

// Implementation
/** Maximum number of iovecs: a virtio header and the packets of a group. */
const MAX_VECTORS = 1 + MAX_GROUPED;
/** Lengths of packets in small slots as bigints (`size_t`), so that none is allocated per packet. */
const LENGTHS: readonly bigint[] = Array.from(
  { length: VNET_HEADER + SMALL_ROOM + 1 },
  (_, length) => BigInt(length),
);

function length64(length: number): bigint {
  return length < LENGTHS.length ? LENGTHS[length]! : BigInt(length);
}

/** A queue that moves one packet per call. */
export class TunQueue implements DeviceQueue {
  /** Always 0: a write hands the packet to the kernel. */
  readonly queued = 0;
  readonly #libc = libc();
  readonly #fd: number;
  /** Length of the virtio header (bytes); 0 without offload. */
  readonly #header: number;
  readonly #onWriteError: QueueOptions["onWriteError"];
  readonly #onGone: QueueOptions["onGone"];
  #host: EndHost | undefined;
  /** Memory address of each slot's packet, or of the virtio header before it. */
  #addresses: bigint[] = [];
  /** Memory address of the pool. */
  #base = 0;
  readonly #iovecs = new Uint32Array(MAX_VECTORS * IOVEC_WORDS);
  readonly #coalescer: Coalescer;
  /** Virtio header of a group, or of a packet that is not at the usual offset in its slot. */
  readonly #scratch = new DataView(new ArrayBuffer(VNET_HEADER));
  readonly #scratchAddress = addressOf(this.#scratch);

  /** Opens a queue on a descriptor of the device. */
  constructor({ fd, offload, onWriteError, onGone }: QueueOptions) {
    this.#fd = fd;
    this.#header = offload.tcp ? VNET_HEADER : 0;
    this.#coalescer = new Coalescer({ udp: offload.udp });
    this.#onWriteError = onWriteError;
    this.#onGone = onGone;
  }

  /** Descriptor of the device. */
  get waitable(): Waitable {
    return this.#fd;
  }

  /** Attaches the queue to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    const { pool } = host;
    this.#base = addressOf(pool.bytes);
    const start = this.#base + HEADROOM - this.#header;
    this.#addresses = pool.packets.map((packet) => BigInt(start + packet.slotStart));
  }

  /** Reads packets shorter than `room` until the kernel has no more, the batch is full, or the pool is empty. */
  read(batch: PacketBatch, room: number): number {
    if (this.#header !== 0 || room > SMALL_ROOM) return this.#readLong(batch);
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
      if (length === room) {
        pool.give(packet);
        this.#host!.refuse(length, TRUNCATED);
        continue;
      }
      packet.length = length;
      batch.push(packet);
      count++;
    }
    return count;
  }

  /**
   * Reads packets that may not fit a small slot, because of offload or a large MTU. As each read needs a free slot of
   * both sizes, even short packets stay in the kernel's queue when large slots run out.
   */
  #readLong(batch: PacketBatch): number {
    const { pool } = this.#host!;
    const { readv } = this.#libc;
    const fd = this.#fd;
    const iovecs = this.#iovecs;
    const header = this.#header;
    let large = pool.take(LARGE_ROOM);
    let count = 0;
    while (large !== undefined && !batch.full) {
      const small = pool.take(SMALL_ROOM);
      if (small === undefined) break;
      const at = small.offset - header;
      setIovec(iovecs, 0, this.#base + at, header + SMALL_ROOM);
      setIovec(iovecs, 1, this.#base + large.offset + SMALL_ROOM, LARGE_ROOM - SMALL_ROOM);
      const length = readv(fd, iovecs, 2) - header;
      if (length <= 0) {
        const failed = errno();
        pool.give(small);
        this.#readFailed(failed);
        break;
      }
      let packet = small;
      if (length > SMALL_ROOM) {
        packet = large;
        packet.bytes.copyWithin(large.offset - header, at, small.offset + SMALL_ROOM);
        pool.give(small);
        large = pool.take(LARGE_ROOM);
      }
      packet.length = length;
      if (header !== 0) readVnetHeader(packet, packet.offset - VNET_HEADER);
      batch.push(packet);
      count++;
    }
    if (large !== undefined) pool.give(large);
    return count;
  }

  /** Writes packets until the kernel accepts no more. */
  write(batch: PacketBatch): number {
    if (this.#header !== 0 && batch.length > 1) return this.#writeGroups(batch);
    const { packets, length } = batch;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      if (this.#writeOne(packet) >= 0) packet.pool.give(packet);
      else if (!this.#writeFailed(packet, errno())) break;
    }
    batch.shift(count);
    return count;
  }

  /** Writes consecutive segments of a flow as one super-packet, without copying them. */
  #writeGroups(batch: PacketBatch): number {
    const { length } = batch;
    const { groups } = this.#coalescer;
    const count = this.#coalescer.group(batch);
    for (let i = 0; i < count; i++) if (!this.#writeGroup(groups[i]!)) break;
    batch.compact();
    return length - batch.length;
  }

  /** Writes a group; returns true if it was written or dropped, false if the kernel accepts no more. */
  #writeGroup(group: SegmentGroup): boolean {
    const { packets, length } = group;
    const first = packets[0]!;
    if (length === 1) {
      if (this.#writeOne(first) < 0) return this.#writeFailed(first, errno());
      first.pool.give(first);
      return true;
    }
    group.seal();
    if (this.#writeSealed(group) < 0) {
      const failed = errno();
      group.unseal();
      for (let i = 0; i < length; i++) if (!this.#writeFailed(packets[i]!, failed)) return false;
      return true;
    }
    for (let i = 0; i < length; i++) packets[i]!.pool.give(packets[i]!);
    return true;
  }

  #writeSealed({ packets, length, headerLength }: SegmentGroup): number {
    const iovecs = this.#iovecs;
    const first = packets[0]!;
    writeVnetHeader(first, this.#scratch, 0);
    setIovec(iovecs, 0, this.#scratchAddress, VNET_HEADER);
    setIovec(iovecs, 1, this.#base + first.offset, first.length);
    for (let i = 1; i < length; i++) {
      const packet = packets[i]!;
      setIovec(iovecs, i + 1, this.#base + packet.offset + headerLength, packet.length - headerLength);
    }
    return this.#libc.writev(this.#fd, iovecs, length + 1);
  }

  #writeOne(packet: Packet): number {
    const header = this.#header;
    if (header === 0) packet.finish();
    if (packet.offset !== packet.slotStart + HEADROOM) return this.#writeMoved(packet);
    if (header !== 0) writeVnetHeader(packet, packet.view, packet.offset - VNET_HEADER);
    return this.#libc.write(this.#fd, this.#addresses[packet.slot]!, length64(header + packet.length));
  }

  /**
   * Writes a packet that is not at the usual offset in its slot. writev takes its address from memory, where write
   * would need a new bigint per packet. It costs 90 ns more than write (`deno task bench relay`).
   */
  #writeMoved(packet: Packet): number {
    const iovecs = this.#iovecs;
    const address = this.#base + packet.offset;
    if (this.#header === 0) {
      setIovec(iovecs, 0, address, packet.length);
      return this.#libc.writev(this.#fd, iovecs, 1);
    }
    writeVnetHeader(packet, this.#scratch, 0);
    setIovec(iovecs, 0, this.#scratchAddress, VNET_HEADER);
    setIovec(iovecs, 1, address, packet.length);
    return this.#libc.writev(this.#fd, iovecs, 2);
  }

  /** Does nothing, as no packet is held between two calls. */
  close(): void {
  }

  #readFailed(failed: number): void {
    if (failed === Errno.EAGAIN || failed === Errno.EINTR) return;
    this.#onGone("read from", "read", failed);
  }

  /** Handles a failed write; returns true if the packet was dropped, false if the kernel accepts no more. */
  #writeFailed(packet: Packet, failed: number): boolean {
    switch (failed) {
      case Errno.EAGAIN:
      case Errno.EINTR:
        return false;
      case Errno.EBADFD:
      case Errno.EBADF:
        this.#onGone("write to", "write", failed);
        return false;
      default:
        this.#onWriteError(packet, failed);
        return true;
    }
  }
}
