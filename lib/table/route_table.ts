/** Route table: longest-prefix match from addresses to values. */

import { MAX_NUMBER, PrefixTrie } from "./_prefix_trie.ts";
import { PrefixStore } from "./_prefix_store.ts";
import { formatCidr, parseCidr, Prefix } from "../wire/address.ts";
import { checkInteger, checkOption, checkOptions, gotValue, type OptionKinds } from "../core/options.ts";

// Implementation
const CAPACITY = 2 ** 20;
const FORMAT = "route_table 1";

/** Options of a {@linkcode RouteTable}. */
export interface RouteTableOptions {
  /** Maximum number of prefixes, of both families together. @default {1048576} */
  readonly capacity?: number;
}

const NAMES: OptionKinds<RouteTableOptions> = { capacity: "number" };

/** Prefixes of one address family. */
class Family {
  readonly store: PrefixStore;
  readonly trie: PrefixTrie;
  readonly #words: number;
  readonly #shorter: Uint32Array;

  constructor(words: number) {
    this.#words = words;
    this.store = new PrefixStore(words);
    this.trie = new PrefixTrie();
    this.#shorter = new Uint32Array(words);
  }

  set(address: Uint32Array, length: number, number: number): void {
    const isNew = this.store.get(address, length) < 0;
    this.store.set(address, length, number);
    this.trie.set(address, length, number, isNew);
  }

  delete(address: Uint32Array, length: number): void {
    this.store.delete(address, length);
    const shorter = this.#shorter;
    shorter.set(address);
    for (let bits = length - 1; bits >= 0; bits--) {
      shorter[bits >>> 5]! &= ~(1 << 31 - (bits & 31));
      const number = this.store.get(shorter, bits);
      if (number >= 0) return this.trie.delete(address, length, number, bits);
    }
    this.trie.delete(address, length, 0, 0);
  }

  /** Returns a prefix's first address as words. */
  wordsOf({ bytes }: { readonly bytes: Uint8Array }): Uint32Array {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return Uint32Array.from({ length: this.#words }, (_, i) => view.getUint32(4 * i));
  }
}

/**
 * Values by IPv4 and IPv6 prefix, found by longest-prefix match. A lookup allocates nothing; an IPv4 lookup visits at most
 * three nodes. All routes of the Internet, 900,000 IPv4 prefixes, take less than 100 MB.
 *
 * **Limits**: at most 8,388,607 different values, compared as `Map` does. An IPv6 prefix takes up to 68 bytes for each four
 * bits that it does not share with another prefix.
 *
 * @example Finding the most specific route
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv4 } from "@warren/tunnel/address";
 * import { RouteTable } from "@warren/tunnel/route_table";
 *
 * const routes = new RouteTable<string>();
 * routes.set("0.0.0.0/0", "elsewhere");
 * routes.set("10.0.0.0/8", "home");
 * routes.set("10.9.0.0/24", "lab");
 * assert(routes.findIpv4(parseIpv4("10.9.0.77")) === "lab");
 * assert(routes.findIpv4(parseIpv4("10.9.1.77")) === "home");
 * ```
 */
export class RouteTable<Value> {
  readonly #capacity: number;
  readonly #families: Readonly<Record<4 | 6, Family>> = { 4: new Family(1), 6: new Family(4) };
  /** Values by number; the first is for addresses without a route. */
  readonly #values: (Value | undefined)[] = [undefined];
  readonly #numbers = new Map<Value, number>();
  /** Number of prefixes with each value. */
  readonly #uses: number[] = [0];
  readonly #free: number[] = [];

  /**
   * Creates an empty table.
   *
   * @throws {RangeError} when the capacity is not an integer of at least 1.
   */
  constructor(options: RouteTableOptions = {}) {
    checkOptions("create a route table", options, NAMES);
    const { capacity = CAPACITY } = options;
    checkInteger("create a route table", "capacity", capacity, 1, Infinity);
    this.#capacity = capacity;
  }

  /** Number of prefixes. */
  get size(): number {
    return this.#families[4].store.size + this.#families[6].store.size;
  }

  /** Memory of the prefixes and of their trie (bytes), without the values. */
  get byteLength(): number {
    const { 4: four, 6: six } = this.#families;
    return four.trie.byteLength + four.store.byteLength + six.trie.byteLength + six.store.byteLength;
  }

  /**
   * Sets a prefix's value. Address bits after the prefix are ignored.
   *
   * @throws {SyntaxError} when the text is not a prefix.
   * @throws {RangeError} when the table is full.
   */
  set(prefix: Prefix | string, value: Value): void {
    const { family, address, length } = this.#locate(prefix);
    const before = family.store.get(address, length);
    if (before < 0 && this.size === this.#capacity) {
      throw new RangeError(
        `Cannot add route ${
          nameOf(prefix)
        }: the table is full with ${this.#capacity} routes: raise its capacity`,
      );
    }
    const number = this.#numberOf(value);
    this.#uses[number]!++;
    family.set(address, length, number);
    if (before >= 0) this.#release(before);
  }

  /** Removes a prefix; returns whether it was present. */
  delete(prefix: Prefix | string): boolean {
    const { family, address, length } = this.#locate(prefix);
    const number = family.store.get(address, length);
    if (number < 0) return false;
    family.delete(address, length);
    this.#release(number);
    return true;
  }

  /** Returns the value of exactly this prefix. */
  get(prefix: Prefix | string): Value | undefined {
    const { family, address, length } = this.#locate(prefix);
    const number = family.store.get(address, length);
    return number < 0 ? undefined : this.#values[number];
  }

  /** Returns the value of the longest prefix of an IPv4 address. */
  findIpv4(address: number): Value | undefined {
    return this.#values[this.#families[4].trie.find(address)];
  }

  /** Returns the value of the longest prefix of the IPv6 address at `start`. */
  findIpv6(bytes: Uint8Array, start = 0): Value | undefined {
    return this.#values[this.#families[6].trie.findBytes(bytes, start)];
  }

  /** Iterates over all prefixes with their values, in no particular order. */
  *[Symbol.iterator](): Generator<[prefix: Prefix, value: Value], void, void> {
    for (const version of [4, 6] as const) {
      for (const [address, length, number] of this.#families[version].store) {
        const bytes = new Uint8Array(4 * address.length);
        const view = new DataView(bytes.buffer);
        address.forEach((word, i) => view.setUint32(4 * i, word));
        yield [new Prefix({ family: version, bytes }, length), this.#values[number] as Value];
      }
    }
  }

  /** Returns all routes, for {@linkcode RouteTable.restore}; they fit JSON if the values do. */
  save(): unknown {
    return { format: FORMAT, routes: Array.from(this, ([prefix, value]) => [formatCidr(prefix), value]) };
  }

  /**
   * Replaces all routes with those of {@linkcode RouteTable.save}.
   *
   * @throws {TypeError} when the state is not from `save`.
   * @throws {RangeError} when it has more routes than the table can hold.
   */
  restore(state: unknown): void {
    const { format, routes } = (state ?? {}) as { format?: unknown; routes?: unknown };
    const isRoute = (route: unknown) =>
      Array.isArray(route) && route.length === 2 && typeof route[0] === "string";
    if (format !== FORMAT || !Array.isArray(routes) || !routes.every(isRoute)) {
      throw new TypeError(`Cannot restore routes: state must be a result of save(), ${gotValue(state)}`);
    }
    const read = (routes as [string, Value][]).map(([text, value]) => [parseCidr(text), value] as const);
    if (read.length > this.#capacity) {
      const rule = `state must have at most ${this.#capacity} routes`;
      throw new RangeError(`Cannot restore routes: ${rule}, ${gotValue(read.length)}`);
    }
    for (const [prefix] of [...this]) this.delete(prefix);
    for (const [prefix, value] of read) this.set(prefix, value);
  }

  #locate(prefix: Prefix | string): { family: Family; address: Uint32Array; length: number } {
    if (!(prefix instanceof Prefix)) checkOption("find a prefix", "prefix", prefix, "text");
    const { network, length } = typeof prefix === "string" ? parseCidr(prefix) : prefix;
    const family = this.#families[network.family];
    return { family, address: family.wordsOf(network), length };
  }

  #numberOf(value: Value): number {
    let number = this.#numbers.get(value);
    if (number !== undefined) return number;
    number = this.#free.pop() ?? this.#values.length;
    if (number > MAX_NUMBER) {
      throw new RangeError(`Cannot add a route: the table must have at most ${MAX_NUMBER} different values`);
    }
    this.#numbers.set(value, number);
    this.#values[number] = value;
    this.#uses[number] = 0;
    return number;
  }

  #release(number: number): void {
    if (--this.#uses[number]! > 0) return;
    this.#numbers.delete(this.#values[number] as Value);
    this.#values[number] = undefined;
    this.#free.push(number);
  }
}

function nameOf(prefix: Prefix | string): string {
  return typeof prefix === "string" ? prefix : formatCidr(prefix);
}
