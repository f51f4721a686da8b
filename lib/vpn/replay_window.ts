/** Replay window: the newest counters that were received, as a bitmap. */

import { checkInteger } from "../core/options.ts";

// Implementation
const SIZE = 8192;
const MAX_SIZE = 2 ** 24;
const WORD_BITS = 32;
const ALL_BITS = 0xffffffff;

/**
 * Counters received in one session, as in RFC 6479: each is accepted once, and those that are older than the newest by
 * the window's size or more are refused. A protocol asks `admits` before it authenticates a datagram, and calls `add`
 * afterwards, so that a forged datagram does not move the window. Counters are integers from 0 to 2^53 - 1.
 *
 * **Memory**: up to `size / 4` bytes. Both methods take constant time; a leap ahead clears the bitmap once.
 *
 * @example A datagram that arrives twice
 * ```ts
 * import assert from "node:assert/strict";
 * import { ReplayWindow } from "@warren/tunnel/vpn";
 *
 * const window = new ReplayWindow();
 * window.add(7);
 * window.add(5); // late
 * assert.deepEqual([5, 6, 7, 8].filter((counter) => window.admits(counter)), [6, 8]);
 * ```
 */
export class ReplayWindow {
  /** Number of counters up to the newest that may still arrive. */
  readonly size: number;
  /** One word more than the window needs, since the newest counter seldom ends one. */
  readonly #words: Uint32Array;
  readonly #mask: number;
  #newest = -1;

  /**
   * Creates an empty window.
   *
   * @throws {RangeError} when the size is not an integer from 1 to 2^24.
   */
  constructor(size: number = SIZE) {
    checkInteger("create a replay window", "size", size, 1, MAX_SIZE);
    this.size = size;
    const words = 2 ** Math.ceil(Math.log2(Math.ceil(size / WORD_BITS) + 1));
    this.#words = new Uint32Array(words);
    this.#mask = words - 1;
  }

  /** Highest counter received; -1 before the first. */
  get newest(): number {
    return this.#newest;
  }

  /** Reports whether a counter is neither received nor too old. */
  admits(counter: number): boolean {
    const newest = this.#newest;
    if (counter > newest) return true;
    if (counter <= newest - this.size) return false;
    return (this.#words[wordOf(counter) & this.#mask]! >>> (counter & WORD_BITS - 1) & 1) === 0;
  }

  /** Marks an admitted counter as received. */
  add(counter: number): void {
    const words = this.#words;
    const mask = this.#mask;
    const word = wordOf(counter);
    if (counter > this.#newest) {
      const last = wordOf(this.#newest);
      const first = Math.max(last + 1, word - mask);
      for (let skipped = first; skipped <= word; skipped++) words[skipped & mask] = 0;
      this.#newest = counter;
    }
    words[word & mask]! |= 1 << (counter & WORD_BITS - 1);
  }

  /** Starts again as if all counters up to `newest` had been received; -1 for none. */
  reset(newest = -1): void {
    this.#newest = newest;
    this.#words.fill(newest < 0 ? 0 : ALL_BITS);
    if (newest >= 0) this.#words[wordOf(newest) & this.#mask] = (2 << (newest & WORD_BITS - 1)) - 1;
  }
}

/** Returns the number of a counter's word. Bit operations would reduce it modulo 2^32 first. */
function wordOf(counter: number): number {
  return Math.floor(counter / WORD_BITS);
}
