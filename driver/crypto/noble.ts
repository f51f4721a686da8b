/** Cryptography of @noble/ciphers, in plain JavaScript: the slowest, and the same everywhere. */

import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import type { AeadName } from "../../lib/vpn/aead.ts";
import { type Backend, HeldKey } from "./backend.ts";

/** Returns the back end. */
export function openNoble(): Backend {
  return {
    name: "@noble/ciphers",
    cipher: (aead, key, seals, memory) => new NobleCipher(aead, key, seals, memory),
  };
}

/** A key; each packet makes a cipher object of the library. */
class NobleCipher extends HeldKey {
  readonly #algorithm: typeof gcm | typeof chacha20poly1305;

  constructor(aead: AeadName, key: Uint8Array, seals: boolean, memory: Uint8Array<ArrayBuffer>) {
    super(key, seals, memory);
    this.#algorithm = aead === "chacha20-poly1305" ? chacha20poly1305 : gcm;
  }

  run(
    nonce: Uint8Array<ArrayBuffer>,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const memory = this.memory;
    // The library keeps none of these, but refuses views that begin at odd addresses.
    const cipher = this.#algorithm(this.key, nonce.slice(), memory.slice(aad, aad + aadLength));
    const input = memory.slice(source, source + length);
    if (this.seals) {
      memory.set(cipher.encrypt(input), target);
      return true;
    }
    try {
      memory.set(cipher.decrypt(input), target);
      return true;
    } catch {
      return false;
    }
  }
}
