/** Random numbers from a seed, the same in every run and on every machine. */

import { checkInteger, gotValue } from "./options.ts";

// Specification: xoshiro128** 1.1, D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", 2021
const WORDS = 4;
const STAR = 5;
const STAR_STAR = 9;
const SHIFT = 9;

// Specification: the finalizer of MurmurHash3, and SplitMix's step between seeds, 2^32 over the golden ratio
const GOLDEN = 0x9e3779b9;
const MIX1 = 0x85ebca6b;
const MIX2 = 0xc2b2ae35;

// Implementation
const TWO_TO_32 = 2 ** 32;
const MIN_SEED = Number.MIN_SAFE_INTEGER;
const MAX_SEED = Number.MAX_SAFE_INTEGER;

/**
 * The xoshiro128** generator of Blackman and Vigna: 32 bits per call in a few nanoseconds, a period of 2^128 - 1, and a
 * state of four words. Its output is predictable from earlier output: not for keys.
 *
 * @example The same seed, the same numbers
 * ```ts
 * import assert from "node:assert/strict";
 * import { Random } from "@warren/tunnel/random";
 *
 * const [one, same, other] = [new Random(7), new Random(7), new Random(7, 1)];
 * const first = one.below(1_000_000);
 * assert.equal(same.below(1_000_000), first);
 * assert.notEqual(other.below(1_000_000), first);
 * ```
 */
export class Random {
  readonly #state = new Int32Array(WORDS);

  /**
   * Creates a generator at the start of its sequence.
   *
   * @param seed Any integer.
   * @param stream Number of an independent sequence of that seed.
   * @throws {RangeError} when an argument is not an integer.
   */
  constructor(seed: number, stream = 0) {
    checkInteger("seed random numbers", "seed", seed, MIN_SEED, MAX_SEED);
    checkInteger("seed random numbers", "stream", stream, MIN_SEED, MAX_SEED);
    let mixed = mix(mix(seed | 0) + Math.floor(seed / TWO_TO_32) | 0);
    mixed = mix(mixed + stream | 0);
    // SplitMix visits each word once in its period, so never four zeros, which xoshiro would not leave.
    for (let i = 0; i < WORDS; i++) this.#state[i] = mix(mixed = mixed + GOLDEN | 0);
  }

  /** Returns the next 32 bits: an integer from 0 to 4,294,967,295. */
  next(): number {
    const state = this.#state;
    let s0 = state[0]!;
    let s1 = state[1]!;
    let s2 = state[2]!;
    let s3 = state[3]!;
    const product = Math.imul(s1, STAR);
    const result = Math.imul(product << 7 | product >>> 25, STAR_STAR) >>> 0;
    const shifted = s1 << SHIFT;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    state[0] = s0;
    state[1] = s1;
    state[2] = s2 ^ shifted;
    state[3] = s3 << 11 | s3 >>> 21;
    return result;
  }

  /** Returns a number from 0 up to but not including 1, in steps of 2^-32. */
  fraction(): number {
    return this.next() / TWO_TO_32;
  }

  /** Returns an integer from 0 to `limit - 1`; `limit` is at most 2^32. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  /** Returns the state as four numbers. */
  save(): number[] {
    return Array.from(this.#state);
  }

  /**
   * Continues from a state that {@linkcode Random.save} returned.
   *
   * @throws {TypeError} when `state` is anything else.
   */
  restore(state: unknown): void {
    const isState = Array.isArray(state) && state.length === WORDS &&
      state.every((word) => Number.isInteger(word) && (word | 0) === word) &&
      state.some((word) => word !== 0);
    if (!isState) {
      throw new TypeError(
        `Cannot restore random numbers: state must be four 32-bit integers, not all 0, ${gotValue(state)}`,
      );
    }
    this.#state.set(state);
  }
}

function mix(word: number): number {
  word = Math.imul(word ^ word >>> 16, MIX1);
  word = Math.imul(word ^ word >>> 13, MIX2);
  return word ^ word >>> 16;
}
