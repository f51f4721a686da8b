/**
 * io_uring (io_uring(7)): rings in memory shared with the kernel, for operations and their results.
 *
 *     read(), write() ─► submission queue ─► enter() ─► kernel ─► completion queue ─► reap()
 *           provide() ─► buffer ring ───────────────────────┘
 *
 * A single thread uses the rings (IORING_SETUP_SINGLE_ISSUER). The kernel posts completions only within system calls of
 * that thread (IORING_SETUP_COOP_TASKRUN), so that the rings do not change between two calls.
 */

import { addressOf, setAddress } from "../../native_memory.ts";
import { libc } from "../libc.ts";

// Specification
// asm-generic/unistd.h: __NR_io_uring_*, with the same numbers on x86-64
const SYS_IO_URING_SETUP = 425n;
const SYS_IO_URING_ENTER = 426n;
const SYS_IO_URING_REGISTER = 427n;
// linux/io_uring.h
/** struct io_uring_probe without `ops`; its first byte is `last_op` */
const PROBE_SIZE = 16;
/** struct io_uring_params */
const Params = {
  SqEntries: 0,
  CqEntries: 4,
  Flags: 8,
  Features: 20,
  SqOff: 40,
  CqOff: 80,
  Size: 120,
} as const;
/** struct io_sqring_offsets */
const SqOff = { Head: 0, Tail: 4, RingMask: 8, Flags: 16, Array: 24 } as const;
/** struct io_cqring_offsets */
const CqOff = { Head: 0, Tail: 4, RingMask: 8, Cqes: 20 } as const;
/** struct io_uring_sqe, in 32-bit words; the second byte of `Opcode` holds flags */
const Sqe = {
  Opcode: 0,
  Fd: 1,
  Off: 2,
  Addr: 4,
  Len: 6,
  OpFlags: 7,
  UserData: 8,
  BufGroup: 10,
  Words: 16,
} as const;
/** struct io_uring_cqe, in 32-bit words */
const Cqe = { UserData: 0, Res: 2, Flags: 3, Words: 4 } as const;
/** struct io_uring_buf, in 32-bit words; the upper half of the first element's `Bid` is the ring's tail */
const Buf = { Addr: 0, Len: 2, Bid: 3, Words: 4 } as const;
/** struct io_uring_buf_reg */
const BufReg = { RingAddr: 0, RingEntries: 8, Bgid: 12, Size: 40 } as const;
const IORING_SETUP_CQSIZE = 1 << 3;
const IORING_SETUP_SUBMIT_ALL = 1 << 7;
const IORING_SETUP_COOP_TASKRUN = 1 << 8;
const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_FEAT_SINGLE_MMAP = 1 << 0;
const IORING_OFF_SQES = 0x1000_0000n;
const IORING_ENTER_GETEVENTS = 1 << 0;
const IORING_SQ_CQ_OVERFLOW = 1 << 1;
const IORING_SQ_TASKRUN = 1 << 2;
const IORING_REGISTER_PROBE = 8;
const IORING_REGISTER_PBUF_RING = 22;
const IORING_UNREGISTER_PBUF_RING = 23;
const IORING_OP_ASYNC_CANCEL = 14;
const IORING_OP_READ = 22;
const IORING_OP_WRITE = 23;
const IORING_OP_READ_MULTISHOT = 49;
const IOSQE_IO_HARDLINK = 1 << 3;
const IOSQE_BUFFER_SELECT = 1 << 5;
const IORING_ASYNC_CANCEL_ALL = 1 << 0;
const IORING_ASYNC_CANCEL_ANY = 1 << 2;
const IORING_CQE_F_BUFFER = 1 << 0;
const IORING_CQE_F_MORE = 1 << 1;
const IORING_CQE_BUFFER_SHIFT = 16;
// sys/mman.h
const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;
const MAP_PRIVATE_ANONYMOUS = 0x22;

// Implementation
/** `user_data` of reads and cancellations. For a write it is the slot number, which is always lower. */
const READ = 0x8000_0000;
const CANCEL = 0x4000_0000;
/** Size of the completion queue relative to the submission queue, so that every write and every buffer has room. */
const COMPLETIONS_PER_SUBMISSION = 4;

/** Callbacks of {@linkcode Uring.reap}. */
export interface Completions {
  /** Called when a packet of `length` bytes was read into a buffer. */
  received(buffer: number, length: number): void;
  /** Called when a read that {@linkcode Uring.read} requested has ended; `error` is 0 or a negative error number. */
  readEnded(error: number): void;
  /** Called when the write of a slot has ended; `result` is its length or a negative error number. */
  written(slot: number, result: number): void;
}

/** A submission queue, a completion queue and a buffer ring. */
export class Uring implements Disposable {
  /** Descriptor that is readable while there are completions to reap or {@linkcode Uring.enter} has work to do. */
  readonly descriptor: number;
  /** True if a read receives packets until the buffers run out (Linux 6.7), false if it receives one packet. */
  readonly multishot: boolean;
  readonly #libc = libc();
  /** Descriptor and mappings. */
  #resources = new DisposableStack();
  readonly #rings: Int32Array;
  readonly #sqes: Uint32Array;
  readonly #buffers: Uint32Array<ArrayBuffer>;
  readonly #bufferTail: Uint16Array;
  /** Index of each field of the submission queue in `#rings`, and the mask of its entry indexes. */
  readonly #sq: Readonly<Record<"head" | "tail" | "flags" | "mask", number>>;
  /** The same for the completion queue. */
  readonly #cq: Readonly<Record<"head" | "tail" | "cqes" | "mask", number>>;
  readonly #bufferMask: number;
  /** `struct io_uring_buf_reg` of the buffer ring. */
  readonly #registration: DataView<ArrayBuffer>;
  #tail = 0;
  #submitted = 0;
  #bufferRingTail = 0;

  private constructor(
    descriptor: number,
    multishot: boolean,
    [rings, sqes, bufferRing]: readonly ArrayBuffer[],
    params: DataView,
  ) {
    this.descriptor = descriptor;
    this.multishot = multishot;
    this.#rings = new Int32Array(rings!);
    this.#sqes = new Uint32Array(sqes!);
    this.#buffers = new Uint32Array(bufferRing!);
    this.#bufferTail = new Uint16Array(bufferRing!);
    const buffers = this.#buffers.length / Buf.Words;
    this.#bufferMask = buffers - 1;
    const { RingAddr, RingEntries, Size } = BufReg;
    this.#registration = new DataView(new ArrayBuffer(Size));
    this.#registration.setBigUint64(RingAddr, BigInt(addressOf(this.#buffers)), true);
    this.#registration.setUint32(RingEntries, buffers, true);
    const sq = (offset: number) => params.getUint32(Params.SqOff + offset, true) / 4;
    const cq = (offset: number) => params.getUint32(Params.CqOff + offset, true) / 4;
    this.#sq = {
      head: sq(SqOff.Head),
      tail: sq(SqOff.Tail),
      flags: sq(SqOff.Flags),
      mask: params.getUint32(Params.SqEntries, true) - 1,
    };
    this.#cq = {
      head: cq(CqOff.Head),
      tail: cq(CqOff.Tail),
      cqes: cq(CqOff.Cqes),
      mask: params.getUint32(Params.CqEntries, true) - 1,
    };
    const array = sq(SqOff.Array);
    for (let i = 0; i <= this.#sq.mask; i++) this.#rings[array + i] = i;
  }

  /**
   * Opens rings for `entries` submissions and for `buffers` buffers; both are powers of two. Returns `undefined` when
   * the kernel does not allow io_uring (`kernel.io_uring_disabled`, seccomp) or has no buffer rings (before Linux
   * 5.19).
   *
   * @param multishot True to use multishot reads, if the kernel supports them (Linux 6.7).
   */
  static open(entries: number, buffers: number, multishot = true): Uring | undefined {
    const { ioUringSetup, ioUringRegister, mmap, munmap, close } = libc();
    const params = new DataView(new ArrayBuffer(Params.Size));
    const flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG |
      IORING_SETUP_COOP_TASKRUN;
    params.setUint32(Params.CqEntries, COMPLETIONS_PER_SUBMISSION * Math.max(entries, buffers), true);
    const setUp = (flags: number) => {
      params.setUint32(Params.Flags, flags, true);
      return ioUringSetup(SYS_IO_URING_SETUP, entries, params);
    };
    let descriptor = setUp(flags | IORING_SETUP_SINGLE_ISSUER);
    // Linux 5.19 does not know IORING_SETUP_SINGLE_ISSUER.
    if (descriptor < 0) descriptor = setUp(flags);
    if (descriptor < 0) return undefined;
    using undo = new DisposableStack();
    undo.defer(() => close(descriptor));
    const register = (operation: number, argument: BufferSource, count: number) =>
      ioUringRegister(SYS_IO_URING_REGISTER, descriptor, operation, argument, count) >= 0;
    const probe = new Uint8Array(PROBE_SIZE);
    if (!register(IORING_REGISTER_PROBE, probe, 0)) return undefined;
    if ((params.getUint32(Params.Features, true) & IORING_FEAT_SINGLE_MMAP) === 0) return undefined;
    const ringSize = Math.max(
      params.getUint32(Params.SqOff + SqOff.Array, true) + params.getUint32(Params.SqEntries, true) * 4,
      params.getUint32(Params.CqOff + CqOff.Cqes, true) +
        params.getUint32(Params.CqEntries, true) * Cqe.Words * 4,
    );
    const mappings: ArrayBuffer[] = [];
    const map = (size: number, flags: number, fd: number, offset: bigint): boolean => {
      const pointer = mmap(null, BigInt(size), PROT_READ_WRITE, flags, fd, offset);
      if (pointer === null || Deno.UnsafePointer.value(pointer) === 0xffff_ffff_ffff_ffffn) return false;
      undo.defer(() => munmap(pointer, BigInt(size)));
      mappings.push(Deno.UnsafePointerView.getArrayBuffer(pointer, size));
      return true;
    };
    const sqeSize = params.getUint32(Params.SqEntries, true) * Sqe.Words * 4;
    const bufferSize = buffers * Buf.Words * 4;
    if (
      !map(ringSize, MAP_SHARED_POPULATE, descriptor, 0n) ||
      !map(sqeSize, MAP_SHARED_POPULATE, descriptor, IORING_OFF_SQES) ||
      !map(bufferSize, MAP_PRIVATE_ANONYMOUS, -1, 0n)
    ) return undefined;
    const hasMultishot = probe[0]! >= IORING_OP_READ_MULTISHOT;
    const uring = new Uring(descriptor, multishot && hasMultishot, mappings, params);
    if (!uring.registerBuffers()) return undefined;
    uring.unregisterBuffers();
    uring.#resources = undo.move();
    return uring;
  }

  /** Number of submissions that `enter` has not passed to the kernel. */
  get #unsubmitted(): number {
    return this.#tail - this.#submitted | 0;
  }

  /** True if the submission queue is full. */
  get full(): boolean {
    return this.#unsubmitted > this.#sq.mask;
  }

  /** True if there are submissions, or kernel work that needs a system call of this thread. */
  get pending(): boolean {
    const flags = Atomics.load(this.#rings, this.#sq.flags);
    return this.#unsubmitted !== 0 || (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) !== 0;
  }

  /** Registers the buffer ring; returns false if the kernel rejects it. */
  registerBuffers(): boolean {
    this.#bufferRingTail = 0;
    this.publish();
    return this.#register(IORING_REGISTER_PBUF_RING);
  }

  /** Unregisters the buffer ring with all its buffers. No read may be pending. */
  unregisterBuffers(): void {
    this.#register(IORING_UNREGISTER_PBUF_RING);
  }

  /** Provides a buffer for a read. The kernel sees it after {@linkcode Uring.publish}. */
  provide(buffer: number, address: number, length: number): void {
    const word = (this.#bufferRingTail & this.#bufferMask) * Buf.Words;
    setAddress(this.#buffers, word + Buf.Addr, address);
    this.#buffers[word + Buf.Len] = length;
    this.#bufferTail[(word + Buf.Bid) * 2] = buffer;
    this.#bufferRingTail = this.#bufferRingTail + 1 & 0xffff;
  }

  /** Makes provided buffers visible to the kernel. */
  publish(): void {
    this.#bufferTail[Buf.Bid * 2 + 1] = this.#bufferRingTail;
  }

  /**
   * Submits reads of packets, each into a provided buffer: one multishot read, or `packets` linked reads. Returns the
   * number of reads.
   */
  read(fd: number, packets: number): number {
    const reads = this.multishot ? 1 : packets;
    const operation = this.multishot ? IORING_OP_READ_MULTISHOT : IORING_OP_READ;
    for (let i = 1; i <= reads; i++) {
      // A hard link keeps the order of the reads and, unlike a link, continues after a failure.
      const flags = i < reads ? IOSQE_BUFFER_SELECT | IOSQE_IO_HARDLINK : IOSQE_BUFFER_SELECT;
      const word = this.#next(operation | flags << 8, READ);
      this.#sqes[word + Sqe.Fd] = fd;
      this.#sqes[word + Sqe.Off] = 0xffff_ffff;
      this.#sqes[word + Sqe.Off + 1] = 0xffff_ffff;
    }
    return reads;
  }

  /** Submits the write of a packet. */
  write(fd: number, slot: number, address: number, length: number): void {
    const word = this.#next(IORING_OP_WRITE, slot);
    this.#sqes[word + Sqe.Fd] = fd;
    this.#sqes[word + Sqe.Off] = 0xffff_ffff;
    this.#sqes[word + Sqe.Off + 1] = 0xffff_ffff;
    setAddress(this.#sqes, word + Sqe.Addr, address);
    this.#sqes[word + Sqe.Len] = length;
  }

  /** Submits the cancellation of all pending operations. */
  cancel(): void {
    const word = this.#next(IORING_OP_ASYNC_CANCEL, CANCEL);
    this.#sqes[word + Sqe.OpFlags] = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
  }

  /** Passes submissions to the kernel, runs its pending work and waits until there are `min` completions. */
  enter(min = 0): void {
    Atomics.store(this.#rings, this.#sq.tail, this.#tail);
    const taken = this.#libc.ioUringEnter(
      SYS_IO_URING_ENTER,
      this.descriptor,
      this.#unsubmitted,
      min,
      IORING_ENTER_GETEVENTS,
      0n,
    );
    if (taken > 0) this.#submitted = this.#submitted + taken | 0;
  }

  /** Calls back for each completion. */
  reap(completions: Completions): void {
    const rings = this.#rings;
    const { head, tail, cqes, mask } = this.#cq;
    let at = rings[head]!;
    const end = Atomics.load(rings, tail);
    while (at !== end) {
      const word = cqes + (at & mask) * Cqe.Words;
      const from = rings[word + Cqe.UserData]! >>> 0;
      const result = rings[word + Cqe.Res]!;
      const flags = rings[word + Cqe.Flags]!;
      at = at + 1 | 0;
      if (from < CANCEL) {
        completions.written(from, result);
      } else if (from >= READ) {
        if ((flags & IORING_CQE_F_BUFFER) !== 0) {
          completions.received(flags >>> IORING_CQE_BUFFER_SHIFT, result);
        }
        if ((flags & IORING_CQE_F_MORE) === 0) completions.readEnded(result < 0 ? result : 0);
      }
    }
    Atomics.store(rings, head, at);
  }

  /** Closes and unmaps the rings. No operation may be pending. */
  [Symbol.dispose](): void {
    this.#resources.dispose();
  }

  #register(operation: number): boolean {
    const { ioUringRegister } = this.#libc;
    return ioUringRegister(SYS_IO_URING_REGISTER, this.descriptor, operation, this.#registration, 1) >= 0;
  }

  /** Returns the index of a cleared submission entry; first calls `enter` if the queue is full. */
  #next(opcode: number, userData: number): number {
    if (this.full) this.enter();
    const word = (this.#tail & this.#sq.mask) * Sqe.Words;
    this.#sqes.fill(0, word, word + Sqe.Words);
    this.#sqes[word + Sqe.Opcode] = opcode;
    this.#sqes[word + Sqe.UserData] = userData;
    this.#tail = this.#tail + 1 | 0;
    return word;
  }
}
