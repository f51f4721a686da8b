/** Parses and formats IP addresses and prefixes. An IPv4 address is a number; an IPv6 address is 16 bytes. */

import { checkInteger, gotValue } from "../core/options.ts";

/** IPv4 or IPv6 address. */
export interface Address {
  /** IP version: 4 or 6. */
  family: 4 | 6;
  /** Address in network order: 4 or 16 bytes. */
  bytes: Uint8Array;
}

/** Checks the type of an argument, since a script may not be type-checked. */
function checkText(kind: string, text: unknown): void {
  if (typeof text === "string") return;
  throw new TypeError(`Cannot parse ${kind}: text must be a string, ${gotValue(text)}`);
}

function fail(kind: string, text: string, what: string, at: number): never {
  throw new SyntaxError(`Cannot parse ${kind} ${JSON.stringify(text)}: ${what} at column ${at + 1}`);
}

/** Reads the four octets of `text` from `start` to `end`. */
function readIpv4(kind: string, text: string, start: number, end: number): number {
  let address = 0;
  let at = start;
  for (let octets = 0; octets < 4; octets++) {
    if (octets > 0) {
      if (at >= end) fail(kind, text, `${octets} octets instead of 4`, at);
      if (text[at] !== ".") fail(kind, text, `${JSON.stringify(text[at])} instead of a dot`, at);
      at++;
    }
    const octetStart = at;
    let octet = 0;
    for (; at < end && at - octetStart < 4; at++) {
      const digit = text.charCodeAt(at) - 48;
      if (!(digit >= 0 && digit <= 9)) break;
      octet = octet * 10 + digit;
    }
    if (at === octetStart) fail(kind, text, "no digit", at);
    // RFC 6943 section 3.1.1: some parsers read a leading zero as octal.
    if (at - octetStart > 1 && text[octetStart] === "0") fail(kind, text, "a leading zero", octetStart);
    if (octet > 255) fail(kind, text, "an octet above 255", octetStart);
    address = address * 256 + octet;
  }
  if (at < end) fail(kind, text, `${JSON.stringify(text[at])} after the address`, at);
  return address;
}

/**
 * Parses an IPv4 address to an unsigned 32-bit number: four decimal octets, without leading zeros or short forms.
 *
 * @throws {SyntaxError} with the column, when the text is not an address.
 * @throws {TypeError} when it is not a string.
 */
export function parseIpv4(text: string): number {
  checkText("IPv4 address", text);
  return readIpv4("IPv4 address", text, 0, text.length);
}

/** Formats an IPv4 address as four decimal octets. */
export function formatIpv4(address: number): string {
  return `${address >>> 24}.${address >>> 16 & 255}.${address >>> 8 & 255}.${address & 255}`;
}

function readIpv6(kind: string, text: string, end: number): Uint8Array {
  const bytes = new Uint8Array(16);
  let filled = 0; // bytes
  let gap = -1; // offset of the double colon in `bytes`
  let at = 0;
  if (text.startsWith("::")) {
    gap = 0;
    at = 2;
  }
  while (at < end) {
    if (filled > 0 && gap !== filled) {
      if (text[at] !== ":") fail(kind, text, `${JSON.stringify(text[at])} instead of a colon`, at);
      at++;
      if (text[at] === ":" && at < end) {
        if (gap >= 0) fail(kind, text, "a second double colon", at - 1);
        gap = filled;
        at++;
        continue;
      }
    }
    if (filled === 16) fail(kind, text, "more than 8 groups", at);
    const groupStart = at;
    let group = 0;
    for (; at < end; at++) {
      const digit = hexDigit(text.charCodeAt(at));
      if (digit < 0) break;
      if (at - groupStart === 4) fail(kind, text, "a group of more than 4 digits", groupStart);
      group = group << 4 | digit;
    }
    if (at < end && text[at] === "." && at > groupStart) {
      if (filled > 12) fail(kind, text, "no room for an IPv4 address", groupStart);
      const address = readIpv4(kind, text, groupStart, end);
      new DataView(bytes.buffer).setUint32(filled, address);
      filled += 4;
      at = end;
      break;
    }
    if (at === groupStart) {
      fail(kind, text, at < end ? `${JSON.stringify(text[at])} instead of a digit` : "no digit", at);
    }
    bytes[filled++] = group >> 8;
    bytes[filled++] = group;
  }
  if (gap < 0) {
    if (filled < 16) fail(kind, text, `${filled / 2} groups instead of 8`, at);
    return bytes;
  }
  // RFC 4291 section 2.2: "::" is one or more groups of zeros.
  if (filled === 16) fail(kind, text, "a double colon beside 8 groups", text.indexOf("::"));
  bytes.copyWithin(16 - (filled - gap), gap, filled);
  bytes.fill(0, gap, 16 - (filled - gap));
  return bytes;
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const letter = code | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/**
 * Parses an IPv6 address to 16 bytes, in any form of RFC 4291 section 2.2, including an embedded IPv4 address. A zone
 * (`%eth0`) is an error.
 *
 * @throws {SyntaxError} with the column, when the text is not an address.
 * @throws {TypeError} when it is not a string.
 */
export function parseIpv6(text: string): Uint8Array {
  checkText("IPv6 address", text);
  return readIpv6("IPv6 address", text, text.length);
}

/** Formats the 16 bytes from `start` as RFC 5952 recommends. */
export function formatIpv6(bytes: Uint8Array, start = 0): string {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes[start + i]! << 8 | bytes[start + i + 1]!);
  // Section 5: IPv4-mapped addresses show the IPv4 address.
  if (groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0)) {
    return `::ffff:${formatIpv4(groups[6]! * 0x10000 + groups[7]!)}`;
  }
  // Section 4.2: "::" replaces the longest run of zero groups, the first of equal runs, and never a single group.
  let gap = 0;
  let gapLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (groups[i + length] === 0) length++;
    if (length > gapLength) {
      gap = i;
      gapLength = length;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (gapLength === 1) return hex.join(":");
  return `${hex.slice(0, gap).join(":")}::${hex.slice(gap + gapLength).join(":")}`;
}

/**
 * Parses an address of either family; text with a colon is IPv6.
 *
 * @throws {SyntaxError} with the column, when the text is not an address.
 * @throws {TypeError} when it is not a string.
 */
export function parseAddress(text: string): Address {
  checkText("address", text);
  return readAddress("address", text, text.length);
}

function readAddress(kind: string, text: string, end: number): Address {
  if (text.includes(":")) return { family: 6, bytes: readIpv6(`IPv6 ${kind}`, text, end) };
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, readIpv4(`IPv4 ${kind}`, text, 0, end));
  return { family: 4, bytes };
}

/** Formats an address of either family. */
export function formatAddress(address: Address): string {
  const { family, bytes } = address;
  return family === 4
    ? formatIpv4(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0))
    : formatIpv6(bytes);
}

/**
 * A range of addresses with the same first bits. The other bits of `address` are kept, so `10.9.0.1/24` is both an
 * interface address and its network.
 *
 * @example Matching addresses of packets
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseCidr, parseIpv4 } from "@warren/tunnel/address";
 *
 * const network = parseCidr("10.9.0.1/24");
 * assert(network.containsIpv4(parseIpv4("10.9.0.77")));
 * assert(!network.containsIpv4(parseIpv4("10.9.1.77")));
 * ```
 */
export class Prefix {
  /** Address with all bits. */
  readonly address: Address;
  /** Prefix length, up to 32 or 128 bits. */
  readonly length: number;
  readonly #family: number;
  readonly #words = new Uint32Array(4);
  readonly #masks = new Uint32Array(4);

  /**
   * Creates a prefix of the address, whose bytes must not change later.
   *
   * @throws {RangeError} when the length is not from 0 to 32, or to 128 for IPv6.
   */
  constructor(address: Address, length: number) {
    const max = address.family === 4 ? 32 : 128;
    checkInteger("create a prefix", "length", length, 0, max);
    this.address = address;
    this.length = length;
    this.#family = address.family;
    const view = new DataView(address.bytes.buffer, address.bytes.byteOffset, address.bytes.length);
    for (let i = 0; i < max / 32; i++) {
      const bits = Math.min(32, Math.max(0, length - i * 32));
      // JavaScript takes a shift count of 32 as 0.
      this.#masks[i] = bits === 0 ? 0 : 0xffffffff << 32 - bits;
      this.#words[i] = view.getUint32(i * 4) & this.#masks[i]!;
    }
  }

  /** First address: the bits after the prefix are zero. */
  get network(): Address {
    const { family, bytes: { length } } = this.address;
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i * 4 < length; i++) view.setUint32(i * 4, this.#words[i]!);
    return { family, bytes };
  }

  /** Reports whether an IPv4 address is in the prefix; `false` for an IPv6 prefix. Allocates nothing. */
  containsIpv4(address: number): boolean {
    return this.#family === 4 && (address & this.#masks[0]!) >>> 0 === this.#words[0];
  }

  /** Reports whether the IPv6 address at `start` is in the prefix; `false` for an IPv4 prefix. Allocates nothing. */
  containsIpv6(bytes: Uint8Array, start = 0): boolean {
    if (this.#family !== 6) return false;
    for (let i = 0; i * 32 < this.length; i++) {
      const at = start + i * 4;
      const word = bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!;
      if ((word & this.#masks[i]!) >>> 0 !== this.#words[i]) return false;
    }
    return true;
  }
}

/**
 * Parses a prefix: an address, a slash and a length in bits (RFC 4632 section 3.1, RFC 4291 section 2.3). Bits after the
 * prefix are kept.
 *
 * @throws {SyntaxError} with the column, when the text is not a prefix.
 * @throws {TypeError} when it is not a string.
 */
export function parseCidr(text: string): Prefix {
  checkText("prefix", text);
  const slash = text.indexOf("/");
  const kind = text.includes(":") ? "IPv6 prefix" : "IPv4 prefix";
  if (slash < 0) fail(kind, text, "no slash", text.length);
  const address = readAddress("prefix", text, slash);
  const digits = text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]*)$/.test(digits)) fail(kind, text, "no decimal length", slash + 1);
  const max = address.family === 4 ? 32 : 128;
  if (Number(digits) > max) fail(kind, text, `a length above ${max}`, slash + 1);
  return new Prefix(address, Number(digits));
}

/**
 * Parses a prefix like {@linkcode parseCidr}, or an address, which becomes a prefix of 32 or 128 bits.
 *
 * @throws {TypeError} when it is not a string.
 * @throws {SyntaxError} with the column, when the text is neither.
 */
export function parsePrefix(text: string): Prefix {
  checkText("prefix", text);
  if (text.includes("/")) return parseCidr(text);
  const address = parseAddress(text);
  return new Prefix(address, 8 * address.bytes.length);
}

/** Formats a prefix, with the bits after it. */
export function formatCidr(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}
