/**
 * Rate limit of ICMP errors and resets (RFC 4443 section 2.4 f): a token bucket per destination, and one for all.
 * Each error takes 0, 1 or 2 tokens at random, so that a receiver cannot infer how many errors others got (CVE-2020-25705:
 * "SAD DNS" found open ports with 50 spoofed packets and one of its own).
 */

import { IPV4_SRC, IPV6_SRC } from "../wire/header_fields.ts";
import { sipHash } from "../core/sip_hash.ts";
import type { Ip } from "../wire/ip.ts";
import { checkOptions, gotValue, type OptionKinds } from "../core/options.ts";
import { Random } from "../core/random.ts";

// Implementation
/** Linux's `icmp_msgs_per_sec` and `icmp_msgs_burst`. */
const RATE = 1000;
const BURST = 50;
/** Share of a destination. At two tokens per error, its burst takes less than the burst of all. */
const DESTINATION_RATE = 1 / 10;
const DESTINATION_BURST = 2 / 5;
/** Number of destination buckets, selected by a hash. */
const DESTINATIONS = 1024;
/** Number of possible costs: 0, 1 or 2 tokens, as in Linux since 5.10. */
const COSTS = 3;

/** Rate and burst of a token bucket. */
export interface ErrorRate {
  /** Long-term rate (errors per second). */
  readonly ratePerSecond: number;
  /** Errors at once after a pause. */
  readonly burst: number;
}

const NAMES: OptionKinds<ErrorRate> = { ratePerSecond: "number", burst: "number" };

/** Rate limits of ICMP errors and TCP resets. */
export interface ErrorRateOptions {
  /** Long-term rate to all destinations (errors per second). @default {1000} */
  readonly ratePerSecond?: number;
  /** Errors at once after a pause, on average: each takes 0, 1 or 2 tokens. @default {50} */
  readonly burst?: number;
  /**
   * Limit per destination: an IPv4 address or an IPv6 /64.
   * @default {a tenth of the rate and two fifths of the burst: 100 per second, 20 at once}
   */
  readonly perDestination?: ErrorRate;
  /** Key of the hash of destinations (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
  /** Source of 32-bit integers: modulo 3, the tokens of an error; `() => 1` in tests. @default {random} */
  readonly random?: () => number;
}

/** Limits the rate of errors in bounded memory: 1024 buckets for all destinations. */
export class ErrorRateLimiter {
  readonly #all: TokenBuckets;
  readonly #each: TokenBuckets;
  readonly #random: () => number;
  readonly #network = new Uint32Array(2);
  readonly #key0: number;
  readonly #key1: number;

  /** @throws {RangeError} when a rate is not above 0, or a burst is below 1. */
  constructor(options: ErrorRateOptions) {
    const { ratePerSecond = RATE, burst = BURST, perDestination, random = newRandom() } = options;
    const { hashKey = crypto.getRandomValues(new Uint32Array(2)) } = options;
    if (perDestination !== undefined) {
      const attempt = "answer with ICMP errors";
      checkOptions(attempt, perDestination, NAMES, ["ratePerSecond", "burst"], "perDestination");
    }
    [this.#key0, this.#key1] = hashKey as [number, number];
    this.#random = random;
    this.#all = new TokenBuckets(1, { ratePerSecond, burst });
    this.#each = new TokenBuckets(
      DESTINATIONS,
      perDestination ?? {
        ratePerSecond: ratePerSecond * DESTINATION_RATE,
        burst: Math.max(1, burst * DESTINATION_BURST),
      },
    );
  }

  /** Takes tokens for an error to the packet's source; returns `false` if there are none. */
  take(ip: Ip, now: number): boolean {
    const bucket = this.#bucketOf(ip);
    // The destination's bucket is first: once empty, it takes nothing from others (CVE-2024-47678).
    if (!this.#each.has(bucket, now) || !this.#all.has(0, now)) return false;
    this.#each.take(bucket, this.#random() % COSTS);
    this.#all.take(0, this.#random() % COSTS);
    return true;
  }

  #bucketOf({ packet: { view }, start, version }: Ip): number {
    const at = start + (version === 4 ? IPV4_SRC : IPV6_SRC);
    this.#network[0] = view.getUint32(at);
    if (version === 6) this.#network[1] = view.getUint32(at + 4);
    return sipHash(this.#network, version === 4 ? 1 : 2, this.#key0, this.#key1) & DESTINATIONS - 1;
  }
}

class TokenBuckets {
  readonly #perMillisecond: number;
  readonly #burst: number;
  readonly #tokens: Float64Array;
  readonly #filled: Float64Array;

  constructor(count: number, { ratePerSecond, burst }: ErrorRate) {
    if (!(ratePerSecond > 0 && ratePerSecond < Infinity)) {
      throw rateError("ratePerSecond", "above 0", ratePerSecond);
    }
    if (!(burst >= 1 && burst < Infinity)) throw rateError("burst", "of at least 1", burst);
    this.#perMillisecond = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = new Float64Array(count).fill(burst);
    this.#filled = new Float64Array(count).fill(-Infinity);
  }

  /** Fills a bucket up to `now`; reports whether it has a token. */
  has(bucket: number, now: number): boolean {
    const earned = (now - this.#filled[bucket]!) * this.#perMillisecond;
    this.#filled[bucket] = now;
    return (this.#tokens[bucket] = Math.min(this.#burst, this.#tokens[bucket]! + earned)) >= 1;
  }

  take(bucket: number, cost: number): void {
    this.#tokens[bucket] = Math.max(0, this.#tokens[bucket]! - cost);
  }
}

function rateError(name: string, rule: string, value: unknown): RangeError {
  return new RangeError(`Cannot limit errors: ${name} must be a finite number ${rule}, ${gotValue(value)}`);
}

function newRandom(): () => number {
  const random = new Random(crypto.getRandomValues(new Uint32Array(1))[0]!);
  return () => random.next();
}
