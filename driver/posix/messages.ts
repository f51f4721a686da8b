/** Message headers over slots of the pool, for recvmsg(2), sendmsg(2), recvmmsg(2) and sendmmsg(2). */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import { Iovec, IOVEC_WORDS, setIovec } from "./iovec.ts";

// Specification: sys/socket.h
/**
 * As in glibc. musl and BSD have an `int` and padding for `msg_iovlen`; BSD has `msg_flags`, which is not used, 4 bytes
 * earlier; `struct mmsghdr` exists only on Linux.
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

// Implementation: arrays of the structures as words of 32 bits
const WORD = 4;
const MMSGHDR_WORDS = Mmsghdr.size / WORD;

/** Headers of one direction, and as many iovecs. */
export class Messages {
  /** `struct mmsghdr[count]`, which starts with a `struct msghdr` for calls with one datagram. */
  readonly headers: Uint32Array<ArrayBuffer>;
  readonly #vectors: Uint32Array<ArrayBuffer>;
  readonly #vectorsAddress: number;
  readonly #base: number;
  readonly #endpointSize: number;

  /** Allocates headers for `count` datagrams in slots of a pool, with endpoints of `endpointSize` bytes. */
  constructor(count: number, pool: PacketPool, endpointSize: number) {
    this.headers = new Uint32Array(count * MMSGHDR_WORDS);
    this.#vectors = new Uint32Array(count * IOVEC_WORDS);
    this.#vectorsAddress = addressOf(this.#vectors);
    this.#base = addressOf(pool.bytes);
    this.#endpointSize = endpointSize;
  }

  /** Sets an iovec to `length` bytes of a packet. */
  setVector(vector: number, packet: Packet, length: number): void {
    setIovec(this.#vectors, vector, this.#base + packet.offset, length);
  }

  /** Sets a message to a range of iovecs and the endpoint of a packet. */
  setHeader(message: number, packet: Packet, vector: number, vectors: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word, this.#base + packet.slotEnd);
    this.headers[word + Mmsghdr.nameLength / WORD] = this.#endpointSize;
    setAddress(this.headers, word + Mmsghdr.vector / WORD, this.#vectorsAddress + vector * Iovec.size);
    this.headers[word + Mmsghdr.vectorLength / WORD] = vectors;
  }

  /** Sets a message to `length` bytes of a packet and its endpoint. */
  point(message: number, packet: Packet, length: number): void {
    this.setVector(message, packet, length);
    this.setHeader(message, packet, message, 1);
  }

  /** Sets the control messages of a message: their memory address and length (bytes). */
  setControl(message: number, address: number, length: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word + Mmsghdr.control / WORD, address);
    this.headers[word + Mmsghdr.controlLength / WORD] = length;
  }

  /** Resets the length for control messages, which each call overwrites. */
  resetControl(message: number, length: number): void {
    this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD] = length;
  }

  /** Length of the control messages received with a message (bytes). */
  controlLengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD]!;
  }

  /** Length of a message that recvmmsg has received (bytes). */
  lengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.length / WORD]!;
  }
}
