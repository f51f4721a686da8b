/**
 * Synthetic addresses for names: what a program connects to tells which name it asked for.
 *
 *     unused ──► given to a client ──► held: its name keeps it ──► TTL and grace are over ──► free: its name keeps it
 *                      ▲                  ▲     │                                             until it is needed
 *                      │                  └─────┘ asked for again, or used                            │
 *                      └──────────────────────────────────────────────────────────────────────────────┘
 */

import { formatAddress, parseAddress, parseCidr, type Prefix } from "../../wire/address.ts";
import type { Packet } from "../../core/packet.ts";
import { Ip } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { BlockList } from "./block_list.ts";
import { HeldNumbers } from "./_held_numbers.ts";
import { formatName, isWithin, parseName } from "./name.ts";
import { isSpecialName } from "./_special_names.ts";

// Specification
/** RFC 2544 appendix C.2.2: for benchmarks, so no network uses it. */
const IPV4_PREFIX = "198.18.0.0/15";
/** Names about addresses and networks (RFC 3172). */
const ARPA = parseName("arpa");
/** A special-use name that a script may lead to Tor by its synthetic address; it is not asked for in the DNS either. */
const ONION = parseName("onion");

// Implementation
const CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 22;
const NONE = -1;
const REUSE_AFTER = 60_000;
const NAMES: OptionNames<FakeIpOptions> = {
  ipv4: "optional",
  ipv6: "optional",
  capacity: "optional",
  ttl: "optional",
  reuseAfter: "optional",
  except: "optional",
  only: "optional",
};

/** Options for {@linkcode FakeIp}. */
export interface FakeIpOptions {
  /** Where IPv4 addresses are taken from; its first and last one stay free. @default {"198.18.0.0/15"} */
  ipv4?: string;
  /** Where IPv6 addresses are taken from, such as `"fd09:fa4e::/96"` (RFC 4193). @default {none: AAAA has no answer} */
  ipv6?: string;
  /** How many names have addresses at a time, at most as many as a prefix has. @default {65536} */
  capacity?: number;
  /** For how long a program may keep an answer (seconds). @default {5} */
  ttl?: number;
  /**
   * How long an address that a client was given keeps its name after the answer's TTL, for flows that are still open
   * (milliseconds). Each answer and each use begins that time anew. @default {60000}
   */
  reuseAfter?: number;
  /** Names that get their real answers, with all below them. @default {none} */
  except?: BlockList | Iterable<string>;
  /** The only names that get synthetic addresses, with all below them, but for those of `except`. @default {all} */
  only?: BlockList | Iterable<string>;
}

/** What {@linkcode FakeIp.save} gives. */
interface Saved {
  prefixes: (string | null)[];
  /**
   * From the name used last to the one not used for longest: its number, for how long it keeps its address (milliseconds),
   * and the client that has it.
   */
  names: [name: string, number: number, left?: number, client?: string][];
}

/**
 * Addresses for names, the same one each time; a name has one of each family, with the same number in both prefixes.
 *
 * An address that a client was given by a {@linkcode DnsResolver} is held: it goes to no other name before its TTL and
 * `reuseAfter` have passed since the last answer or the last use, which is a lookup by the address. When all others are
 * taken, the free name that was not used for longest loses its address; when all are held, the client gets SERVFAIL. A
 * client, which is an IPv4 address or the /64 of an IPv6 address, may hold as many addresses as are left for others: one
 * alone half of them. Names that only a script has asked for are not held.
 *
 * Names in `arpa` and special-use names have no addresses, but for those in `onion`.
 *
 * The resolver asks it; stages and scripts ask for the name of a packet's destination.
 *
 * **Limits**: a flow that is idle for longer than `reuseAfter`, or whose packets are not looked up, may find that its
 * address leads to another name. IPv6 prefixes are 96 bits or more.
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
  /** For how long a program may keep an answer (seconds). */
  readonly ttl: number;
  /** How many names have addresses at a time. */
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
   * Addresses that no name has yet.
   *
   * @throws {SyntaxError} when a prefix or a name does not parse; {@linkcode TypeError} for a prefix of another family, and an
   * option that there is not; {@linkcode RangeError} when an option is out of its range.
   */
  constructor(options: FakeIpOptions = {}) {
    checkNames("give synthetic addresses", options, NAMES);
    const { ipv4 = IPV4_PREFIX, ipv6, capacity = CAPACITY, ttl = 5, except = [], only } = options;
    const { reuseAfter = REUSE_AFTER } = options;
    this.#ipv4 = readPrefix(ipv4, 4, 30);
    this.#ipv4First = viewOf(this.#ipv4.network.bytes).getUint32(0) + 1;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
      throw new RangeError(`Cannot give addresses to ${capacity} names: 1 to ${MAX_CAPACITY} are possible`);
    }
    if (!Number.isInteger(ttl) || ttl < 0 || ttl > 0x7fffffff) {
      throw new RangeError(`Cannot give addresses for ${ttl} s: it is no whole number from 0 on`);
    }
    this.capacity = Math.min(capacity, 2 ** (32 - this.#ipv4.length) - 2);
    if (!(Number.isFinite(reuseAfter) && reuseAfter >= 0)) {
      throw new RangeError(`Cannot give addresses: reuseAfter must be 0 or more, got ${reuseAfter}`);
    }
    this.ttl = ttl;
    this.#except = except instanceof BlockList ? except : new BlockList(except);
    this.#only = only === undefined || only instanceof BlockList ? only : new BlockList(only);
    this.#ipv6First = 0;
    if (ipv6 !== undefined) {
      this.#ipv6 = readPrefix(ipv6, 6, 126);
      if (this.#ipv6.length < 96) {
        throw new RangeError(`Cannot take addresses from "${ipv6}": the prefix has less than 96 bits`);
      }
      this.#ipv6Network = this.#ipv6.network.bytes;
      this.#ipv6First = viewOf(this.#ipv6Network).getUint32(12) + 1;
      this.capacity = Math.min(this.capacity, 2 ** (128 - this.#ipv6.length) - 2);
    }
    this.#uses = new HeldNumbers(this.capacity, ttl * 1000 + reuseAfter);
  }

  /** How many names have addresses. */
  get size(): number {
    return this.#names.length;
  }

  /** Whether AAAA gets addresses, too. */
  get hasIpv6(): boolean {
    return this.#ipv6 !== undefined;
  }

  /** Whether a name gets a synthetic address; it is in lower case and the bytes of messages. */
  takes(name: Uint8Array, length: number): boolean {
    if (length <= 1 || isWithin(name, length, ARPA) || this.#except.hasName(name)) return false;
    if (this.#only?.hasName(name) === false) return false;
    return !isSpecialName(name) || isWithin(name, length, ONION);
  }

  /**
   * A name's address; `undefined` for IPv6 without such a prefix, for a name that gets real answers, and when clients
   * hold all addresses.
   *
   * @throws {SyntaxError} when the name is none.
   */
  addressOf(name: string, family: 4 | 6 = 4): string | undefined {
    const bytes = parseName(name);
    if (!this.takes(bytes, bytes.length)) return undefined;
    const address = this.addressBytes(bytes, family);
    return address && formatAddress({ family, bytes: address });
  }

  /**
   * The bytes of {@linkcode FakeIp.addressOf}, for the bytes of a name. A client that is named holds the address;
   * `undefined` when it may hold no more.
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

  /** Whether an address is of the prefixes, given to a name or not. */
  contains(address: string): boolean {
    const { family, bytes } = parseAddress(address);
    return family === 4
      ? this.#ipv4.containsIpv4(viewOf(bytes).getUint32(0))
      : this.#ipv6?.containsIpv6(bytes) === true;
  }

  /**
   * The name that has an address; `undefined` when none has.
   *
   * @throws {SyntaxError} when it is none.
   */
  nameOf(address: string): string | undefined {
    const { family, bytes } = parseAddress(address);
    return family === 4 ? this.nameOfIpv4(viewOf(bytes).getUint32(0)) : this.nameOfIpv6(bytes);
  }

  /** {@linkcode FakeIp.nameOf} an address as a number. Allocates nothing. */
  nameOfIpv4(address: number): string | undefined {
    return this.#ipv4.containsIpv4(address) ? this.#use(address - this.#ipv4First) : undefined;
  }

  /** {@linkcode FakeIp.nameOf} an IPv6 address at `start`. Allocates nothing. */
  nameOfIpv6(bytes: Uint8Array, start = 0): string | undefined {
    if (this.#ipv6?.containsIpv6(bytes, start) !== true) return undefined;
    const last = bytes[start + 12]! << 24 | bytes[start + 13]! << 16 | bytes[start + 14]! << 8 |
      bytes[start + 15]!;
    return this.#use((last >>> 0) - this.#ipv6First);
  }

  /** The name that a packet goes to, when its destination is one of the addresses. Allocates nothing. */
  destinationOf(packet: Packet): string | undefined {
    const ip = Ip.of(packet);
    if (ip === undefined) return undefined;
    return ip.version === 4 ? this.nameOfIpv4(ip.dst) : this.nameOfIpv6(ip.dst);
  }

  /** The name that a packet comes from, when its source is one of the addresses. Allocates nothing. */
  sourceOf(packet: Packet): string | undefined {
    const ip = Ip.of(packet);
    if (ip === undefined) return undefined;
    return ip.version === 4 ? this.nameOfIpv4(ip.src) : this.nameOfIpv6(ip.src);
  }

  /** Tells the time (monotonic milliseconds), by which addresses become free. For the resolver, at each breath. */
  advance(now: number): void {
    this.#uses.advance(now);
  }

  /** Takes all addresses back. */
  clear(): void {
    this.#numbers.clear();
    this.#names.length = 0;
    this.#uses.clear();
  }

  /** The names and their numbers, as values that JSON can hold. */
  save(): unknown {
    const names: Saved["names"] = [];
    for (const [number, left, client] of this.#uses.entries()) {
      const name = this.#names[number]!;
      names.push(client === undefined ? [name, number, left] : [name, number, left, client]);
    }
    return { prefixes: this.#prefixes, names } satisfies Saved;
  }

  /**
   * Takes over what {@linkcode FakeIp.save} gave.
   *
   * @throws {TypeError} when it is something else, of other prefixes, or more than there is room for.
   */
  restore(state: unknown): void {
    const { prefixes, names } = (state ?? {}) as Partial<Saved>;
    if (JSON.stringify(prefixes) !== JSON.stringify(this.#prefixes) || !Array.isArray(names)) {
      throw new TypeError("Cannot restore synthetic addresses: they are not of these prefixes");
    }
    const numbers = names.map((entry) => Array.isArray(entry) ? entry[1] : NONE);
    const isOurs = new Set(numbers).size === names.length &&
      numbers.every((number) => Number.isInteger(number) && number >= 0 && number < names.length) &&
      new Set(names.map(([name]) => name)).size === names.length &&
      names.every(([name]) => isAsFormatted(name)) &&
      names.every(([, , left = 0, client = ""]) =>
        typeof left === "number" && left >= 0 && typeof client === "string"
      );
    // Numbers are given one after the other, so that there are no gaps.
    if (!isOurs || names.length > this.capacity) {
      throw new TypeError("Cannot restore synthetic addresses: they are not as they were saved");
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

  /** A name's number, which it has or gets now; `NONE` when there is none for this client. */
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

  /** A number that no name has: one that was never used, or the free one that was not used for longest. */
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

function readPrefix(text: string, family: 4 | 6, longest: number): Prefix {
  const prefix = parseCidr(text);
  const { family: given } = prefix.address;
  if (given !== family) {
    throw new TypeError(`Cannot take IPv${family} addresses from "${text}": it is IPv${given}`);
  }
  if (prefix.length > longest) {
    throw new RangeError(`Cannot take addresses from "${text}": it has less than 4`);
  }
  return prefix;
}

/** Whether it is a name as {@linkcode formatName} writes it: an answer may have to say it again. */
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
