/**
 * One TCP connection of the resolver after the handshake (RFC 9293): receive buffer, send buffer and timers. It is
 * independent of packets: the server passes segments in and writes the segments to send.
 *
 *     segment ──► receive() ──► acknowledged data leaves the send buffer
 *                     └───────► in-order data ──► messages with length prefix ──► queries
 *     answer ──► send() ──► send buffer ──► output() ──► segments, retransmitted after a timeout
 *
 * Congestion control is NewReno (RFC 6582, RFC 6928) with the timer of RFC 6298. Out-of-order data is dropped and has to
 * be retransmitted.
 */

import { LENGTH, SendBuffer } from "./_send_buffer.ts";

// Specification
/** RFC 6928 section 2. */
const INITIAL_WINDOW = 10; // segments
/** RFC 5681 section 3.2. */
const DUPLICATE_ACKS = 3;
/** RFC 6298 section 2 (milliseconds). */
const INITIAL_TIMEOUT = 1000;
/** Segment size that every path carries (bytes of data; RFC 9293 section 3.7.1, RFC 8200 section 5). */
const SAFE_SEGMENT_SIZE = { 4: 536, 6: 1220 } as const;

// Implementation
/** Minimum retransmission timeout (milliseconds): RFC 6298 has a second, other stacks less. */
const MIN_TIMEOUT = 300;
const MAX_TIMEOUT = 10_000;
/** Consecutive timeouts after which segments shrink to the safe size (RFC 8899). */
const SHORTER_AFTER = 2;
const MAX_TIMEOUTS = 6;
/** Time within which a client must acknowledge an answer (milliseconds). */
const STALL_TIME = 30_000;
/** Time to wait for the client's FIN after ours (milliseconds). */
const LINGER_TIME = 5000;
/** Maximum length of a query (bytes). */
const MAX_QUERY = 4096;
/** Maximum window and buffered received data (bytes). */
export const RECEIVE_BUFFER = 8192;
/** Maximum queries of a connection that are answered at a time; further ones wait in the receive buffer. */
const MAX_PIPELINED = 16;
/** Buffered answers above which no further queries are read (bytes). */
const SEND_BUFFER = 65_537;
/** Minimum interval of challenge ACKs (milliseconds; RFC 5961 section 7). */
const CHALLENGE_INTERVAL = 500;

/** Received segment; its payload is in `bytes`. */
export interface Segment {
  seq: number;
  ack: number;
  window: number;
  isSyn: boolean;
  isRst: boolean;
  isFin: boolean;
  isAck: boolean;
  bytes: Uint8Array;
  start: number;
  length: number;
}

/** Writes a connection's segments. */
export interface SegmentWriter {
  /** Sends `length` bytes of the send buffer at offset `from`; returns false if no packet is free. */
  write(connection: Connection, seq: number, from: number, length: number, isFin: boolean): boolean;
  query(connection: Connection, message: Uint8Array): void;
}

/** Result of a segment or a timer. */
export const Received = {
  /** Nothing to send. */
  Quiet: 0,
  /** Send an ACK. */
  Acknowledge: 1,
  /** The connection has ended. */
  Closed: 2,
  /** The connection has ended; send RST. */
  Reset: 3,
} as const;
/** Value of {@linkcode Received}. */
export type Received = typeof Received[keyof typeof Received];

/** Client of a connection. */
export interface Peer {
  readonly version: 4 | 6;
  readonly key: string;
  /** Client whose share it is counted in. */
  readonly source: string;
}

export class Connection {
  readonly peer: Peer;
  /** Next expected sequence number (RCV.NXT). */
  expected: number;
  /** Deadline of the idle timer (monotonic milliseconds). */
  idleAt: number;
  /** Time of the next retransmission (monotonic milliseconds); Infinity while nothing is in flight. */
  resendAt = Infinity;
  isClosed = false;
  /** Number of queries that are being answered. */
  pending = 0;

  readonly #idleTime: number;
  #segmentSize: number;

  // Sequence numbers of sending: first unacknowledged (SND.UNA), next to send, and the highest that was sent.
  #unacknowledged: number;
  #next: number;
  #furthest: number;
  #window: number;
  #windowSeq: number;
  #windowAck: number;
  /** Send buffer: answers that the client has not acknowledged. */
  readonly answers = new SendBuffer();
  #wantsFin = false;
  /** Sequence number of our FIN once it was sent; -1 before. */
  #finSeq = -1;
  #finIsSent = false;
  #clientIsDone = false;

  // Congestion.
  #congestionWindow: number;
  #threshold = Infinity;
  #duplicates = 0;
  #recover: number;

  // Time.
  #smoothed = -1;
  #variation = 0;
  #timeout = INITIAL_TIMEOUT;
  #timeouts = 0;
  #timedSeq = -1;
  #timedAt = 0;
  #challengedAt = -Infinity;
  #stalledAt = Infinity;

  #received = new Uint8Array(0);
  #receivedLength = 0;

  /** @param seq Sequence number of the first byte to send. */
  constructor(peer: Peer, seq: number, first: Segment, segmentSize: number, now: number, idleTime: number) {
    this.peer = peer;
    this.expected = first.seq;
    this.#segmentSize = segmentSize;
    this.#unacknowledged =
      this.#next =
      this.#furthest =
      this.#recover =
        seq;
    this.#window = first.window;
    this.#windowSeq = first.seq;
    this.#windowAck = first.ack;
    this.#congestionWindow = INITIAL_WINDOW * segmentSize;
    this.#idleTime = idleTime;
    this.idleAt = now + idleTime;
  }

  get buffered(): number {
    return this.answers.length;
  }

  /** Window to advertise (bytes). */
  get receiveWindow(): number {
    return RECEIVE_BUFFER - this.#receivedLength;
  }

  /** Sequence number of the next byte to send. */
  get nextSeq(): number {
    return this.#next;
  }

  /** Time of the next timer (monotonic milliseconds). */
  get due(): number {
    return Math.min(this.idleAt, this.resendAt, this.#stalledAt);
  }

  /** True if no query or answer is pending, so that it may make room for another connection. */
  get isIdle(): boolean {
    return this.pending === 0 && this.buffered === 0;
  }

  /** Handles a segment (RFC 9293 section 3.10.7.4, RFC 5961). */
  receive(segment: Segment, now: number, writer: SegmentWriter): Received {
    const { length } = segment;
    const offset = segment.seq - this.expected | 0;
    const window = this.receiveWindow;
    const end = offset + length + (segment.isFin ? 1 : 0);
    if (segment.isRst) {
      if (offset === 0) return Received.Closed;
      return offset > 0 && offset < window ? this.#challenge(now) : Received.Quiet;
    }
    if (segment.isSyn || !segment.isAck) return segment.isSyn ? this.#challenge(now) : Received.Quiet;
    // Outside the window: a retransmission, a keep-alive probe, or data too far ahead.
    if (offset > window || end < 0 || end === 0 && offset < 0) {
      return length > 0 || segment.isFin ? Received.Acknowledge : this.#challenge(now);
    }
    if (!this.#acknowledge(segment, now, writer)) return this.#challenge(now);
    if (this.isClosed) return Received.Closed;
    if (length === 0 && !segment.isFin) {
      // The send buffer may have room for more answers now.
      return this.#receivedLength === 0 || this.readQueries(now, writer) ? Received.Quiet : Received.Reset;
    }
    // Data after a gap: the ACK shows the gap.
    if (offset > 0) return Received.Acknowledge;
    // After our FIN, further data is not read.
    if (this.#wantsFin && end > 0 && length + offset > 0 && !this.#clientIsDone) return Received.Reset;
    const taken = Math.min(length + offset, window);
    if (taken > 0 && !this.#clientIsDone) this.#store(segment.bytes, segment.start - offset, taken);
    if (segment.isFin && taken === length + offset && !this.#clientIsDone) {
      this.expected = this.expected + 1 >>> 0;
      this.#clientIsDone = true;
      if (this.#finIsKnown) this.isClosed = true;
    }
    return this.readQueries(now, writer) ? Received.Acknowledge : Received.Reset;
  }

  /** Reads as many queries as may be answered now; returns false for a malformed one. */
  readQueries(now: number, writer: SegmentWriter): boolean {
    let at = 0;
    let isStarved = false;
    while (this.pending < MAX_PIPELINED && this.buffered < SEND_BUFFER) {
      isStarved = this.#receivedLength - at < LENGTH;
      if (isStarved) break;
      const length = this.#received[at]! << 8 | this.#received[at + 1]!;
      if (length > MAX_QUERY) return false;
      isStarved = this.#receivedLength - at < LENGTH + length;
      if (isStarved) break;
      const message = this.#received.slice(at + LENGTH, at + LENGTH + length);
      at += LENGTH + length;
      this.idleAt = now + this.#idleTime;
      this.pending++;
      writer.query(this, message);
      if (this.isClosed) return true;
    }
    if (at > 0) {
      this.#received.copyWithin(0, at, this.#receivedLength);
      this.#receivedLength -= at;
      if (this.#receivedLength === 0) this.#received = new Uint8Array(0);
    }
    // After the client's FIN, ours follows the last answer.
    if (this.#clientIsDone && this.pending === 0 && isStarved) this.#wantsFin = true;
    return true;
  }

  /** Buffers an answer, a message without length prefix. */
  send(message: Uint8Array, now: number): void {
    this.pending--;
    if (this.isClosed || this.#wantsFin) return;
    this.answers.push(message);
    this.idleAt = now + this.#idleTime;
    if (this.#stalledAt === Infinity) this.#stalledAt = now + STALL_TIME;
  }

  /** Closes the connection after the buffered answers. */
  finish(): void {
    this.#wantsFin = true;
  }

  /** Sends what the windows allow; returns true if anything was sent. */
  output(now: number, writer: SegmentWriter): boolean {
    let hasSent = false;
    for (;;) {
      const from = this.#next - this.#unacknowledged | 0;
      const unsent = this.buffered - from;
      if (unsent <= 0) break;
      const room = Math.min(this.#window, this.#congestionWindow) - from;
      const length = Math.min(unsent, this.#segmentSize, room);
      // RFC 9293 section 3.8.6.2.1: no short segments while data is in flight.
      if (length <= 0 || length < Math.min(this.#segmentSize, unsent) && from > 0) break;
      if (!this.#transmit(from, length, now, writer)) break;
      hasSent = true;
    }
    const isAllSent = (this.#next - this.#unacknowledged | 0) === this.buffered;
    if (this.#wantsFin && this.pending === 0 && isAllSent && !this.#finIsSent) {
      if (writer.write(this, this.#next, this.buffered, 0, true)) {
        if (this.#finSeq < 0) this.idleAt = now + LINGER_TIME;
        this.#finSeq = this.#next;
        this.#finIsSent = true;
        this.#advance(1);
        hasSent = true;
      }
    }
    if (this.buffered === 0 && (this.#finSeq < 0 || this.#finIsKnown)) this.resendAt = Infinity;
    else if (this.resendAt === Infinity) this.resendAt = now + this.#timeout;
    return hasSent;
  }

  /** Runs expired timers; returns the outcome. */
  tick(now: number, writer: SegmentWriter): Received {
    if (now >= this.#stalledAt) return Received.Reset;
    if (now >= this.resendAt) {
      if (++this.#timeouts > MAX_TIMEOUTS) return Received.Reset;
      this.#timeout = Math.min(this.#timeout * 2, MAX_TIMEOUT);
      this.#resendAll();
      const probe = this.#window === 0 && this.buffered > 0;
      // RFC 9293 section 3.8.6.1: one byte probes a closed window.
      if (probe) this.#transmit(0, 1, now, writer);
      this.resendAt = Infinity;
      this.output(now, writer);
      if (this.resendAt === Infinity) this.resendAt = now + this.#timeout;
    }
    if (now >= this.idleAt) {
      if (this.#finSeq >= 0) return Received.Closed;
      if (!this.isIdle) this.idleAt = now + this.#idleTime;
      else {
        this.finish();
        this.output(now, writer);
      }
    }
    return Received.Quiet;
  }

  /** True if the client has acknowledged our FIN. */
  get #finIsKnown(): boolean {
    return this.#finSeq >= 0 && this.#unacknowledged === (this.#finSeq + 1 >>> 0);
  }

  #transmit(from: number, length: number, now: number, writer: SegmentWriter): boolean {
    const seq = this.#unacknowledged + from >>> 0;
    if (!writer.write(this, seq, from, length, false)) return false;
    const isNew = (seq - this.#furthest | 0) >= 0;
    // RFC 6298 section 3: retransmissions are not timed.
    if (isNew && this.#timedSeq < 0) {
      this.#timedSeq = seq;
      this.#timedAt = now;
    }
    if (!isNew) this.#timedSeq = -1;
    const behind = seq + length >>> 0;
    if ((behind - this.#next | 0) > 0) this.#advance(behind - this.#next | 0);
    return true;
  }

  #advance(count: number): void {
    this.#next = this.#next + count >>> 0;
    if ((this.#next - this.#furthest | 0) > 0) this.#furthest = this.#next;
  }

  /** Handles ACK and window; returns false for an ACK of data that was never sent (RFC 5961 section 5). */
  #acknowledge(segment: Segment, now: number, writer: SegmentWriter): boolean {
    const { ack, seq } = segment;
    const count = ack - this.#unacknowledged | 0;
    if (count > (this.#furthest - this.#unacknowledged | 0) || count < -0xffff) return false;
    if (count < 0) return true;
    const isNewer = (seq - this.#windowSeq | 0) > 0 ||
      seq === this.#windowSeq && (ack - this.#windowAck | 0) >= 0;
    const isSameWindow = segment.window === this.#window;
    if (isNewer) {
      this.#window = segment.window;
      this.#windowSeq = seq;
      this.#windowAck = ack;
    }
    if (count > 0) this.#advanceAcknowledged(ack, count, now, writer);
    else if (segment.length === 0 && !segment.isFin && isSameWindow && this.#furthest !== ack) {
      this.#countDuplicate(now, writer);
    }
    return true;
  }

  #advanceAcknowledged(ack: number, count: number, now: number, writer: SegmentWriter): void {
    if (this.#timedSeq >= 0 && (ack - this.#timedSeq | 0) > 0) this.#measure(now - this.#timedAt);
    this.#timeouts = 0;
    this.resendAt = Infinity;
    // Only a complete answer counts as progress, not a few bytes at a time.
    if (this.answers.release(Math.min(count, this.buffered))) this.#stalledAt = now + STALL_TIME;
    if (this.buffered === 0) this.#stalledAt = Infinity;
    this.#unacknowledged = ack;
    if ((this.#next - ack | 0) < 0) this.#next = ack;
    if (this.buffered === 0 && this.#finSeq < 0) this.idleAt = now + this.#idleTime;
    // RFC 9293 section 3.6: both FINs are acknowledged.
    if (this.#finIsKnown) {
      this.#finIsSent = true;
      this.isClosed = this.#clientIsDone;
    }
    if (this.#duplicates >= DUPLICATE_ACKS) {
      if ((ack - this.#recover | 0) < 0) {
        // RFC 6582 section 3.2: partial ACK, retransmit the next gap.
        this.#transmit(0, Math.min(this.#segmentSize, this.buffered), now, writer);
        return;
      }
      this.#congestionWindow = this.#threshold;
    } else {
      const growth = this.#congestionWindow < this.#threshold
        ? Math.min(count, this.#segmentSize)
        : Math.ceil(this.#segmentSize * this.#segmentSize / this.#congestionWindow);
      this.#congestionWindow += growth;
    }
    this.#duplicates = 0;
  }

  #countDuplicate(now: number, writer: SegmentWriter): void {
    this.#duplicates++;
    if (this.#duplicates > DUPLICATE_ACKS) this.#congestionWindow += this.#segmentSize;
    if (this.#duplicates !== DUPLICATE_ACKS || this.buffered === 0) return;
    const inFlight = this.#furthest - this.#unacknowledged | 0;
    this.#threshold = Math.max(inFlight / 2, 2 * this.#segmentSize);
    this.#congestionWindow = this.#threshold + DUPLICATE_ACKS * this.#segmentSize;
    this.#recover = this.#furthest;
    this.#transmit(0, Math.min(this.#segmentSize, this.buffered), now, writer);
  }

  /** Restarts from the first unacknowledged byte (RFC 6298 section 5, RFC 5681 section 3.1). */
  #resendAll(): void {
    const inFlight = this.#furthest - this.#unacknowledged | 0;
    this.#threshold = Math.max(inFlight / 2, 2 * this.#segmentSize);
    if (this.#timeouts >= SHORTER_AFTER) {
      this.#segmentSize = Math.min(this.#segmentSize, SAFE_SEGMENT_SIZE[this.peer.version]);
    }
    this.#congestionWindow = this.#segmentSize;
    this.#next = this.#unacknowledged;
    this.#duplicates = 0;
    this.#timedSeq = -1;
    this.#finIsSent = this.#finIsKnown;
  }

  #measure(time: number): void {
    this.#timedSeq = -1;
    if (this.#smoothed < 0) {
      this.#smoothed = time;
      this.#variation = time / 2;
    } else {
      this.#variation += (Math.abs(this.#smoothed - time) - this.#variation) / 4;
      this.#smoothed += (time - this.#smoothed) / 8;
    }
    this.#timeout = Math.min(Math.max(this.#smoothed + 4 * this.#variation, MIN_TIMEOUT), MAX_TIMEOUT);
  }

  #store(bytes: Uint8Array, start: number, count: number): void {
    const needed = this.#receivedLength + count;
    if (needed > this.#received.length) {
      const grown = new Uint8Array(Math.min(RECEIVE_BUFFER, Math.max(needed, 512)));
      grown.set(this.#received.subarray(0, this.#receivedLength));
      this.#received = grown;
    }
    this.#received.set(bytes.subarray(start, start + count), this.#receivedLength);
    this.#receivedLength = needed;
    this.expected = this.expected + count >>> 0;
  }

  #challenge(now: number): Received {
    if (now - this.#challengedAt < CHALLENGE_INTERVAL) return Received.Quiet;
    this.#challengedAt = now;
    return Received.Acknowledge;
  }
}
