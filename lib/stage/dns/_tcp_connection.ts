/**
 * One connection of the resolver's TCP endpoint, from the handshake's end on (RFC 9293): what has arrived, what is to be
 * sent, and its timers. It knows no packets: its server reads segments into it and writes what it wants to send.
 *
 *     segment ──► receive() ──► acknowledged data leaves the buffer
 *                     └───────► data in order ──► messages with their length in front ──► queries
 *     answer ──► send() ──► buffer ──► output() ──► segments, again when they are not acknowledged in time
 *
 * Congestion control is NewReno (RFC 6582, RFC 6928), the timer RFC 6298's. Data out of order is left to be sent again.
 */

import { LENGTH, SendBuffer } from "./_send_buffer.ts";

// Specification
/** RFC 6928 section 2. */
const INITIAL_WINDOW = 10; // segments
/** RFC 5681 section 3.2. */
const DUPLICATE_ACKS = 3;
/** RFC 6298 section 2 (milliseconds). */
const INITIAL_TIMEOUT = 1000;
/** RFC 9293 section 3.7.1 and RFC 8200 section 5: what every path carries (bytes of data). */
const SAFE_SEGMENT_SIZE = { 4: 536, 6: 1220 } as const;

// Implementation
/** Less than RFC 6298's second, as in other stacks (milliseconds). */
const MIN_TIMEOUT = 300;
const MAX_TIMEOUT = 10_000;
/** After so many timeouts in a row, segments are as short as every path carries them (RFC 8899). */
const SHORTER_AFTER = 2;
const MAX_TIMEOUTS = 6;
/** Time that a client may take for an answer (milliseconds). */
const STALL_TIME = 30_000;
/** Time for the client's FIN after ours (milliseconds). */
const LINGER_TIME = 5000;
/** The longest query, and the bytes of received data that are kept. */
const MAX_QUERY = 4096;
export const RECEIVE_BUFFER = 8192;
/** The most queries of a connection that are answered at a time; others wait in the window. */
const MAX_PIPELINED = 16;
/** No more queries are read while so many bytes of answers wait. */
const SEND_BUFFER = 65_537;
/** One challenge in so long (RFC 5961 section 7; milliseconds). */
const CHALLENGE_INTERVAL = 500;

/** A segment as it arrived; its payload is in `bytes`. */
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
  /** Sends `length` bytes of the buffer from `from` on; `false` when that is not possible now. */
  write(connection: Connection, seq: number, from: number, length: number, isFin: boolean): boolean;
  /** Answers a query. */
  query(connection: Connection, message: Uint8Array): void;
}

/** The outcome of a segment. */
export const Received = {
  /** Nothing is to be said. */
  Quiet: 0,
  /** It is to be acknowledged. */
  Acknowledge: 1,
  /** The connection is over. */
  Closed: 2,
  /** The connection is over, and the client is told by a reset. */
  Reset: 3,
} as const;
/** One of {@linkcode Received}'s values. */
export type Received = typeof Received[keyof typeof Received];

/** The client of a connection, as the server knows it. */
export interface Peer {
  readonly version: 4 | 6;
  readonly key: string;
  /** The client whose share it is counted in. */
  readonly source: string;
}

/** A connection that is open. */
export class Connection {
  readonly peer: Peer;
  /** The number that is expected next. */
  expected: number;
  /** Until when something has to happen (monotonic milliseconds). */
  idleAt: number;
  /** Time of the next retransmission (monotonic milliseconds); Infinity while nothing is in flight. */
  resendAt = Infinity;
  isClosed = false;
  /** Queries that are being answered. */
  pending = 0;

  readonly #idleTime: number;
  #segmentSize: number;

  // Sending: numbers of the first byte that is not acknowledged, of the next one, and of the furthest one.
  #unacknowledged: number;
  #next: number;
  #furthest: number;
  #window: number;
  #windowSeq: number;
  #windowAck: number;
  /** Answers that the client has not acknowledged. */
  readonly answers = new SendBuffer();
  #wantsFin = false;
  /** The number of our FIN, once it was sent. */
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

  /** @param seq The number of the first byte to be sent. */
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

  /** Bytes that wait to be acknowledged. */
  get buffered(): number {
    return this.answers.length;
  }

  /** The bytes that it takes now. */
  get receiveWindow(): number {
    return RECEIVE_BUFFER - this.#receivedLength;
  }

  /** The number of the next byte to be sent. */
  get nextSeq(): number {
    return this.#next;
  }

  /** Time at which its next timer is due (monotonic milliseconds). */
  get due(): number {
    return Math.min(this.idleAt, this.resendAt, this.#stalledAt);
  }

  /** Tells whether nothing is being answered or sent: it can be closed for another one. */
  get isIdle(): boolean {
    return this.pending === 0 && this.buffered === 0;
  }

  /** Takes a segment (RFC 9293 section 3.10.7.4, RFC 5961). */
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
    // Beyond the window, or before it, as a keep-alive probe and what was sent again.
    if (offset > window || end < 0 || end === 0 && offset < 0) {
      return length > 0 || segment.isFin ? Received.Acknowledge : this.#challenge(now);
    }
    if (!this.#acknowledge(segment, now, writer)) return this.#challenge(now);
    if (this.isClosed) return Received.Closed;
    if (length === 0 && !segment.isFin) {
      // There may be room for more answers now.
      return this.#receivedLength === 0 || this.readQueries(now, writer) ? Received.Quiet : Received.Reset;
    }
    // Data behind a gap: the acknowledgment says where the gap is.
    if (offset > 0) return Received.Acknowledge;
    // Nobody reads on behind our own end.
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

  /** Reads queries as far as they may be answered now; `false` for what is none. */
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
    // The client has said all: so do we, when all is answered.
    if (this.#clientIsDone && this.pending === 0 && isStarved) this.#wantsFin = true;
    return true;
  }

  /** Takes an answer to be sent: a message without its length. */
  send(message: Uint8Array, now: number): void {
    this.pending--;
    if (this.isClosed || this.#wantsFin) return;
    this.answers.push(message);
    this.idleAt = now + this.#idleTime;
    if (this.#stalledAt === Infinity) this.#stalledAt = now + STALL_TIME;
  }

  /** Ends the connection when what is buffered has been sent. */
  finish(): void {
    this.#wantsFin = true;
  }

  /** Sends what the windows allow; returns whether anything was sent. */
  output(now: number, writer: SegmentWriter): boolean {
    let hasSent = false;
    for (;;) {
      const from = this.#next - this.#unacknowledged | 0;
      const unsent = this.buffered - from;
      if (unsent <= 0) break;
      const room = Math.min(this.#window, this.#congestionWindow) - from;
      const length = Math.min(unsent, this.#segmentSize, room);
      // RFC 9293 section 3.8.6.2.1: no short segments while others are in flight.
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

  /** Does what is due; returns what became of the connection. */
  tick(now: number, writer: SegmentWriter): Received {
    if (now >= this.#stalledAt) return Received.Reset;
    if (now >= this.resendAt) {
      if (++this.#timeouts > MAX_TIMEOUTS) return Received.Reset;
      this.#timeout = Math.min(this.#timeout * 2, MAX_TIMEOUT);
      this.#resendAll();
      const probe = this.#window === 0 && this.buffered > 0;
      // RFC 9293 section 3.8.6.1: a closed window is probed by a byte.
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

  /** Tells whether the client has acknowledged our FIN. */
  get #finIsKnown(): boolean {
    return this.#finSeq >= 0 && this.#unacknowledged === (this.#finSeq + 1 >>> 0);
  }

  #transmit(from: number, length: number, now: number, writer: SegmentWriter): boolean {
    const seq = this.#unacknowledged + from >>> 0;
    if (!writer.write(this, seq, from, length, false)) return false;
    const isNew = (seq - this.#furthest | 0) >= 0;
    // RFC 6298 section 3: only what is sent once is timed.
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

  /** Takes an acknowledgment and a window; `false` for one of what was never sent (RFC 5961 section 5). */
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
    // A whole answer is progress; a client that takes a few bytes at a time makes none.
    if (this.answers.release(Math.min(count, this.buffered))) this.#stalledAt = now + STALL_TIME;
    if (this.buffered === 0) this.#stalledAt = Infinity;
    this.#unacknowledged = ack;
    if ((this.#next - ack | 0) < 0) this.#next = ack;
    if (this.buffered === 0 && this.#finSeq < 0) this.idleAt = now + this.#idleTime;
    // RFC 9293 section 3.6: our end and the client's are known to both.
    if (this.#finIsKnown) {
      this.#finIsSent = true;
      this.isClosed = this.#clientIsDone;
    }
    if (this.#duplicates >= DUPLICATE_ACKS) {
      if ((ack - this.#recover | 0) < 0) {
        // RFC 6582 section 3.2: the next gap.
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

  /** Goes back to the first byte that is not acknowledged (RFC 6298 section 5, RFC 5681 section 3.1). */
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
