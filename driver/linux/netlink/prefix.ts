/** Addresses and prefixes as rtnetlink encodes them: 4 or 16 bytes, and a prefix length. */

import { checkInteger } from "../../../lib/core/options.ts";
import { formatAddress } from "../../../lib/wire/address.ts";

// Specification: include/linux/socket.h
/** Address families. */
export const Family = { Ipv4: 2, Ipv6: 10 } as const;
/** One of {@linkcode Family}'s values. */
export type Family = typeof Family[keyof typeof Family];

/** An address with a prefix length. */
export interface RawPrefix {
  /** 4 bytes for IPv4, 16 for IPv6. */
  readonly address: Uint8Array;
  /** Prefix length (bits). */
  readonly length: number;
}

/**
 * Returns the family of an address.
 *
 * @throws {TypeError} unless the address has 4 or 16 bytes.
 */
export function familyOf({ length }: Uint8Array): Family {
  if (length === 4) return Family.Ipv4;
  if (length === 16) return Family.Ipv6;
  throw new TypeError(`Cannot use an address: its length must be 4 or 16 bytes, got ${length}`);
}

/**
 * Returns the family of a prefix.
 *
 * @throws {RangeError} when the prefix length is negative or exceeds the address length.
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
