/** Cryptography for tests of protocols, without permissions: fast, seeded, and safe from nobody who means it. */

import type { Cryptography, NonceLayout, OpeningKey, SealingKey } from "@warren/tunnel/vpn";
import { TAG_LENGTH } from "@warren/tunnel/vpn";
import { Random } from "../../lib/core/random.ts";

/** Every key that is open, to find those that were not disposed of. */
export const OPEN_KEYS: Set<object> = new Set();

/** A tag of 64 bits, then zeros: two different multiplicative hashes over all that an AEAD's tag covers. */
class Tag {
  high = 0;
  low = 0;

  compute(key: Uint8Array, counter: number, memory: Uint8Array, ranges: readonly number[]): void {
    let [high, low] = [0x811c9dc5 ^ counter, 0x01234567 ^ counter / 2 ** 32];
    for (let i = 0; i < key.length; i++) {
      high = Math.imul(high ^ key[i]!, 0x01000193);
      low = Math.imul(low + key[i]! | 0, 0x5bd1e995) ^ low >>> 13;
    }
    for (let range = 0; range < ranges.length; range += 2) {
      const end = ranges[range]! + ranges[range + 1]!;
      for (let i = ranges[range]!; i < end; i++) {
        high = Math.imul(high ^ memory[i]!, 0x01000193);
        low = Math.imul(low + memory[i]! | 0, 0x5bd1e995) ^ low >>> 13;
      }
      high ^= end - ranges[range]!;
    }
    this.high = high | 0;
    this.low = low | 0;
  }
}

class FakeKey implements SealingKey, OpeningKey {
  counter: number;
  readonly #key: Uint8Array;
  readonly #view: DataView;
  readonly #memory: Uint8Array;
  readonly #tag = new Tag();
  readonly #ranges = [0, 0, 0, 0];

  constructor(key: Uint8Array, memory: Uint8Array, first: number) {
    this.#key = key.slice();
    this.#memory = memory;
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.length);
    this.counter = first;
    OPEN_KEYS.add(this);
  }

  seal(source: number, length: number, target: number, aad: number, aadLength: number): boolean {
    this.#check();
    this.#memory.copyWithin(target, source, source + length);
    this.#mix(target, length, this.counter);
    this.#compute(this.counter++, target, length, aad, aadLength);
    const end = target + length;
    this.#memory.fill(0, end, end + TAG_LENGTH);
    this.#view.setInt32(end, this.#tag.high);
    this.#view.setInt32(end + 4, this.#tag.low);
    return true;
  }

  open(
    counter: number,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    this.#check();
    if (length < TAG_LENGTH) return false;
    const end = source + length - TAG_LENGTH;
    this.#compute(counter, source, length - TAG_LENGTH, aad, aadLength);
    const isSame = this.#view.getInt32(end) === this.#tag.high &&
      this.#view.getInt32(end + 4) === this.#tag.low;
    if (!isSame || this.#memory.subarray(end + 8, end + TAG_LENGTH).some((byte) => byte !== 0)) return false;
    this.#memory.copyWithin(target, source, end);
    this.#mix(target, length - TAG_LENGTH, counter);
    return true;
  }

  [Symbol.dispose](): void {
    OPEN_KEYS.delete(this);
  }

  #check(): void {
    if (!OPEN_KEYS.has(this)) throw new Error("the key was disposed of");
  }

  #mix(at: number, length: number, counter: number): void {
    const first = this.#key[counter % this.#key.length]! | 1;
    for (let i = at; i < at + length; i++) this.#memory[i]! ^= first;
  }

  #compute(counter: number, at: number, length: number, aad: number, aadLength: number): void {
    const ranges = this.#ranges;
    ranges[0] = at;
    ranges[1] = length;
    ranges[2] = aad;
    ranges[3] = aadLength;
    this.#tag.compute(this.#key, counter, this.#memory, ranges);
  }
}

/** Fakes all of it. `first` is the counter at which sealing keys start, to test their end. */
export function fakeCryptography(seed: number, first = 0): Cryptography {
  const random = new Random(seed);
  const make = (key: Uint8Array, memory: Uint8Array, counter: number) => new FakeKey(key, memory, counter);
  return {
    name: "fake",
    sealingKey: (_aead, key, _nonce: NonceLayout, memory): SealingKey => make(key, memory, first),
    openingKey: (_aead, key, _nonce: NonceLayout, memory): OpeningKey => make(key, memory, 0),
    hkdf(secret, salt, info, length) {
      const tag = new Tag();
      const all = Uint8Array.of(...secret, ...salt, ...info, salt.length);
      const view = new DataView(new ArrayBuffer(Math.ceil(length / 8) * 8));
      for (let at = 0; at < length; at += 8) {
        tag.compute(secret, at, all, [0, all.length]);
        view.setInt32(at, tag.high);
        view.setInt32(at + 4, tag.low);
      }
      return new Uint8Array(view.buffer, 0, length);
    },
    random(bytes) {
      for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256);
      return bytes;
    },
    equal: (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]),
  };
}
