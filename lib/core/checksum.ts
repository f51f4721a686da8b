/** The Internet checksum of bytes (RFC 1071) and its incremental update (RFC 1624). */

// Implementation
let viewed: ArrayBufferLike = new ArrayBuffer(0);
let view: DataView = new DataView(viewed);

/** Returns a view of the memory of the bytes, usually that of the last call, since a loop has one pool. */
function viewOf(bytes: Uint8Array): DataView {
  if (bytes.buffer !== viewed) {
    viewed = bytes.buffer;
    view = new DataView(viewed);
  }
  return view;
}

/** Folds a sum to 16 bits (RFC 1071 section 1). */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/**
 * Returns the one's complement sum of `length` bytes from `start`, as big-endian 16-bit words with an odd last byte
 * padded with zero: folded to 16 bits, not complemented (RFC 1071 section 1). At most 256 KiB; `start` may be odd.
 *
 * @param initial A sum to continue from, below 2^32.
 * @throws {RangeError} when the bytes are not in the memory of `bytes`.
 */
export function sum(bytes: Uint8Array, start: number, length: number, initial = 0): number {
  const words = viewOf(bytes);
  let at = bytes.byteOffset + start;
  const end = at + length;
  // Sums both halves of eight 32-bit words at a time in little-endian order, and swaps the result (RFC 1071 section
  // 2 B): 1448 bytes take 0.18 us instead of the 0.6 us of the RFC's loop. A half's sum stays below 2^32.
  let high = 0;
  let low = 0;
  for (; at + 32 <= end; at += 32) {
    const a = words.getInt32(at, true);
    const b = words.getInt32(at + 4, true);
    const c = words.getInt32(at + 8, true);
    const d = words.getInt32(at + 12, true);
    const e = words.getInt32(at + 16, true);
    const f = words.getInt32(at + 20, true);
    const g = words.getInt32(at + 24, true);
    const h = words.getInt32(at + 28, true);
    high = high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16) + (e >>> 16) + (f >>> 16) + (g >>> 16) +
        (h >>> 16) | 0;
    low = low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff) + (e & 0xffff) + (f & 0xffff) +
        (g & 0xffff) + (h & 0xffff) | 0;
  }
  const swapped = fold(fold(high) + fold(low));
  let total = (swapped << 8 & 0xff00 | swapped >> 8) + fold(initial);
  for (; at + 2 <= end; at += 2) total += words.getUint16(at);
  if (at < end) total += words.getUint8(at) << 8;
  return fold(total);
}

/**
 * Returns the complement of {@linkcode sum}: the checksum that a header stores. Its field counts as zero.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { checksum } from "@warren/tunnel/checksum";
 *
 * // RFC 1071 section 3
 * const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
 * assert.equal(checksum(bytes, 0, bytes.length), 0x220d);
 * ```
 *
 * @throws {RangeError} when the bytes are not in the memory of `bytes`.
 */
export function checksum(bytes: Uint8Array, start: number, length: number, initial = 0): number {
  return ~sum(bytes, start, length, initial) & 0xffff;
}

/**
 * Returns the difference that a changed 16-bit word makes to a sum, for {@linkcode adjust}. Differences add up.
 */
export function difference(before: number, after: number): number {
  return (~before & 0xffff) + (after & 0xffff);
}

/** Returns the {@linkcode difference} of two words at once, as one 32-bit number. */
export function difference32(before: number, after: number): number {
  return (~before >>> 16) + (~before & 0xffff) + (after >>> 16) + (after & 0xffff);
}

/** Returns a stored checksum after a {@linkcode difference} in the words it covers (RFC 1624 section 3, equation 3). */
export function adjust(field: number, difference: number): number {
  return ~fold((~field & 0xffff) + difference) & 0xffff;
}

/**
 * Returns a stored checksum after a change of one 16-bit word that it covers (RFC 1624 section 3, equation 3). A wrong
 * checksum stays wrong. For UDP, the caller stores a result of 0 as 0xffff.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { update } from "@warren/tunnel/checksum";
 *
 * assert.equal(update(0xdd2f, 0x5555, 0x3285), 0x0000); // RFC 1624 section 4
 * ```
 */
export function update(field: number, before: number, after: number): number {
  return adjust(field, difference(before, after));
}

/**
 * Completes the partial checksum of a packet, `length` bytes from `at` (virtio 1.2 section 5.1.6.2). It covers the bytes
 * from `start` in the packet to its end; its field, `offset` bytes after `start`, holds the sum of the pseudo-header. A
 * result of 0 is stored as its equal 0xffff, as Linux does: in UDP, 0 means no checksum. A field beyond the packet's end is
 * not written.
 */
export function finishChecksum(
  bytes: Uint8Array,
  at: number,
  length: number,
  start: number,
  offset: number,
): void {
  // Negated so that NaN is beyond the end.
  if (!(start >= 0 && offset >= 0 && start + offset + 2 <= length)) return;
  const complete = checksum(bytes, at + start, length - start) || 0xffff;
  const field = at + start + offset;
  bytes[field] = complete >> 8;
  bytes[field + 1] = complete;
}
