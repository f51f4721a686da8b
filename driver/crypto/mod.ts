/**
 * Cryptography for VPN protocols, from the fastest library that this machine has.
 *
 * @module
 */

import { hkdfSync, timingSafeEqual } from "node:crypto";
import { checkOption } from "../../lib/core/options.ts";
import type { AeadName, Cryptography } from "../../lib/vpn/aead.ts";
import { errorMessage } from "../error.ts";
import { type Backend, LibraryOpeningKey, LibrarySealingKey } from "./backend.ts";
import { AEADS, type BackendName, BACKENDS, backendsOf, chooseBackends } from "./choice.ts";

export type { AeadName, Cryptography, NonceLayout, OpeningKey, SealingKey } from "../../lib/vpn/aead.ts";
export type { BackendName } from "./choice.ts";

/**
 * Opens cryptography. For each algorithm, it uses the first back end that reproduces the published test vectors: OpenSSL
 * 3 through FFI (on Windows, bcrypt.dll), node:crypto, @noble/ciphers.
 *
 * @param backend Name of the only back end to use. @default {the fastest that works}
 * @throws {Deno.errors.NotSupported} when `backend` does not work; its `cause` says why. If it lacks an algorithm, as
 *   bcrypt.dll before Windows 11 lacks ChaCha20-Poly1305, creating a key for that throws.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openCryptography } from "@warren/tunnel/cryptography";
 *
 * const { sealingKey, openingKey, random } = await openCryptography("node");
 * const key = random(new Uint8Array(32));
 * const nonce = { base: new Uint8Array(12), offset: 4, length: 8, isLittleEndian: true } as const;
 * const memory = new Uint8Array(100);
 * memory.set([1, 2, 3], 50);
 * using sealing = sealingKey("chacha20-poly1305", key, nonce, memory);
 * using opening = openingKey("chacha20-poly1305", key, nonce, memory);
 *
 * assert(sealing.seal(50, 3, 50, 0, 0)); // 3 bytes and the tag
 * assert(opening.open(0, 50, 19, 10, 0, 0));
 * assert.deepEqual([...memory.subarray(10, 13)], [1, 2, 3]);
 * memory[50]! ^= 1;
 * assert(!opening.open(0, 50, 19, 10, 0, 0));
 * ```
 */
export async function openCryptography(backend?: BackendName): Promise<Cryptography> {
  if (backend !== undefined) checkOption("open cryptography", "backend", backend, Object.keys(BACKENDS));
  const { chosen, failures } = await chooseBackends(
    backend === undefined ? backendsOf(Deno.build.os) : [backend],
  );
  const reasons = failures.map(errorMessage).join("; ");
  if (chosen.size === 0) {
    const cause = new AggregateError(failures);
    throw new Deno.errors.NotSupported(`Cannot open cryptography: ${reasons}`, { cause });
  }
  const backendFor = (aead: AeadName): Backend => {
    const found = chosen.get(aead);
    if (found !== undefined) return found;
    checkOption("create a key", "aead", aead, AEADS);
    throw new Deno.errors.NotSupported(`Cannot create a key: ${reasons}`);
  };
  return {
    name: [...new Set([...chosen.values()].map(({ name }) => name))].join(", "),
    sealingKey: (aead, key, nonce, memory) =>
      new LibrarySealingKey(backendFor(aead), aead, key, nonce, memory),
    openingKey: (aead, key, nonce, memory) =>
      new LibraryOpeningKey(backendFor(aead), aead, key, nonce, memory),
    hkdf: (secret, salt, info, length) => new Uint8Array(hkdfSync("sha256", secret, salt, info, length)),
    random(bytes) {
      // getRandomValues() fills at most 65,536 bytes.
      for (let at = 0; at < bytes.length; at += 65_536) {
        crypto.getRandomValues(bytes.subarray(at, at + 65_536) as Uint8Array<ArrayBuffer>);
      }
      return bytes;
    },
    equal: (a, b) => a.length === b.length && timingSafeEqual(a, b),
  };
}
