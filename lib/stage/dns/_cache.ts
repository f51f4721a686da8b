/**
 * Cache of answers, bounded in entries and bytes. Each entry is counted in a share, chosen by the client that asked first
 * and the upstream that answered; a full cache evicts the least recently used entry of the largest share.
 *
 *     put ──► fresh until its TTL expires ──► stale, if enabled ──► removed
 */

import { sipHash } from "../../core/sip_hash.ts";
import { checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";
import { Answer } from "./_answer.ts";
import { HEADER, Question, Rcode } from "./_message.ts";

// Implementation
/** Approximate memory of an entry's objects besides key and message (bytes). */
const ENTRY_BYTES = 250;
/** Number of shares of positive answers, and of negative ones; owners with the same hash have the same share. */
const SHARES = 32;
const NAMES: OptionKinds<DnsCacheOptions> = {
  entries: "number",
  bytes: "number",
  minTtl: "number",
  maxTtl: "number",
  maxNegativeTtl: "number",
  stale: "number",
  prefetch: "boolean",
};

/** Options of the resolver's cache. */
export interface DnsCacheOptions {
  /**
   * Maximum answers. A full cache evicts the least recently used answer of the client and upstream with the most; negative
   * answers are counted separately. @default {10000}
   */
  entries?: number;
  /** Maximum memory (bytes). @default {8388608} */
  bytes?: number;
  /** Minimum lifetime of an answer (milliseconds); an answer with a TTL of 0 is never cached. @default {0} */
  minTtl?: number;
  /** Maximum lifetime of an answer (milliseconds). @default {86400000, a day} */
  maxTtl?: number;
  /** Maximum lifetime of a negative answer (milliseconds; RFC 2308). @default {3600000, an hour} */
  maxNegativeTtl?: number;
  /**
   * Time for which an expired answer is served, with a TTL of 30 s, while no upstream answers (milliseconds; RFC 8767).
   * @default {0, never}
   */
  stale?: number;
  /** True to refresh an answer that is queried in the last tenth of its lifetime. @default {false} */
  prefetch?: boolean;
}

export interface CacheEntry {
  readonly answer: Answer;
  /** Time of its arrival (monotonic milliseconds). */
  readonly since: number;
  /** Time of its expiry (monotonic milliseconds). */
  readonly until: number;
  /** Share that it is counted in. */
  readonly share: number;
}

/** Keys of a share's entries, the least recently used first. */
interface Share {
  readonly keys: Set<string>;
  bytes: number;
}

/** Entry for JSON: key and message in hexadecimal digits, age and remaining lifetime (milliseconds). */
type SavedEntry = [key: string, message: string, age: number, left: number, share?: number];

/** Answers by the keys of their questions. */
export class Cache {
  /** True if answers are refreshed before they expire. */
  readonly prefetches: boolean;
  /** Time that an answer is kept after its expiry (milliseconds). */
  readonly stale: number;
  readonly #entries = new Map<string, CacheEntry>();
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #minTtl: number;
  readonly #maxTtl: number;
  readonly #maxNegativeTtl: number;
  readonly #shares: readonly Share[] = Array.from(
    { length: 2 * SHARES },
    () => ({ keys: new Set(), bytes: 0 }),
  );
  readonly #hashKey = crypto.getRandomValues(new Uint32Array(2));
  #bytes = 0;

  /** @throws {RangeError} when an option is out of range; {@linkcode TypeError} for an unknown option. */
  constructor(options: DnsCacheOptions = {}) {
    checkOptions("cache answers", options, NAMES);
    const { entries = 10_000, bytes = 8 * 1024 * 1024, minTtl = 0, maxTtl = 86_400_000 } = options;
    const { maxNegativeTtl = 3_600_000, stale = 0, prefetch = false } = options;
    const given = { entries, bytes, minTtl, maxTtl, maxNegativeTtl, stale };
    for (const [name, value] of Object.entries(given)) checkMin("cache answers", name, value, 0);
    this.#maxEntries = entries;
    this.#maxBytes = bytes;
    this.#minTtl = minTtl;
    this.#maxTtl = maxTtl;
    this.#maxNegativeTtl = maxNegativeTtl;
    this.stale = stale;
    this.prefetches = prefetch;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Approximate memory of all answers (bytes). */
  get bytes(): number {
    return this.#bytes;
  }

  /** Returns the answer to a question, fresh or stale; `undefined` if there is none. */
  get(key: string, now: number): CacheEntry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (now >= entry.until + this.stale) {
      this.#remove(key, entry);
      return undefined;
    }
    // Moved to the end of the set: most recently used.
    const { keys } = this.#shares[entry.share]!;
    keys.delete(key);
    keys.add(key);
    return entry;
  }

  /** Adds an answer for its lifetime. `owner` determines the share that it is counted in. */
  put(key: string, answer: Answer, now: number, owner: string): void {
    if (answer.ttl === 0) return;
    const max = answer.isNegative ? Math.min(this.#maxTtl, this.#maxNegativeTtl) : this.#maxTtl;
    this.#add(key, {
      answer,
      since: now,
      until: now + Math.min(Math.max(answer.ttl * 1000, this.#minTtl), max),
      share: this.#shareOf(owner) + (answer.isNegative ? SHARES : 0),
    });
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
    for (const share of this.#shares) {
      share.keys.clear();
      share.bytes = 0;
    }
  }

  /** Returns the fresh answers, for {@linkcode Cache.read}. */
  save(now: number): SavedEntry[] {
    const saved: SavedEntry[] = [];
    for (const [share, { keys }] of this.#shares.entries()) {
      for (const key of keys) {
        const { answer, since, until } = this.#entries.get(key)!;
        if (until > now) saved.push([toHex(key), answer.bytes.toHex(), now - since, until - now, share]);
      }
    }
    return saved;
  }

  /**
   * Parses the result of {@linkcode Cache.save}; returns a function that replaces the contents, within the limits
   * of these options.
   *
   * @throws {TypeError} for any other value.
   */
  read(state: unknown, now: number): () => void {
    const entries = Array.isArray(state)
      ? state.map((saved) => readEntry(saved, now, this.#maxTtl))
      : [undefined];
    if (!entries.every((entry) => entry !== undefined)) {
      throw new TypeError("Cannot restore a resolver: its cache must be as it was saved");
    }
    return () => {
      this.clear();
      for (const [key, entry] of entries) this.#add(key, entry);
    };
  }

  #add(key: string, entry: CacheEntry): void {
    const known = this.#entries.get(key);
    if (known !== undefined) this.#remove(key, known);
    const size = sizeOf(key, entry);
    // A larger entry would evict all others and then itself.
    if (entry.until <= entry.since || size > this.#maxBytes) return;
    const share = this.#shares[entry.share]!;
    this.#entries.set(key, entry);
    this.#bytes += size;
    share.keys.add(key);
    share.bytes += size;
    while (this.#entries.size > this.#maxEntries || this.#bytes > this.#maxBytes) {
      const isByCount = this.#entries.size > this.#maxEntries;
      const oldest: string = this.#greatest(share, isByCount).keys.values().next().value!;
      this.#remove(oldest, this.#entries.get(oldest)!);
    }
  }

  #remove(key: string, entry: CacheEntry): void {
    const size = sizeOf(key, entry);
    const share = this.#shares[entry.share]!;
    this.#entries.delete(key);
    this.#bytes -= size;
    share.keys.delete(key);
    share.bytes -= size;
  }

  /** Returns the share with the most entries or bytes; `first` in a tie. */
  #greatest(first: Share, isByCount: boolean): Share {
    let greatest = first;
    for (const share of this.#shares) {
      if (isByCount ? share.keys.size > greatest.keys.size : share.bytes > greatest.bytes) greatest = share;
    }
    return greatest;
  }

  #shareOf(owner: string): number {
    const words = Uint32Array.from(owner, (letter) => letter.charCodeAt(0));
    return (sipHash(words, words.length, this.#hashKey[0]!, this.#hashKey[1]!) >>> 0) % SHARES;
  }
}

function sizeOf(key: string, { answer }: CacheEntry): number {
  return ENTRY_BYTES + key.length * 2 + answer.bytes.length + answer.overhead;
}

function toHex(key: string): string {
  return Array.from(key, (letter) => letter.charCodeAt(0).toString(16).padStart(4, "0")).join("");
}

const question = new Question();

function readEntry(saved: unknown, now: number, maxTtl: number): [string, CacheEntry] | undefined {
  if (!Array.isArray(saved) || saved.length !== 4 && saved.length !== 5) return undefined;
  const [key, message, age, left, share = 0] = saved as SavedEntry;
  if (!(Number.isInteger(share) && share >= 0 && share < 2 * SHARES)) return undefined;
  if (typeof key !== "string" || typeof message !== "string") return undefined;
  if (!/^([0-9a-f]{4})+$/.test(key) || !/^([0-9a-f]{2})+$/.test(message)) return undefined;
  if (!(Number.isFinite(age) && age >= 0 && Number.isFinite(left) && left >= 0)) return undefined;
  const bytes = Uint8Array.fromHex(message);
  const letters = key.match(/.{4}/g)!.map((digits) => String.fromCharCode(parseInt(digits, 16))).join("");
  // Header and question alone form a query.
  const query = bytes.slice();
  query.fill(0, 2, HEADER);
  query[5] = 1;
  if (question.read(query, 0, query.length) !== Rcode.NoError) return undefined;
  if (letters.slice(0, -1) !== question.nameKey + String.fromCharCode(question.type)) return undefined;
  const answer = Answer.of(bytes, question);
  return answer && [letters, { answer, since: now - age, until: now + Math.min(left, maxTtl - age), share }];
}
