/**
 * Layout of a sealed datagram. The header is authenticated, not encrypted; all numbers are big-endian.
 *
 *      0                   1                   2                   3
 *     +-------------------+-------------------------------------------------------------+
 *   0 | key id (4)        | session (12): wall-clock milliseconds (6), random bytes (6) |
 *     +-------------------+-------------------+-----------------------------------------+
 *  16 | counter (8)                           | ciphertext (0: keepalive) ...           |
 *     +---------------------------------------+-----------------------------------------+
 *     | tag (16)                                                                        |
 *     +---------------------------------------------------------------------------------+
 */

import { NONCE_LENGTH, type NonceLayout, TAG_LENGTH } from "../aead.ts";

// Specification
export const SESSION = 4;
export const SESSION_LENGTH = 12;
export const COUNTER = 16;
/** Length of the header (bytes). */
export const HEADER = 24;
/** Bytes that a datagram has in addition to its packet. */
export const OVERHEAD: number = HEADER + TAG_LENGTH;
/** The nonce is 4 zeros and the counter as in the header. Each session of each sender has its own key. */
export const NONCE: NonceLayout = {
  base: new Uint8Array(NONCE_LENGTH),
  offset: 4,
  length: 8,
  isLittleEndian: false,
};
/** Counters above 2^53 - 1 are never sent: the upper limit of their first 32 bits. */
export const COUNTER_HIGH_LIMIT: number = 2 ** 21;
