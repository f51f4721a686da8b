/** Back ends of cryptography: what a library has to offer, and the keys that are built on it. */

import {
  type AeadName,
  KEY_LENGTHS,
  NONCE_LENGTH,
  type NonceLayout,
  type OpeningKey,
  type SealingKey,
  TAG_LENGTH,
} from "../../lib/vpn/aead.ts";
import { gotValue } from "../../lib/core/options.ts";

/** One key of a library, for one direction. */
export interface Cipher {
  /**
   * Encrypts, and appends the tag; or decrypts `length` bytes, the tag included. The offsets have been checked. Returns
   * `false` for a wrong tag.
   */
  run(
    nonce: Uint8Array<ArrayBuffer>,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean;
  /** Releases the library's copy of the key. */
  close(): void;
}

/** A cryptographic library. */
export interface Backend {
  /** Name with its version, such as `libcrypto 3.0.19`. */
  readonly name: string;
  /**
   * Creates a cipher over `memory`, which keeps no reference to `key`.
   *
   * @throws {Error} when the library lacks the algorithm.
   */
  cipher(
    aead: AeadName,
    key: Uint8Array<ArrayBuffer>,
    seals: boolean,
    memory: Uint8Array<ArrayBuffer>,
  ): Cipher;
}

/** A nonce whose counter changes. */
class Nonce {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Highest counter. */
  readonly max: number;
  readonly #base: Uint8Array;
  readonly #layout: NonceLayout;

  constructor(layout: NonceLayout) {
    const { base, offset, length } = layout;
    if (base.length !== NONCE_LENGTH || !(offset >= 0 && offset + length <= NONCE_LENGTH)) {
      throw new RangeError(
        `Cannot create a key: the nonce must have 12 bytes and hold its counter, got ${base.length} bytes and a ` +
          `counter of ${length} at ${offset}`,
      );
    }
    this.#base = base.slice();
    this.bytes = new Uint8Array(base);
    this.#layout = layout;
    this.max = length === 4 ? 2 ** 32 - 1 : Number.MAX_SAFE_INTEGER;
  }

  set(counter: number): void {
    const { offset, length, isLittleEndian } = this.#layout;
    let rest = counter;
    for (let i = 0; i < length; i++) {
      const at = isLittleEndian ? offset + i : offset + length - 1 - i;
      this.bytes[at] = this.#base[at]! ^ rest & 0xff;
      rest = Math.floor(rest / 256);
    }
  }
}

/** Common part of both keys: the checks before memory is touched. */
abstract class Key implements Disposable {
  protected readonly nonce: Nonce;
  readonly #size: number;
  #cipher: Cipher | undefined;

  constructor(
    backend: Backend,
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
    seals: boolean,
  ) {
    if (key.length !== KEY_LENGTHS[aead]) {
      throw new RangeError(
        `Cannot create a key: key must have ${KEY_LENGTHS[aead]} bytes for ${aead}, got ${key.length}`,
      );
    }
    this.nonce = new Nonce(nonce);
    this.#size = memory.length;
    const copy = key.slice() as Uint8Array<ArrayBuffer>;
    this.#cipher = backend.cipher(aead, copy, seals, memory);
    copy.fill(0);
  }

  protected run(
    source: number,
    length: number,
    read: number,
    target: number,
    written: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const cipher = this.#cipher;
    if (cipher === undefined) throw new Deno.errors.BadResource("Cannot use a key: it is closed");
    this.#check("source", source, read);
    this.#check("target", target, written);
    this.#check("aad", aad, aadLength);
    if (source !== target && source < target + written && target < source + read) {
      throw new RangeError("Cannot use a key: source and target must be the same or must not overlap");
    }
    return cipher.run(this.nonce.bytes, source, length, target, aad, aadLength);
  }

  [Symbol.dispose](): void {
    this.#cipher?.close();
    this.#cipher = undefined;
  }

  #check(name: string, start: number, length: number): void {
    if (start >>> 0 === start && length >>> 0 === length && start + length <= this.#size) return;
    throw new RangeError(
      `Cannot use a key: ${name} must be within the ${this.#size} bytes of its memory, ${
        gotValue(start)
      } and ${gotValue(length)} bytes`,
    );
  }
}

/** See {@linkcode SealingKey}. */
export class LibrarySealingKey extends Key implements SealingKey {
  #counter: number;

  /** Creates a key whose first packet has the number `counter`. */
  constructor(
    backend: Backend,
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
    counter = 0,
  ) {
    super(backend, aead, key, nonce, memory, true);
    this.#counter = counter;
  }

  get counter(): number {
    return this.#counter;
  }

  seal(source: number, length: number, target: number, aad: number, aadLength: number): boolean {
    if (this.#counter > this.nonce.max) return false;
    // First, so that an error does not make a nonce available again.
    this.nonce.set(this.#counter++);
    return this.run(source, length, length, target, length + TAG_LENGTH, aad, aadLength);
  }
}

/** See {@linkcode OpeningKey}. */
export class LibraryOpeningKey extends Key implements OpeningKey {
  constructor(
    backend: Backend,
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
  ) {
    super(backend, aead, key, nonce, memory, false);
  }

  open(
    counter: number,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    if (length < TAG_LENGTH || !(counter >= 0 && counter <= this.nonce.max)) return false;
    this.nonce.set(counter);
    return this.run(source, length, length, target, length - TAG_LENGTH, aad, aadLength);
  }
}
