/**
 * Longest-prefix match: a compressed trie with a stride of 8 bits.
 *
 *     root: 2^16 entries, one for each first 16 bits ─► block: 2^8 entries, compressed ─► block ...
 *
 * An entry leads to a block, or is a result: the number and length of the longest prefix of all addresses that reach it.
 * A block stores each run of equal entries once:
 *
 *     ┌──────────────────────┬─────────────────────┬──────┬───────────────────┐
 *     │ bitmap of run starts │ runs before each    │ uses │ one entry for     │
 *     │ (256 bits, 8 words)  │ word (8 bytes)      │      │ each run          │
 *     └──────────────────────┴─────────────────────┴──────┴───────────────────┘
 *
 * The 900,000 prefixes of the Internet then fit the processor's caches. Counting bits is from Poptrie (Asai and Ohara,
 * SIGCOMM 2015); here a change rewrites one block.
 */

// Implementation
const ROOT_BITS = 16;
const BLOCK_BITS = 8;
const BLOCK_SIZE = 1 << BLOCK_BITS;
const BITMAP_WORDS = BLOCK_SIZE / 32;
const COUNTS = BITMAP_WORDS;
const USES = COUNTS + BITMAP_WORDS / 4;
const RUNS = USES + 1;
/** Block sizes are multiples of this (words); each size has a list of unused blocks. */
const GRAIN = 4;
const SIZES = Math.ceil((RUNS + BLOCK_SIZE) / GRAIN) + 1;
const FIRST_WORDS = 1024;
/** Growth factor of the memory. */
const GROWTH = 1.5;
/** Bits of the number in a result, below the prefix length. An entry that leads to a block is its complemented offset. */
const NUMBER_BITS = 23;
/** Maximum number of a prefix; 0 means no prefix. */
export const MAX_NUMBER: number = (1 << NUMBER_BITS) - 1;
const NONE = -1;

/** Trie for addresses of up to 128 bits. */
export class PrefixTrie {
  readonly #root = new Int32Array(1 << ROOT_BITS);
  #memory = new Int32Array(FIRST_WORDS);
  #end = 0;
  /** Lists of unused blocks by size; the first word of a block is the next block. */
  readonly #free = new Int32Array(SIZES).fill(NONE);
  /** Uncompressed entries of the blocks being changed, by depth. */
  readonly #expanded: Int32Array[] = [];

  /** Memory in use (bytes). */
  get byteLength(): number {
    return this.#root.byteLength + this.#memory.byteLength;
  }

  /** Returns the number of the longest prefix of a 32-bit address; 0 for none. */
  find(address: number): number {
    let entry = this.#root[address >>> 16]!;
    if (entry < 0) {
      const memory = this.#memory;
      entry = memory[placeOf(memory, ~entry, address >>> 8 & 255)]!;
      if (entry < 0) entry = memory[placeOf(memory, ~entry, address & 255)]!;
    }
    return entry & MAX_NUMBER;
  }

  /** Returns the number of the longest prefix of the 16-byte address at `start`; 0 for none. */
  findBytes(bytes: Uint8Array, start: number): number {
    let entry = this.#root[bytes[start]! << 8 | bytes[start + 1]!]!;
    const memory = this.#memory;
    for (let at = start + 2; entry < 0; at++) entry = memory[placeOf(memory, ~entry, bytes[at]!)]!;
    return entry & MAX_NUMBER;
  }

  /** Adds a prefix or, unless `isNew`, changes the number of an existing one. */
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

  /** Removes a prefix; `number` and `shorter` are those of the next shorter prefix, 0 and 0 for none. */
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

  /** Sets a prefix longer than an entry's depth; returns the new entry. */
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
        // Blocks below may move meanwhile, but not this place.
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

  /** Removes a prefix longer than an entry's depth; returns the new entry. */
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

  /** Returns the new entry for addresses of a prefix that is set; longer prefixes stay. */
  #filled(before: number, depth: number, length: number, entry: number): number {
    if (before >= 0) return before >>> NUMBER_BITS <= length ? entry : before;
    const entries = this.#expand(before, depth);
    for (let i = 0; i < BLOCK_SIZE; i++) {
      entries[i] = this.#filled(entries[i]!, depth + BLOCK_BITS, length, entry);
    }
    return this.#compress(before, entries, this.#memory[~before + USES]!);
  }

  /** Returns the new entry for addresses of a prefix that is removed, which has set all results of its length. */
  #refilled(before: number, depth: number, length: number, entry: number): number {
    if (before >= 0) return before !== 0 && before >>> NUMBER_BITS === length ? entry : before;
    const entries = this.#expand(before, depth);
    for (let i = 0; i < BLOCK_SIZE; i++) {
      entries[i] = this.#refilled(entries[i]!, depth + BLOCK_BITS, length, entry);
    }
    return this.#compress(before, entries, this.#memory[~before + USES]!);
  }

  /** Returns the uncompressed entries of a block or result at a depth. */
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

  /** Stores entries in place of a block, or as one result if no prefix uses the block; returns the new entry. */
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

/** Returns the offset of a digit's entry, by counting the runs that begin at or before the digit. */
function placeOf(memory: Int32Array, block: number, digit: number): number {
  const word = digit >>> 5;
  const before = memory[block + COUNTS + (word >>> 2)]! >>> ((word & 3) << 3) & 255;
  // Includes the digit's own bit. For the last bit of a word, `2 << 31` is 0, and the mask has all bits.
  return block + RUNS - 1 + before + countBits(memory[block + word]! & (2 << (digit & 31)) - 1);
}

function countBits(word: number): number {
  word = word - (word >>> 1 & 0x55555555);
  word = (word & 0x33333333) + (word >>> 2 & 0x33333333);
  return Math.imul(word + (word >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Returns the eight bits of an address from a depth. */
function digitOf(address: Uint32Array, depth: number): number {
  return address[depth >>> 5]! >>> 24 - (depth & 31) & 255;
}

/** Returns a block's size in grains. */
function sizeOf(runs: number): number {
  return Math.ceil((RUNS + runs) / GRAIN);
}
