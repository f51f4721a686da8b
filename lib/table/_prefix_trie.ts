/**
 * The longest prefix that an address is in: a compressed trie of eight bits a step.
 *
 *     root: 2^16 entries, one for each first 16 bits ─► block: 2^8 entries, compressed ─► block ...
 *
 * An entry is a block, for addresses on which longer prefixes differ, or the result for all addresses that lead to it: the
 * number and the length of their longest prefix. A block stores each run of equal entries once:
 *
 *     ┌──────────────────────┬─────────────────────┬──────┬───────────────────┐
 *     │ where runs begin     │ runs before each of │ uses │ an entry for each │
 *     │ (256 bits, 8 words)  │ the words (8 bytes) │      │ run               │
 *     └──────────────────────┴─────────────────────┴──────┴───────────────────┘
 *
 * so that the Internet's 900,000 prefixes fit the processor's caches (Poptrie, Asai and Ohara, SIGCOMM 2015, has the idea
 * of counting bits; here a change rewrites one block).
 */

// Implementation
const ROOT_BITS = 16;
const BLOCK_BITS = 8;
const BLOCK_SIZE = 1 << BLOCK_BITS;
const BITMAP_WORDS = BLOCK_SIZE / 32;
const COUNTS = BITMAP_WORDS;
const USES = COUNTS + BITMAP_WORDS / 4;
const RUNS = USES + 1;
/** Blocks have a multiple of these words, and wait in a list for each such size when they are not used. */
const GRAIN = 4;
const SIZES = Math.ceil((RUNS + BLOCK_SIZE) / GRAIN) + 1;
const FIRST_WORDS = 1024;
/** By which the memory grows. */
const GROWTH = 1.5;
/** An entry that is no block: the prefix's length above its number. A block is the complement of where it stands. */
const NUMBER_BITS = 23;
/** The greatest number that an entry holds; 0 is none. */
export const MAX_NUMBER: number = (1 << NUMBER_BITS) - 1;
const NONE = -1;

/** A trie for addresses of up to 128 bits. */
export class PrefixTrie {
  readonly #root = new Int32Array(1 << ROOT_BITS);
  #memory = new Int32Array(FIRST_WORDS);
  #end = 0;
  /** Blocks that are not used, by size; the first word of each is the next one. */
  readonly #free = new Int32Array(SIZES).fill(NONE);
  /** Blocks that are being changed, by their depth, as they are without compression. */
  readonly #expanded: Int32Array[] = [];

  /** The memory that it has taken (bytes). */
  get byteLength(): number {
    return this.#root.byteLength + this.#memory.byteLength;
  }

  /** The number of the longest prefix of an address of 32 bits; 0 with none. */
  find(address: number): number {
    let entry = this.#root[address >>> 16]!;
    if (entry < 0) {
      const memory = this.#memory;
      entry = memory[placeOf(memory, ~entry, address >>> 8 & 255)]!;
      if (entry < 0) entry = memory[placeOf(memory, ~entry, address & 255)]!;
    }
    return entry & MAX_NUMBER;
  }

  /** The same for an address of 16 bytes. */
  findBytes(bytes: Uint8Array, start: number): number {
    let entry = this.#root[bytes[start]! << 8 | bytes[start + 1]!]!;
    const memory = this.#memory;
    for (let at = start + 2; entry < 0; at++) entry = memory[placeOf(memory, ~entry, bytes[at]!)]!;
    return entry & MAX_NUMBER;
  }

  /** Adds a prefix that was not there, or gives one another number; `isNew` says which. */
  set(address: Uint32Array, length: number, number: number, isNew: boolean): void {
    const entry = length << NUMBER_BITS | number;
    const root = this.#root;
    const first = address[0]! >>> ROOT_BITS;
    if (length > ROOT_BITS) {
      root[first] = this.#setIn(root[first]!, ROOT_BITS, address, length, entry, isNew);
      return;
    }
    const end = first + (1 << ROOT_BITS - length);
    for (let i = first; i < end; i++) root[i] = this.#filled(root[i]!, ROOT_BITS, length, entry);
  }

  /** Removes a prefix; its addresses get the number and the length of the longest shorter one, or 0 and 0. */
  delete(address: Uint32Array, length: number, number: number, shorter: number): void {
    const entry = shorter << NUMBER_BITS | number;
    const root = this.#root;
    const first = address[0]! >>> ROOT_BITS;
    if (length > ROOT_BITS) {
      root[first] = this.#deleteIn(root[first]!, ROOT_BITS, address, length, entry);
      return;
    }
    const end = first + (1 << ROOT_BITS - length);
    for (let i = first; i < end; i++) root[i] = this.#refilled(root[i]!, ROOT_BITS, length, entry);
  }

  /** The entry in whose place a prefix is set that is longer than its depth. */
  #setIn(
    before: number,
    depth: number,
    address: Uint32Array,
    length: number,
    entry: number,
    isNew: boolean,
  ): number {
    const digit = digitOf(address, depth);
    const below = depth + BLOCK_BITS;
    if (length > below && before < 0) {
      const place = placeOf(this.#memory, ~before, digit);
      const child = this.#memory[place]!;
      if (child < 0) {
        // What stands where may move meanwhile, this place does not.
        const after = this.#setIn(child, below, address, length, entry, isNew);
        this.#memory[place] = after;
        return before;
      }
    }
    const entries = this.#expand(before, depth);
    let uses = before < 0 ? this.#memory[~before + USES]! : 0;
    if (length > below) {
      entries[digit] = this.#setIn(entries[digit]!, below, address, length, entry, isNew);
      uses++;
    } else {
      const end = digit + (1 << below - length);
      for (let i = digit; i < end; i++) entries[i] = this.#filled(entries[i]!, below, length, entry);
      if (isNew) uses++;
    }
    return this.#compress(before, entries, uses);
  }

  /** The entry in whose place a prefix is removed that is longer than its depth. */
  #deleteIn(before: number, depth: number, address: Uint32Array, length: number, entry: number): number {
    const digit = digitOf(address, depth);
    const below = depth + BLOCK_BITS;
    let uses = this.#memory[~before + USES]!;
    if (length > below) {
      const place = placeOf(this.#memory, ~before, digit);
      const after = this.#deleteIn(this.#memory[place]!, below, address, length, entry);
      if (after < 0) {
        this.#memory[place] = after;
        return before;
      }
      const entries = this.#expand(before, depth);
      entries[digit] = after;
      return this.#compress(before, entries, --uses);
    }
    const entries = this.#expand(before, depth);
    const end = digit + (1 << below - length);
    for (let i = digit; i < end; i++) entries[i] = this.#refilled(entries[i]!, below, length, entry);
    return this.#compress(before, entries, --uses);
  }

  /** An entry that lies within a prefix, as it is with that: longer prefixes stay. */
  #filled(before: number, depth: number, length: number, entry: number): number {
    if (before >= 0) return before >>> NUMBER_BITS <= length ? entry : before;
    const entries = this.#expand(before, depth);
    for (let i = 0; i < BLOCK_SIZE; i++) {
      entries[i] = this.#filled(entries[i]!, depth + BLOCK_BITS, length, entry);
    }
    return this.#compress(before, entries, this.#memory[~before + USES]!);
  }

  /** An entry that lies within a prefix that is removed: it alone has its length here. */
  #refilled(before: number, depth: number, length: number, entry: number): number {
    if (before >= 0) return before !== 0 && before >>> NUMBER_BITS === length ? entry : before;
    const entries = this.#expand(before, depth);
    for (let i = 0; i < BLOCK_SIZE; i++) {
      entries[i] = this.#refilled(entries[i]!, depth + BLOCK_BITS, length, entry);
    }
    return this.#compress(before, entries, this.#memory[~before + USES]!);
  }

  /** The entries that an entry stands for at a depth. */
  #expand(entry: number, depth: number): Int32Array {
    const entries = this.#expanded[depth >>> 3] ??= new Int32Array(BLOCK_SIZE);
    if (entry >= 0) return entries.fill(entry);
    const memory = this.#memory;
    const block = ~entry;
    let run = block + RUNS - 1;
    for (let i = 0; i < BLOCK_SIZE; i++) {
      if ((memory[block + (i >>> 5)]! >>> i & 1) !== 0) run++;
      entries[i] = memory[run]!;
    }
    return entries;
  }

  /** Stores entries in place of a block; where there is nothing to tell apart, it is one entry. */
  #compress(before: number, entries: Int32Array, uses: number): number {
    if (uses === 0) {
      if (before < 0) this.#give(~before);
      return entries[0]!;
    }
    let runs = 1;
    for (let i = 1; i < BLOCK_SIZE; i++) if (entries[i] !== entries[i - 1]) runs++;
    const size = sizeOf(runs);
    let block = ~before;
    if (before >= 0 || sizeOf(this.#runsOf(block)) !== size) {
      if (before < 0) this.#give(block);
      block = this.#take(size);
    }
    const memory = this.#memory;
    memory.fill(0, block, block + RUNS);
    let run = block + RUNS - 1;
    for (let i = 0; i < BLOCK_SIZE; i++) {
      if ((i & 31) === 0) {
        const word = i >>> 5;
        memory[block + COUNTS + (word >>> 2)]! |= run - block - RUNS + 1 << ((word & 3) << 3);
      }
      if (i > 0 && entries[i] === entries[i - 1]) continue;
      memory[block + (i >>> 5)]! |= 1 << i;
      memory[++run] = entries[i]!;
    }
    memory[block + USES] = uses;
    return ~block;
  }

  #runsOf(block: number): number {
    return placeOf(this.#memory, block, BLOCK_SIZE - 1) - block - RUNS + 1;
  }

  #take(size: number): number {
    const block = this.#free[size]!;
    if (block !== NONE) {
      this.#free[size] = this.#memory[block]!;
      return block;
    }
    const start = this.#end;
    this.#end += size * GRAIN;
    if (this.#end > this.#memory.length) {
      const memory = new Int32Array(Math.ceil(this.#end * GROWTH));
      memory.set(this.#memory);
      this.#memory = memory;
    }
    return start;
  }

  #give(block: number): void {
    const size = sizeOf(this.#runsOf(block));
    this.#memory[block] = this.#free[size]!;
    this.#free[size] = block;
  }
}

/** Where a block has the entry of a digit: as many runs from the first on as begin up to there. */
function placeOf(memory: Int32Array, block: number, digit: number): number {
  const word = digit >>> 5;
  const before = memory[block + COUNTS + (word >>> 2)]! >>> ((word & 3) << 3) & 255;
  // Up to and with the digit's own bit; behind the last one stands a shift by 32, which is one by 0.
  return block + RUNS - 1 + before + countBits(memory[block + word]! & (2 << (digit & 31)) - 1);
}

/** How many bits are set. */
function countBits(word: number): number {
  word = word - (word >>> 1 & 0x55555555);
  word = (word & 0x33333333) + (word >>> 2 & 0x33333333);
  return Math.imul(word + (word >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The eight bits of an address from a depth on. */
function digitOf(address: Uint32Array, depth: number): number {
  return address[depth >>> 5]! >>> 24 - (depth & 31) & 255;
}

/** A block's size, in grains. */
function sizeOf(runs: number): number {
  return Math.ceil((RUNS + runs) / GRAIN);
}
