/** Published test vectors, which a back end must reproduce before it is used. */

import { type AeadName, TAG_LENGTH } from "../../lib/vpn/aead.ts";
import type { Backend } from "./backend.ts";

/** A key, its input and the output that it must give; hexadecimal. */
interface Vector {
  readonly key: string;
  readonly nonce: string;
  readonly aad: string;
  readonly plaintext: string;
  /** Ciphertext and tag. */
  readonly sealed: string;
}

const SUNSCREEN =
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, " +
  "sunscreen would be it.";

const VECTORS: Readonly<Record<AeadName, readonly Vector[]>> = {
  "chacha20-poly1305": [
    // RFC 8439 section 2.8.2
    {
      key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
      nonce: "070000004041424344454647",
      aad: "50515253c0c1c2c3c4c5c6c7",
      plaintext: new TextEncoder().encode(SUNSCREEN).toHex(),
      sealed:
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b" +
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    },
  ],
  "aes-128-gcm": [
    // The Galois/Counter Mode of Operation (McGrew, Viega), appendix B, test cases 1, 2 and 4
    {
      key: "00000000000000000000000000000000",
      nonce: "000000000000000000000000",
      aad: "",
      plaintext: "",
      sealed: "58e2fccefa7e3061367f1d57a4e7455a",
    },
    {
      key: "00000000000000000000000000000000",
      nonce: "000000000000000000000000",
      aad: "",
      plaintext: "00000000000000000000000000000000",
      sealed: "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf",
    },
    {
      key: "feffe9928665731c6d6a8f9467308308",
      nonce: "cafebabefacedbaddecaf888",
      aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      plaintext:
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b5" +
        "25b16aedf5aa0de657ba637b39",
      sealed:
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05" +
        "1ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
    },
  ],
  "aes-256-gcm": [
    // The same, test cases 13 and 16
    {
      key: "0000000000000000000000000000000000000000000000000000000000000000",
      nonce: "000000000000000000000000",
      aad: "",
      plaintext: "",
      sealed: "530f8afbc74536b9a963b4f1c4cb738b",
    },
    {
      key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
      nonce: "cafebabefacedbaddecaf888",
      aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      plaintext:
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b5" +
        "25b16aedf5aa0de657ba637b39",
      sealed:
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838" +
        "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    },
  ],
};

/**
 * Checks that a back end encrypts and decrypts every vector of an algorithm, and refuses a changed tag.
 *
 * @throws {Error} when it gives another result, or its own error.
 */
export function checkBackend({ name, cipher }: Backend, aead: AeadName): void {
  for (const { key, nonce, aad, plaintext, sealed } of VECTORS[aead]) {
    const [plain, expected, data] = [plaintext, sealed, aad].map((hex) => Uint8Array.fromHex(hex));
    const memory = new Uint8Array(data!.length + expected!.length);
    const at = data!.length;
    memory.set(data!);
    memory.set(plain!, at);
    const run = (seals: boolean) => {
      const one = cipher(aead, Uint8Array.fromHex(key), seals, memory);
      const length = plain!.length + (seals ? 0 : TAG_LENGTH);
      const done = one.run(Uint8Array.fromHex(nonce), at, length, at, 0, at);
      one.close();
      return done;
    };
    const isSealed = run(true) && memory.subarray(at).toHex() === sealed;
    const isOpened = isSealed && run(false) && memory.subarray(at, at + plain!.length).toHex() === plaintext;
    memory.set(expected!, at);
    memory[memory.length - 1]! ^= 1;
    if (isOpened && !run(false)) continue;
    throw new Error(
      `Cannot use ${name} for ${aead}: it does not give the results of the published test vectors`,
    );
  }
}
