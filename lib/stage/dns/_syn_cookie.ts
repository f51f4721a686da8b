/**
 * SYN cookies (RFC 4987 section 3.6): a half-open connection takes no memory, since the number that the client has to
 * acknowledge proves by a keyed hash that it got our SYN.
 *
 *     | flow and time: 16 bits | flow, time and the client's number: 13 bits | MSS: 3 bits |
 */

import { sipHash } from "../../core/sip_hash.ts";

// Specification
/** RFC 9293 section 3.7.1: the MSS of a client that names none (bytes). */
const DEFAULT_MSS = 536;

// Implementation
/** The MSS values that a cookie can hold: for the least MTUs, for tunnels, for Ethernet (bytes). */
const SEGMENT_SIZES = [88, 256, DEFAULT_MSS, 1220, 1300, 1360, 1440, 1460];
/** A cookie is good in the period in which it was made, and in the next one (milliseconds). */
const PERIOD = 64_000;
const FLOW_BITS = 0xffff0000;
const CLIENT_BITS = 0x0000fff8;
const MSS_BITS = 0x00000007;

/** A cookie that a client has brought back. */
export const Cookie = {
  /** It is none of ours for this flow. */
  Wrong: -1,
  /** It is ours, but the segment is not the first one behind the SYN: that one is on its way. */
  Early: -2,
} as const;

/** Makes cookies, and knows them again. */
export class SynCookies {
  readonly #key = crypto.getRandomValues(new Uint32Array(2));
  readonly #words = new Uint32Array(12);

  /** The number of our SYN to a client whose SYN has this number. */
  make(flow: Uint32Array, clientSeq: number, mss: number | undefined, now: number): number {
    const period = Math.floor(now / PERIOD);
    const wanted = mss ?? DEFAULT_MSS;
    let size = 0;
    while (size < SEGMENT_SIZES.length - 1 && SEGMENT_SIZES[size + 1]! <= wanted) size++;
    return (this.#flowBits(flow, period) | this.#clientBits(flow, period, clientSeq) | size) >>> 0;
  }

  /** The MSS in the number of our SYN, once a client has acknowledged it; or one of {@linkcode Cookie}. */
  read(flow: Uint32Array, seq: number, clientSeq: number, now: number): number {
    const newest = Math.floor(now / PERIOD);
    for (const period of [newest, newest - 1]) {
      if ((seq & FLOW_BITS) !== this.#flowBits(flow, period)) continue;
      if ((seq & CLIENT_BITS) !== this.#clientBits(flow, period, clientSeq)) return Cookie.Early;
      return SEGMENT_SIZES[seq & MSS_BITS]!;
    }
    return Cookie.Wrong;
  }

  #flowBits(flow: Uint32Array, period: number): number {
    return this.#hash(flow, period, 0, 0) & FLOW_BITS;
  }

  #clientBits(flow: Uint32Array, period: number, clientSeq: number): number {
    return this.#hash(flow, period, 1, clientSeq) & CLIENT_BITS;
  }

  #hash(flow: Uint32Array, period: number, kind: number, clientSeq: number): number {
    const words = this.#words;
    words.set(flow);
    words[flow.length] = period << 1 | kind;
    words[flow.length + 1] = clientSeq;
    return sipHash(words, flow.length + 2, this.#key[0]!, this.#key[1]!);
  }
}
