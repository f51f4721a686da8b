/** How often one may answer: a token bucket over all answers, and one for each address that gets them (RFC 4443). */

import { sipHash } from "./_sip_hash.ts";
import { IPV4_SRC, IPV6_SRC } from "./_header_fields.ts";
import type { Ip } from "./ip.ts";
import { checkNames, type OptionNames } from "./options.ts";

// Implementation
/** Linux's `icmp_msgs_per_sec` and `icmp_msgs_burst`. */
const RATE = 1000;
const BURST = 50;
/** How many buckets there are for addresses: those whose hashes agree share one. */
const ADDRESSES = 1024;

/** A token bucket's figures. */
export interface AnswerRate {
  /** How many answers a second, in the long run. */
  readonly ratePerSecond: number;
  /** How many at once, after a pause. */
  readonly burst: number;
}

const NAMES: OptionNames<AnswerRate> = { ratePerSecond: "needed", burst: "needed" };

/** How often answers are given. */
export interface AnswerLimitOptions {
  /** How many answers a second, in the long run. @default {1000} */
  readonly ratePerSecond?: number;
  /** How many at once, after a pause. @default {50} */
  readonly burst?: number;
  /** The same for each address that gets them. @default none */
  readonly perDestination?: AnswerRate;
  /** The key of the hash of addresses (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

/** Says whether one more answer may go. Bounded: 1024 buckets stand for all addresses. */
export class AnswerLimit {
  readonly #all: TokenBuckets;
  readonly #each: TokenBuckets | undefined;
  readonly #address = new Uint32Array(4);
  readonly #key0: number;
  readonly #key1: number;

  /** @throws {RangeError} when a rate is not above 0, or a burst is below 1. */
  constructor(options: AnswerLimitOptions) {
    const { ratePerSecond = RATE, burst = BURST, perDestination } = options;
    const { hashKey = crypto.getRandomValues(new Uint32Array(2)) } = options;
    if (perDestination !== undefined) checkNames("limit answers to each", perDestination, NAMES);
    [this.#key0, this.#key1] = hashKey as [number, number];
    this.#all = new TokenBuckets(1, { ratePerSecond, burst });
    this.#each = perDestination && new TokenBuckets(ADDRESSES, perDestination);
  }

  /** Takes a token for an answer to this packet's sender; `false` when there is none. */
  take(ip: Ip, now: number): boolean {
    const each = this.#each;
    const bucket = each === undefined ? 0 : this.#bucketOf(ip);
    if (each !== undefined && !each.has(bucket, now)) return false;
    if (!this.#all.has(0, now)) return false;
    this.#all.take(0);
    each?.take(bucket);
    return true;
  }

  #bucketOf({ packet: { view }, start, version }: Ip): number {
    const at = start + (version === 4 ? IPV4_SRC : IPV6_SRC);
    const length = version === 4 ? 1 : 4;
    for (let i = 0; i < length; i++) this.#address[i] = view.getUint32(at + 4 * i);
    return sipHash(this.#address, length, this.#key0, this.#key1) & ADDRESSES - 1;
  }
}

class TokenBuckets {
  readonly #perMillisecond: number;
  readonly #burst: number;
  readonly #tokens: Float64Array;
  readonly #filled: Float64Array;

  constructor(count: number, { ratePerSecond, burst }: AnswerRate) {
    if (!(ratePerSecond > 0 && ratePerSecond < Infinity)) {
      throw new RangeError(`Cannot answer ${ratePerSecond} times a second: the rate is a number above 0`);
    }
    if (!(burst >= 1 && burst < Infinity)) {
      throw new RangeError(`Cannot answer ${burst} times at once: the burst is a number from 1 on`);
    }
    this.#perMillisecond = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = new Float64Array(count).fill(burst);
    this.#filled = new Float64Array(count).fill(-Infinity);
  }

  /** Fills a bucket up to now, and says whether a token is in it. */
  has(bucket: number, now: number): boolean {
    const earned = (now - this.#filled[bucket]!) * this.#perMillisecond;
    this.#filled[bucket] = now;
    return (this.#tokens[bucket] = Math.min(this.#burst, this.#tokens[bucket]! + earned)) >= 1;
  }

  take(bucket: number): void {
    this.#tokens[bucket]!--;
  }
}
