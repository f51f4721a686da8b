/** Identifications of fragments: unique per destination, and not predictable from those of other destinations. */

import { sipHash } from "../core/sip_hash.ts";

// Implementation
/** Number of top bits of a hash that select a counter. */
const COUNTER_BITS = 10;

/**
 * A source of identifications (RFC 7739 section 5.3, RFC 6864 section 4.3). Those of a source, destination and protocol
 * count up from a secret start. Each of 1024 counters serves about a thousandth of all destinations.
 */
export class FragmentIds {
  readonly #key0: number;
  readonly #key1: number;
  readonly #words = new Uint32Array(9);
  readonly #counters = new Uint32Array(1 << COUNTER_BITS);

  /** @param key Two 32-bit numbers; random by default. */
  constructor(key: ArrayLike<number> = crypto.getRandomValues(new Uint32Array(2))) {
    this.#key0 = key[0]!;
    this.#key1 = key[1]!;
  }

  /** Returns the secret start for a protocol and two addresses, which are the `length` words at `at`. */
  startOf(view: DataView, at: number, length: number, protocol: number): number {
    const words = this.#words;
    for (let i = 0; i < length; i++) words[i] = view.getUint32(at + 4 * i);
    words[length] = protocol;
    return sipHash(words, length + 1, this.#key0, this.#key1);
  }

  /** Returns the secret start for a protocol and IPv4 addresses given as numbers. */
  startOfIpv4(src: number, dst: number, protocol: number): number {
    const words = this.#words;
    words[0] = src;
    words[1] = dst;
    words[2] = protocol;
    return sipHash(words, 3, this.#key0, this.#key1);
  }

  /** Returns the next identification (32 bits) from a start, and reserves the next `count - 1`. */
  next(start: number, count = 1): number {
    const counter = start >>> 32 - COUNTER_BITS;
    const id = start + this.#counters[counter]! >>> 0;
    this.#counters[counter]! += count;
    return id;
  }
}
