/** Compact set of domain names and suffixes, for up to millions of names. */

import { checkOption, checkOptions, type OptionKinds } from "../../core/options.ts";
import { formatName, isPlainName, MAX_NAME, nameFault, toAscii, writeName } from "./name.ts";

// Specification: RFC 1035 section 2.3.4
const MAX_LABELS = 128;

// Implementation
//
//     names   flags │ length │ name in wire format without the root │ flags │ length │ ...
//     index   offset of a name by its hash; open addressing with linear probing
const NAME_ITSELF = 1;
const NAMES_BELOW = 2;
const FIRST_NAMES = 1024; // bytes
const FIRST_INDEX = 256;
/** Prime of FNV-1a, applied from the last byte to the first, so that a name's hash extends its suffix's. */
const PRIME = 0x01000193;
const MAX_WARNINGS = 100;
/** Maximum characters of a line in a message. */
const MAX_REPORTED = 80;
/** Addresses that mean "blocked" in a hosts file. */
const NOWHERE = /^(0\.0\.0\.0|127(\.\d{1,3}){3}|::|::1|0)$/;
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f.]*:[0-9a-f:.]*(%\w+)?)$/i;
/** Names in hosts files for the machine itself. */
const OWN_NAMES = /^(localhost|localhost\.localdomain|local|broadcasthost|ip6-\w+|0\.0\.0\.0)$/i;

/** Names that an entry matches: only its own, its own and all names below it, or only the names below it. */
export type NameMatch = "exact" | "suffix" | "below";

/** Options for {@linkcode BlockList.parse}. */
export interface BlockListOptions {
  /** Match of lines with a bare name; lines of a hosts file always match `"exact"`. @default {"suffix"} */
  match?: NameMatch;
}

const FLAGS: Readonly<Record<NameMatch, number>> = {
  exact: NAME_ITSELF,
  suffix: NAME_ITSELF | NAMES_BELOW,
  below: NAMES_BELOW,
};
const NAMES: OptionKinds<BlockListOptions> = { match: ["exact", "suffix", "below"] };

/** Line that was skipped. */
export interface BlockListWarning {
  /** Line number, from 1. */
  readonly line: number;
  /** Reason. */
  readonly message: string;
}

/**
 * Set of domain names and suffixes, case-insensitive; non-ASCII names are stored as Punycode. A name takes its length plus
 * about 10 bytes; a lookup hashes each label once and allocates nothing.
 *
 * **Limits**: names cannot be removed: create a new list.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { BlockList } from "@warren/tunnel/dns";
 *
 * const list = BlockList.parse("0.0.0.0 ads.example.com\ntracker.example # and all below\n*.cdn.example\n");
 * assert(list.has("ads.example.com") && !list.has("more.ads.example.com"));
 * assert(list.has("a.b.tracker.example") && !list.has("cdn.example") && list.has("x.cdn.example"));
 * ```
 */
export class BlockList {
  #names = new Uint8Array(FIRST_NAMES);
  #namesEnd = 1; // 0 in the index is an empty place
  #index = new Uint32Array(FIRST_INDEX);
  #size = 0;
  #warnings: BlockListWarning[] = [];
  #skipped = 0;
  readonly #seed: number;
  readonly #scratch = new Uint8Array(MAX_NAME + 1);
  readonly #labels = new Uint8Array(MAX_LABELS);

  /**
   * Creates a list of one or several names in the syntax of {@linkcode BlockList.parse}.
   *
   * @throws {SyntaxError} when a name does not parse; {@linkcode TypeError} for an unknown option.
   */
  constructor(names: Iterable<string> = [], options: BlockListOptions = {}) {
    const match = matchOf(options);
    // The seed prevents lists whose names are chosen to collide.
    this.#seed = crypto.getRandomValues(new Int32Array(1))[0]!;
    for (const name of typeof names === "string" ? [names] : names) {
      checkOption("add a name to a list", "name", name, "text");
      const fault = this.#readLine(name, match);
      if (fault !== undefined) throw new SyntaxError(`Cannot add a name to a list: ${fault}`);
    }
  }

  /**
   * Parses a list. A line is a name, `*.name` for the names below it, `||name^` (ad blockers), or an unroutable address
   * followed by names (hosts(5)). `#` and `!` start comments. Other lines are skipped, with a warning in
   * {@linkcode BlockList.warnings}.
   *
   * @throws {TypeError} for an unknown option.
   */
  static parse(text: string, options: BlockListOptions = {}): BlockList {
    const match = matchOf(options);
    const list = new BlockList();
    let line = 0;
    for (let start = text.startsWith("\ufeff") ? 1 : 0; start < text.length;) {
      let end = text.indexOf("\n", start);
      if (end < 0) end = text.length;
      line++;
      const fault = list.#readLine(text.slice(start, end), match);
      if (fault !== undefined) {
        list.#skipped++;
        if (list.#warnings.length < MAX_WARNINGS) list.#warnings.push({ line, message: fault });
      }
      start = end + 1;
    }
    return list;
  }

  /** Number of names. */
  get size(): number {
    return this.#size;
  }

  /** Memory of names and index (bytes). */
  get bytes(): number {
    return this.#names.byteLength + this.#index.byteLength;
  }

  /** Number of skipped lines. */
  get skipped(): number {
    return this.#skipped;
  }

  /** First 100 skipped lines, with reasons. */
  get warnings(): readonly BlockListWarning[] {
    return this.#warnings;
  }

  /**
   * Adds a name.
   *
   * @throws {SyntaxError} when it is not a name; {@linkcode TypeError} for an unknown `match`.
   */
  add(name: string, match: NameMatch = "suffix"): void {
    const fault = this.#add(name, matchOf({ match }));
    if (fault !== undefined) throw new SyntaxError(`Cannot add a name to a list: ${fault}`);
  }

  /** Reports whether an entry matches the name; false for text that is not a name. */
  has(name: string): boolean {
    const length = writeName(toAscii(name), this.#scratch);
    return length > 0 && this.hasName(this.#scratch);
  }

  /** {@linkcode BlockList.has} for a complete name in lower case and wire format at the start of `name`. */
  hasName(name: Uint8Array): boolean {
    const labels = this.#labels;
    let count = 0;
    let end = 0;
    for (; name[end]! > 0 && count < MAX_LABELS; end += name[end]! + 1) labels[count++] = end;
    let hash = this.#seed;
    for (let i = count - 1; i >= 0; i--) {
      const start = labels[i]!;
      for (let at = start + name[start]!; at >= start; at--) hash = Math.imul(hash ^ name[at]!, PRIME);
      const found = this.#index[this.#place(name, start, end, hash)]!;
      if (found !== 0 && (this.#names[found]! & (i === 0 ? NAME_ITSELF : NAMES_BELOW)) !== 0) return true;
    }
    return false;
  }

  /** Parses a line; returns the reason if it is invalid. */
  #readLine(line: string, match: NameMatch): string | undefined {
    const comment = line.search(/#|^\s*!/);
    const text = (comment < 0 ? line : line.slice(0, comment)).trim();
    if (text === "") return undefined;
    const blocker = /^\|\|([^\^/*]+)\^$/.exec(text);
    if (blocker !== null) return this.#add(blocker[1]!, "suffix");
    if (!/\s/.test(text)) {
      if (ADDRESS.test(text)) return `${printable(text)} is an address without a name`;
      if (text.startsWith("*.")) return this.#add(text.slice(2), "below");
      return this.#add(text, match);
    }
    const [address, ...names] = text.split(/\s+/) as [string, ...string[]];
    if (!ADDRESS.test(address) && address !== "0") {
      return `${printable(text)} is neither a name nor a line of a hosts file`;
    }
    // Lines of a hosts file for this machine and its network block nothing.
    if (names.every((name) => OWN_NAMES.test(name))) return undefined;
    if (!NOWHERE.test(address)) return `a blocked name must have an address such as 0.0.0.0, got ${address}`;
    let fault: string | undefined;
    for (const name of names) if (!OWN_NAMES.test(name)) fault = this.#add(name, "exact") ?? fault;
    return fault;
  }

  #add(text: string, match: NameMatch): string | undefined {
    const ascii = toAscii(text);
    if (!isPlainName(ascii) && ascii !== ".") {
      return `${printable(text)} must consist of letters, digits, hyphens and underscores`;
    }
    const name = this.#scratch;
    const length = writeName(ascii, name) - 1;
    if (length < 1) {
      return length < 0
        ? `${printable(text)} is not a name: ${nameFault(ascii)}`
        : "the root domain would match every name";
    }
    const flags = FLAGS[match];
    if (this.#size * 3 >= this.#index.length * 2) this.#growIndex();
    const place = this.#place(name, 0, length, this.#hash(name, 0, length));
    const found = this.#index[place]!;
    if (found !== 0) {
      this.#names[found]! |= flags;
      return undefined;
    }
    const start = this.#namesEnd;
    if (start + 2 + length > this.#names.length) {
      const grown = new Uint8Array(Math.ceil((start + 2 + length) * 1.5));
      grown.set(this.#names);
      this.#names = grown;
    }
    this.#names[start] = flags;
    this.#names[start + 1] = length;
    for (let i = 0; i < length; i++) this.#names[start + 2 + i] = name[i]!;
    this.#namesEnd = start + 2 + length;
    this.#index[place] = start;
    this.#size++;
    return undefined;
  }

  /** Hashes from the last byte to the first, as {@linkcode BlockList.hasName} does. */
  #hash(bytes: Uint8Array, start: number, end: number): number {
    let hash = this.#seed;
    for (let at = end - 1; at >= start; at--) hash = Math.imul(hash ^ bytes[at]!, PRIME);
    return hash;
  }

  /** Returns the place of a name in the index, or the place where it would be added. */
  #place(name: Uint8Array, start: number, end: number, hash: number): number {
    const names = this.#names;
    const length = end - start;
    const mask = this.#index.length - 1;
    for (let place = (hash ^ hash >>> 15) & mask;; place = place + 1 & mask) {
      const found = this.#index[place]!;
      if (found === 0) return place;
      if (names[found + 1] !== length) continue;
      let i = 0;
      while (i < length && names[found + 2 + i] === name[start + i]) i++;
      if (i === length) return place;
    }
  }

  #growIndex(): void {
    const index = new Uint32Array(this.#index.length * 2);
    const mask = index.length - 1;
    for (let at = 1; at < this.#namesEnd; at += 2 + this.#names[at + 1]!) {
      const hash = this.#hash(this.#names, at + 2, at + 2 + this.#names[at + 1]!);
      let place = (hash ^ hash >>> 15) & mask;
      while (index[place] !== 0) place = place + 1 & mask;
      index[place] = at;
    }
    this.#index = index;
  }

  /** Iterates the names in the order of their addition; names that match `"below"` as `*.name`. */
  *[Symbol.iterator](): Generator<string, void, void> {
    const name = new Uint8Array(MAX_NAME + 1);
    for (let at = 1; at < this.#namesEnd;) {
      const length = this.#names[at + 1]!;
      name.set(this.#names.subarray(at + 2, at + 2 + length));
      name[length] = 0;
      yield (this.#names[at] === NAMES_BELOW ? "*." : "") + formatName(name);
      at += 2 + length;
    }
  }
}

function matchOf(options: BlockListOptions): NameMatch {
  checkOptions("read a list of names", options, NAMES);
  return options.match ?? "suffix";
}

/** Quotes untrusted text, without control characters. */
function printable(text: string): string {
  const short = text.length > MAX_REPORTED ? `${text.slice(0, MAX_REPORTED)}…` : text;
  return JSON.stringify(short).replaceAll(
    /[\x7f-\x9f]/g,
    (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`,
  );
}
