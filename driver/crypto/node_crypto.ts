/** Cryptography of node:crypto, which Deno has on every system and without permissions. */

import { createCipheriv, createDecipheriv } from "node:crypto";
import { type AeadName, TAG_LENGTH } from "../../lib/vpn/aead.ts";
import { type Backend, HeldKey } from "./backend.ts";

/** Returns the back end. */
export function openNodeCrypto(): Backend {
  return {
    name: `node:crypto of Deno ${Deno.version.deno}`,
    cipher: (aead, key, seals, memory) => new NodeCipher(aead, key, seals, memory),
  };
}

/** A key; each packet makes a cipher object of node:crypto. */
class NodeCipher extends HeldKey {
  // The types know the algorithm of RFC 8439 under this name, and treat all three alike.
  readonly #aead: "chacha20-poly1305";

  constructor(aead: AeadName, key: Uint8Array, seals: boolean, memory: Uint8Array<ArrayBuffer>) {
    super(key, seals, memory);
    this.#aead = aead as "chacha20-poly1305";
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
    const size = this.seals ? length : length - TAG_LENGTH;
    const input = memory.subarray(source, source + size);
    const data = memory.subarray(aad, aad + aadLength);
    const options = { authTagLength: TAG_LENGTH };
    if (this.seals) {
      const cipher = createCipheriv(this.#aead, this.key, nonce, options);
      cipher.setAAD(data, { plaintextLength: size });
      memory.set(cipher.update(input), target);
      cipher.final();
      memory.set(cipher.getAuthTag(), target + size);
      return true;
    }
    const decipher = createDecipheriv(this.#aead, this.key, nonce, options);
    decipher.setAuthTag(memory.slice(source + size, source + length));
    decipher.setAAD(data, { plaintextLength: size });
    const plain = decipher.update(input);
    try {
      decipher.final();
    } catch {
      return false;
    }
    memory.set(plain, target);
    return true;
  }
}
