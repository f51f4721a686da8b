/** Routes: what belongs to the longest prefix that an address is in. */

import { MAX_NUMBER, PrefixTrie } from "./_prefix_trie.ts";
import { PrefixStore } from "./_prefix_store.ts";
import { formatCidr, parseCidr, Prefix } from "../wire/address.ts";
import { checkNames, type OptionNames } from "../core/options.ts";

// Implementation
const CAPACITY = 2 ** 20;
const FORMAT = "route_table 1";

/** Options of a {@linkcode RouteTable}. */
export interface RouteTableOptions {
  /** How many prefixes there may be, of both families together. @default {1048576} */
  readonly capacity?: number;
}

const NAMES: OptionNames<RouteTableOptions> = { capacity: "number" };

/** What is kept of one family's prefixes. */
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

  /** A prefix's first address, as words. */
  wordsOf({ bytes }: { readonly bytes: Uint8Array }): Uint32Array {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return Uint32Array.from({ length: this.#words }, (_, i) => view.getUint32(4 * i));
  }
}

/**
 * Prefixes of IPv4 and IPv6, each with a value, found by the longest that an address is in. Looking up allocates
 * nothing: IPv4 takes at most three reads of memory. A full table of the Internet, 900,000 IPv4 prefixes, takes less
 * than 100 MB.
 *
 * **Limits**: at most 8,388,607 different values, which are compared as `Map` does. A prefix of IPv6 takes up to 68 bytes
 * for each four bits that it does not share with another one.
 *
 * @example
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
  /** Values by their numbers; the first is that of addresses without a route. */
  readonly #values: (Value | undefined)[] = [undefined];
  readonly #numbers = new Map<Value, number>();
  /** How many prefixes have a value. */
  readonly #uses: number[] = [0];
  readonly #free: number[] = [];

  /**
   * A table without routes.
   *
   * @throws {RangeError} when the capacity is not a whole number from 1 on.
   */
  constructor(options: RouteTableOptions = {}) {
    checkNames("make a table of routes", options, NAMES);
    const { capacity = CAPACITY } = options;
    if (!Number.isInteger(capacity) || capacity < 1) {
      throw new RangeError(`Cannot make a table of ${capacity} routes: 1 is the least`);
    }
    this.#capacity = capacity;
  }

  /** How many prefixes there are. */
  get size(): number {
    return this.#families[4].store.size + this.#families[6].store.size;
  }

  /** The memory that its look-ups and its prefixes have taken (bytes), without the values. */
  get byteLength(): number {
    const { 4: four, 6: six } = this.#families;
    return four.trie.byteLength + four.store.byteLength + six.trie.byteLength + six.store.byteLength;
  }

  /**
   * Sets a prefix's value; bits behind the prefix do not count.
   *
   * @throws {SyntaxError} when the text is no prefix.
   * @throws {RangeError} when the table is full.
   */
  set(prefix: Prefix | string, value: Value): void {
    const { family, address, length } = this.#locate(prefix);
    const before = family.store.get(address, length);
    if (before < 0 && this.size === this.#capacity) {
      throw new RangeError(
        `Cannot add ${nameOf(prefix)}: the table has ${this.#capacity} routes, which is all it takes`,
      );
    }
    const number = this.#numberOf(value);
    this.#uses[number]!++;
    family.set(address, length, number);
    if (before >= 0) this.#release(before);
  }

  /** Removes a prefix; returns whether it was there. */
  delete(prefix: Prefix | string): boolean {
    const { family, address, length } = this.#locate(prefix);
    const number = family.store.get(address, length);
    if (number < 0) return false;
    family.delete(address, length);
    this.#release(number);
    return true;
  }

  /** The value of this very prefix. */
  get(prefix: Prefix | string): Value | undefined {
    const { family, address, length } = this.#locate(prefix);
    const number = family.store.get(address, length);
    return number < 0 ? undefined : this.#values[number];
  }

  /** The value of the longest prefix that an IPv4 address is in. */
  findIpv4(address: number): Value | undefined {
    return this.#values[this.#families[4].trie.find(address)];
  }

  /** The value of the longest prefix that the IPv6 address at `start` is in. */
  findIpv6(bytes: Uint8Array, start = 0): Value | undefined {
    return this.#values[this.#families[6].trie.findBytes(bytes, start)];
  }

  /** All prefixes with their values, in no order. */
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

  /** All routes, as values that JSON can hold where theirs are. */
  save(): unknown {
    return { format: FORMAT, routes: Array.from(this, ([prefix, value]) => [formatCidr(prefix), value]) };
  }

  /**
   * Takes over what {@linkcode RouteTable.save} gave, in place of all routes that there are.
   *
   * @throws {TypeError} when it is something else.
   */
  restore(state: unknown): void {
    const { format, routes } = (state ?? {}) as { format?: unknown; routes?: unknown };
    const isRoute = (route: unknown) =>
      Array.isArray(route) && route.length === 2 && typeof route[0] === "string";
    if (format !== FORMAT || !Array.isArray(routes) || !routes.every(isRoute)) {
      throw new TypeError("Cannot restore the routes: it is no state of a table of routes");
    }
    const read = (routes as [string, Value][]).map(([text, value]) => [parseCidr(text), value] as const);
    for (const [prefix] of [...this]) this.delete(prefix);
    for (const [prefix, value] of read) this.set(prefix, value);
  }

  #locate(prefix: Prefix | string): { family: Family; address: Uint32Array; length: number } {
    const { network, length } = typeof prefix === "string" ? parseCidr(prefix) : prefix;
    const family = this.#families[network.family];
    return { family, address: family.wordsOf(network), length };
  }

  #numberOf(value: Value): number {
    let number = this.#numbers.get(value);
    if (number !== undefined) return number;
    number = this.#free.pop() ?? this.#values.length;
    if (number > MAX_NUMBER) throw new RangeError(`Cannot keep more than ${MAX_NUMBER} different values`);
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
