/** Addresses as rtnetlink has them, four or sixteen bytes, with the length of a prefix. */

import { formatAddress } from "../../../lib/wire/address.ts";

// Specification: include/linux/socket.h
/** Address families. */
export const Family = { Ipv4: 2, Ipv6: 10 } as const;
/** One of {@linkcode Family}'s values. */
export type Family = typeof Family[keyof typeof Family];

/** An address and how many of its bits are the network's. */
export interface RawPrefix {
  /** Four bytes of IPv4, or sixteen of IPv6. */
  readonly address: Uint8Array;
  /** The length of the network's part (bits). */
  readonly length: number;
}

/**
 * The family that an address is of.
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
      throw new TypeError(`Cannot use an address of ${address.length} bytes: IPv4 has 4, IPv6 16`);
  }
}

/**
 * The family that a prefix is of.
 *
 * @throws {RangeError} when it is longer than its address.
 */
export function prefixFamily({ address, length }: RawPrefix): Family {
  const family = familyOf(address);
  if (!(Number.isInteger(length) && length >= 0 && length <= address.length * 8)) {
    throw new RangeError(`Cannot use a prefix of ${length} bits: this address has ${address.length * 8}`);
  }
  return family;
}

/** An address as text, such as `10.0.0.1`. */
export function formatRawAddress(bytes: Uint8Array): string {
  return formatAddress({ family: familyOf(bytes) === Family.Ipv4 ? 4 : 6, bytes });
}

/** A prefix as text, such as `10.0.0.0/8`. */
export function formatRawPrefix({ address, length }: RawPrefix): string {
  return `${formatRawAddress(address)}/${length}`;
}
