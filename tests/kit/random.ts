/** Random numbers from a seed: the same in every run. */

/** Marsaglia's xorshift32. */
export class Random {
  #state: number;

  /** @param seed Any whole number; print it when a test fails. */
  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  /** A whole number from 0 to `limit - 1`. */
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }
}
