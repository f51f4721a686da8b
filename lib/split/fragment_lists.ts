/** Bounded lists of fragments by datagram, each sorted by offset, in memory that is allocated once. */

import type { Packet } from "../core/packet.ts";

// Implementation
const NONE = -1;

/** Relation of a new fragment to those in its list. */
export const Fit = {
  /** Fills a hole, or part of it. */
  Fits: 0,
  /** Equals a fragment in the list, byte for byte. */
  Duplicate: 1,
  /** Overlaps others (RFC 5722). */
  Overlaps: 2,
  /** Contradicts the total length that others state. */
  Disagrees: 3,
} as const;
/** One of {@linkcode Fit}'s values. */
export type Fit = typeof Fit[keyof typeof Fit];

/** Position of a fragment in its datagram and in its packet. */
export interface Fragment {
  /** Start and end of its payload in that of the datagram (bytes). */
  start: number;
  end: number;
  /** More Fragments flag. */
  more: boolean;
  /** Offset of its payload in the memory of packets. */
  payload: number;
}

/** Lists of fragments, by number of the datagram. */
export class FragmentLists {
  /** Bytes of the packets in all lists. */
  bytes = 0;
  readonly #packets: (Packet | undefined)[];
  readonly #starts: Int32Array;
  readonly #ends: Int32Array;
  readonly #payloads: Int32Array;
  readonly #next: Int32Array;
  #free = 0;
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #counts: Int32Array;
  readonly #received: Int32Array;
  /** Payload length of the datagram; -1 until its last fragment arrives. */
  readonly #totals: Int32Array;

  /** Creates empty lists for this many datagrams and this many fragments in all. */
  constructor(datagrams: number, fragments: number) {
    this.#packets = new Array(fragments).fill(undefined);
    this.#starts = new Int32Array(fragments);
    this.#ends = new Int32Array(fragments);
    this.#payloads = new Int32Array(fragments);
    this.#next = new Int32Array(fragments).map((_, i) => i + 1 < fragments ? i + 1 : NONE);
    this.#first = new Int32Array(datagrams).fill(NONE);
    this.#last = new Int32Array(datagrams).fill(NONE);
    this.#counts = new Int32Array(datagrams);
    this.#received = new Int32Array(datagrams);
    this.#totals = new Int32Array(datagrams).fill(NONE);
  }

  /** Reports whether there is no space for another fragment. */
  get full(): boolean {
    return this.#free === NONE;
  }

  /** Returns the number of fragments of a datagram. */
  count(datagram: number): number {
    return this.#counts[datagram]!;
  }

  /** Returns the payload length of a complete datagram; -1 while fragments are missing. */
  whole(datagram: number): number {
    const total = this.#totals[datagram]!;
    return this.#received[datagram] === total ? total : NONE;
  }

  /** Returns the fragment at offset 0 of a datagram, if it has arrived. */
  beginning(datagram: number): Packet | undefined {
    const first = this.#first[datagram]!;
    return first !== NONE && this.#starts[first] === 0 ? this.#packets[first] : undefined;
  }

  /** Adds a fragment if it fits; returns its relation to the others. The lists must not be full. */
  add(datagram: number, packet: Packet, { start, end, more, payload }: Fragment): Fit {
    const last = this.#last[datagram]!;
    const total = this.#totals[datagram]!;
    if (total !== NONE && (more ? end >= total : end !== total)) return Fit.Disagrees;
    if (!more && last !== NONE && this.#ends[last]! > end) return Fit.Disagrees;
    let before = NONE;
    let after = this.#first[datagram]!;
    if (last !== NONE && this.#ends[last]! <= start) {
      before = last;
      after = NONE;
    }
    while (after !== NONE && this.#starts[after]! < start) {
      before = after;
      after = this.#next[after]!;
    }
    if (after !== NONE && this.#starts[after] === start && this.#ends[after] === end) {
      return this.#isSame(after, packet, payload) ? Fit.Duplicate : Fit.Overlaps;
    }
    if (before !== NONE && this.#ends[before]! > start) return Fit.Overlaps;
    if (after !== NONE && this.#starts[after]! < end) return Fit.Overlaps;
    const fragment = this.#free;
    this.#free = this.#next[fragment]!;
    this.#packets[fragment] = packet;
    this.#starts[fragment] = start;
    this.#ends[fragment] = end;
    this.#payloads[fragment] = payload;
    this.#next[fragment] = after;
    if (before === NONE) this.#first[datagram] = fragment;
    else this.#next[before] = fragment;
    if (after === NONE) this.#last[datagram] = fragment;
    this.#counts[datagram]!++;
    this.#received[datagram]! += end - start;
    this.bytes += packet.length;
    if (!more) this.#totals[datagram] = end;
    return Fit.Fits;
  }

  /** Removes the first fragment of a datagram; copies its payload to its place in the packet `whole`, if given. */
  shift(datagram: number, whole?: Packet, payload = 0): Packet | undefined {
    const fragment = this.#first[datagram]!;
    if (fragment === NONE) {
      this.#totals[datagram] = NONE;
      return undefined;
    }
    const packet = this.#packets[fragment]!;
    const start = this.#starts[fragment]!;
    const length = this.#ends[fragment]! - start;
    if (whole !== undefined && whole !== packet) {
      const from = this.#payloads[fragment]!;
      whole.bytes.copyWithin(payload + start, from, from + length);
    }
    this.#packets[fragment] = undefined;
    this.#first[datagram] = this.#next[fragment]!;
    if (this.#first[datagram] === NONE) this.#last[datagram] = NONE;
    this.#next[fragment] = this.#free;
    this.#free = fragment;
    this.#counts[datagram]!--;
    this.#received[datagram]! -= length;
    this.bytes -= packet.length;
    return packet;
  }

  #isSame(fragment: number, { bytes }: Packet, payload: number): boolean {
    const other = this.#payloads[fragment]!;
    const length = this.#ends[fragment]! - this.#starts[fragment]!;
    for (let i = 0; i < length; i++) {
      if (bytes[payload + i] !== bytes[other + i]) return false;
    }
    return true;
  }
}
