/**
 * Answers that are still good, bounded by entries and bytes. Each is counted in a share, by the client that asked first
 * and the upstream that answered; a full cache forgets what the greatest share has not used for longest.
 *
 *     put ──► good until its TTL is over ──► stale, if that is wanted ──► gone
 */

import { sipHash } from "../../core/sip_hash.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Answer } from "./_answer.ts";
import { HEADER, Question, Rcode } from "./_message.ts";

// Implementation
/** What a `Map`'s entry, its key and the objects take beside an answer's bytes, about. */
const ENTRY_BYTES = 250;
/** Shares of answers, and as many of negative ones: owners whose hashes agree have one together. */
const SHARES = 32;
const NAMES: OptionNames<DnsCacheOptions> = {
  entries: "optional",
  bytes: "optional",
  minTtl: "optional",
  maxTtl: "optional",
  maxNegativeTtl: "optional",
  stale: "optional",
  prefetch: "optional",
};

/** Options of the resolver's cache. */
export interface DnsCacheOptions {
  /**
   * How many answers it keeps. Clients and upstreams have shares: a full cache forgets what the greatest share has not
   * used for longest, and answers that there is nothing have shares of their own. @default {10000}
   */
  entries?: number;
  /** How much memory they take (bytes). @default {8388608} */
  bytes?: number;
  /**
   * An answer is good for at least so long (milliseconds), unless it says itself that it is for nobody else: with a TTL of
   * 0. @default {0}
   */
  minTtl?: number;
  /** An answer is good for at most so long (milliseconds). @default {86400000, a day} */
  maxTtl?: number;
  /** One that says that there is nothing, for at most so long (milliseconds; RFC 2308). @default {3600000, an hour} */
  maxNegativeTtl?: number;
  /**
   * For how long an old answer is given when nobody can be asked (milliseconds; RFC 8767): with a TTL of 30 s.
   * @default {0, never}
   */
  stale?: number;
  /** Whether names that are asked for in the last tenth of their answer's time are asked again then. @default {false} */
  prefetch?: boolean;
}

/** An answer, and when it was given. */
export interface CacheEntry {
  readonly answer: Answer;
  /** When it came (monotonic milliseconds). */
  readonly since: number;
  /** Until when it is good (monotonic milliseconds). */
  readonly until: number;
  /** The share that it is counted in. */
  readonly share: number;
}

/** The keys of a share's entries, the one not used for longest first. */
interface Share {
  readonly keys: Set<string>;
  bytes: number;
}

/** An entry that JSON can hold: key and message in hexadecimal digits, its age and what is left (milliseconds). */
type SavedEntry = [key: string, message: string, age: number, left: number, share?: number];

/** Answers by the keys of their questions. */
export class Cache {
  readonly prefetches: boolean;
  /** For how long after its time an answer is kept (milliseconds). */
  readonly stale: number;
  readonly #entries = new Map<string, CacheEntry>();
  readonly #most: number;
  readonly #mostBytes: number;
  readonly #minTtl: number;
  readonly #maxTtl: number;
  readonly #maxNegativeTtl: number;
  readonly #shares: readonly Share[] = Array.from(
    { length: 2 * SHARES },
    () => ({ keys: new Set(), bytes: 0 }),
  );
  readonly #hashKey = crypto.getRandomValues(new Uint32Array(2));
  #bytes = 0;

  /** @throws {RangeError} when an option is out of its range; {@linkcode TypeError} for one that there is not. */
  constructor(options: DnsCacheOptions = {}) {
    checkNames("cache answers", options, NAMES);
    const { entries = 10_000, bytes = 8 * 1024 * 1024, minTtl = 0, maxTtl = 86_400_000 } = options;
    const { maxNegativeTtl = 3_600_000, stale = 0, prefetch = false } = options;
    const given = { entries, bytes, minTtl, maxTtl, maxNegativeTtl, stale };
    for (const [name, value] of Object.entries(given)) {
      if (!(typeof value === "number" && value >= 0)) {
        throw new RangeError(`Cannot cache answers: ${name} is ${value}, not 0 or more`);
      }
    }
    this.#most = entries;
    this.#mostBytes = bytes;
    this.#minTtl = minTtl;
    this.#maxTtl = maxTtl;
    this.#maxNegativeTtl = maxNegativeTtl;
    this.stale = stale;
    this.prefetches = prefetch;
  }

  /** How many answers there are. */
  get size(): number {
    return this.#entries.size;
  }

  /** What they take, about (bytes). */
  get bytes(): number {
    return this.#bytes;
  }

  /** The answer to a question, good or stale; `undefined` when there is none. */
  get(key: string, now: number): CacheEntry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (now >= entry.until + this.stale) {
      this.#remove(key, entry);
      return undefined;
    }
    // Last in the order of a set's keys: used last.
    const { keys } = this.#shares[entry.share]!;
    keys.delete(key);
    keys.add(key);
    return entry;
  }

  /** Keeps an answer for as long as it is good. `owner` names whose share it is counted in. */
  put(key: string, answer: Answer, now: number, owner: string): void {
    if (answer.ttl === 0) return;
    const most = answer.isNegative ? Math.min(this.#maxTtl, this.#maxNegativeTtl) : this.#maxTtl;
    this.#add(key, {
      answer,
      since: now,
      until: now + Math.min(Math.max(answer.ttl * 1000, this.#minTtl), most),
      share: this.#shareOf(owner) + (answer.isNegative ? SHARES : 0),
    });
  }

  /** Forgets everything. */
  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
    for (const share of this.#shares) {
      share.keys.clear();
      share.bytes = 0;
    }
  }

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
   * Reads what {@linkcode Cache.save} gave; calling what it returns takes that over. An answer is good no longer than
   * these options let it be.
   *
   * @throws {TypeError} when it is something else.
   */
  read(state: unknown, now: number): () => void {
    const entries = Array.isArray(state)
      ? state.map((saved) => readEntry(saved, now, this.#maxTtl))
      : [undefined];
    if (!entries.every((entry) => entry !== undefined)) {
      throw new TypeError("Cannot restore a resolver: its cache is not one that was saved");
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
    // One that would drive out all others, and then itself.
    if (entry.until <= entry.since || size > this.#mostBytes) return;
    const share = this.#shares[entry.share]!;
    this.#entries.set(key, entry);
    this.#bytes += size;
    share.keys.add(key);
    share.bytes += size;
    while (this.#entries.size > this.#most || this.#bytes > this.#mostBytes) {
      const isByCount = this.#entries.size > this.#most;
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

  /** The share with the most entries, or the most bytes; among equals, `first`. */
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

const asked = new Question();

function readEntry(saved: unknown, now: number, maxTtl: number): [string, CacheEntry] | undefined {
  if (!Array.isArray(saved) || saved.length !== 4 && saved.length !== 5) return undefined;
  const [key, message, age, left, share = 0] = saved as SavedEntry;
  if (!(Number.isInteger(share) && share >= 0 && share < 2 * SHARES)) return undefined;
  if (typeof key !== "string" || typeof message !== "string") return undefined;
  if (!/^([0-9a-f]{4})+$/.test(key) || !/^([0-9a-f]{2})+$/.test(message)) return undefined;
  if (!(Number.isFinite(age) && age >= 0 && Number.isFinite(left) && left >= 0)) return undefined;
  const bytes = Uint8Array.fromHex(message);
  const letters = key.match(/.{4}/g)!.map((digits) => String.fromCharCode(parseInt(digits, 16))).join("");
  // Its question alone is a query.
  const query = bytes.slice();
  query.fill(0, 2, HEADER);
  query[5] = 1;
  if (asked.read(query, 0, query.length) !== Rcode.NoError) return undefined;
  if (letters.slice(0, -1) !== asked.nameKey + String.fromCharCode(asked.type)) return undefined;
  const answer = Answer.of(bytes, asked);
  return answer && [letters, { answer, since: now - age, until: now + Math.min(left, maxTtl - age), share }];
}
