/** Limit of costly attempts: a bucket of tokens, one for each attempt. */

/** Attempts that are allowed now: up to `burst`, and `perSecond` more each second. */
export class Attempts {
  readonly #perMillisecond: number;
  readonly #burst: number;
  #tokens: number;
  #last = 0;

  constructor(perSecond: number, burst: number) {
    this.#perMillisecond = perSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
  }

  /** Takes a token; returns `false` if there is none. */
  take(now: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#last) * this.#perMillisecond);
    this.#last = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
