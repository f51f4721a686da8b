/** Names, a million of them if need be, and whether a name is one of them or below one. */

import { checkNames, type OptionNames } from "../../core/options.ts";
import { formatName, isPlainName, MAX_NAME, nameFault, toAscii, writeName } from "./name.ts";

// Specification: RFC 1035 section 2.3.4
const MAX_LABELS = 128;

// Implementation
//
//     names   flags │ length │ the name's bytes, without the root's │ flags │ length │ ...
//     index   where a name starts, by its hash; open addressing with linear probing
const NAME_ITSELF = 1;
const NAMES_BELOW = 2;
const FIRST_NAMES = 1024; // bytes
const FIRST_INDEX = 256;
/** FNV-1a, over the bytes from the last to the first, so that a name's hash goes on from its suffix's. */
const PRIME = 0x01000193;
const MAX_WARNINGS = 100;
/** How much of a line is said again (characters). */
const MAX_REPORTED = 80;
/** Addresses that say "nowhere" in a hosts file. */
const NOWHERE = /^(0\.0\.0\.0|127(\.\d{1,3}){3}|::|::1|0)$/;
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f.]*:[0-9a-f:.]*(%\w+)?)$/i;
/** What hosts files name for the machine's own sake. */
const OWN_NAMES = /^(localhost|localhost\.localdomain|local|broadcasthost|ip6-\w+|0\.0\.0\.0)$/i;

/** Which names one of a {@linkcode BlockList} means: itself alone, itself and all below it, or all below it. */
export type NameMatch = "exact" | "suffix" | "below";

/** Options for {@linkcode BlockList.parse}. */
export interface BlockListOptions {
  /** What a line with a name alone means. Names of a hosts file are always meant alone. @default {"suffix"} */
  match?: NameMatch;
}

const NAMES: OptionNames<BlockListOptions> = { match: "optional" };
const FLAGS: Readonly<Record<NameMatch, number>> = {
  exact: NAME_ITSELF,
  suffix: NAME_ITSELF | NAMES_BELOW,
  below: NAMES_BELOW,
};

/** A line that was left out. */
export interface BlockListWarning {
  /** From 1. */
  readonly line: number;
  /** Why. */
  readonly message: string;
}

/**
 * A set of names and suffixes of names. Letters are the same in upper and lower case; those beyond ASCII are kept as
 * Punycode. A name takes its own bytes and about 10 more; looking one up takes a hash for each of its labels and
 * allocates nothing.
 *
 * **Limits**: names cannot be taken out again: make a new list.
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
   * A list of these names, or of one, each as a line of {@linkcode BlockList.parse}.
   *
   * @throws {SyntaxError} when one is none; {@linkcode TypeError} for an option that there is not.
   */
  constructor(names: Iterable<string> = [], options: BlockListOptions = {}) {
    const match = matchOf(options);
    // Without a seed, whoever writes a list could make its names collide.
    this.#seed = crypto.getRandomValues(new Int32Array(1))[0]!;
    for (const name of typeof names === "string" ? [names] : names) {
      const fault = this.#readLine(name, match);
      if (fault !== undefined) {
        throw new SyntaxError(`Cannot use ${errorMessage(name)} in a list of names: ${fault}`);
      }
    }
  }

  /**
   * Reads a list: a line is a name, `*.name` for those below it, `||name^` as ad blockers write it, or an address that
   * leads nowhere with names behind it, as hosts(5) has it. `#` and `!` start comments. What a line cannot mean is left
   * out, and among {@linkcode BlockList.warnings}.
   *
   * @throws {TypeError} for an option that there is not.
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

  /** How many names it has. */
  get size(): number {
    return this.#size;
  }

  /** The memory that its names and their index take (bytes). */
  get bytes(): number {
    return this.#names.byteLength + this.#index.byteLength;
  }

  /** How many lines were left out. */
  get skipped(): number {
    return this.#skipped;
  }

  /** The first 100 lines that were left out, and why. */
  get warnings(): readonly BlockListWarning[] {
    return this.#warnings;
  }

  /**
   * Adds a name.
   *
   * @throws {SyntaxError} when it is none; {@linkcode TypeError} when there is no such `match`.
   */
  add(name: string, match: NameMatch = "suffix"): void {
    const fault = this.#add(name, matchOf({ match }));
    if (fault !== undefined) {
      throw new SyntaxError(`Cannot use ${errorMessage(name)} in a list of names: ${fault}`);
    }
  }

  /** Whether a name is one of them, or below one that means those, too; `false` for what is no name. */
  has(name: string): boolean {
    const length = writeName(toAscii(name), this.#scratch);
    return length > 0 && this.hasName(this.#scratch);
  }

  /** {@linkcode BlockList.has} of a whole name in lower case and the bytes of messages, at the start of `name`. */
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

  /** Reads a line; returns what is wrong with it, if something is. */
  #readLine(line: string, match: NameMatch): string | undefined {
    const comment = line.search(/#|^\s*!/);
    const text = (comment < 0 ? line : line.slice(0, comment)).trim();
    if (text === "") return undefined;
    const blocker = /^\|\|([^\^/*]+)\^$/.exec(text);
    if (blocker !== null) return this.#add(blocker[1]!, "suffix");
    if (!/\s/.test(text)) {
      if (ADDRESS.test(text)) return `${errorMessage(text)} is an address without a name`;
      if (text.startsWith("*.")) return this.#add(text.slice(2), "below");
      return this.#add(text, match);
    }
    const [address, ...names] = text.split(/\s+/) as [string, ...string[]];
    if (!ADDRESS.test(address) && address !== "0") {
      return `${errorMessage(text)} is neither a name nor a line of hosts`;
    }
    // The lines of a hosts file for this machine and its network block nothing.
    if (names.every((name) => OWN_NAMES.test(name))) return undefined;
    if (!NOWHERE.test(address)) return `${address} leads somewhere: such a line blocks nothing`;
    let fault: string | undefined;
    for (const name of names) if (!OWN_NAMES.test(name)) fault = this.#add(name, "exact") ?? fault;
    return fault;
  }

  #add(text: string, match: NameMatch): string | undefined {
    const ascii = toAscii(text);
    if (!isPlainName(ascii) && ascii !== ".") {
      return `${errorMessage(text)} has what is no letter, digit, hyphen or underscore`;
    }
    const name = this.#scratch;
    const length = writeName(ascii, name) - 1;
    if (length < 1) {
      return length < 0 ? `${errorMessage(text)} is no name: ${nameFault(ascii)}` : "the root is everything";
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

  /** Goes on from the root's hash, from the last label to the first, as {@linkcode BlockList.hasName} does. */
  #hash(bytes: Uint8Array, start: number, end: number): number {
    let hash = this.#seed;
    for (let at = end - 1; at >= start; at--) hash = Math.imul(hash ^ bytes[at]!, PRIME);
    return hash;
  }

  /** Where a name's place in the index is, or would be. */
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

  /** The names, in the order in which they were added; those that mean only what is below them as `*.name`. */
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
  checkNames("read a list of names", options, NAMES);
  const { match = "suffix" } = options;
  if (Object.hasOwn(FLAGS, match)) return match;
  throw new TypeError(
    `Cannot read a list of names: match is ${JSON.stringify(match)}: write one of ${
      Object.keys(FLAGS).join(", ")
    }`,
  );
}

/** A stranger's text as a terminal may have it. */
function errorMessage(text: string): string {
  const short = text.length > MAX_REPORTED ? `${text.slice(0, MAX_REPORTED)}…` : text;
  return JSON.stringify(short).replaceAll(
    /[\x7f-\x9f]/g,
    (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`,
  );
}
