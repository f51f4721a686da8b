/** Cryptography of OpenSSL 3: its symbol table, opened on first use, and one EVP context for each key. */

import { type AeadName, TAG_LENGTH } from "../../lib/vpn/aead.ts";
import { libraryError, requestFfi } from "../ffi.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import type { Backend, Cipher } from "./backend.ts";

const SYMBOLS = {
  // const char *OpenSSL_version(int type);
  OpenSSL_version: { parameters: ["i32"], result: "pointer" },
  // const EVP_CIPHER *EVP_chacha20_poly1305(void);
  EVP_chacha20_poly1305: { parameters: [], result: "pointer" },
  // const EVP_CIPHER *EVP_aes_128_gcm(void);
  EVP_aes_128_gcm: { parameters: [], result: "pointer" },
  // const EVP_CIPHER *EVP_aes_256_gcm(void);
  EVP_aes_256_gcm: { parameters: [], result: "pointer" },
  // EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void);
  EVP_CIPHER_CTX_new: { parameters: [], result: "usize" },
  // void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *ctx);
  EVP_CIPHER_CTX_free: { parameters: ["usize"], result: "void" },
  // int EVP_CipherInit_ex(EVP_CIPHER_CTX *ctx, const EVP_CIPHER *type, ENGINE *impl, const unsigned char *key,
  //   const unsigned char *iv, int enc);
  EVP_CipherInit_ex: {
    parameters: ["usize", "pointer", "pointer", "buffer", "buffer", "i32"],
    result: "i32",
  },
  // int EVP_CipherUpdate(EVP_CIPHER_CTX *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl);
  EVP_CipherUpdate: { parameters: ["usize", "usize", "buffer", "usize", "i32"], result: "i32" },
  // int EVP_CipherFinal_ex(EVP_CIPHER_CTX *ctx, unsigned char *outm, int *outl);
  EVP_CipherFinal_ex: { parameters: ["usize", "buffer", "buffer"], result: "i32" },
  // int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *ctx, int type, int arg, void *ptr);
  EVP_CIPHER_CTX_ctrl: { parameters: ["usize", "i32", "i32", "usize"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification: openssl/evp.h, openssl/crypto.h
const EVP_CTRL_AEAD_GET_TAG = 0x10;
const EVP_CTRL_AEAD_SET_TAG = 0x11;
const OPENSSL_VERSION_STRING = 6;

// Implementation
const NAMES: Readonly<Partial<Record<typeof Deno.build.os, readonly string[]>>> = {
  linux: ["libcrypto.so.3"],
  // The system's own libcrypto ends every process that loads it.
  darwin: ["/opt/homebrew/lib/libcrypto.3.dylib", "/usr/local/lib/libcrypto.3.dylib"],
  freebsd: ["libcrypto.so.30", "libcrypto.so.35"],
};

/** Index of each address of a call. */
const Address = { SOURCE: 0, TARGET: 1, AAD: 2, TAG: 3, COUNT: 4 } as const;

type Functions = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Functions | undefined;

function load(): Functions {
  requestFfi("libcrypto");
  let error: unknown = new Error("there is none for this system");
  for (const name of NAMES[Deno.build.os] ?? []) {
    try {
      return Deno.dlopen(name, SYMBOLS).symbols;
    } catch (cause) {
      error = cause;
    }
  }
  throw libraryError("libcrypto", error, "install OpenSSL 3");
}

/**
 * Opens libcrypto.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} when the system has no OpenSSL 3.
 */
export function openLibcrypto(): Backend {
  const functions = opened ??= load();
  const version = Deno.UnsafePointerView.getCString(functions.OpenSSL_version(OPENSSL_VERSION_STRING)!);
  return {
    name: `libcrypto ${version}`,
    cipher: (aead, key, seals, memory) => new EvpCipher(functions, aead, key, seals, memory),
  };
}

/**
 * An EVP context with its key. Addresses are written as numbers and read as bigints, and the context is a bigint, because
 * V8 allocates for each bigint that is computed, and for all of a call with a `pointer` that is not a constant
 * (`deno task bench crypto`).
 */
class EvpCipher implements Cipher {
  readonly #functions: Functions;
  readonly #context: bigint;
  readonly #seals: boolean;
  /** Address of the memory, which the key keeps alive. */
  readonly #base: number;
  readonly #addresses = new BigUint64Array(Address.COUNT);
  readonly #words = new Uint32Array(this.#addresses.buffer);
  /** Number of bytes that an update wrote. */
  readonly #written = new Int32Array(1);
  /** Output of the final call, which writes none for these ciphers. */
  readonly #rest = new Uint8Array(TAG_LENGTH);

  constructor(
    functions: Functions,
    aead: AeadName,
    key: Uint8Array<ArrayBuffer>,
    seals: boolean,
    memory: Uint8Array<ArrayBuffer>,
  ) {
    this.#functions = functions;
    this.#seals = seals;
    this.#base = addressOf(memory);
    this.#context = functions.EVP_CIPHER_CTX_new();
    if (this.#context === 0n) throw new Deno.errors.NotSupported(`Cannot use ${aead}: out of memory`);
    const type = {
      "chacha20-poly1305": functions.EVP_chacha20_poly1305,
      "aes-128-gcm": functions.EVP_aes_128_gcm,
      "aes-256-gcm": functions.EVP_aes_256_gcm,
    }[aead]();
    if (functions.EVP_CipherInit_ex(this.#context, type, null, key, null, seals ? 1 : 0) === 1) return;
    functions.EVP_CIPHER_CTX_free(this.#context);
    throw new Deno.errors.NotSupported(`Cannot use ${aead}: libcrypto refuses it`);
  }

  run(
    nonce: Uint8Array<ArrayBuffer>,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const { EVP_CipherInit_ex, EVP_CipherUpdate, EVP_CipherFinal_ex, EVP_CIPHER_CTX_ctrl } = this.#functions;
    const context = this.#context;
    const seals = this.#seals;
    const written = this.#written;
    const addresses = this.#addresses;
    const words = this.#words;
    const size = seals ? length : length - TAG_LENGTH;
    setAddress(words, 2 * Address.SOURCE, this.#base + source);
    setAddress(words, 2 * Address.TARGET, this.#base + target);
    setAddress(words, 2 * Address.AAD, this.#base + aad);
    setAddress(words, 2 * Address.TAG, this.#base + (seals ? target : source) + size);
    if (EVP_CipherInit_ex(context, null, null, null, nonce, seals ? 1 : 0) !== 1) return false;
    if (!seals) {
      const result = EVP_CIPHER_CTX_ctrl(
        context,
        EVP_CTRL_AEAD_SET_TAG,
        TAG_LENGTH,
        addresses[Address.TAG]!,
      );
      if (result !== 1) return false;
    }
    if (aadLength > 0) {
      if (EVP_CipherUpdate(context, 0n, written, addresses[Address.AAD]!, aadLength) !== 1) return false;
    }
    if (size > 0) {
      const result = EVP_CipherUpdate(
        context,
        addresses[Address.TARGET]!,
        written,
        addresses[Address.SOURCE]!,
        size,
      );
      if (result !== 1) return false;
    }
    if (EVP_CipherFinal_ex(context, this.#rest, written) !== 1) return false;
    if (!seals) return true;
    return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_LENGTH, addresses[Address.TAG]!) === 1;
  }

  /** Frees the context, which overwrites its key. */
  close(): void {
    this.#functions.EVP_CIPHER_CTX_free(this.#context);
  }
}
