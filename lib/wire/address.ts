/** IP addresses and prefixes as text and back: IPv4 ones are numbers, IPv6 ones 16 bytes. */

/** An address of either family. */
export interface Address {
  /** 4 or 6. */
  family: 4 | 6;
  /** The address in network order: 4 or 16 bytes. */
  bytes: Uint8Array;
}

/** Scripts need not be type-checked. */
function checkText(kind: string, text: unknown): void {
  if (typeof text !== "string") throw new TypeError(`Cannot parse ${kind} ${String(text)}: it is no text`);
}

function fail(kind: string, text: string, what: string, at: number): never {
  throw new SyntaxError(`Cannot parse ${kind} ${JSON.stringify(text)}: ${what} at column ${at + 1}`);
}

/** Reads four octets of `text` from `start` to `end`. */
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
    // RFC 6943 section 3.1.1: some read a leading zero as octal.
    if (at - octetStart > 1 && text[octetStart] === "0") fail(kind, text, "a leading zero", octetStart);
    if (octet > 255) fail(kind, text, "an octet above 255", octetStart);
    address = address * 256 + octet;
  }
  if (at < end) fail(kind, text, `${JSON.stringify(text[at])} after the address`, at);
  return address;
}

/**
 * Four decimal octets as an unsigned 32-bit number. Strict: no leading zeros, no hexadecimal, no short forms.
 *
 * @throws {SyntaxError} naming the column.
 * @throws {TypeError} when it is no text.
 */
export function parseIpv4(text: string): number {
  checkText("IPv4 address", text);
  return readIpv4("IPv4 address", text, 0, text.length);
}

/** An unsigned 32-bit number as four decimal octets. */
export function formatIpv4(address: number): string {
  return `${address >>> 24}.${address >>> 16 & 255}.${address >>> 8 & 255}.${address & 255}`;
}

function readIpv6(kind: string, text: string, end: number): Uint8Array {
  const bytes = new Uint8Array(16);
  let filled = 0; // bytes
  let gap = -1; // where in `bytes` the double colon stands
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
  // RFC 4291 section 2.2: "::" is one group of zeros or more.
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
 * An IPv6 address in any form of RFC 4291 section 2.2, an embedded IPv4 address included. A zone (`%eth0`) is
 * refused: it is no part of an address.
 *
 * @throws {SyntaxError} naming the column.
 * @throws {TypeError} when it is no text.
 */
export function parseIpv6(text: string): Uint8Array {
  checkText("IPv6 address", text);
  return readIpv6("IPv6 address", text, text.length);
}

/** The 16 bytes from `start` on as text, in the one form that RFC 5952 allows. */
export function formatIpv6(bytes: Uint8Array, start = 0): string {
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes[start + i]! << 8 | bytes[start + i + 1]!);
  // Section 5: addresses known to embed an IPv4 one show it.
  if (groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0)) {
    return `::ffff:${formatIpv4(groups[6]! * 0x10000 + groups[7]!)}`;
  }
  // Section 4.2: "::" stands for the longest run of zeros, the first of equal ones, and never for one alone.
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
 * An address of either family: one with a colon is IPv6.
 *
 * @throws {SyntaxError} naming the column.
 * @throws {TypeError} when it is no text.
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

/** An address as text, IPv6 ones as {@linkcode formatIpv6} writes them. */
export function formatAddress(address: Address): string {
  const { family, bytes } = address;
  return family === 4
    ? formatIpv4(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0))
    : formatIpv6(bytes);
}

/**
 * The addresses that share their first bits with one address, which keeps its other bits: `10.9.0.1/24` is an
 * interface's address and its network at once.
 *
 * @example Asking per packet
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
  /** The address as it was given. */
  readonly address: Address;
  /** How many first bits count: up to 32 or 128. */
  readonly length: number;
  readonly #family: number;
  readonly #words = new Uint32Array(4);
  readonly #masks = new Uint32Array(4);

  /**
   * Takes the address over: its bytes must not change any more.
   *
   * @throws {RangeError} when the length is not one of the family's.
   */
  constructor(address: Address, length: number) {
    const most = address.family === 4 ? 32 : 128;
    if (!Number.isInteger(length) || length < 0 || length > most) {
      throw new RangeError(`Cannot make a prefix of ${length} bits: IPv${address.family} has 0 to ${most}`);
    }
    this.address = address;
    this.length = length;
    this.#family = address.family;
    const view = new DataView(address.bytes.buffer, address.bytes.byteOffset, address.bytes.length);
    for (let i = 0; i < most / 32; i++) {
      const bits = Math.min(32, Math.max(0, length - i * 32));
      // A shift by 32 is one by 0.
      this.#masks[i] = bits === 0 ? 0 : 0xffffffff << 32 - bits;
      this.#words[i] = view.getUint32(i * 4) & this.#masks[i]!;
    }
  }

  /** Its first address: the one with no bits behind the prefix. */
  get network(): Address {
    const { family, bytes: { length } } = this.address;
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i * 4 < length; i++) view.setUint32(i * 4, this.#words[i]!);
    return { family, bytes };
  }

  /** Whether an IPv4 address is in it; `false` for an IPv6 prefix. Allocates nothing. */
  containsIpv4(address: number): boolean {
    return this.#family === 4 && (address & this.#masks[0]!) >>> 0 === this.#words[0];
  }

  /** Whether the IPv6 address at `start` is in it; `false` for an IPv4 prefix. Allocates nothing. */
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
 * An address, a slash and a length in bits (RFC 4632 section 3.1, RFC 4291 section 2.3). Bits behind the prefix
 * are kept.
 *
 * @throws {SyntaxError} naming the column.
 * @throws {TypeError} when it is no text.
 */
export function parseCidr(text: string): Prefix {
  checkText("prefix", text);
  const slash = text.indexOf("/");
  const kind = text.includes(":") ? "IPv6 prefix" : "IPv4 prefix";
  if (slash < 0) fail(kind, text, "no slash", text.length);
  const address = readAddress("prefix", text, slash);
  const digits = text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]*)$/.test(digits)) fail(kind, text, "no decimal length", slash + 1);
  const most = address.family === 4 ? 32 : 128;
  if (Number(digits) > most) fail(kind, text, `a length above ${most}`, slash + 1);
  return new Prefix(address, Number(digits));
}

/**
 * A prefix as {@linkcode parseCidr} reads it, or an address, which is the prefix of all its bits.
 *
 * @throws {TypeError} when it is no text.
 * @throws {SyntaxError} naming the column.
 */
export function parsePrefix(text: string): Prefix {
  checkText("prefix", text);
  if (text.includes("/")) return parseCidr(text);
  const address = parseAddress(text);
  return new Prefix(address, 8 * address.bytes.length);
}

/** A prefix as text, with the bits behind it. */
export function formatCidr(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}
