/**
 * TCP connections as observed between the two sides: states of RFC 9293 and windows of both sides, so that an off-path
 * attacker cannot reset or disturb a connection.
 *
 *     SYN          SYN, ACK          ACK             FIN         its ACK       the other FIN   its ACK
 *     ───► SynSent ───► SynReceived ───► Established ───► FinWait ───► CloseWait ───► LastAck ───► TimeWait
 *                                             │ ▲
 *            a reset in the window, not exact ▼ │ anything else in the window      an exact reset ───► Closed
 *                                         Challenged
 *
 * The window check is Guido van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2001): what one side may send
 * follows from what the other side has acknowledged and offered.
 */

import * as field from "../../wire/header_fields.ts";
import type { Packet } from "../../core/packet.ts";
import { Tcp } from "../../wire/tcp.ts";
import { FlowState } from "./flow_state.ts";

// Specification: RFC 9293 section 3.1, RFC 7323 section 2.3
const { TCP_ACK, TCP_FLAGS, TCP_FLAGS_BYTE, TCP_HEADER, TCP_SEQ, TCP_WINDOW } = field;
const { TCP_MAX_WINDOW_SCALE: MAX_SCALE } = field;

// Implementation
/** Minimum window in which acknowledgments are valid (bytes): the largest unscaled window. */
const MIN_ACK_WINDOW = 66_000;
const KIND = Tcp.Fin | Tcp.Syn | Tcp.Rst | Tcp.Ack;
const SYN_ACK = Tcp.Syn | Tcp.Ack;
/** Words per side. Sequence numbers are compared modulo 2^32, so their sign has no meaning. */
export const SIDE = 8;
const END = 0; // sequence number after the last one sent
const LIMIT = 1; // sequence number after the last one that it may send
const WINDOW = 2; // largest window that it has offered (bytes)
const ACK = 3; // highest number that it has acknowledged; before the first ACK, that of its SYN
const SCALE = 4; // window scale (bits)
const KNOWN = 5; // SEEN to SCALED
const LOOSE = 6; // in the first side: 1 when windows are not checked, such as after a mid-stream pickup
const REOPENS = 7; // number after a SYN that it has sent within the connection
/** Bits of KNOWN. */
const SEEN = 1; // it has sent something
const ACKED = 2; // it has acknowledged something
const FIN = 4; // it has sent its FIN
const SCALED = 8; // it has offered a window scale

/** Verdicts on a segment. */
export const Segment = {
  /** The segment belongs to the connection, and changes its state. */
  Valid: 0,
  /** The segment passes for the receiver to answer, and changes nothing. */
  Ignored: 1,
  /** The segment opens a new connection between the same ports, as the old one is closed. */
  Opens: 2,
  /** The segment is outside the window, or its flags are invalid in this state. */
  Invalid: 3,
} as const;
/** One of {@linkcode Segment}'s values. */
export type Segment = typeof Segment[keyof typeof Segment];

/** TCP connections by number of the flow. A side is the direction in which it sends. */
export class TcpTracker {
  /** State after the segment judged last. */
  next: FlowState = FlowState.SynSent;

  /** Eight words for each side, so that a flow takes one cache line. */
  readonly #words: Int32Array;

  // The segment that was read last.
  #kind = 0;
  #seqStart = 0;
  #seqEnd = 0;
  #ackNumber = 0;
  #rawWindow = 0;
  #isWhole = true;

  constructor(capacity: number) {
    this.#words = new Int32Array(2 * SIDE * capacity);
  }

  /**
   * Reads a segment of `length` bytes, header and payload; returns whether it is valid: the header is complete, and the
   * flags are a combination of RFC 9293.
   */
  read({ bytes, view }: Packet, start: number, length: number, isWhole: boolean): boolean {
    const headerLength = bytes[start + TCP_FLAGS]! >> 4 << 2;
    if (headerLength < TCP_HEADER || headerLength > length) return false;
    const kind = bytes[start + TCP_FLAGS_BYTE]! & KIND;
    this.#kind = kind;
    const isSyn = (kind & Tcp.Syn) !== 0;
    const isFin = (kind & Tcp.Fin) !== 0;
    this.#seqStart = view.getInt32(start + TCP_SEQ);
    this.#seqEnd = this.#seqStart + length - headerLength + (isSyn ? 1 : 0) + (isFin ? 1 : 0) | 0;
    this.#ackNumber = view.getInt32(start + TCP_ACK);
    this.#rawWindow = view.getUint16(start + TCP_WINDOW);
    this.#isWhole = isWhole;
    // Scanners send no flags, FIN without ACK, and SYN with FIN or RST.
    return kind === Tcp.Ack || kind === (Tcp.Fin | Tcp.Ack) || kind === Tcp.Syn || kind === SYN_ACK ||
      kind === Tcp.Rst || kind === (Tcp.Rst | Tcp.Ack);
  }

  /** Reports whether the segment read last may open a flow: a SYN or, with `midStream`, one within a connection. */
  opens(midStream: boolean): boolean {
    this.next = this.#kind === Tcp.Syn ? FlowState.SynSent : FlowState.Established;
    return this.#kind === Tcp.Syn || midStream && (this.#kind & (Tcp.Syn | Tcp.Rst)) === 0;
  }

  /** Opens a connection with the segment read last, from this side. */
  open(packet: Packet, flow: number, side: number): void {
    const sender = SIDE * (2 * flow + side);
    this.#words.fill(0, 2 * SIDE * flow, 2 * SIDE * (flow + 1));
    const isSyn = this.#kind === Tcp.Syn;
    this.#words[2 * SIDE * flow + LOOSE] = isSyn && this.#isWhole ? 0 : 1;
    if (isSyn) this.#begin(packet, sender);
    else this.#note(sender, sender ^ SIDE);
  }

  /** Judges the segment read last, from this side, for a flow in this state. Changes nothing but `next`. */
  judge(flow: number, side: number, opener: number, state: FlowState): Segment {
    this.next = state;
    const sender = SIDE * (2 * flow + side);
    const receiver = sender ^ SIDE;
    const isOpener = side === opener;
    switch (this.#kind) {
      case Tcp.Syn:
        return this.#judgeSyn(receiver, isOpener, state);
      case SYN_ACK:
        return this.#judgeSynAck(sender, receiver, isOpener, state);
      case Tcp.Rst:
      case Tcp.Rst | Tcp.Ack:
        return this.#judgeReset(flow, sender, receiver, isOpener, state);
    }
    // RFC 9293 section 3.10.7.3: the receiver answers an ACK of an old connection with a reset.
    if (state === FlowState.SynSent) {
      return isOpener || this.#kind !== Tcp.Ack ? Segment.Invalid : Segment.Ignored;
    }
    if (!this.#isInWindow(flow, sender, receiver)) return Segment.Invalid;
    this.next = this.#nextState(sender, receiver, isOpener, state);
    return Segment.Valid;
  }

  /** Notes the segment that was judged last. */
  commit(packet: Packet, flow: number, side: number): void {
    const sender = SIDE * (2 * flow + side);
    const receiver = sender ^ SIDE;
    // The end of a fragmented segment is unknown; in a simultaneous open, so is the window scale.
    const opensToo = this.#kind === Tcp.Syn && this.next === FlowState.SynReceived;
    if (this.#kind === SYN_ACK && this.#acksReopening(receiver)) {
      this.#words[receiver + END] = this.#words[receiver + LIMIT] = this.#ackNumber;
      this.#words[receiver + KNOWN] = SEEN;
      this.#words[receiver + REOPENS] = 0;
      this.#words[2 * SIDE * flow + LOOSE] = 1;
    }
    if (!this.#isWhole || opensToo) this.#words[2 * SIDE * flow + LOOSE] = 1;
    if ((this.#kind & Tcp.Syn) !== 0) this.#begin(packet, sender);
    // The numbers of a reset may be forged.
    else if ((this.#kind & Tcp.Rst) === 0) this.#note(sender, receiver);
    if (this.#kind !== SYN_ACK) return;
    if ((this.#words[sender + KNOWN]! & this.#words[receiver + KNOWN]! & SCALED) === 0) {
      this.#words[sender + SCALE] = this.#words[receiver + SCALE] = 0;
    }
    this.#noteAck(sender, receiver, this.#rawWindow);
  }

  /** Notes the segment judged last when it is ignored. */
  ignore(flow: number, side: number): void {
    if (this.#kind === Tcp.Syn) this.#words[SIDE * (2 * flow + side) + REOPENS] = this.#seqEnd;
  }

  /**
   * Reports whether a segment with this number, or an ACK without data, may be in flight from this side: sent and not yet
   * acknowledged. Only then is an ICMP error about it valid (RFC 5927 section 4.1).
   */
  hasInFlight(flow: number, side: number, seq: number): boolean {
    const words = this.#words;
    const sender = SIDE * (2 * flow + side);
    if ((words[sender + KNOWN]! & SEEN) === 0) return false;
    const end = words[sender + END]!;
    const behind = end - seq | 0;
    return behind >= 0 && behind <= (end - this.#oldestInFlight(flow, sender) | 0);
  }

  /** Oldest sequence number of a side that may be unacknowledged. */
  #oldestInFlight(flow: number, sender: number): number {
    const words = this.#words;
    const receiver = sender ^ SIDE;
    if (words[2 * SIDE * flow + LOOSE] === 0) {
      if ((words[receiver + KNOWN]! & ACKED) !== 0) return words[receiver + ACK]!;
      // Only its SYN is in flight.
      if ((words[sender + KNOWN]! & ACKED) === 0) return words[sender + ACK]!;
    }
    return words[sender + END]! - Math.max(words[receiver + WINDOW]!, MIN_ACK_WINDOW) | 0;
  }

  /** Returns a connection's words, for JSON. */
  save(flow: number): number[] {
    return Array.from(this.#words.subarray(2 * SIDE * flow, 2 * SIDE * (flow + 1)));
  }

  /** Restores the words of {@linkcode TcpTracker.save}. */
  restore(flow: number, saved: readonly number[]): void {
    const start = 2 * SIDE * flow;
    this.#words.set(saved, start);
    for (const side of [start, start + SIDE]) {
      this.#words[side + SCALE] = Math.min(Math.max(this.#words[side + SCALE]!, 0), MAX_SCALE);
      this.#words[side + WINDOW] = Math.max(this.#words[side + WINDOW]!, 0);
    }
  }

  #judgeSyn(receiver: number, isOpener: boolean, state: FlowState): Segment {
    if (state === FlowState.TimeWait || state === FlowState.Closed) return Segment.Opens;
    if (state === FlowState.SynSent) {
      // A retransmission, or a simultaneous open (RFC 9293 section 3.5).
      if (isOpener) return (this.#words[receiver + KNOWN]! & SEEN) === 0 ? Segment.Valid : Segment.Ignored;
      this.next = FlowState.SynReceived;
      return Segment.Valid;
    }
    // RFC 5961 section 4.2: the receiver answers a SYN in a connection with a challenge ACK.
    return isOpener ? Segment.Ignored : Segment.Invalid;
  }

  #judgeSynAck(sender: number, receiver: number, isOpener: boolean, state: FlowState): Segment {
    if (state === FlowState.SynSent && !isOpener) {
      // The receiver answers a wrong acknowledgment with a reset (RFC 9293 section 3.10.7.3).
      const isAcked = isAfter(this.#ackNumber, this.#words[receiver + ACK]!) &&
        !isAfter(this.#ackNumber, this.#words[receiver + END]!);
      if (!isAcked) return Segment.Ignored;
      this.next = FlowState.SynReceived;
      return Segment.Valid;
    }
    if (state === FlowState.SynReceived) {
      const isKnown = (this.#words[sender + KNOWN]! & SEEN) !== 0 &&
        this.#seqEnd === this.#words[sender + END];
      return isKnown ? Segment.Ignored : Segment.Invalid;
    }
    // The opener has restarted, and the other side has lost the connection.
    if (!isOpener && this.#acksReopening(receiver)) {
      this.next = FlowState.SynReceived;
      return Segment.Valid;
    }
    // The opener's ACK was lost.
    const isOver = state === FlowState.TimeWait || state === FlowState.Closed;
    return isOpener || isOver ? Segment.Invalid : Segment.Ignored;
  }

  /** RFC 5961 section 3.2: the exact number closes the connection; another one in the window gets a challenge ACK. */
  #judgeReset(flow: number, sender: number, receiver: number, isOpener: boolean, state: FlowState): Segment {
    if (state === FlowState.SynSent) {
      // RFC 9293 section 3.10.7.3: it must acknowledge the SYN.
      if (isOpener) return Segment.Ignored;
      if ((this.#kind & Tcp.Ack) === 0 || this.#ackNumber !== this.#words[receiver + END]) {
        return Segment.Invalid;
      }
      this.next = FlowState.Closed;
      return Segment.Valid;
    }
    const seq = this.#seqStart;
    const isExact = !isOpener && this.#acksReopening(receiver) ||
      (this.#words[receiver + KNOWN]! & ACKED) !== 0 && seq === this.#words[receiver + ACK] ||
      (this.#words[sender + KNOWN]! & SEEN) !== 0 && seq === this.#words[sender + END];
    if (isExact) {
      this.next = FlowState.Closed;
      return Segment.Valid;
    }
    if (this.#words[2 * SIDE * flow + LOOSE] === 0 && !this.#isSeqInWindow(sender, receiver)) {
      return Segment.Invalid;
    }
    if (state !== FlowState.TimeWait && state !== FlowState.Closed) this.next = FlowState.Challenged;
    return Segment.Valid;
  }

  /** Reports whether the segment acknowledges a SYN that was sent within the connection. */
  #acksReopening(receiver: number): boolean {
    const reopens = this.#words[receiver + REOPENS]!;
    return reopens !== 0 && (this.#kind & Tcp.Ack) !== 0 && this.#ackNumber === reopens;
  }

  #nextState(sender: number, receiver: number, isOpener: boolean, state: FlowState): FlowState {
    if (state === FlowState.Closed || state === FlowState.TimeWait) return state;
    const isFin = (this.#kind & Tcp.Fin) !== 0;
    const hasFin = isFin || (this.#words[sender + KNOWN]! & FIN) !== 0;
    const otherHasFin = (this.#words[receiver + KNOWN]! & FIN) !== 0;
    if (!hasFin && !otherHasFin) {
      // The opener's ACK completes the handshake.
      return state === FlowState.SynReceived && !isOpener ? state : FlowState.Established;
    }
    const otherIsAcked = this.#ackNumber === this.#words[receiver + END];
    const end = isAfter(this.#seqEnd, this.#words[sender + END]!) ? this.#seqEnd : this.#words[sender + END]!;
    const isAcked = (this.#words[receiver + KNOWN]! & ACKED) !== 0 && this.#words[receiver + ACK] === end;
    if (hasFin && otherHasFin) return isAcked && otherIsAcked ? FlowState.TimeWait : FlowState.LastAck;
    return (hasFin ? isAcked : otherIsAcked) ? FlowState.CloseWait : FlowState.FinWait;
  }

  #isInWindow(flow: number, sender: number, receiver: number): boolean {
    return this.#words[2 * SIDE * flow + LOOSE] === 1 ||
      this.#isSeqInWindow(sender, receiver) && this.#isAckInWindow(sender, receiver);
  }

  /** Reports whether the segment starts before the limit, and ends at most a window before the newest number. */
  #isSeqInWindow(sender: number, receiver: number): boolean {
    if ((this.#words[sender + KNOWN]! & SEEN) === 0) return true;
    return !isAfter(this.#seqStart, this.#words[sender + LIMIT]!) &&
      !isAfter(this.#words[sender + END]! - this.#words[receiver + WINDOW]!, this.#seqEnd);
  }

  /** Reports whether the segment acknowledges sent numbers that are not too old. */
  #isAckInWindow(sender: number, receiver: number): boolean {
    const end = this.#words[receiver + END]!;
    const oldest = end - Math.max(this.#words[sender + WINDOW]!, MIN_ACK_WINDOW);
    return !isAfter(this.#ackNumber, end) && !isAfter(oldest, this.#ackNumber);
  }

  /** Notes a side's SYN. */
  #begin(packet: Packet, sender: number): void {
    const scale = Tcp.of(packet)?.windowScale;
    this.#words[sender + KNOWN] = SEEN | (scale === undefined ? 0 : SCALED);
    this.#words[sender + SCALE] = Math.min(scale ?? 0, MAX_SCALE);
    this.#words[sender + END] = this.#seqEnd;
    this.#words[sender + ACK] = this.#seqStart;
    // RFC 7323 section 2.2: the window of a SYN is never scaled.
    this.#words[sender + WINDOW] = Math.max(this.#rawWindow, 1);
    // A window that the other side has already offered stays.
    const receiver = sender ^ SIDE;
    const isOffered = (this.#words[receiver + KNOWN]! & ACKED) !== 0;
    if (!isOffered || isAfter(this.#seqEnd, this.#words[sender + LIMIT]!)) {
      this.#words[sender + LIMIT] = this.#seqEnd;
    }
  }

  #note(sender: number, receiver: number): void {
    const window = this.#rawWindow << this.#words[sender + SCALE]!;
    if (window > this.#words[sender + WINDOW]!) this.#words[sender + WINDOW] = window;
    const isFirst = (this.#words[sender + KNOWN]! & SEEN) === 0;
    if (isFirst || isAfter(this.#seqEnd, this.#words[sender + END]!)) {
      this.#words[sender + END] = this.#seqEnd;
    }
    this.#words[sender + KNOWN]! |= SEEN | ((this.#kind & Tcp.Fin) === 0 ? 0 : FIN);
    if (isFirst || isAfter(this.#seqEnd, this.#words[sender + LIMIT]!)) {
      this.#words[sender + LIMIT] = this.#seqEnd;
    }
    this.#noteAck(sender, receiver, window);
  }

  #noteAck(sender: number, receiver: number, window: number): void {
    const ack = this.#ackNumber;
    if ((this.#words[sender + KNOWN]! & ACKED) === 0 || isAfter(ack, this.#words[sender + ACK]!)) {
      this.#words[sender + ACK] = ack;
    }
    this.#words[sender + KNOWN]! |= ACKED;
    // A closed window is probed with one byte (RFC 9293 section 3.8.6.1).
    const limit = ack + Math.max(window, 1) | 0;
    if (isAfter(limit, this.#words[receiver + LIMIT]!)) this.#words[receiver + LIMIT] = limit;
  }
}

/** Reports whether one sequence number is after the other (RFC 9293 section 3.4). */
function isAfter(one: number, other: number): boolean {
  return (one - other | 0) > 0;
}
