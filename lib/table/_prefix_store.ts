/** Hash table from the prefixes of one address family to numbers, by exact match, in typed arrays. */

import { sipHash } from "../core/sip_hash.ts";

// Implementation
const FIRST_PLACES = 1024;
/** Load factor at which the table doubles. */
const MAX_LOAD = 0.7;
/** Length of an unused place. */
const EMPTY = -1;

/**
 * Hash table from a prefix, as words and a length, to a number. Open addressing with linear probing; a removal moves up the
 * entries after it.
 */
export class PrefixStore {
  readonly #words: number;
  readonly #key: Uint32Array;
  readonly #hashKey: Uint32Array = crypto.getRandomValues(new Uint32Array(2));
  #addresses: Uint32Array;
  /** Prefix lengths; `EMPTY` in unused places. */
  #lengths: Int16Array;
  #numbers: Int32Array;
  #size = 0;

  /** @param words Number of 32-bit words of an address. */
  constructor(words: number) {
    this.#words = words;
    this.#key = new Uint32Array(words + 1);
    this.#addresses = new Uint32Array(FIRST_PLACES * words);
    this.#lengths = new Int16Array(FIRST_PLACES).fill(EMPTY);
    this.#numbers = new Int32Array(FIRST_PLACES);
  }

  get size(): number {
    return this.#size;
  }

  /** Memory in use (bytes). */
  get byteLength(): number {
    return this.#addresses.byteLength + this.#lengths.byteLength + this.#numbers.byteLength;
  }

  /** Returns a prefix's number; -1 if it is absent. Address bits after the length must be zero. */
  get(address: Uint32Array, length: number): number {
    const place = this.#place(address, length);
    return this.#lengths[place] === EMPTY ? -1 : this.#numbers[place]!;
  }

  set(address: Uint32Array, length: number, number: number): void {
    let place = this.#place(address, length);
    if (this.#lengths[place] === EMPTY) {
      if (++this.#size > this.#lengths.length * MAX_LOAD) {
        this.#grow();
        place = this.#place(address, length);
      }
      this.#lengths[place] = length;
      this.#addresses.set(address, place * this.#words);
    }
    this.#numbers[place] = number;
  }

  /** Removes a prefix that is present. */
  delete(address: Uint32Array, length: number): void {
    const mask = this.#lengths.length - 1;
    let place = this.#place(address, length);
    this.#size--;
    for (let next = place + 1 & mask; this.#lengths[next] !== EMPTY; next = next + 1 & mask) {
      const home = this.#hashAt(next) & mask;
      if ((next - home & mask) < (next - place & mask)) continue;
      this.#move(next, place);
      place = next;
    }
    this.#lengths[place] = EMPTY;
  }

  /** Iterates over all prefixes: address (valid until the next one), length and number. */
  *[Symbol.iterator](): Generator<[address: Uint32Array, length: number, number: number], void, void> {
    const words = this.#words;
    for (let place = 0; place < this.#lengths.length; place++) {
      if (this.#lengths[place] === EMPTY) continue;
      const address = this.#addresses.subarray(place * words, (place + 1) * words);
      yield [address, this.#lengths[place]!, this.#numbers[place]!];
    }
  }

  /** Finds the place of a prefix, or the place to add it. */
  #place(address: Uint32Array, length: number): number {
    const words = this.#words;
    const mask = this.#lengths.length - 1;
    this.#key.set(address);
    this.#key[words] = length;
    let place = this.#hash() & mask;
    while (this.#lengths[place] !== EMPTY) {
      let equal = this.#lengths[place] === length;
      for (let i = 0; equal && i < words; i++) equal = this.#addresses[place * words + i] === address[i];
      if (equal) return place;
      place = place + 1 & mask;
    }
    return place;
  }

  #hashAt(place: number): number {
    const words = this.#words;
    for (let i = 0; i < words; i++) this.#key[i] = this.#addresses[place * words + i]!;
    this.#key[words] = this.#lengths[place]!;
    return this.#hash();
  }

  #hash(): number {
    return sipHash(this.#key, this.#key.length, this.#hashKey[0]!, this.#hashKey[1]!);
  }

  #move(from: number, to: number): void {
    const words = this.#words;
    this.#addresses.copyWithin(to * words, from * words, (from + 1) * words);
    this.#lengths[to] = this.#lengths[from]!;
    this.#numbers[to] = this.#numbers[from]!;
  }

  #grow(): void {
    const [addresses, lengths, numbers] = [this.#addresses, this.#lengths, this.#numbers];
    const places = lengths.length * 2;
    this.#addresses = new Uint32Array(places * this.#words);
    this.#lengths = new Int16Array(places).fill(EMPTY);
    this.#numbers = new Int32Array(places);
    const words = this.#words;
    for (let place = 0; place < lengths.length; place++) {
      if (lengths[place] === EMPTY) continue;
      const address = addresses.subarray(place * words, (place + 1) * words);
      const to = this.#place(address, lengths[place]!);
      this.#addresses.set(address, to * words);
      this.#lengths[to] = lengths[place]!;
      this.#numbers[to] = numbers[place]!;
    }
  }
}
