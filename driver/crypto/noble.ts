/** Cryptography of @noble/ciphers, in plain JavaScript: the slowest, and the same everywhere. */

import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type AeadName, TAG_LENGTH } from "../../lib/vpn/aead.ts";
import type { Backend, Cipher } from "./backend.ts";

/** Returns the back end. */
export function openNoble(): Backend {
  return {
    name: "@noble/ciphers",
    cipher: (aead, key, seals, memory) => new NobleCipher(aead, key, seals, memory),
  };
}

/** A key; each packet makes a cipher object of the library. */
class NobleCipher implements Cipher {
  readonly #algorithm: typeof gcm | typeof chacha20poly1305;
  readonly #key: Uint8Array;
  readonly #seals: boolean;
  readonly #memory: Uint8Array<ArrayBuffer>;

  constructor(aead: AeadName, key: Uint8Array, seals: boolean, memory: Uint8Array<ArrayBuffer>) {
    this.#algorithm = aead === "chacha20-poly1305" ? chacha20poly1305 : gcm;
    this.#key = key.slice();
    this.#seals = seals;
    this.#memory = memory;
  }

  run(
    nonce: Uint8Array<ArrayBuffer>,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const memory = this.#memory;
    // The library keeps none of these, but refuses views that begin at odd addresses.
    const cipher = this.#algorithm(this.#key, nonce.slice(), memory.slice(aad, aad + aadLength));
    const input = memory.slice(source, source + length);
    if (this.#seals) {
      memory.set(cipher.encrypt(input), target);
      return true;
    }
    if (length < TAG_LENGTH) return false;
    try {
      memory.set(cipher.decrypt(input), target);
      return true;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#key.fill(0);
  }
}
