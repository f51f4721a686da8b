/** Token bucket: tokens (bytes) accrue at a rate, up to a burst. */

import { gotValue } from "./options.ts";

// Implementation
/** Shorter waits might not advance a clock that holds milliseconds in a double. */
const MIN_WAIT = 0.001;
/** Default burst, which covers a late loop: 10 ms of the rate, at least two packets. */
const BURST_MILLISECONDS = 10;
const MIN_BURST = 3028;
const BITS_PER_BYTE = 8;
const MILLISECONDS = 1000;

/** Options of {@linkcode TokenBucket}. */
export interface TokenBucketOptions {
  /** Rate (bits per second). */
  readonly rateBitsPerSecond: number;
  /** Maximum tokens (bytes). @default {10 ms of the rate, at least 3028} */
  readonly burst?: number;
}

/**
 * A token bucket that may go into debt: if it has any token, a whole packet may leave, and the missing tokens are owed. No
 * packet is too long for it. An interval passes at most the burst, plus its length times the rate, plus one packet. In the
 * long run the rate is exact to 1 byte if `wait` is called at least once per `burst / rate` while packets wait.
 *
 * @example 8 kbit/s is one byte per millisecond
 * ```ts
 * import assert from "node:assert/strict";
 * import { TokenBucket } from "@warren/tunnel/shape";
 *
 * const bucket = new TokenBucket({ rateBitsPerSecond: 8000, burst: 1000 });
 * assert.equal(bucket.wait(0), 0);
 * bucket.spend(1500);
 * assert.equal(Math.round(bucket.wait(0)), 500);
 * assert.equal(bucket.wait(501), 0);
 * ```
 */
export class TokenBucket {
  #bytesPerMillisecond = 0;
  #burst = 0;
  #tokens = Infinity;
  #last = -Infinity;

  /**
   * Creates a full bucket.
   *
   * @throws {RangeError} when the rate is not above 0, or the burst is below 1.
   */
  constructor(options: TokenBucketOptions) {
    this.set(options);
  }

  /**
   * Changes rate and burst; tokens stay, up to the burst.
   *
   * @throws {RangeError} when the rate is not above 0, or the burst is below 1.
   */
  set({ rateBitsPerSecond, burst }: TokenBucketOptions): void {
    if (!(rateBitsPerSecond > 0 && rateBitsPerSecond < Infinity)) {
      const got = gotValue(rateBitsPerSecond);
      throw new RangeError(`Cannot limit a rate: rateBitsPerSecond must be finite and above 0, ${got}`);
    }
    if (burst !== undefined && !(burst >= 1 && burst < Infinity)) {
      throw new RangeError(`Cannot limit a rate: burst must be finite and at least 1, ${gotValue(burst)}`);
    }
    this.#bytesPerMillisecond = rateBitsPerSecond / BITS_PER_BYTE / MILLISECONDS;
    this.#burst = burst ?? Math.max(MIN_BURST, this.#bytesPerMillisecond * BURST_MILLISECONDS);
    this.#tokens = Math.min(this.#tokens, this.#burst);
  }

  /** Maximum tokens (bytes). */
  get burst(): number {
    return this.#burst;
  }

  /** Tokens (bytes); a negative number is debt. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Returns the time until a packet may leave (milliseconds); 0 for now. */
  wait(now: number): number {
    this.#refill(now);
    if (this.#tokens > 0) return 0;
    return Math.max(MIN_WAIT, -this.#tokens / this.#bytesPerMillisecond);
  }

  /** Takes the tokens of bytes that were sent. */
  spend(bytes: number): void {
    this.#tokens -= bytes;
  }

  /**
   * Continues with saved {@linkcode TokenBucket.tokens}.
   *
   * @throws {TypeError} when they are not a number up to the burst.
   */
  restore(tokens: unknown): void {
    if (typeof tokens !== "number" || !(tokens <= this.#burst && tokens > -Infinity)) {
      throw new TypeError(
        `Cannot restore a token bucket: tokens must be a number up to ${this.#burst}, ${gotValue(tokens)}`,
      );
    }
    this.#tokens = tokens;
  }

  #refill(now: number): void {
    const passed = now - this.#last;
    this.#last = now;
    // The first call only sets the time.
    if (passed === Infinity) return;
    this.#tokens = Math.min(this.#burst, this.#tokens + passed * this.#bytesPerMillisecond);
  }
}
