/** The rate of a rule: a token bucket, or one for each source. */

import * as field from "../../wire/header_fields.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { MAX_CAPACITY } from "../../table/flow_limits.ts";
import { FlowTable } from "../../table/flow_table.ts";
import type { Ip } from "../../wire/ip.ts";
import { checkInteger, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import type { RuleRate } from "./rule.ts";

// Specification
const { IPV4_SRC, IPV6_SRC } = field;

// Implementation
const SOURCES = 4096;
const KEY_WORDS = 4;
const NAMES: OptionKinds<RuleRate> = {
  packetsPerSecond: "number",
  burst: "number",
  perSource: "boolean",
  sources: "number",
};

/** A token bucket, or one for each source. */
export class RateGate {
  readonly #perMillisecond: number;
  readonly #burst: number;
  /** Tokens of each source; without sources, of all packets together. */
  readonly #tokens: Float64Array;
  readonly #sources: FlowTable | undefined;
  readonly #key = new FlowKey();
  #filledAt = 0;

  /**
   * @param attempt Text after "Cannot" in errors, such as `use rule 1`.
   * @throws {TypeError} for an unknown option, or a value of a wrong type.
   * @throws {RangeError} when a number is out of range.
   */
  constructor(rate: RuleRate, attempt: string) {
    checkOptions(attempt, rate, NAMES, ["packetsPerSecond"], "rate");
    const { packetsPerSecond, burst, perSource = false, sources = SOURCES } = rate;
    if (!(packetsPerSecond > 0 && packetsPerSecond < Infinity)) {
      throw new RangeError(
        `Cannot ${attempt}: rate.packetsPerSecond must be finite and above 0, ${gotValue(packetsPerSecond)}`,
      );
    }
    const max = burst ?? Math.max(1, packetsPerSecond);
    if (!(max >= 1 && max < Infinity)) {
      throw new RangeError(`Cannot ${attempt}: rate.burst must be finite and at least 1, ${gotValue(max)}`);
    }
    checkInteger(attempt, "rate.sources", sources, 1, MAX_CAPACITY);
    this.#perMillisecond = packetsPerSecond / 1000;
    this.#burst = max;
    if (!perSource) {
      this.#tokens = Float64Array.of(max);
      return;
    }
    // A bucket is removed when it is full again.
    this.#sources = new FlowTable({ timeouts: [max / this.#perMillisecond], capacity: sources });
    this.#tokens = new Float64Array(this.#sources.capacity);
  }

  /** Reports whether there is a token for a packet, without taking it. */
  has(ip: Ip, now: number): boolean {
    const sources = this.#sources;
    if (sources === undefined) return this.#filled(0, now - this.#filledAt) >= 1;
    this.#readSource(ip);
    const source = sources.peek(this.#key, now);
    return source < 0 || this.#filled(source, now - sources.seenAt(source)) >= 1;
  }

  /** Takes the token that {@linkcode RateGate.has} found. */
  take(ip: Ip, now: number): void {
    const sources = this.#sources;
    if (sources === undefined) {
      this.#tokens[0] = this.#filled(0, now - this.#filledAt) - 1;
      this.#filledAt = now;
      return;
    }
    this.#readSource(ip);
    let source = sources.find(this.#key, now);
    if (source < 0) this.#tokens[source = sources.add(this.#key, 0, now)] = this.#burst;
    this.#tokens[source] = this.#filled(source, now - sources.seenAt(source)) - 1;
    sources.touch(source, now);
  }

  #filled(bucket: number, elapsed: number): number {
    return Math.min(this.#burst, this.#tokens[bucket]! + elapsed * this.#perMillisecond);
  }

  #readSource({ version, packet: { view }, start }: Ip): void {
    const { words } = this.#key;
    this.#key.length = KEY_WORDS;
    words[0] = version;
    words[1] = view.getUint32(start + (version === 4 ? IPV4_SRC : IPV6_SRC));
    words[2] = version === 4 ? 0 : view.getUint32(start + IPV6_SRC + 4);
    words[3] = 0;
  }
}
