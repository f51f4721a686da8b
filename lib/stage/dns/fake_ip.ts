/**
 * Synthetic addresses for names: the destination of a packet identifies the name that a program resolved.
 *
 *     unused ──► given to a client ──► held by its name ──► TTL and reuseAfter expire ──► free: keeps its name
 *                      ▲                  ▲     │                                         until it is needed
 *                      │                  └─────┘ resolved again, or used                         │
 *                      └──────────────────────────────────────────────────────────────────────────┘
 */

import { formatAddress, parseAddress, parseCidr, type Prefix } from "../../wire/address.ts";
import type { Packet } from "../../core/packet.ts";
import { Ip } from "../../wire/ip.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../../core/options.ts";
import { BlockList } from "./block_list.ts";
import { HeldNumbers } from "./_held_numbers.ts";
import { formatName, isWithin, parseName } from "./name.ts";
import { isSpecialName } from "./_special_names.ts";

// Specification
/** Prefix for benchmarks, which no network uses (RFC 2544 appendix C.2.2). */
const IPV4_PREFIX = "198.18.0.0/15";
/** Infrastructure names (RFC 3172). */
const ARPA = parseName("arpa");
/** Special-use name that gets addresses, so that a script can route it to Tor. */
const ONION = parseName("onion");

// Implementation
const ATTEMPT = "assign synthetic addresses";
const CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 22;
const NONE = -1;
const REUSE_AFTER = 60_000;
const NAMES: OptionKinds<FakeIpOptions> = {
  ipv4: "text",
  ipv6: "text",
  capacity: "number",
  ttl: "number",
  reuseAfter: "number",
  except: "iterable",
  only: "iterable",
};

/** Options for {@linkcode FakeIp}. */
export interface FakeIpOptions {
  /** IPv4 prefix of the addresses; its first and last address are not used. @default {"198.18.0.0/15"} */
  ipv4?: string;
  /** IPv6 prefix of at least 96 bits, such as `"fd09:fa4e::/96"` (RFC 4193). @default {none: AAAA has no records} */
  ipv6?: string;
  /** Maximum names with addresses at a time, limited by the size of the prefixes. @default {65536} */
  capacity?: number;
  /** TTL of answers (seconds). @default {5} */
  ttl?: number;
  /**
   * Time after the TTL for which an address that a client holds keeps its name, for flows that are still open
   * (milliseconds). Each answer and each use restarts it. @default {60000}
   */
  reuseAfter?: number;
  /** Names that keep their real addresses, with all names below them. @default {none} */
  except?: BlockList | Iterable<string>;
  /** Names that get synthetic addresses, with all names below them; `except` takes precedence. @default {all} */
  only?: BlockList | Iterable<string>;
}

/** State of {@linkcode FakeIp.save}. */
interface Saved {
  prefixes: (string | null)[];
  /**
   * Names from the most to the least recently used: number, remaining hold time of the address (milliseconds), and the
   * client that holds it.
   */
  names: [name: string, number: number, left?: number, client?: string][];
}

/**
 * Table of synthetic addresses and their names. A name keeps its address, one of each family, while clients use it. A
 * {@linkcode DnsResolver} assigns addresses; stages and scripts look up the name of a packet's destination or source. The
 * folder's README describes hold times and the shares of clients.
 *
 * **Limits**: the address of a flow that is idle for longer than `reuseAfter`, or whose packets are not looked up, may be
 * given to another name. No addresses for names in `arpa` and for special-use names except those in `onion`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { FakeIp } from "@warren/tunnel/dns";
 *
 * const fakeIp = new FakeIp({ ipv6: "fd09:fa4e::/96" });
 * assert.equal(fakeIp.addressOf("www.example.com"), "198.18.0.1");
 * assert.equal(fakeIp.addressOf("WWW.example.com", 6), "fd09:fa4e::1");
 * assert.equal(fakeIp.nameOf("198.18.0.1"), "www.example.com");
 * ```
 */
export class FakeIp {
  /** TTL of answers (seconds). */
  readonly ttl: number;
  /** Maximum names with addresses at a time. */
  readonly capacity: number;
  readonly #ipv4: Prefix;
  readonly #ipv4First: number;
  readonly #ipv6: Prefix | undefined;
  readonly #ipv6Network: Uint8Array | undefined;
  readonly #ipv6First: number;
  readonly #except: BlockList;

  readonly #only: BlockList | undefined;
  readonly #numbers = new Map<string, number>();
  readonly #names: string[] = [];
  readonly #uses: HeldNumbers;

  /**
   * Creates an empty table.
   *
   * @throws {SyntaxError} when a prefix or a name does not parse; {@linkcode TypeError} for a prefix of the wrong family or
   * an unknown option; {@linkcode RangeError} for an option out of range.
   */
  constructor(options: FakeIpOptions = {}) {
    checkOptions(ATTEMPT, options, NAMES);
    const { ipv4 = IPV4_PREFIX, ipv6, capacity = CAPACITY, ttl = 5, except = [], only } = options;
    const { reuseAfter = REUSE_AFTER } = options;
    this.#ipv4 = readPrefix(ipv4, 4, 30);
    this.#ipv4First = viewOf(this.#ipv4.network.bytes).getUint32(0) + 1;
    checkInteger(ATTEMPT, "capacity", capacity, 1, MAX_CAPACITY);
    checkInteger(ATTEMPT, "ttl", ttl, 0, 0x7fffffff);
    this.capacity = Math.min(capacity, 2 ** (32 - this.#ipv4.length) - 2);
    if (!(Number.isFinite(reuseAfter) && reuseAfter >= 0)) {
      throw new RangeError(`Cannot ${ATTEMPT}: reuseAfter must be finite and at least 0, got ${reuseAfter}`);
    }
    this.ttl = ttl;
    this.#except = except instanceof BlockList ? except : new BlockList(except);
    this.#only = only === undefined || only instanceof BlockList ? only : new BlockList(only);
    this.#ipv6First = 0;
    if (ipv6 !== undefined) {
      this.#ipv6 = readPrefix(ipv6, 6, 126);
      if (this.#ipv6.length < 96) {
        throw new RangeError(`Cannot ${ATTEMPT}: ipv6 must have at least 96 bits, got "${ipv6}"`);
      }
      this.#ipv6Network = this.#ipv6.network.bytes;
      this.#ipv6First = viewOf(this.#ipv6Network).getUint32(12) + 1;
      this.capacity = Math.min(this.capacity, 2 ** (128 - this.#ipv6.length) - 2);
    }
    this.#uses = new HeldNumbers(this.capacity, ttl * 1000 + reuseAfter);
  }

  /** Number of names with addresses. */
  get size(): number {
    return this.#names.length;
  }

  /** True if names get IPv6 addresses. */
  get hasIpv6(): boolean {
    return this.#ipv6 !== undefined;
  }

  /** Reports whether a name in lower case and wire format gets synthetic addresses. */
  takes(name: Uint8Array, length: number): boolean {
    if (length <= 1 || isWithin(name, length, ARPA) || this.#except.hasName(name)) return false;
    if (this.#only?.hasName(name) === false) return false;
    return !isSpecialName(name) || isWithin(name, length, ONION);
  }

  /**
   * Returns the address of a name; `undefined` for IPv6 without a prefix, for a name that keeps its real addresses, and
   * while clients hold all addresses.
   *
   * @throws {SyntaxError} when the name does not parse.
   */
  addressOf(name: string, family: 4 | 6 = 4): string | undefined {
    const bytes = parseName(name);
    if (!this.takes(bytes, bytes.length)) return undefined;
    const address = this.addressBytes(bytes, family);
    return address && formatAddress({ family, bytes: address });
  }

  /**
   * {@linkcode FakeIp.addressOf} as bytes, for a name in wire format. The client, if given, holds the address; returns
   * `undefined` if it may not hold more.
   */
  addressBytes(name: Uint8Array, family: 4 | 6, client?: string): Uint8Array | undefined {
    if (family === 6 && this.#ipv6Network === undefined) return undefined;
    const number = this.#numberOf(formatName(name), client);
    if (number === NONE) return undefined;
    if (family === 4) {
      const bytes = new Uint8Array(4);
      viewOf(bytes).setUint32(0, this.#ipv4First + number);
      return bytes;
    }
    const bytes = this.#ipv6Network!.slice();
    viewOf(bytes).setUint32(12, this.#ipv6First + number);
    return bytes;
  }

  /** Reports whether an address is within the prefixes, whether a name has it or not. */
  contains(address: string): boolean {
    const { family, bytes } = parseAddress(address);
    return family === 4
      ? this.#ipv4.containsIpv4(viewOf(bytes).getUint32(0))
      : this.#ipv6?.containsIpv6(bytes) === true;
  }

  /**
   * Returns the name of an address; `undefined` if no name has it.
   *
   * @throws {SyntaxError} when the address does not parse.
   */
  nameOf(address: string): string | undefined {
    const { family, bytes } = parseAddress(address);
    return family === 4 ? this.nameOfIpv4(viewOf(bytes).getUint32(0)) : this.nameOfIpv6(bytes);
  }

  /** {@linkcode FakeIp.nameOf} for an IPv4 address as a number. Allocates nothing. */
  nameOfIpv4(address: number): string | undefined {
    return this.#ipv4.containsIpv4(address) ? this.#use(address - this.#ipv4First) : undefined;
  }

  /** {@linkcode FakeIp.nameOf} for an IPv6 address at `start`. Allocates nothing. */
  nameOfIpv6(bytes: Uint8Array, start = 0): string | undefined {
    if (this.#ipv6?.containsIpv6(bytes, start) !== true) return undefined;
    const last = bytes[start + 12]! << 24 | bytes[start + 13]! << 16 | bytes[start + 14]! << 8 |
      bytes[start + 15]!;
    return this.#use((last >>> 0) - this.#ipv6First);
  }

  /** Returns the name of a packet's destination; `undefined` if no name has the address. Allocates nothing. */
  destinationOf(packet: Packet): string | undefined {
    const ip = Ip.of(packet);
    if (ip === undefined) return undefined;
    return ip.version === 4 ? this.nameOfIpv4(ip.dst) : this.nameOfIpv6(ip.dst);
  }

  /** Returns the name of a packet's source; `undefined` if no name has the address. Allocates nothing. */
  sourceOf(packet: Packet): string | undefined {
    const ip = Ip.of(packet);
    if (ip === undefined) return undefined;
    return ip.version === 4 ? this.nameOfIpv4(ip.src) : this.nameOfIpv6(ip.src);
  }

  /** Sets the current time (monotonic milliseconds), which ends hold times. For the resolver, at each breath. */
  advance(now: number): void {
    this.#uses.advance(now);
  }

  /** Removes all names. */
  clear(): void {
    this.#numbers.clear();
    this.#names.length = 0;
    this.#uses.clear();
  }

  /** Returns names and numbers as values for JSON. */
  save(): unknown {
    const names: Saved["names"] = [];
    for (const [number, left, client] of this.#uses.entries()) {
      const name = this.#names[number]!;
      names.push(client === undefined ? [name, number, left] : [name, number, left, client]);
    }
    return { prefixes: this.#prefixes, names } satisfies Saved;
  }

  /**
   * Restores the state of {@linkcode FakeIp.save}.
   *
   * @throws {TypeError} for any other value, other prefixes, or more names than `capacity`.
   */
  restore(state: unknown): void {
    const { prefixes, names } = (state ?? {}) as Partial<Saved>;
    if (JSON.stringify(prefixes) !== JSON.stringify(this.#prefixes) || !Array.isArray(names)) {
      throw new TypeError("Cannot restore synthetic addresses: the state must be of the same prefixes");
    }
    const numbers = names.map((entry) => Array.isArray(entry) ? entry[1] : NONE);
    const isOurs = new Set(numbers).size === names.length &&
      numbers.every((number) => Number.isInteger(number) && number >= 0 && number < names.length) &&
      new Set(names.map(([name]) => name)).size === names.length &&
      names.every(([name]) => isAsFormatted(name)) &&
      names.every(([, , left = 0, client = ""]) =>
        typeof left === "number" && left >= 0 && typeof client === "string"
      );
    // Numbers are assigned in sequence, without gaps.
    if (!isOurs || names.length > this.capacity) {
      throw new TypeError("Cannot restore synthetic addresses: the state must be as it was saved");
    }
    this.clear();
    for (const [name, number, left = 0, client] of names.toReversed()) {
      this.#names[number] = name;
      this.#numbers.set(name, number);
      this.#uses.restore(number, left, client);
    }
  }

  get #prefixes(): (string | null)[] {
    return [this.#ipv4, this.#ipv6].map((prefix) =>
      prefix === undefined ? null : `${formatAddress(prefix.network)}/${prefix.length}`
    );
  }

  /** Returns the number of a name, assigning one if needed; `NONE` if none is available to this client. */
  #numberOf(name: string, client: string | undefined): number {
    this.#uses.release();
    let number = this.#numbers.get(name);
    if (number === undefined) {
      if (client !== undefined && !this.#uses.mayHold(client)) return NONE;
      number = this.#take();
      if (number === NONE) return NONE;
      this.#names[number] = name;
      this.#numbers.set(name, number);
      this.#uses.add(number);
    }
    if (client !== undefined) return this.#uses.give(number, client) ? number : NONE;
    this.#uses.use(number);
    return number;
  }

  /** Returns a number without a name: an unused one, or the least recently used free one. */
  #take(): number {
    if (this.#names.length < this.capacity) return this.#names.length;
    const number = this.#uses.take();
    if (number !== NONE) this.#numbers.delete(this.#names[number]!);
    return number;
  }

  #use(number: number): string | undefined {
    if (number < 0 || number >= this.#names.length) return undefined;
    this.#uses.use(number);
    return this.#names[number];
  }
}

function readPrefix(text: string, family: 4 | 6, max: number): Prefix {
  const prefix = parseCidr(text);
  const { family: given } = prefix.address;
  if (given !== family) {
    throw new TypeError(`Cannot ${ATTEMPT}: ipv${family} must be an IPv${family} prefix, got "${text}"`);
  }
  if (prefix.length > max) {
    throw new RangeError(`Cannot ${ATTEMPT}: ipv${family} must have at most ${max} bits, got "${text}"`);
  }
  return prefix;
}

/** Reports whether a name is as {@linkcode formatName} writes it, which PTR answers need. */
function isAsFormatted(name: unknown): boolean {
  try {
    return typeof name === "string" && name !== "." && formatName(parseName(name)) === name;
  } catch {
    return false;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
