/** Random numbers from a seed: the same ones in every run, on every machine. */

// Specification: xoshiro128** 1.1, D. Blackman, S. Vigna, "Scrambled linear pseudorandom number generators", 2021
const WORDS = 4;
const STAR = 5;
const STAR_STAR = 9;
const SHIFT = 9;

// Specification: the finalizer of MurmurHash3, and 2 to the 32nd over the golden ratio, between seeds (SplitMix)
const GOLDEN = 0x9e3779b9;
const MIX1 = 0x85ebca6b;
const MIX2 = 0xc2b2ae35;

const TWO_TO_32 = 2 ** 32;

/**
 * Blackman's and Vigna's xoshiro128**: 32 bits a call in a few nanoseconds, a period of 2 to the 128th, good in the tests
 * that people use, and its state is four words. Who sees its numbers can tell the next ones: it is no generator of keys.
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
   * A row of numbers at its beginning.
   *
   * @param seed Any whole number.
   * @param stream Which of the independent rows of numbers of that seed.
   * @throws {RangeError} when one of them is no whole number.
   */
  constructor(seed: number, stream = 0) {
    if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(stream)) {
      throw new RangeError(`Cannot seed by ${seed} and ${stream}: whole numbers can`);
    }
    let mixed = mix(mix(seed | 0) + Math.floor(seed / TWO_TO_32) | 0);
    mixed = mix(mixed + stream | 0);
    // SplitMix visits each word once in its period: never four zeros, in which xoshiro would stay.
    for (let i = 0; i < WORDS; i++) this.#state[i] = mix(mixed = mixed + GOLDEN | 0);
  }

  /** The next 32 bits: a whole number from 0 to 4,294,967,295. */
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

  /** A number from 0 up to 1, which it never is, in steps of 2 to the -32nd. */
  fraction(): number {
    return this.next() / TWO_TO_32;
  }

  /** A whole number from 0 to `limit - 1`; `limit` is up to 2 to the 32nd. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  /** Its state, as four numbers. */
  save(): number[] {
    return Array.from(this.#state);
  }

  /**
   * Goes on where another one was.
   *
   * @throws {TypeError} when it is not what {@linkcode Random.save} gave.
   */
  restore(state: unknown): void {
    const isState = Array.isArray(state) && state.length === WORDS &&
      state.every((word) => Number.isInteger(word) && (word | 0) === word) &&
      state.some((word) => word !== 0);
    if (!isState) throw new TypeError(`Cannot restore random numbers from ${JSON.stringify(state)}`);
    this.#state.set(state);
  }
}

function mix(word: number): number {
  word = Math.imul(word ^ word >>> 16, MIX1);
  word = Math.imul(word ^ word >>> 13, MIX2);
  return word ^ word >>> 16;
}
