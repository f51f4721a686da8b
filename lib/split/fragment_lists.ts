/** Fragments by datagram, each list in the order of what they hold: bounded, in memory that is taken once. */

import type { Packet } from "../core/packet.ts";

// Implementation
const NONE = -1;

/** What a fragment is to those that are there. */
export const Fit = {
  /** It fills a hole, or a part of one. */
  Fits: 0,
  /** It is there already, byte for byte. */
  Duplicate: 1,
  /** Some of it is there already (RFC 5722). */
  Overlaps: 2,
  /** It says another end than others did. */
  Disagrees: 3,
} as const;
/** One of {@linkcode Fit}'s values. */
export type Fit = typeof Fit[keyof typeof Fit];

/** A fragment that is to be added. */
export interface Fragment {
  /** Where its payload belongs in the whole one (bytes), and where it ends there. */
  start: number;
  end: number;
  /** Whether others follow. */
  more: boolean;
  /** Where its payload starts in the packet's bytes. */
  payload: number;
}

/** The lists, by the datagram's number. */
export class FragmentLists {
  /** How many bytes of packets are in them. */
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
  /** The whole payload's bytes, once the last fragment is there; before, -1. */
  readonly #totals: Int32Array;

  /** Empty lists. */
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

  /** Whether no more fragment has room. */
  get full(): boolean {
    return this.#free === NONE;
  }

  /** How many fragments a datagram has. */
  count(datagram: number): number {
    return this.#counts[datagram]!;
  }

  /** The whole payload's bytes when nothing is missing, else -1. */
  whole(datagram: number): number {
    const total = this.#totals[datagram]!;
    return this.#received[datagram] === total ? total : NONE;
  }

  /** A datagram's fragment with the beginning, if that is there. */
  beginning(datagram: number): Packet | undefined {
    const first = this.#first[datagram]!;
    return first !== NONE && this.#starts[first] === 0 ? this.#packets[first] : undefined;
  }

  /** Says what a fragment is to a datagram's others, and adds it where it fits. There is room. */
  add(datagram: number, packet: Packet, { start, end, more, payload }: Fragment): Fit {
    const last = this.#last[datagram]!;
    const total = this.#totals[datagram]!;
    if (total !== NONE && (more ? end >= total : end !== total)) return Fit.Disagrees;
    if (!more && last !== NONE && this.#ends[last]! > end) return Fit.Disagrees;
    let before = NONE;
    let behind = this.#first[datagram]!;
    if (last !== NONE && this.#ends[last]! <= start) {
      before = last;
      behind = NONE;
    }
    while (behind !== NONE && this.#starts[behind]! < start) {
      before = behind;
      behind = this.#next[behind]!;
    }
    if (behind !== NONE && this.#starts[behind] === start && this.#ends[behind] === end) {
      return this.#isSame(behind, packet, payload) ? Fit.Duplicate : Fit.Overlaps;
    }
    if (before !== NONE && this.#ends[before]! > start) return Fit.Overlaps;
    if (behind !== NONE && this.#starts[behind]! < end) return Fit.Overlaps;
    const fragment = this.#free;
    this.#free = this.#next[fragment]!;
    this.#packets[fragment] = packet;
    this.#starts[fragment] = start;
    this.#ends[fragment] = end;
    this.#payloads[fragment] = payload;
    this.#next[fragment] = behind;
    if (before === NONE) this.#first[datagram] = fragment;
    else this.#next[before] = fragment;
    if (behind === NONE) this.#last[datagram] = fragment;
    this.#counts[datagram]!++;
    this.#received[datagram]! += end - start;
    this.bytes += packet.length;
    if (!more) this.#totals[datagram] = end;
    return Fit.Fits;
  }

  /** Takes the first fragment off a datagram's list; copies its payload to its place in this packet, if one is given. */
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
