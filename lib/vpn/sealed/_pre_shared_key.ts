/** Pre-shared keys: their text forms, and the keys derived from them. */

import { gotValue } from "../../core/options.ts";
import { type AeadName, type Cryptography, KEY_LENGTHS, type OpeningKey, type SealingKey } from "../aead.ts";
import { NONCE } from "./_datagram.ts";

// Specification
const LENGTH = 32;
const KEY_ID_LENGTH = 4;
const VERSION = "warren sealed 1";

/** Side of a connection, which separates the keys of its two directions. */
export type SealedRole = "connect" | "listen";

const encoder = new TextEncoder();
const NOTHING = new Uint8Array();

/**
 * Reads a key of 32 bytes: an array, 64 hexadecimal digits, or base64. Errors do not show it.
 *
 * @throws {TypeError} when it is none of these, or all bytes are the same.
 */
export function readKey(attempt: string, name: string, key: unknown): Uint8Array {
  const bytes = typeof key === "string" ? parseKey(key.trim()) : key;
  if (bytes instanceof Uint8Array && bytes.length === LENGTH && bytes.some((byte) => byte !== bytes[0])) {
    return bytes.slice();
  }
  let got = gotValue(key);
  if (typeof key === "string") got = `got a text of ${key.length} characters`;
  if (key instanceof Uint8Array) got = `got ${key.length === LENGTH ? "equal" : key.length} bytes`;
  const rule = `${name} must be 32 random bytes, as a Uint8Array, 64 hexadecimal digits or base64`;
  throw new TypeError(`Cannot ${attempt}: ${rule}, ${got}: make one with "openssl rand -base64 32"`);
}

function parseKey(text: string): Uint8Array | undefined {
  if (/^[0-9a-f]{64}$/i.test(text)) return Uint8Array.fromHex(text);
  return /^[\w+/-]{43}=?$/.test(text)
    ? Uint8Array.fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"))
    : undefined;
}

/** A pre-shared key of one peer: derives the key id, and a key for each session of each side. */
export class PreSharedKey {
  /** First field of all datagrams with this key. */
  readonly id: number;
  readonly #cryptography: Cryptography;
  readonly #aead: AeadName;
  readonly #role: SealedRole;
  readonly #key: Uint8Array;

  /** Takes the bytes, which {@linkcode PreSharedKey.close} zeroes. */
  constructor(cryptography: Cryptography, aead: AeadName, role: SealedRole, key: Uint8Array) {
    this.#cryptography = cryptography;
    this.#aead = aead;
    this.#role = role;
    this.#key = key;
    const id = this.#derive(NOTHING, `${VERSION} id`, KEY_ID_LENGTH);
    this.id = new DataView(id.buffer, id.byteOffset).getInt32(0);
  }

  /** Returns the key of a peer that has no key of its own, derived from the common key and its name. */
  static ofName(cryptography: Cryptography, key: Uint8Array, name: string): Uint8Array {
    return cryptography.hkdf(key, encoder.encode(name), encoder.encode(`${VERSION} peer`), LENGTH);
  }

  /** Returns this side's key for a session. */
  sealing(session: Uint8Array, memory: Uint8Array<ArrayBuffer>): SealingKey {
    const key = this.#sessionKey(session, this.#role);
    const sealing = this.#cryptography.sealingKey(this.#aead, key, NONCE, memory);
    key.fill(0);
    return sealing;
  }

  /** Returns the other side's key for a session. */
  opening(session: Uint8Array, memory: Uint8Array<ArrayBuffer>): OpeningKey {
    const key = this.#sessionKey(session, this.#role === "connect" ? "listen" : "connect");
    const opening = this.#cryptography.openingKey(this.#aead, key, NONCE, memory);
    key.fill(0);
    return opening;
  }

  /** Reports whether another key has the same bytes. */
  equals(other: PreSharedKey): boolean {
    return this.#cryptography.equal(this.#key, other.#key);
  }

  /** Zeroes the key. */
  close(): void {
    this.#key.fill(0);
  }

  /** The name of the algorithm in `info` keeps two algorithms from ever having the same key. */
  #sessionKey(session: Uint8Array, role: SealedRole): Uint8Array {
    return this.#derive(session, `${VERSION} ${role} ${this.#aead}`, KEY_LENGTHS[this.#aead]);
  }

  #derive(salt: Uint8Array, info: string, length: number): Uint8Array {
    return this.#cryptography.hkdf(this.#key, salt, encoder.encode(info), length);
  }
}
