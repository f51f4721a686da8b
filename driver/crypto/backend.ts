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
import { bytesOf } from "../../lib/core/bytes_of.ts";
import { checkInteger, checkOption, gotValue } from "../../lib/core/options.ts";

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

/** A key for a library in JavaScript, which gets it with each packet. */
export abstract class HeldKey implements Cipher {
  protected readonly key: Uint8Array;
  protected readonly seals: boolean;
  protected readonly memory: Uint8Array<ArrayBuffer>;

  constructor(key: Uint8Array, seals: boolean, memory: Uint8Array<ArrayBuffer>) {
    this.key = key.slice();
    this.seals = seals;
    this.memory = memory;
  }

  abstract run(...args: Parameters<Cipher["run"]>): boolean;

  close(): void {
    this.key.fill(0);
  }
}

/** Copies bytes that a key is made of. */
function copyOf(name: string, value: unknown, length: number, use = ""): Uint8Array<ArrayBuffer> {
  const bytes = plainBytes(name, value);
  if (bytes.length === length) return new Uint8Array(bytes);
  throw new RangeError(`Cannot create a key: ${name} must have ${length} bytes${use}, got ${bytes.length}`);
}

/** Returns a view whose length is that of its memory, also after that was detached. */
function plainBytes(name: string, value: unknown): Uint8Array<ArrayBuffer> {
  const bytes = bytesOf(value);
  if (bytes !== undefined) return bytes as Uint8Array<ArrayBuffer>;
  throw new TypeError(`Cannot create a key: ${name} must be a Uint8Array, ${gotValue(value)}`);
}

/** A nonce whose counter changes. */
class Nonce {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Highest counter. */
  readonly max: number;
  readonly #base: Uint8Array;
  readonly #offset: number;
  readonly #length: number;
  readonly #isLittleEndian: boolean;

  /** Copies the layout: a later change of it would repeat nonces. */
  constructor({ base, offset, length, isLittleEndian }: NonceLayout) {
    checkOption("create a key", "nonce.length", length, [4, 8]);
    checkInteger("create a key", "nonce.offset", offset, 0, NONCE_LENGTH - length);
    checkOption("create a key", "nonce.isLittleEndian", isLittleEndian, "boolean");
    this.#base = copyOf("nonce.base", base, NONCE_LENGTH);
    this.bytes = this.#base.slice();
    this.#offset = offset;
    this.#length = length;
    this.#isLittleEndian = isLittleEndian;
    this.max = length === 4 ? 2 ** 32 - 1 : Number.MAX_SAFE_INTEGER;
  }

  set(counter: number): void {
    const { bytes } = this;
    const base = this.#base;
    const length = this.#length;
    let at = this.#isLittleEndian ? this.#offset : this.#offset + length - 1;
    const step = this.#isLittleEndian ? 1 : -1;
    let word = counter >>> 0;
    for (let i = 0; i < length; i++) {
      if (i === 4) word = counter / 2 ** 32;
      bytes[at] = base[at]! ^ word & 0xff;
      word >>>= 8;
      at += step;
    }
  }
}

/** Common part of both keys: the checks before memory is touched. */
abstract class Key implements Disposable {
  protected readonly nonce: Nonce;
  protected readonly memory: Uint8Array<ArrayBuffer>;
  #cipher: Cipher | undefined;

  constructor(
    backend: Backend,
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
    seals: boolean,
  ) {
    this.nonce = new Nonce(nonce);
    this.memory = plainBytes("memory", memory);
    const copy = copyOf("key", key, KEY_LENGTHS[aead], ` for ${aead}`);
    try {
      this.#cipher = backend.cipher(aead, copy, seals, this.memory);
    } finally {
      copy.fill(0);
    }
  }

  protected run(
    source: number,
    length: number,
    target: number,
    written: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const cipher = this.#cipher;
    if (cipher === undefined) throw new Deno.errors.BadResource("Cannot use a key: it is closed");
    this.#check("source", source, length);
    this.#check("target", target, written);
    this.#check("aad", aad, aadLength);
    if (source !== target && source < target + written && target < source + length) {
      throw new RangeError("Cannot use a key: source and target must be the same or must not overlap");
    }
    return cipher.run(this.nonce.bytes, source, length, target, aad, aadLength);
  }

  [Symbol.dispose](): void {
    this.#cipher?.close();
    this.#cipher = undefined;
  }

  /** The length is read each time: it is 0 after memory was detached, when its address is no longer valid. */
  #check(name: string, start: number, length: number): void {
    const size = this.memory.length;
    if (start >>> 0 === start && length >>> 0 === length && start + length <= size) return;
    throw new RangeError(
      `Cannot use a key: ${name} must be within the ${size} bytes of its memory, ${gotValue(start)} and ${
        gotValue(length)
      } bytes`,
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
    return this.run(source, length, target, length + TAG_LENGTH, aad, aadLength);
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
    if (length < TAG_LENGTH || !Number.isInteger(counter) || counter < 0 || counter > this.nonce.max) {
      return false;
    }
    this.nonce.set(counter);
    if (this.run(source, length, target, length - TAG_LENGTH, aad, aadLength)) return true;
    // Libraries decrypt before they know whether the tag is right.
    this.memory.fill(0, target, target + length - TAG_LENGTH);
    return false;
  }
}
