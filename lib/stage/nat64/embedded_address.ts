/** IPv4 addresses inside of IPv6 addresses (RFC 6052). */

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
/** The byte that is always zero. */
const U = 8;

/**
 * The addresses of a prefix with an IPv4 address behind it, as text `64:ff9b::/96`.
 *
 * **Limits**: the suffix behind the IPv4 address is written as zeros, and not looked at when one is read (RFC 6052
 * section 2.2 keeps it for later).
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
  /** Its first bytes, and zeros. */
  readonly #bytes: Uint8Array;
  /** How many bytes count. */
  readonly #length: number;
  /** Where the four bytes of the IPv4 address stand. */
  readonly #places: Uint8Array;

  /**
   * A prefix as text.
   *
   * @throws {SyntaxError} when the text is no prefix.
   * @throws {TypeError} when it is one of IPv4.
   * @throws {RangeError} when its length is not 32, 40, 48, 56, 64 or 96, or bits 64 to 71 are not zero.
   */
  constructor(text: string) {
    const { network, length }: Prefix = parseCidr(text);
    if (network.family !== 6) throw new TypeError(`Cannot embed addresses in ${text}: it is not IPv6`);
    if (!LENGTHS.includes(length)) {
      throw new RangeError(
        `Cannot embed addresses in ${text}: its length is ${length}, not ${LENGTHS.join(", ")}`,
      );
    }
    if (network.bytes[U] !== 0) {
      throw new RangeError(`Cannot embed addresses in ${text}: its bits 64 to 71 are not zero`);
    }
    this.#bytes = network.bytes;
    this.#length = length / 8;
    const start = this.#length;
    this.#places = Uint8Array.from(
      [0, 1, 2, 3],
      (i) => start + i < U || start > U ? start + i : start + i + 1,
    );
  }

  /** Whether the 16 bytes from `start` on are one of its addresses: the prefix, and the byte that is zero. */
  contains(bytes: Uint8Array, start = 0): boolean {
    for (let i = 0; i < this.#length; i++) if (bytes[start + i] !== this.#bytes[i]) return false;
    return bytes[start + U] === 0;
  }

  /** The IPv4 address in the 16 bytes from `start` on (unsigned 32 bits); ask {@linkcode contains} before. */
  read(bytes: Uint8Array, start = 0): number {
    const places = this.#places;
    return (bytes[start + places[0]!]! << 24 | bytes[start + places[1]!]! << 16 |
      bytes[start + places[2]!]! << 8 | bytes[start + places[3]!]!) >>> 0;
  }

  /** Writes the 16 bytes from `start` on: the prefix with this IPv4 address. */
  write(address: number, bytes: Uint8Array, start = 0): void {
    for (let i = 0; i < 16; i++) bytes[start + i] = this.#bytes[i]!;
    const places = this.#places;
    for (let i = 0; i < 4; i++) bytes[start + places[i]!] = address >>> 24 - 8 * i;
  }
}
