/** Cryptography of Windows: the symbol table of bcrypt.dll, opened on first use, and one CNG key for each key. */

import { type AeadName, NONCE_LENGTH, TAG_LENGTH } from "../../lib/vpn/aead.ts";
import { libraryError, requestFfi } from "../ffi.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import type { Backend, Cipher } from "./backend.ts";

const SYMBOLS = {
  // NTSTATUS BCryptOpenAlgorithmProvider(BCRYPT_ALG_HANDLE *phAlgorithm, LPCWSTR pszAlgId, LPCWSTR pszImplementation,
  //   ULONG dwFlags);
  BCryptOpenAlgorithmProvider: { parameters: ["buffer", "buffer", "buffer", "u32"], result: "i32" },
  // NTSTATUS BCryptSetProperty(BCRYPT_HANDLE hObject, LPCWSTR pszProperty, PUCHAR pbInput, ULONG cbInput, ULONG dwFlags);
  BCryptSetProperty: { parameters: ["usize", "buffer", "buffer", "u32", "u32"], result: "i32" },
  // NTSTATUS BCryptGenerateSymmetricKey(BCRYPT_ALG_HANDLE hAlgorithm, BCRYPT_KEY_HANDLE *phKey, PUCHAR pbKeyObject,
  //   ULONG cbKeyObject, PUCHAR pbSecret, ULONG cbSecret, ULONG dwFlags);
  BCryptGenerateSymmetricKey: {
    parameters: ["usize", "buffer", "buffer", "u32", "buffer", "u32", "u32"],
    result: "i32",
  },
  // NTSTATUS BCryptEncrypt(BCRYPT_KEY_HANDLE hKey, PUCHAR pbInput, ULONG cbInput, VOID *pPaddingInfo, PUCHAR pbIV,
  //   ULONG cbIV, PUCHAR pbOutput, ULONG cbOutput, ULONG *pcbResult, ULONG dwFlags);
  BCryptEncrypt: {
    parameters: ["usize", "usize", "u32", "buffer", "usize", "u32", "usize", "u32", "buffer", "u32"],
    result: "i32",
  },
  // NTSTATUS BCryptDecrypt(BCRYPT_KEY_HANDLE hKey, PUCHAR pbInput, ULONG cbInput, VOID *pPaddingInfo, PUCHAR pbIV,
  //   ULONG cbIV, PUCHAR pbOutput, ULONG cbOutput, ULONG *pcbResult, ULONG dwFlags);
  BCryptDecrypt: {
    parameters: ["usize", "usize", "u32", "buffer", "usize", "u32", "usize", "u32", "buffer", "u32"],
    result: "i32",
  },
  // NTSTATUS BCryptDestroyKey(BCRYPT_KEY_HANDLE hKey);
  BCryptDestroyKey: { parameters: ["usize"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification: bcrypt.h
const CHAINING_MODE = "ChainingMode";
const CHAINING_MODE_GCM = "ChainingModeGCM";
const INFO_VERSION = 1;
/**
 * struct BCRYPT_AUTHENTICATED_CIPHER_MODE_INFO { ULONG cbSize, dwInfoVersion; PUCHAR pbNonce; ULONG cbNonce;
 *   PUCHAR pbAuthData; ULONG cbAuthData; PUCHAR pbTag; ULONG cbTag; PUCHAR pbMacContext; ULONG cbMacContext, cbAAD;
 *   ULONGLONG cbData; ULONG dwFlags; }
 */
const Info = {
  cbSize: 0,
  dwInfoVersion: 4,
  pbNonce: 8,
  cbNonce: 16,
  pbAuthData: 24,
  cbAuthData: 32,
  pbTag: 40,
  cbTag: 48,
  SIZE: 88,
} as const;

// Implementation
/** Index of each address of a call. */
const Address = { SOURCE: 0, TARGET: 1, COUNT: 2 } as const;

type Functions = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

interface Library {
  readonly functions: Functions;
  /** Providers of algorithms, which stay open. */
  readonly providers: Map<AeadName, bigint>;
  wideString(text: string): Uint16Array<ArrayBuffer>;
}

let opened: Library | undefined;

async function load(): Promise<Library> {
  requestFfi("bcrypt.dll");
  const { systemLibrary } = await import("../windows/library.ts");
  const { wideString } = await import("../windows/kernel32.ts");
  try {
    const { symbols: functions } = Deno.dlopen(systemLibrary("bcrypt.dll"), SYMBOLS);
    return { functions, providers: new Map(), wideString };
  } catch (error) {
    throw libraryError("bcrypt.dll", error);
  }
}

/**
 * Opens bcrypt.dll. ChaCha20-Poly1305 needs Windows 11 or Windows Server 2022.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} when it cannot be opened.
 */
export async function openBcrypt(): Promise<Backend> {
  const library = opened ??= await load();
  return {
    name: "bcrypt.dll",
    cipher: (aead, key, seals, memory) => new CngCipher(library, aead, key, seals, memory),
  };
}

/** Returns the provider of an algorithm, opened on first use. @throws {Deno.errors.NotSupported} when there is none. */
function providerOf({ functions, providers, wideString }: Library, aead: AeadName): bigint {
  const known = providers.get(aead);
  if (known !== undefined) return known;
  const isGcm = aead !== "chacha20-poly1305";
  const handle = new BigUint64Array(1);
  const algorithm = wideString(isGcm ? "AES" : "CHACHA20_POLY1305");
  checkStatus(aead, functions.BCryptOpenAlgorithmProvider(handle, algorithm, null, 0));
  const provider = handle[0]!;
  if (isGcm) {
    const mode = wideString(CHAINING_MODE_GCM);
    const status = functions.BCryptSetProperty(
      provider,
      wideString(CHAINING_MODE),
      mode,
      mode.byteLength,
      0,
    );
    checkStatus(aead, status);
  }
  providers.set(aead, provider);
  return provider;
}

/** Checks an NTSTATUS, which is negative for an error. */
function checkStatus(aead: AeadName, status: number): void {
  if (status >= 0) return;
  const code = (status >>> 0).toString(16);
  throw new Deno.errors.NotSupported(`Cannot use ${aead}: bcrypt.dll refuses it: NTSTATUS 0x${code}`);
}

/** A CNG key. Handles and addresses are bigints loaded from typed arrays, as in `libcrypto.ts`. */
class CngCipher implements Cipher {
  readonly #functions: Functions;
  readonly #seals: boolean;
  readonly #handle: bigint;
  readonly #base: number;
  readonly #addresses = new BigUint64Array(Address.COUNT);
  readonly #words = new Uint32Array(this.#addresses.buffer);
  /** The structure, and behind it the nonce that it points to. */
  readonly #info = new Uint8Array(new ArrayBuffer(Info.SIZE + NONCE_LENGTH));
  readonly #infoWords = new Uint32Array(this.#info.buffer);
  readonly #written = new Uint32Array(1);

  constructor(
    library: Library,
    aead: AeadName,
    key: Uint8Array<ArrayBuffer>,
    seals: boolean,
    memory: Uint8Array<ArrayBuffer>,
  ) {
    const { BCryptGenerateSymmetricKey } = library.functions;
    const provider = providerOf(library, aead);
    const handle = new BigUint64Array(1);
    checkStatus(aead, BCryptGenerateSymmetricKey(provider, handle, null, 0, key, key.length, 0));
    this.#handle = handle[0]!;
    this.#functions = library.functions;
    this.#seals = seals;
    this.#base = addressOf(memory);
    const words = this.#infoWords;
    words[Info.cbSize / 4] = Info.SIZE;
    words[Info.dwInfoVersion / 4] = INFO_VERSION;
    setAddress(words, Info.pbNonce / 4, addressOf(this.#info) + Info.SIZE);
    words[Info.cbNonce / 4] = NONCE_LENGTH;
    words[Info.cbTag / 4] = TAG_LENGTH;
  }

  run(
    nonce: Uint8Array<ArrayBuffer>,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean {
    const { BCryptEncrypt, BCryptDecrypt } = this.#functions;
    const words = this.#infoWords;
    const size = this.#seals ? length : length - TAG_LENGTH;
    this.#info.set(nonce, Info.SIZE);
    setAddress(words, Info.pbAuthData / 4, this.#base + aad);
    words[Info.cbAuthData / 4] = aadLength;
    setAddress(words, Info.pbTag / 4, this.#base + (this.#seals ? target : source) + size);
    setAddress(this.#words, 2 * Address.SOURCE, this.#base + source);
    setAddress(this.#words, 2 * Address.TARGET, this.#base + target);
    // Two places that each call one function: V8 calls it directly only then, and allocates nothing.
    const status = this.#seals
      ? BCryptEncrypt(
        this.#handle,
        this.#addresses[Address.SOURCE]!,
        size,
        this.#info,
        0n,
        0,
        this.#addresses[Address.TARGET]!,
        size,
        this.#written,
        0,
      )
      : BCryptDecrypt(
        this.#handle,
        this.#addresses[Address.SOURCE]!,
        size,
        this.#info,
        0n,
        0,
        this.#addresses[Address.TARGET]!,
        size,
        this.#written,
        0,
      );
    return status === 0;
  }

  /** Destroys the key, which overwrites it. */
  close(): void {
    this.#functions.BCryptDestroyKey(this.#handle);
  }
}
