/** Cryptography: every back end against published vectors and against another library, and the guards of its keys. */

import assert from "node:assert/strict";
import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Backend, LibrarySealingKey } from "../../../driver/crypto/backend.ts";
import { type BackendName, openCryptography } from "../../../driver/crypto/mod.ts";
import { backendsOf, examineCryptography } from "../../../driver/crypto/choice.ts";
import { openNodeCrypto } from "../../../driver/crypto/node_crypto.ts";
import { checkBackend } from "../../../driver/crypto/vectors.ts";
import { Random } from "../../../lib/core/random.ts";
import {
  type AeadName,
  type Cryptography,
  KEY_LENGTHS,
  type NonceLayout,
  TAG_LENGTH,
} from "../../../lib/vpn/aead.ts";

const AEADS = Object.keys(KEY_LENGTHS) as AeadName[];
const BACKENDS = backendsOf(Deno.build.os);
const WIREGUARD: NonceLayout = { base: new Uint8Array(12), offset: 4, length: 8, isLittleEndian: true };
const MAX_LENGTH = 65_535;

function integer(random: Random, limit: number): number {
  return random.next() % limit;
}

function randomBytes(random: Random, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => integer(random, 256));
}

function sealWithNoble(
  aead: AeadName,
  key: Uint8Array,
  nonce: Uint8Array,
  aad: Uint8Array,
  plain: Uint8Array,
) {
  return (aead === "chacha20-poly1305" ? chacha20poly1305 : gcm)(key, nonce, aad).encrypt(plain);
}

function hasNoChaCha20(sealingKey: Cryptography["sealingKey"]): boolean {
  try {
    sealingKey("chacha20-poly1305", new Uint8Array(32), WIREGUARD, new Uint8Array(1))[Symbol.dispose]();
    return false;
  } catch (error) {
    assert.ok(error instanceof Deno.errors.NotSupported);
    assert.match(error.message, /^Cannot create a key: Cannot use chacha20-poly1305: bcrypt\.dll refuses it/);
    return true;
  }
}

for (const name of BACKENDS) {
  const { sealingKey, openingKey, name: text } = await openCryptography(name);

  for (const aead of AEADS) {
    // Wine's bcrypt.dll lacks it, as that of Windows 10 does.
    if (name === "bcrypt" && aead === "chacha20-poly1305" && hasNoChaCha20(sealingKey)) continue;
    Deno.test(`${name}: ${aead} gives the results of @noble/ciphers, in place and apart`, () => {
      const random = new Random(7);
      for (let round = 0; round < 60; round++) {
        const length = round < 40 ? round : round === 40 ? MAX_LENGTH : integer(random, MAX_LENGTH);
        const aadLength = integer(random, 65);
        const key = randomBytes(random, KEY_LENGTHS[aead]);
        const base = randomBytes(random, 12);
        const memory = new Uint8Array(110 + 2 * (length + 40)).fill(0xa5);
        const plain = randomBytes(random, length);
        const aad = randomBytes(random, aadLength);
        const [source, apart] = [70, 70 + length + 40];
        memory.set(aad);
        memory.set(plain, source);
        const target = round % 2 === 0 ? source : apart;
        const nonce: NonceLayout = { base, offset: 4, length: 8, isLittleEndian: true };
        using sealing = sealingKey(aead, key, nonce, memory);
        using opening = openingKey(aead, key, nonce, memory);
        assert.ok(sealing.seal(source, length, target, 0, aadLength));
        const expected = sealWithNoble(aead, key, base, aad, plain);
        assert.deepEqual([...memory.slice(target, target + length + TAG_LENGTH)], [...expected]);
        assert.equal(memory[target + length + TAG_LENGTH], 0xa5, "nothing is written behind the tag");
        const back = round % 3 === 0 ? target : target === source ? apart : source;
        assert.ok(opening.open(0, target, length + TAG_LENGTH, back, 0, aadLength));
        assert.deepEqual(memory.slice(back, back + length), plain);
      }
    });

    Deno.test(`${name}: ${aead} refuses a changed byte, another counter, and what is shorter than a tag`, () => {
      const random = new Random(8);
      const key = randomBytes(random, KEY_LENGTHS[aead]);
      const memory = new Uint8Array(200);
      using sealing = sealingKey(aead, key, WIREGUARD, memory);
      using opening = openingKey(aead, key, WIREGUARD, memory);
      memory.set(randomBytes(random, 46));
      assert.ok(sealing.seal(16, 30, 100, 0, 16));
      for (const at of [0, 15, 100, 129, 130, 145]) {
        memory[at]! ^= 0x40;
        assert.equal(opening.open(0, 100, 46, 50, 0, 16), false, `byte ${at}`);
        memory[at]! ^= 0x40;
      }
      assert.equal(opening.open(1, 100, 46, 50, 0, 16), false);
      assert.equal(opening.open(0, 100, 45, 50, 0, 16), false);
      assert.equal(opening.open(0, 100, 46, 50, 0, 15), false);
      for (const length of [0, 1, 15]) assert.equal(opening.open(0, 100, length, 50, 0, 0), false);
      for (const counter of [-1, NaN, 2 ** 53]) {
        assert.equal(opening.open(counter, 100, 46, 50, 0, 16), false);
      }
      assert.ok(opening.open(0, 100, 46, 50, 0, 16));
      assert.deepEqual(memory.slice(50, 80), memory.slice(16, 46));
    });
  }

  Deno.test(`${name}: ranges outside the memory and overlaps throw, and nothing is touched`, () => {
    const memory = new Uint8Array(100).fill(7);
    const before = memory.slice();
    using sealing = sealingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    using opening = openingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    for (
      const [source, length, target, aad, aadLength] of [
        [0, 101, 0, 0, 0],
        [0, 85, 0, 0, 0], // the tag does not fit
        [-1, 10, 50, 0, 0],
        [2 ** 32, 10, 50, 0, 0],
        [0.5, 10, 50, 0, 0],
        [NaN, 10, 50, 0, 0],
        [0, 10, 90, 0, 0],
        [0, 10, 50, 99, 2],
        [0, 10, 50, 0, 2 ** 31],
        [0, 30, 10, 0, 0],
        [20, 30, 5, 0, 0],
      ] as const
    ) {
      assert.throws(() => sealing.seal(source, length, target, aad, aadLength), RangeError);
    }
    assert.throws(() => opening.open(0, 0, 101, 0, 0, 0), RangeError);
    assert.throws(() => opening.open(0, 0, 80, 20, 0, 0), RangeError);
    assert.deepEqual(memory, before);
  });

  Deno.test(`${name}: memory that is detached, shrunk or shorter than it claims throws`, () => {
    class Longer extends Uint8Array<ArrayBuffer> {
      override get length(): number {
        return 1 << 20;
      }
    }
    const detached = new Uint8Array(1000);
    const shrunk = new ArrayBuffer(1000, { maxByteLength: 1000 });
    for (const memory of [detached, new Uint8Array(shrunk), new Longer(new ArrayBuffer(10))]) {
      using sealing = sealingKey("aes-128-gcm", new Uint8Array(16), WIREGUARD, memory);
      using opening = openingKey("aes-128-gcm", new Uint8Array(16), WIREGUARD, memory);
      if (memory === detached) memory.buffer.transfer();
      if (memory.buffer === shrunk) shrunk.resize(10);
      assert.throws(() => sealing.seal(500, 10, 500, 0, 0), RangeError);
      assert.throws(() => opening.open(0, 500, 30, 500, 0, 0), RangeError);
    }
  });

  Deno.test(`${name}: a wrong tag leaves zeros at the target, in place and apart`, () => {
    const memory = new Uint8Array(200);
    using sealing = sealingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    using opening = openingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    memory.fill(7, 0, 20);
    assert.ok(sealing.seal(0, 20, 50, 0, 0));
    memory[70]! ^= 1;
    for (const target of [100, 50]) {
      memory.fill(0xa5, 100);
      assert.equal(opening.open(0, 50, 36, target, 0, 0), false);
      assert.deepEqual(memory.slice(target, target + 20), new Uint8Array(20));
      assert.equal(memory[120], 0xa5);
    }
  });

  Deno.test(`${name}: each call of seal() uses another nonce, even after an error`, () => {
    const memory = new Uint8Array(200);
    using sealing = sealingKey("aes-128-gcm", new Uint8Array(16), WIREGUARD, memory);
    const outputs = new Set<string>();
    for (let i = 0; i < 300; i++) {
      if (i % 3 === 1) assert.throws(() => sealing.seal(0, 300, 0, 0, 0), RangeError);
      assert.ok(sealing.seal(0, 20, 100, 0, 0));
      outputs.add(memory.subarray(100, 136).toHex());
    }
    assert.equal(outputs.size, 300);
    assert.equal(sealing.counter, 400);
  });

  Deno.test(`${name}: a closed key throws, and keys of a wrong length are refused`, () => {
    const memory = new Uint8Array(100);
    const sealing = sealingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    const opening = openingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
    for (let i = 0; i < 2; i++) {
      sealing[Symbol.dispose]();
      opening[Symbol.dispose]();
    }
    assert.throws(() => sealing.seal(0, 1, 0, 0, 0), Deno.errors.BadResource);
    assert.throws(() => opening.open(0, 0, 20, 0, 0, 0), Deno.errors.BadResource);
    assert.throws(() => sealingKey("aes-256-gcm", new Uint8Array(16), WIREGUARD, memory), {
      name: "RangeError",
      message: "Cannot create a key: key must have 32 bytes for aes-256-gcm, got 16",
    });
    assert.match(text, /^(libcrypto 3\.|bcrypt\.dll$|node:crypto of Deno |@noble\/ciphers$)/);
  });
}

Deno.test("A key refuses layouts that cannot hold the counter, and keeps its own copy of the layout", () => {
  const memory = new Uint8Array(100);
  const create = (layout: NonceLayout) =>
    new LibrarySealingKey(openNodeCrypto(), "aes-128-gcm", new Uint8Array(16), layout, memory);
  for (const offset of [-1, 0.5, 5, NaN]) assert.throws(() => create({ ...WIREGUARD, offset }), RangeError);
  for (const length of [0, -1, 3, 12]) {
    assert.throws(() => create({ ...WIREGUARD, length: length as 4 }), TypeError);
  }
  assert.throws(() => create({ ...WIREGUARD, base: new Uint8Array(11) }), {
    name: "RangeError",
    message: "Cannot create a key: nonce.base must have 12 bytes, got 11",
  });
  const layout = { ...WIREGUARD, base: new Uint8Array(12) };
  using key = create(layout);
  const outputs = [0, 1].map(() => {
    assert.ok(key.seal(0, 20, 50, 0, 0));
    Object.assign(layout, { offset: 100, length: 0 });
    layout.base.fill(1);
    return memory.slice(50, 86).toHex();
  });
  using same = create({ ...WIREGUARD });
  for (const output of outputs) {
    assert.ok(same.seal(0, 20, 50, 0, 0));
    assert.equal(memory.slice(50, 86).toHex(), output);
  }
});

Deno.test("A counter of 4 bytes ends after 2^32 packets, in the byte order of its layout", () => {
  const memory = new Uint8Array(100);
  const base = Uint8Array.from({ length: 12 }, (_, i) => i);
  const layout: NonceLayout = { base, offset: 0, length: 4, isLittleEndian: false };
  const [backend, key, first] = [openNodeCrypto(), new Uint8Array(16), 2 ** 32 - 256];
  using sealing = new LibrarySealingKey(backend, "aes-128-gcm", key, layout, memory, first);
  assert.ok(sealing.seal(0, 0, 0, 0, 0));
  const nonce = base.slice();
  for (let i = 0; i < 3; i++) nonce[i]! ^= 0xff;
  const empty = new Uint8Array();
  const expected = sealWithNoble("aes-128-gcm", new Uint8Array(16), nonce, empty, empty);
  assert.deepEqual([...memory.slice(0, TAG_LENGTH)], [...expected]);
  for (let i = 0; i < 255; i++) assert.ok(sealing.seal(0, 0, 0, 0, 0));
  assert.equal(sealing.seal(0, 0, 0, 0, 0), false);
  assert.equal(sealing.counter, 2 ** 32);
});

Deno.test("The copy of a key that a library was given is zeroed, also when the library refuses it", () => {
  const seen: Uint8Array[] = [];
  const memory = new Uint8Array(100);
  const keep = (refuses: boolean): Backend => ({
    name: "keeps the copy",
    cipher(aead, key, seals, memory) {
      assert.deepEqual([...key], Array(32).fill(7));
      seen.push(key);
      if (refuses) throw new Error("refused");
      return openNodeCrypto().cipher(aead, key, seals, memory);
    },
  });
  const key = new Uint8Array(32).fill(7);
  using _ = new LibrarySealingKey(keep(false), "aes-256-gcm", key, WIREGUARD, memory);
  assert.throws(() => new LibrarySealingKey(keep(true), "aes-256-gcm", key, WIREGUARD, memory), /refused/);
  assert.deepEqual(seen, [new Uint8Array(32), new Uint8Array(32)]);
  assert.equal(key[0], 7, "the caller's own key is as it was");
});

Deno.test("checkBackend() refuses a library that gives a wrong result or accepts a wrong tag", () => {
  const right = openNodeCrypto();
  const wrong = (change: (result: boolean, seals: boolean, memory: Uint8Array) => boolean): Backend => ({
    name: "wrong",
    cipher(aead, key, seals, memory) {
      const cipher = right.cipher(aead, key, seals, memory);
      return { run: (...args) => change(cipher.run(...args), seals, memory), close: () => cipher.close() };
    },
  });
  for (const aead of AEADS) {
    checkBackend(right, aead);
    const refused = new RegExp(`^Error: Cannot use wrong for ${aead}: it does not give the results`);
    assert.throws(() => checkBackend(wrong(() => true), aead), refused);
    assert.throws(() => checkBackend(wrong(() => false), aead), refused);
    const flips = wrong((result, seals, memory) => {
      if (seals) memory[memory.length - 1]! ^= 1;
      return result;
    });
    assert.throws(() => checkBackend(flips, aead), refused);
  }
});

Deno.test("openCryptography() derives keys, fills long arrays, compares secrets, refuses unknown names", async () => {
  const { hkdf, random, equal, sealingKey } = await openCryptography();
  // RFC 5869 appendix A.1
  const okm = hkdf(
    Uint8Array.fromHex("0b".repeat(22)),
    Uint8Array.fromHex("000102030405060708090a0b0c"),
    Uint8Array.fromHex("f0f1f2f3f4f5f6f7f8f9"),
    42,
  );
  const expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
  assert.equal(okm.toHex(), expected);
  const long = random(new Uint8Array(200_000));
  assert.ok(long.subarray(199_000).some((byte) => byte !== 0));
  assert.ok(equal(Uint8Array.of(1, 2), Uint8Array.of(1, 2)));
  assert.ok(!equal(Uint8Array.of(1, 2), Uint8Array.of(1, 3)));
  assert.ok(!equal(Uint8Array.of(1, 2), Uint8Array.of(1)));
  await assert.rejects(
    openCryptography("openssl" as BackendName),
    /^TypeError: Cannot open cryptography: backend must be "bcrypt", "libcrypto", "node" or "noble", got "openssl"$/,
  );
  assert.throws(
    () => sealingKey("rot13" as AeadName, new Uint8Array(32), WIREGUARD, new Uint8Array(1)),
    /^TypeError: Cannot create a key: aead must be /,
  );
});

Deno.test("examineCryptography() names the library of each algorithm", async () => {
  const [found] = await examineCryptography();
  assert.equal(found!.name, "cryptography");
  for (const aead of AEADS) assert.match(found!.text, new RegExp(`${aead} by \\S+`));
});

Deno.test(`${BACKENDS[0]}: a million seals and opens allocate less than a byte each`, async () => {
  const { sealingKey, openingKey } = await openCryptography(BACKENDS[0]);
  const memory = new Uint8Array(65_536);
  using sealing = sealingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
  using opening = openingKey("aes-256-gcm", new Uint8Array(32), WIREGUARD, memory);
  const run = (count: number) => {
    for (let i = 0; i < count; i++) {
      const at = 100 + i % 1000;
      const { counter } = sealing;
      sealing.seal(at, 64, at, 0, 16);
      opening.open(counter, at, 80, at, 0, 16);
    }
  };
  run(1_000_000);
  // So few calls that a collection between them is rare; the least growth is of a run without one.
  let growth = Infinity;
  for (let i = 0; i < 20; i++) {
    const before = Deno.memoryUsage().heapUsed;
    run(5000);
    const grown = Deno.memoryUsage().heapUsed - before;
    if (grown >= 0) growth = Math.min(growth, grown);
  }
  assert.ok(growth / 5000 < 1, `${growth / 5000} bytes per packet`);
});
