/** `struct iovec`, by which readv(2) and its kin take memory in pieces. */

import { setAddress } from "../native_memory.ts";

// Specification: sys/uio.h
/**
 * ```c
 * struct iovec { void *iov_base; size_t iov_len; };
 * ```
 */
export const Iovec = { base: 0, length: 8, size: 16 } as const;

// Implementation: arrays of them as words of 32 bits
const WORD = 4;
const LENGTH = Iovec.length / WORD;
/** The words of one. */
export const IOVEC_WORDS: number = Iovec.size / WORD;

/** Puts a piece of memory into an array; it is shorter than 4 GiB. */
export function setIovec(iovecs: Uint32Array, index: number, address: number, length: number): void {
  const word = index * IOVEC_WORDS;
  setAddress(iovecs, word, address);
  iovecs[word + LENGTH] = length;
}
