/** Fair eviction from tables that any sender can fill: the holder with the most entries loses one. */

import { sipHash } from "../core/sip_hash.ts";

// Implementation
const NONE = -1;
/** Maximum number of holders per group. Holders with equal hashes count as one. */
const MAX_HOLDERS = 1024;

/**
 * Lists of entries by holder, from oldest to newest. A holder is an IPv4 address or an IPv6 /64. There are at most half as
 * many holders as entries, so the largest holder of a full table has at least two. Only the constructor allocates; all
 * methods but {@linkcode Shares.largest} take constant time.
 */
export class Shares {
  readonly #holders: number;
  readonly #counts: Int32Array;
  readonly #oldest: Int32Array;
  readonly #newest: Int32Array;
  readonly #holderOf: Int32Array;
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  readonly #network = new Uint32Array(2);
  readonly #key: ArrayLike<number>;

  /**
   * Creates empty lists.
   *
   * @param capacity Maximum number of entries; entries are numbers below it.
   * @param groups Number of kinds of entries with separate holders.
   * @param key Key of the hash (two 32-bit numbers), for tests.
   */
  constructor(
    capacity: number,
    groups = 1,
    key: ArrayLike<number> = crypto.getRandomValues(new Uint32Array(2)),
  ) {
    this.#holders = Math.min(MAX_HOLDERS, 2 ** Math.max(0, Math.floor(Math.log2(capacity)) - 1));
    this.#key = key;
    const lists = groups * this.#holders;
    this.#counts = new Int32Array(lists);
    this.#oldest = new Int32Array(lists).fill(NONE);
    this.#newest = new Int32Array(lists).fill(NONE);
    this.#holderOf = new Int32Array(capacity).fill(NONE);
    this.#older = new Int32Array(capacity).fill(NONE);
    this.#newer = new Int32Array(capacity).fill(NONE);
  }

  /** Returns the holder of the IPv4 or IPv6 address in `words` from index `first` on. */
  holderIn(words: Uint32Array, first: number, version: number, group = 0): number {
    this.#network[0] = words[first]!;
    if (version === 6) this.#network[1] = words[first + 1]!;
    const hash = sipHash(this.#network, version === 6 ? 2 : 1, this.#key[0]!, this.#key[1]!);
    return group * this.#holders + (hash & this.#holders - 1);
  }

  /** Adds an absent entry as its holder's newest. */
  add(entry: number, holder: number): void {
    const last = this.#newest[holder]!;
    this.#holderOf[entry] = holder;
    this.#older[entry] = last;
    this.#newer[entry] = NONE;
    if (last === NONE) this.#oldest[holder] = entry;
    else this.#newer[last] = entry;
    this.#newest[holder] = entry;
    this.#counts[holder]!++;
  }

  /** Removes an entry if it is present. */
  remove(entry: number): void {
    const holder = this.#holderOf[entry]!;
    if (holder === NONE) return;
    const older = this.#older[entry]!;
    const newer = this.#newer[entry]!;
    if (older === NONE) this.#oldest[holder] = newer;
    else this.#newer[older] = newer;
    if (newer === NONE) this.#newest[holder] = older;
    else this.#older[newer] = older;
    this.#holderOf[entry] = NONE;
    this.#counts[holder]!--;
  }

  /** Returns the holder of an entry; -1 if it is absent. */
  holderAt(entry: number): number {
    return this.#holderOf[entry]!;
  }

  /** Maximum number of holders in all groups; holders are numbers below it. */
  get holders(): number {
    return this.#counts.length;
  }

  /** Returns the holder of a group with the most entries, or with the highest number in `counts`; -1 if all are 0. */
  largest(group = 0, counts: Int32Array = this.#counts): number {
    let found = NONE;
    let max = 0;
    for (let holder = group * this.#holders; holder < (group + 1) * this.#holders; holder++) {
      if (counts[holder]! <= max) continue;
      max = counts[holder]!;
      found = holder;
    }
    return found;
  }

  /** Returns a holder's oldest entry; -1 for none. */
  oldestOf(holder: number): number {
    return this.#oldest[holder]!;
  }

  /** Returns a holder's newest entry; -1 for none. */
  newestOf(holder: number): number {
    return this.#newest[holder]!;
  }

  /** Returns the next older entry of the same holder; -1 for none. */
  before(entry: number): number {
    return this.#older[entry]!;
  }
}
