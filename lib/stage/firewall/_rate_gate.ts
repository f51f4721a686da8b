/** How often a rule may match: a token bucket, or one for each source. */

import { IPV4_SRC, IPV6_SRC } from "../../wire/header_fields.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import type { Ip } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import type { RuleRate } from "./rule.ts";

// Implementation
const SOURCES = 4096;
const KEY_WORDS = 4;
const NAMES: OptionNames<RuleRate> = {
  packetsPerSecond: "needed number",
  burst: "number",
  perSource: "boolean",
  sources: "number",
};

/** A token bucket, or one for each source. */
export class RateGate {
  readonly #perMillisecond: number;
  readonly #burst: number;
  /** Of each source; the one behind all sources is for all together. */
  readonly #tokens: Float64Array;
  readonly #sources: FlowTable | undefined;
  readonly #key = new FlowKey();
  #filledAt = 0;

  /**
   * @throws {TypeError} when something is of another kind, or has another name.
   * @throws {RangeError} when a number is not above 0, or the burst is below 1.
   */
  constructor(rate: RuleRate) {
    checkNames("limit a rate", rate, NAMES);
    const { packetsPerSecond, burst, perSource = false, sources = SOURCES } = rate;
    for (const value of [packetsPerSecond, burst ?? 1, sources]) {
      if (typeof value !== "number") throw new TypeError(`${JSON.stringify(value)} is no number`);
    }
    if (typeof perSource !== "boolean") {
      throw new TypeError(`perSource is ${JSON.stringify(perSource)}, and neither true nor false`);
    }
    if (!(packetsPerSecond > 0 && packetsPerSecond < Infinity)) {
      throw new RangeError(`${packetsPerSecond} packets a second is no rate: it is above 0`);
    }
    const most = burst ?? Math.max(1, packetsPerSecond);
    if (!(most >= 1 && most < Infinity)) throw new RangeError(`${most} is no burst: it is 1 at least`);
    this.#perMillisecond = packetsPerSecond / 1000;
    this.#burst = most;
    if (!perSource) {
      this.#tokens = Float64Array.of(most);
      return;
    }
    // Forgotten when it is full again, which changes nothing.
    this.#sources = new FlowTable({ timeouts: [most / this.#perMillisecond], capacity: sources });
    this.#tokens = new Float64Array(this.#sources.capacity);
  }

  /** Whether there is a token for a packet; takes none. */
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
