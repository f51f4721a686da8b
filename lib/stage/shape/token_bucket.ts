/** How much may be sent by now: bytes that come at a rate, and are saved up to a burst. */

// Implementation
/** Shorter waits than a microsecond may not move a clock of milliseconds in a double. */
const MIN_WAIT = 0.001;
/** The default burst: so many milliseconds of the rate, which is how late a loop may be; and two packets. */
const BURST_MILLISECONDS = 10;
const MIN_BURST = 3028;
const BITS_PER_BYTE = 8;
const MILLISECONDS = 1000;

/** Options for {@linkcode TokenBucket}. */
export interface TokenBucketOptions {
  /** How fast bytes come (bits per second). */
  readonly rateBitsPerSecond: number;
  /** How many bytes are saved at most. @default {10 ms of the rate, at least 3028} */
  readonly burst?: number;
}

/**
 * A token bucket that lends: what finds any byte in it is sent whole, and what was missing is owed. So no length of
 * packets is in advance too long, and what passes in any time is at most the burst, the rate times that time, and
 * one packet. Nothing is rounded: over a long time the rate is right to 1 byte, as long as the bucket is asked at least
 * once every `burst / rate` while there is something to send.
 *
 * @example 8 kbit/s are a byte a millisecond
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
   * A full bucket.
   *
   * @throws {RangeError} when the rate is not above 0, or the burst below 1.
   */
  constructor(options: TokenBucketOptions) {
    this.set(options);
  }

  /**
   * Sets another rate and burst; what is in it stays, up to the burst.
   *
   * @throws {RangeError} when the rate is not above 0, or the burst below 1.
   */
  set({ rateBitsPerSecond, burst }: TokenBucketOptions): void {
    if (!(rateBitsPerSecond > 0 && rateBitsPerSecond < Infinity)) {
      throw new RangeError(`Cannot send at ${rateBitsPerSecond} bits per second: a rate above 0 can`);
    }
    if (burst !== undefined && !(burst >= 1 && burst < Infinity)) {
      throw new RangeError(`Cannot save ${burst} bytes: 1 is the least`);
    }
    this.#bytesPerMillisecond = rateBitsPerSecond / BITS_PER_BYTE / MILLISECONDS;
    this.#burst = burst ?? Math.max(MIN_BURST, this.#bytesPerMillisecond * BURST_MILLISECONDS);
    this.#tokens = Math.min(this.#tokens, this.#burst);
  }

  /** How many bytes are saved at most. */
  get burst(): number {
    return this.#burst;
  }

  /** How many bytes are in it; below 0: they are owed. */
  get tokens(): number {
    return this.#tokens;
  }

  /** In how many milliseconds something may be sent; 0: now. */
  wait(now: number): number {
    this.#refill(now);
    if (this.#tokens > 0) return 0;
    return Math.max(MIN_WAIT, -this.#tokens / this.#bytesPerMillisecond);
  }

  /** Takes as many bytes out as were sent. */
  spend(bytes: number): void {
    this.#tokens -= bytes;
  }

  /**
   * Goes on with what another one had in it.
   *
   * @throws {TypeError} when it is no number up to the burst.
   */
  restore(tokens: unknown): void {
    if (typeof tokens !== "number" || !(tokens <= this.#burst && tokens > -Infinity)) {
      throw new TypeError(`Cannot restore a bucket of ${this.#burst} bytes from ${JSON.stringify(tokens)}`);
    }
    this.#tokens = tokens;
  }

  #refill(now: number): void {
    const passed = now - this.#last;
    this.#last = now;
    // The first time tells what follows from when.
    if (passed === Infinity) return;
    this.#tokens = Math.min(this.#burst, this.#tokens + passed * this.#bytesPerMillisecond);
  }
}
