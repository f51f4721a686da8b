/** IPv4-embedded IPv6 addresses (RFC 6052). */

import { parseCidr, type Prefix } from "../../wire/address.ts";

// Specification: RFC 6052 section 2.2
//
//     +--+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+
//     |PL| 0-------------32--40--48--56--64--72--80--88--96--104---------|
//     |32|     prefix    |v4(32)         | u | suffix                    |
//     |40|     prefix        |v4(24)     | u |(8)| suffix                |
//     |48|     prefix            |v4(16) | u | (16)  | suffix            |
//     |56|     prefix                |(8)| u |  v4(24)   | suffix        |
//     |64|     prefix                    | u |   v4(32)      | suffix    |
//     |96|     prefix                                    |    v4(32)     |
const LENGTHS: readonly number[] = [32, 40, 48, 56, 64, 96];
/** Offset of the byte that is always zero. */
const U = 8;

/**
 * Prefix for IPv4-embedded IPv6 addresses, such as `64:ff9b::/96`.
 *
 * **Limits**: the suffix behind the IPv4 address is written as zeros and ignored when read (RFC 6052 section 2.2 reserves
 * it).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatIpv6, parseIpv4 } from "@warren/tunnel/address";
 * import { EmbeddingPrefix } from "@warren/tunnel/nat64";
 *
 * const prefix = new EmbeddingPrefix("2001:db8:122::/48");
 * const address = new Uint8Array(16);
 * prefix.write(parseIpv4("192.0.2.33"), address);
 * assert.equal(formatIpv6(address), "2001:db8:122:c000:2:2100::");
 * assert.equal(prefix.read(address), parseIpv4("192.0.2.33"));
 * ```
 */
export class EmbeddingPrefix {
  /** Prefix, padded with zeros. */
  readonly #bytes: Uint8Array;
  /** Length of the prefix (bytes). */
  readonly #length: number;
  /** Offsets of the four bytes of the IPv4 address. */
  readonly #places: Uint8Array;

  /**
   * Parses a prefix.
   *
   * @throws {SyntaxError} when the text does not parse.
   * @throws {TypeError} when the prefix is IPv4.
   * @throws {RangeError} when its length is not 32, 40, 48, 56, 64 or 96, or bits 64 to 71 are not zero.
   */
  constructor(text: string) {
    const { network, length }: Prefix = parseCidr(text);
    if (network.family !== 6) {
      throw new TypeError(`Cannot embed IPv4 addresses: prefix must be IPv6, got "${text}"`);
    }
    if (!LENGTHS.includes(length)) {
      throw new RangeError(
        `Cannot embed IPv4 addresses: length of the prefix must be one of ${
          LENGTHS.join(", ")
        }, got "${text}"`,
      );
    }
    if (network.bytes[U] !== 0) {
      throw new RangeError(
        `Cannot embed IPv4 addresses: bits 64 to 71 of the prefix must be 0, got "${text}"`,
      );
    }
    this.#bytes = network.bytes;
    this.#length = length / 8;
    const start = this.#length;
    this.#places = Uint8Array.from(
      [0, 1, 2, 3],
      (i) => start + i < U || start > U ? start + i : start + i + 1,
    );
  }

  /** Reports whether an address, 16 bytes from `start` on, has the prefix and the zero byte. */
  contains(bytes: Uint8Array, start = 0): boolean {
    for (let i = 0; i < this.#length; i++) if (bytes[start + i] !== this.#bytes[i]) return false;
    return bytes[start + U] === 0;
  }

  /** Reads the IPv4 address (unsigned 32 bits) from an address that {@linkcode contains} accepts. */
  read(bytes: Uint8Array, start = 0): number {
    const places = this.#places;
    return (bytes[start + places[0]!]! << 24 | bytes[start + places[1]!]! << 16 |
      bytes[start + places[2]!]! << 8 | bytes[start + places[3]!]!) >>> 0;
  }

  /** Writes the prefix with this IPv4 address, 16 bytes from `start` on. */
  write(address: number, bytes: Uint8Array, start = 0): void {
    for (let i = 0; i < 16; i++) bytes[start + i] = this.#bytes[i]!;
    const places = this.#places;
    for (let i = 0; i < 4; i++) bytes[start + places[i]!] = address >>> 24 - 8 * i;
  }
}
