/** Cryptography that VPN protocols get: authenticated encryption in the memory of packets, key derivation, random bytes. */

// Specification
/** RFC 8439 section 2.8, NIST SP 800-38D section 5.2.1.2: length of an authentication tag (bytes). */
export const TAG_LENGTH = 16;
/** RFC 8439 section 2.8, NIST SP 800-38D section 8.2: length of a nonce (bytes). */
export const NONCE_LENGTH = 12;

/** Algorithm for authenticated encryption with additional data (AEAD): RFC 8439 or NIST SP 800-38D. */
export type AeadName = "chacha20-poly1305" | "aes-256-gcm" | "aes-128-gcm";

/** Length of an algorithm's key (bytes). */
export const KEY_LENGTHS: Readonly<Record<AeadName, number>> = {
  "chacha20-poly1305": 32,
  "aes-256-gcm": 32,
  "aes-128-gcm": 16,
};

/**
 * Place of a packet counter in nonces. The counter is XORed into `base`. WireGuard: base of zeros, offset 4, length 8,
 * little-endian. OpenVPN: base of 4 zeros and the implicit IV, offset 0, length 4, big-endian.
 */
export interface NonceLayout {
  /** Nonce of counter 0 (12 bytes). */
  readonly base: Uint8Array;
  /** Offset of the counter in the nonce. */
  readonly offset: number;
  /** Length of the counter (bytes). */
  readonly length: 4 | 8;
  /** Byte order of the counter. */
  readonly isLittleEndian: boolean;
}

/**
 * Key that encrypts, with the counter of its packets: each call uses the next counter, so that no nonce is used twice.
 * All offsets are in the memory that the key was created for.
 */
export interface SealingKey extends Disposable {
  /** Counter of the next packet, from 0. */
  readonly counter: number;
  /**
   * Encrypts `length` bytes at `source` to `target`, and appends the tag of 16 bytes. `source` and `target` are the same,
   * or do not overlap. Returns `false` when the counters are used up, after 2^32 or 2^53 packets.
   *
   * @param aad Offset of additional data, which the tag covers as well.
   * @throws {RangeError} when a range is outside the memory.
   * @throws {Deno.errors.BadResource} after disposal.
   */
  seal(source: number, length: number, target: number, aad: number, aadLength: number): boolean;
}

/** Key that decrypts. All offsets are in the memory that the key was created for. */
export interface OpeningKey extends Disposable {
  /**
   * Decrypts `length` bytes at `source`, of which the last 16 are the tag, to `target`. `source` and `target` are the
   * same, or do not overlap. Returns `false` if the tag is wrong: the bytes at `target` are then zeros. Also returns
   * `false` if `length` is shorter than a tag or `counter` is out of range, and then changes nothing.
   *
   * @param aad Offset of the additional data.
   * @throws {RangeError} when a range is outside the memory.
   * @throws {Deno.errors.BadResource} after disposal.
   */
  open(
    counter: number,
    source: number,
    length: number,
    target: number,
    aad: number,
    aadLength: number,
  ): boolean;
}

/** Cryptography of a VPN protocol. Calls are synchronous; with libcrypto, `seal` and `open` allocate nothing. */
export interface Cryptography {
  /** Names of the libraries in use, such as `libcrypto 3.0.19`. */
  readonly name: string;
  /** Creates a key that encrypts packets in `memory`. The key's bytes are copied, and zeroed on disposal. */
  sealingKey(
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
  ): SealingKey;
  /** Creates a key that decrypts packets in `memory`. The key's bytes are copied, and zeroed on disposal. */
  openingKey(
    aead: AeadName,
    key: Uint8Array,
    nonce: NonceLayout,
    memory: Uint8Array<ArrayBuffer>,
  ): OpeningKey;
  /** Derives `length` bytes from a secret: HKDF with SHA-256 (RFC 5869). */
  hkdf(secret: Uint8Array, salt: Uint8Array, info: Uint8Array, length: number): Uint8Array<ArrayBuffer>;
  /** Fills an array with random bytes, and returns it. */
  random<Bytes extends Uint8Array>(bytes: Bytes): Bytes;
  /** Compares secrets of the same length in a time that does not depend on their bytes. */
  equal(a: Uint8Array, b: Uint8Array): boolean;
}
