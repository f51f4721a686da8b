/** Identifications of packets that are, or may be, fragmented: unique for a destination, and telling nothing of others. */

import { sipHash } from "../core/sip_hash.ts";

// Implementation
/** The top bits of a hash choose a counter. */
const COUNTER_BITS = 10;

/**
 * A source of identifications (RFC 7739 section 5.3, RFC 6864 section 4.3): those of one source, destination and protocol
 * are consecutive, from a secret start. A counter is shared with a thousandth of all other destinations, by chance.
 */
export class FragmentIds {
  readonly #key0: number;
  readonly #key1: number;
  readonly #words = new Uint32Array(9);
  readonly #counters = new Uint32Array(1 << COUNTER_BITS);

  /** A source with this key of two 32-bit numbers; a random one unless it is given. */
  constructor(key: ArrayLike<number> = crypto.getRandomValues(new Uint32Array(2))) {
    this.#key0 = key[0]!;
    this.#key1 = key[1]!;
  }

  /** The secret start for packets of a protocol whose source and destination are the `length` words at `at`. */
  startOf(view: DataView, at: number, length: number, protocol: number): number {
    const words = this.#words;
    for (let i = 0; i < length; i++) words[i] = view.getUint32(at + 4 * i);
    words[length] = protocol;
    return sipHash(words, length + 1, this.#key0, this.#key1);
  }

  /** The same for IPv4 addresses that are numbers. */
  startOfIpv4(src: number, dst: number, protocol: number): number {
    const words = this.#words;
    words[0] = src;
    words[1] = dst;
    words[2] = protocol;
    return sipHash(words, 3, this.#key0, this.#key1);
  }

  /** The next identification (32 bits) from a start; the `count - 1` after it are taken as well. */
  next(start: number, count = 1): number {
    const counter = start >>> 32 - COUNTER_BITS;
    const id = start + this.#counters[counter]! >>> 0;
    this.#counters[counter]! += count;
    return id;
  }
}
