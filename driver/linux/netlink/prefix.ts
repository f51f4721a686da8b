/** Addresses and prefixes in rtnetlink: four or sixteen bytes, and a prefix length. */

import { checkInteger } from "../../../lib/core/options.ts";
import { formatAddress } from "../../../lib/wire/address.ts";

// Specification: include/linux/socket.h
/** Address families. */
export const Family = { Ipv4: 2, Ipv6: 10 } as const;
/** One of {@linkcode Family}'s values. */
export type Family = typeof Family[keyof typeof Family];

/** An address with a prefix length. */
export interface RawPrefix {
  /** Four bytes for IPv4, sixteen for IPv6. */
  readonly address: Uint8Array;
  /** Prefix length (bits). */
  readonly length: number;
}

/**
 * Family of an address.
 *
 * @throws {TypeError} when it has neither 4 nor 16 bytes.
 */
export function familyOf(address: Uint8Array): Family {
  switch (address.length) {
    case 4:
      return Family.Ipv4;
    case 16:
      return Family.Ipv6;
    default:
      throw new TypeError(`Cannot use an address: its length must be 4 or 16 bytes, got ${address.length}`);
  }
}

/**
 * Family of a prefix.
 *
 * @throws {RangeError} when it is longer than its address.
 */
export function prefixFamily({ address, length }: RawPrefix): Family {
  const family = familyOf(address);
  checkInteger("use a prefix", "length", length, 0, address.length * 8);
  return family;
}

/** Formats an address, such as `10.0.0.1`. */
export function formatRawAddress(bytes: Uint8Array): string {
  return formatAddress({ family: familyOf(bytes) === Family.Ipv4 ? 4 : 6, bytes });
}

/** Formats a prefix, such as `10.0.0.0/8`. */
export function formatRawPrefix({ address, length }: RawPrefix): string {
  return `${formatRawAddress(address)}/${length}`;
}
