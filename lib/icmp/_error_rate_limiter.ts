/**
 * The rate of ICMP errors and resets (RFC 4443 section 2.4 f): a token bucket for each destination, then one for all.
 * Each error takes 0, 1 or 2 tokens at random, so that nobody can read from the errors that he gets how many others got
 * (CVE-2020-25705: "SAD DNS" found open ports by 50 spoofed packets and one of its own).
 */

import { IPV4_SRC, IPV6_SRC } from "../wire/header_fields.ts";
import { sipHash } from "../core/sip_hash.ts";
import type { Ip } from "../wire/ip.ts";
import { checkNames, type OptionNames } from "../core/options.ts";
import { Random } from "../core/random.ts";

// Implementation
/** Linux's `icmp_msgs_per_sec` and `icmp_msgs_burst`. */
const RATE = 1000;
const BURST = 50;
/** Shares of one destination. Twice its burst, the most that it takes, is still less than the burst of all. */
const DESTINATION_RATE = 1 / 10;
const DESTINATION_BURST = 2 / 5;
/** Buckets of destinations: those whose hashes agree share one. */
const DESTINATIONS = 1024;
/** The number of costs of an error: 0, 1 or 2 tokens, as in Linux since 5.10. */
const COSTS = 3;

/** A token bucket's figures. */
export interface ErrorRate {
  /** Errors a second, in the long run. */
  readonly ratePerSecond: number;
  /** Errors at once, after a pause. */
  readonly burst: number;
}

const NAMES: OptionNames<ErrorRate> = { ratePerSecond: "needed", burst: "needed" };

/** The rate at which errors are sent. */
export interface ErrorRateOptions {
  /** Errors a second, in the long run, to all destinations. @default {1000} */
  readonly ratePerSecond?: number;
  /** Errors at once, after a pause: about as many, since each takes 0, 1 or 2 tokens. @default {50} */
  readonly burst?: number;
  /**
   * The same for each destination of errors: an IPv4 address, an IPv6 /64.
   * @default {a tenth of the rate and two fifths of the burst: 100 a second, 20 at once}
   */
  readonly perDestination?: ErrorRate;
  /** The key of the hash of destinations (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
  /**
   * A whole number from 0 to 2 to the 32nd, less 1; modulo 3 it is what an error takes: for tests, where `() => 1` makes
   * the limits exact. @default {random}
   */
  readonly random?: () => number;
}

/** Decides whether one more error may go. Bounded: 1024 buckets stand for all destinations. */
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
    if (perDestination !== undefined) checkNames("limit errors to each destination", perDestination, NAMES);
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

  /** Takes tokens for an error to this packet's sender; `false` when there are none. */
  take(ip: Ip, now: number): boolean {
    const bucket = this.#bucketOf(ip);
    // The destination's own bucket first: what it has used up takes nothing from others (CVE-2024-47678).
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
      throw new RangeError(
        `Cannot limit errors: ratePerSecond must be a number above 0, got ${ratePerSecond}`,
      );
    }
    if (!(burst >= 1 && burst < Infinity)) {
      throw new RangeError(`Cannot limit errors: burst must be a number from 1 on, got ${burst}`);
    }
    this.#perMillisecond = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = new Float64Array(count).fill(burst);
    this.#filled = new Float64Array(count).fill(-Infinity);
  }

  /** Fills a bucket up to now; returns whether a token is in it. */
  has(bucket: number, now: number): boolean {
    const earned = (now - this.#filled[bucket]!) * this.#perMillisecond;
    this.#filled[bucket] = now;
    return (this.#tokens[bucket] = Math.min(this.#burst, this.#tokens[bucket]! + earned)) >= 1;
  }

  take(bucket: number, cost: number): void {
    this.#tokens[bucket] = Math.max(0, this.#tokens[bucket]! - cost);
  }
}

function newRandom(): () => number {
  const random = new Random(crypto.getRandomValues(new Uint32Array(1))[0]!);
  return () => random.next();
}
