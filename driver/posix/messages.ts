/** Datagrams where they lie in their slots, as recvmsg(2), sendmsg(2) and Linux's calls for many take them. */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import { Iovec, IOVEC_WORDS, setIovec } from "./iovec.ts";

// Specification: sys/socket.h
/**
 * As glibc has it. musl and BSD have an `int` and padding for `msg_iovlen`; BSD's `msg_flags` is 4 bytes earlier, and
 * is not used; `struct mmsghdr` is Linux's alone.
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

// Implementation: the tables as words of 32 bits
const WORD = 4;
const MMSGHDR_WORDS = Mmsghdr.size / WORD;

/** Headers of one direction, and as many vectors. */
export class Messages {
  /** `struct mmsghdr[count]`; the first one starts with a `struct msghdr` for one datagram. */
  readonly headers: Uint32Array<ArrayBuffer>;
  readonly #vectors: Uint32Array<ArrayBuffer>;
  readonly #vectorsAddress: number;
  readonly #base: number;
  readonly #endpointSize: number;

  /** For so many datagrams in slots of this pool, whose endpoints have so many bytes. */
  constructor(count: number, pool: PacketPool, endpointSize: number) {
    this.headers = new Uint32Array(count * MMSGHDR_WORDS);
    this.#vectors = new Uint32Array(count * IOVEC_WORDS);
    this.#vectorsAddress = addressOf(this.#vectors);
    this.#base = addressOf(pool.bytes);
    this.#endpointSize = endpointSize;
  }

  /** Has one of the vectors be so many bytes of a packet. */
  setVector(vector: number, packet: Packet, length: number): void {
    setIovec(this.#vectors, vector, this.#base + packet.offset, length);
  }

  /** Has one of the messages be these vectors, with the endpoint of this packet. */
  setHeader(message: number, packet: Packet, vector: number, vectors: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word, this.#base + packet.slotEnd);
    this.headers[word + Mmsghdr.nameLength / WORD] = this.#endpointSize;
    setAddress(this.headers, word + Mmsghdr.vector / WORD, this.#vectorsAddress + vector * Iovec.size);
    this.headers[word + Mmsghdr.vectorLength / WORD] = vectors;
  }

  /** Has one of the messages be so many bytes of a packet, and its endpoint. */
  point(message: number, packet: Packet, length: number): void {
    this.setVector(message, packet, length);
    this.setHeader(message, packet, message, 1);
  }

  /** Has one of the messages have so many bytes of control messages at this address. */
  setControl(message: number, address: number, length: number): void {
    const word = message * MMSGHDR_WORDS;
    setAddress(this.headers, word + Mmsghdr.control / WORD, address);
    this.headers[word + Mmsghdr.controlLength / WORD] = length;
  }

  /** Says again how much room one of the messages has for control messages, which a call has overwritten. */
  resetControl(message: number, length: number): void {
    this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD] = length;
  }

  /** The bytes of control messages that came with one of the messages. */
  controlLengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.controlLength / WORD]!;
  }

  /** How long a message is that recvmmsg has received. */
  lengthOf(message: number): number {
    return this.headers[message * MMSGHDR_WORDS + Mmsghdr.length / WORD]!;
  }
}
