/** The last step of the Internet checksum. */

/** Folds a sum to 16 bits (RFC 1071 section 1). */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}
