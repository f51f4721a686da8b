/** Message headers for recvmsg(2), sendmsg(2), recvmmsg(2) and sendmmsg(2), with buffers in the packet pool. */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import { Iovec, IOVEC_WORDS, setIovec } from "./iovec.ts";

// Specification: sys/socket.h
/**
 * The structures of glibc, which also fit musl and BSD: there, `msg_iovlen` has 32 bits, followed by padding. BSD has
 * `msg_flags`, which Warren does not use, 4 bytes earlier. `struct mmsghdr` exists only on Linux.
 *
 * ```c
 * struct mmsghdr {
 *   struct msghdr {
 *     void *msg_name;
 *     socklen_t msg_namelen;
 *     struct iovec *msg_iov;
 *     size_t msg_iovlen;
 *     void *msg_control;
 *     size_t msg_controllen;
 *     int msg_flags;
 *   } msg_hdr;
 *   unsigned int msg_len;
 * };
 * ```
 */
export const Mmsghdr = {
  name: 0,
  nameLength: 8,
  vector: 16,
  vectorLength: 24,
  control: 32,
  controlLength: 40,
  flags: 48,
  length: 56,
  size: 64,
} as const;

// Implementation: arrays of structures are arrays of 32-bit words
const WORD = 4;
const MMSGHDR_WORDS = Mmsghdr.size / WORD;

/** Message headers for one direction, and as many iovecs. */
export class Messages {
  /** `struct mmsghdr[count]`; recvmsg(2) and sendmsg(2) take its first bytes as a `struct msghdr`. */
  readonly headers: Uint32Array<ArrayBuffer>;
  readonly #vectors: Uint32Array<ArrayBuffer>;
  readonly #vectorsAddress: number;
  readonly #base: number;
  readonly #endpointSize: number;

  /** Allocates headers for `count` datagrams in slots of `pool`; endpoints are sockaddrs of `endpointSize` bytes. */
  constructor(count: number, pool: PacketPool, endpointSize: number) {
    this.headers = new Uint32Array(count * MMSGHDR_WORDS);
    this.#vectors = new Uint32Array(count * IOVEC_WORDS);
    this.#vectorsAddress = addressOf(this.#vectors);
    this.#base = addressOf(pool.bytes);
    this.#endpointSize = endpointSize;
  }

  /** Points an iovec at `length` bytes of a packet. */
  setVector(vector: number, packet: Packet, length: number): void {
    setIovec(this.#vectors, vector, this.#base + packet.offset, length);
  }

  /** Points a header at `vectors` iovecs from `vector` on, and at the endpoint of a packet. */
  setHeader(message: number, packet: Packet, vector: number, vectors: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word, this.#base + packet.slotEnd);
    this.headers[word + Mmsghdr.nameLength / WORD] = this.#endpointSize;
    setAddress(this.headers, word + Mmsghdr.vector / WORD, this.#vectorsAddress + vector * Iovec.size);
    this.headers[word + Mmsghdr.vectorLength / WORD] = vectors;
  }

  /** Points a header at `length` bytes of a packet and at its endpoint. */
  setPacket(message: number, packet: Packet, length: number): void {
    this.setVector(message, packet, length);
    this.setHeader(message, packet, message, 1);
  }

  /** Sets the memory address and length of the control messages (bytes). */
  setControl(message: number, address: number, length: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word + Mmsghdr.control / WORD, address);
    this.headers[word + Mmsghdr.controlLength / WORD] = length;
  }

  /** Sets the length of the control messages again, since each receive call overwrites it. */
  resetControl(message: number, length: number): void {
    this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD] = length;
  }

  /** Returns the length of the received control messages (bytes). */
  controlLengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD]!;
  }

  /** Returns the length of a datagram received by recvmmsg(2) (bytes). */
  lengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.length / WORD]!;
  }
}
