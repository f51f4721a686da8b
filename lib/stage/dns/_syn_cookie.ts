/**
 * SYN cookies (RFC 4987 section 3.6): a half-open connection takes no memory, since the sequence number of our SYN is a
 * keyed hash that the client's ACK returns.
 *
 *     | flow and time: 16 bits | flow, time and client's sequence number: 13 bits | MSS: 3 bits |
 */

import { sipHash } from "../../core/sip_hash.ts";

// Specification
/** MSS of a client whose SYN has no MSS option (bytes; RFC 9293 section 3.7.1). */
const DEFAULT_MSS = 536;

// Implementation
/** MSS values that a cookie can encode: for minimum MTUs, tunnels and Ethernet (bytes). */
const SEGMENT_SIZES = [88, 256, DEFAULT_MSS, 1220, 1300, 1360, 1440, 1460];
/** Length of a period; a cookie is valid in its own period and the next (milliseconds). */
const PERIOD = 64_000;
const FLOW_BITS = 0xffff0000;
const CLIENT_BITS = 0x0000fff8;
const MSS_BITS = 0x00000007;

/** Results of {@linkcode SynCookies.read} other than an MSS. */
export const Cookie = {
  /** Not a valid cookie for this flow. */
  Wrong: -1,
  /** Valid cookie, but in a segment that overtook the first one after the SYN. */
  Early: -2,
} as const;

export class SynCookies {
  readonly #key = crypto.getRandomValues(new Uint32Array(2));
  readonly #words = new Uint32Array(12);

  /** Returns the sequence number of our SYN in response to a client's. */
  make(flow: Uint32Array, clientSeq: number, mss: number | undefined, now: number): number {
    const period = Math.floor(now / PERIOD);
    const wanted = mss ?? DEFAULT_MSS;
    let size = 0;
    while (size < SEGMENT_SIZES.length - 1 && SEGMENT_SIZES[size + 1]! <= wanted) size++;
    return (this.#flowBits(flow, period) | this.#clientBits(flow, period, clientSeq) | size) >>> 0;
  }

  /** Returns the MSS that an acknowledged sequence number encodes, or one of {@linkcode Cookie}. */
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
