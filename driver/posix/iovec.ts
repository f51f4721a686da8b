/** `struct iovec`, which describes a buffer for readv(2), writev(2) and similar calls. */

import { setAddress } from "../native_memory.ts";

// Specification: sys/uio.h
/**
 * ```c
 * struct iovec { void *iov_base; size_t iov_len; };
 * ```
 */
export const Iovec = { base: 0, length: 8, size: 16 } as const;

// Implementation: arrays of `struct iovec` are arrays of 32-bit words
const WORD = 4;
const LENGTH = Iovec.length / WORD;
/** Words per `struct iovec`. */
export const IOVEC_WORDS: number = Iovec.size / WORD;

/** Sets one element of an array of `struct iovec`; the buffer must be shorter than 4 GiB. */
export function setIovec(iovecs: Uint32Array, index: number, address: number, length: number): void {
  const word = index * IOVEC_WORDS;
  setAddress(iovecs, word, address);
  iovecs[word + LENGTH] = length;
}
