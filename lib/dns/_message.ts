/**
 * The parts of a message that the resolver looks at, in place: the question, the EDNS option, and where its time
 * fields are. Answers pass as the bytes that they are, so no type of record is lost that nobody here knows.
 *
 *     asker's bytes ──► Question.read() ──► source ──► Answer ──► Answer.write() ──► bytes for the asker
 */

import { lowerCase, nameLength, skipName } from "./_name.ts";

// Specification: RFC 1035 section 4.1.1
//
//      0  1  2  3  4  5  6  7  8  9  0  1  2  3  4  5
//    +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//    |                      ID                       |
//    +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//    |QR|   Opcode  |AA|TC|RD|RA| Z|AD|CD|   RCODE   |
//    +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
//    |  QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT: four words |
//    +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+
export const HEADER = 12;
const FLAGS = 2;
const COUNTS = 4;
const RESPONSE = 0x8000;
const OPCODE = 0x7800;
const AUTHORITATIVE = 0x0400;
const TRUNCATED = 0x0200;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
/** RFC 4035 section 3.2.3. */
const AUTHENTIC = 0x0020;
const CHECKING_DISABLED = 0x0010;
const RCODE = 0x000f;
/** Behind a record's name: type, class, TTL (4 bytes), length of the data. */
const RECORD = 10;
/** Behind a question's name: type, class. */
const QUESTION = 4;
const CLASS_IN = 1;
/** RFC 1035 section 4.2.1: what everybody takes. */
const PLAIN_LIMIT = 512;
/** RFC 6891 section 6.1.2: a root name, type 41, the payload size, rcode, version and flags, options. */
const OPT_LENGTH = 11;
const DNSSEC_OK = 0x8000;
/** Where the question's name is, as a pointer. */
const TO_QUESTION = 0xc0_0c;
const MAX_QUESTION = 255 + QUESTION;
/** RFC 2181 section 8: a TTL with its highest bit set is 0. */
const MAX_TTL = 0x7fffffff;

// Implementation
/** What we say that we take: it passes every road in one piece (DNS flag day 2020). */
export const EDNS_SIZE = 1232;
/** More records than this, no honest answer has; they take 60 us to look at. */
const MAX_RECORDS = 2048;
/** How many records a query may have behind its question: OPT, TSIG, and some that nobody uses. */
const MAX_QUERY_RECORDS = 8;

/** What became of a query (RFC 1035 section 4.1.1, RFC 6891 section 9). */
export const Rcode = {
  NoError: 0,
  FormErr: 1,
  ServFail: 2,
  NxDomain: 3,
  NotImp: 4,
  Refused: 5,
  BadVers: 16,
} as const;

/** Types of records that the resolver knows by number (IANA "Resource Record (RR) TYPEs"). */
export const Type = {
  A: 1,
  Cname: 5,
  Soa: 6,
  Ptr: 12,
  Aaaa: 28,
  Opt: 41,
  Svcb: 64,
  Https: 65,
  Ixfr: 251,
  Axfr: 252,
  Any: 255,
} as const;

/** A query is not to be answered. */
export const SILENCE = -1;

/** A query, as far as it matters; made once and filled for each. */
export class Question {
  /** The question as it stands, with the asker's case: name, type, class. */
  readonly raw: Uint8Array = new Uint8Array(MAX_QUESTION);
  /** The bytes of {@linkcode Question.raw}; 0 when the query has no whole question. */
  rawLength = 0;
  /** The name in lower case. */
  readonly name: Uint8Array = new Uint8Array(MAX_QUESTION);
  /** Its bytes, with the root's. */
  nameLength = 0;
  type = 0;
  id = 0;
  flags = 0;
  /** Whether the asker knows EDNS (RFC 6891). */
  hasEdns = false;
  /** How many bytes of an answer the asker takes. */
  limit = PLAIN_LIMIT;
  /** Whether the asker wants DNSSEC's records (RFC 3225). */
  dnssecOk = false;

  /** Reads a query; returns 0, the code to answer it with at once, or {@linkcode SILENCE}. */
  read(bytes: Uint8Array, start: number, length: number): number {
    this.rawLength = 0;
    this.hasEdns = false;
    this.dnssecOk = false;
    this.limit = PLAIN_LIMIT;
    if (length < HEADER) return SILENCE;
    this.id = word(bytes, start);
    this.flags = word(bytes, start + FLAGS);
    if ((this.flags & RESPONSE) !== 0) return SILENCE;
    if ((this.flags & OPCODE) !== 0) return Rcode.NotImp;
    const end = start + length;
    const nameStart = start + HEADER;
    // RFC 9619: a query has one question. Nothing that is asked over UDP has records in the middle sections.
    if (word(bytes, start + COUNTS) !== 1 || word(bytes, start + COUNTS + 2) !== 0) return Rcode.FormErr;
    if (word(bytes, start + COUNTS + 4) !== 0) return Rcode.FormErr;
    const count = nameLength(bytes, nameStart, end);
    if (count < 0 || nameStart + count + QUESTION > end) return Rcode.FormErr;
    for (let i = 0; i < count; i++) {
      const byte = bytes[nameStart + i]!;
      this.raw[i] = byte;
      this.name[i] = lowerCase(byte);
    }
    for (let i = count; i < count + QUESTION; i++) this.raw[i] = bytes[nameStart + i]!;
    this.nameLength = count;
    this.rawLength = count + QUESTION;
    this.type = word(this.raw, count);
    const rcode = this.#readRecords(bytes, start, nameStart + this.rawLength, end);
    if (rcode !== Rcode.NoError) return rcode;
    if (this.type === Type.Opt || this.type === 0) return Rcode.FormErr;
    if (word(this.raw, count + 2) !== CLASS_IN) return Rcode.Refused;
    return this.type === Type.Axfr || this.type === Type.Ixfr ? Rcode.Refused : Rcode.NoError;
  }

  /** Becomes the same question about another name, which is in lower case. */
  follow(from: Question, name: Uint8Array): void {
    this.name.set(name);
    this.raw.set(name);
    this.nameLength = name.length;
    this.rawLength = name.length + QUESTION;
    this.type = from.type;
    setWord(this.raw, name.length, this.type);
    setWord(this.raw, name.length + 2, CLASS_IN);
    this.flags = from.flags;
    this.dnssecOk = from.dnssecOk;
  }

  /** The asker's name in lower case, in the bytes of messages: a `Map`'s key. */
  get nameKey(): string {
    return keyOf(this.name, this.nameLength);
  }

  /** What makes two questions have the same answer: name, type, and whether DNSSEC is looked at. */
  get key(): string {
    const checking = (this.flags & CHECKING_DISABLED) === 0 ? 0 : 2;
    return this.nameKey + String.fromCharCode(this.type, checking | (this.dnssecOk ? 1 : 0));
  }

  /** Whether the asker wants somebody asked (RFC 1035 section 4.1.1). */
  get recursionDesired(): boolean {
    return (this.flags & RECURSION_DESIRED) !== 0;
  }

  /** The query to ask somebody else: a fresh message with id 0 (RFC 8484 section 4.1) and EDNS. */
  toUpstream(): Uint8Array {
    const message = new Uint8Array(HEADER + this.rawLength + OPT_LENGTH);
    setWord(message, FLAGS, RECURSION_DESIRED | this.flags & CHECKING_DISABLED | AUTHENTIC);
    setWord(message, COUNTS, 1);
    setWord(message, COUNTS + 6, 1);
    message.set(this.name.subarray(0, this.nameLength), HEADER);
    setWord(message, HEADER + this.nameLength, this.type);
    setWord(message, HEADER + this.nameLength + 2, CLASS_IN);
    writeOpt(message, HEADER + this.rawLength, this.dnssecOk, 0);
    return message;
  }

  /**
   * Writes an answer without records for this asker, and returns its length: at most 286 bytes. For what
   * {@linkcode Question.read} refuses.
   */
  writeRefusal(rcode: number, bytes: Uint8Array, start: number): number {
    bytes.fill(0, start, start + HEADER);
    setWord(bytes, start, this.id);
    const kept = this.flags & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    setWord(bytes, start + FLAGS, RESPONSE | RECURSION_AVAILABLE | kept | rcode & RCODE);
    setWord(bytes, start + COUNTS, this.rawLength === 0 ? 0 : 1);
    for (let i = 0; i < this.rawLength; i++) bytes[start + HEADER + i] = this.raw[i]!;
    let at = start + HEADER + this.rawLength;
    if (this.hasEdns) {
      setWord(bytes, start + COUNTS + 6, 1);
      at = writeOpt(bytes, at, this.dnssecOk, rcode >> 4);
    }
    return at - start;
  }

  /** Looks for EDNS behind the question. */
  #readRecords(bytes: Uint8Array, start: number, from: number, end: number): number {
    const count = word(bytes, start + COUNTS + 6);
    if (count > MAX_QUERY_RECORDS) return Rcode.FormErr;
    let at = from;
    let version = 0;
    for (let i = 0; i < count; i++) {
      const isRoot = bytes[at] === 0;
      at = skipName(bytes, at, end, start);
      if (at < 0 || at + RECORD > end) return Rcode.FormErr;
      const next = at + RECORD + word(bytes, at + 8);
      if (next > end) return Rcode.FormErr;
      if (word(bytes, at) === Type.Opt) {
        // RFC 6891 section 6.1.1: one, at the root.
        if (this.hasEdns || !isRoot) return Rcode.FormErr;
        this.hasEdns = true;
        this.limit = Math.max(PLAIN_LIMIT, word(bytes, at + 2));
        version = bytes[at + 5]!;
        this.dnssecOk = (word(bytes, at + 6) & DNSSEC_OK) !== 0;
      }
      at = next;
    }
    return version === 0 ? Rcode.NoError : Rcode.BadVers;
  }
}

/** The records of an answer: its bytes without EDNS, which is each neighbour's own affair (RFC 6891 section 6.1.1). */
export class Answer {
  /** The whole message. */
  readonly bytes: Uint8Array;
  /** How long it is good (seconds); 0: for whoever asked alone. */
  readonly ttl: number;
  /** Whether it says that there is nothing (RFC 2308). */
  readonly isNegative: boolean;
  /** Where TTLs stand. */
  readonly #times: Uint16Array;

  private constructor(bytes: Uint8Array, times: number[], ttl: number, isNegative: boolean) {
    this.bytes = bytes;
    this.#times = Uint16Array.from(times);
    this.ttl = ttl;
    this.isNegative = isNegative;
  }

  /** The answer's code. */
  get rcode(): number {
    return word(this.bytes, FLAGS) & RCODE;
  }

  /** Bytes that it takes beside those of its message. */
  get overhead(): number {
    return this.#times.length * 2;
  }

  /** Looks through a message; `undefined` when it is no answer to this question, or not whole. */
  static of(message: Uint8Array, asked: Question): Answer | undefined {
    const end = message.length;
    const records = HEADER + asked.rawLength;
    if (end < records || end > 0xffff) return undefined;
    const flags = word(message, FLAGS);
    if ((flags & (RESPONSE | OPCODE)) !== RESPONSE || word(message, COUNTS) !== 1) return undefined;
    for (let i = 0; i < asked.nameLength; i++) {
      if (lowerCase(message[HEADER + i]!) !== asked.name[i]) return undefined;
    }
    const typeAt = HEADER + asked.nameLength;
    if (word(message, typeAt) !== asked.type || word(message, typeAt + 2) !== CLASS_IN) return undefined;
    const [answers, authorities, additionals] = [2, 4, 6].map((at) => word(message, COUNTS + at)) as [
      number,
      number,
      number,
    ];
    const total = answers + authorities + additionals;
    if (total > MAX_RECORDS) return undefined;

    const times: number[] = [];
    let at = records;
    // Nothing is kept of what stands behind the last record: EDNS goes there.
    let kept = records;
    let keptCount = total;
    let least = Infinity;
    let negative = -1;
    let isFound = false;
    for (let i = 0; i < total; i++) {
      at = skipName(message, at, end);
      if (at < 0 || at + RECORD > end) return undefined;
      const type = word(message, at);
      const next = at + RECORD + word(message, at + 8);
      if (next > end) return undefined;
      if (type === Type.Opt) {
        // What stands behind it are additional records, which nobody needs; few put any there.
        if (i < answers + authorities) return undefined;
        // An extended code (BADVERS, BADCOOKIE) is between us and the upstream.
        if (message[at + 4] !== 0) return undefined;
        keptCount = i;
        break;
      }
      const ttl = timeAt(message, at + 4);
      times.push(at + 4);
      if (i < answers) {
        least = Math.min(least, ttl);
        isFound ||= type === asked.type || asked.type === Type.Any;
      } else if (i < answers + authorities && type === Type.Soa && next - at >= RECORD + 22) {
        // RFC 2308 section 5: the lesser of the SOA's own time and its last field.
        negative = Math.min(ttl, timeAt(message, next - 4));
      }
      at = kept = next;
    }
    const bytes = message.slice(0, kept);
    // It is no longer from who knows it first hand.
    setWord(bytes, FLAGS, flags & ~AUTHORITATIVE);
    setWord(bytes, COUNTS + 6, keptCount - answers - authorities);
    const rcode = flags & RCODE;
    const isNegative = rcode === Rcode.NxDomain || rcode === Rcode.NoError && !isFound;
    let ttl = isNegative ? Math.min(least, negative) : least;
    // Without an SOA nobody knows for how long there is nothing (RFC 2308 section 5).
    if (ttl < 0 || ttl === Infinity || (flags & TRUNCATED) !== 0) ttl = 0;
    if (rcode !== Rcode.NoError && rcode !== Rcode.NxDomain) ttl = 0;
    return new Answer(bytes, times, ttl, isNegative);
  }

  /** An answer of one's own: records as {@linkcode encodeRecord} has them, whose first name is the question's. */
  static make(asked: Question, rcode: number, answers: readonly Uint8Array[], soa?: Uint8Array): Answer {
    const parts = soa === undefined ? answers : [...answers, soa];
    const length = parts.reduce((sum, part) => sum + part.length, HEADER + asked.rawLength);
    const bytes = new Uint8Array(Math.min(length, 0xffff));
    setWord(bytes, FLAGS, RESPONSE | AUTHORITATIVE | rcode);
    setWord(bytes, COUNTS, 1);
    bytes.set(asked.name.subarray(0, asked.nameLength), HEADER);
    setWord(bytes, HEADER + asked.nameLength, asked.type);
    setWord(bytes, HEADER + asked.nameLength + 2, CLASS_IN);
    let at = HEADER + asked.rawLength;
    for (const part of parts) {
      if (at + part.length > bytes.length) {
        // More than a message holds; nobody can take it whole.
        setWord(bytes, FLAGS, word(bytes, FLAGS) | TRUNCATED);
        break;
      }
      bytes.set(part, at);
      at += part.length;
      const count = COUNTS + (part === soa ? 4 : 2);
      setWord(bytes, count, word(bytes, count) + 1);
    }
    return new Answer(bytes, [], 0, false);
  }

  /** Whether an asker gets it whole. */
  fits(asked: Question, room: number): boolean {
    return this.bytes.length + (asked.hasEdns ? OPT_LENGTH : 0) <= room;
  }

  /**
   * Writes it for an asker, and returns its length: with the asker's id, case and EDNS, with TTLs that are `age` seconds
   * further, or all `ttl` unless that is negative; with no records, and TC, when it is longer than `room` (RFC 2181 section 9).
   */
  write(
    asked: Question,
    bytes: Uint8Array,
    start: number,
    room: number,
    age: number,
    ttl: number,
  ): number {
    const stored = this.bytes;
    const isWhole = this.fits(asked, room);
    const length = isWhole ? stored.length : HEADER + asked.rawLength;
    for (let i = HEADER + asked.rawLength; i < length; i++) bytes[start + i] = stored[i]!;
    for (let i = 0; i < asked.rawLength; i++) bytes[start + HEADER + i] = asked.raw[i]!;
    const said = word(stored, FLAGS);
    let flags = said & (RESPONSE | AUTHORITATIVE | TRUNCATED | RCODE) | RECURSION_AVAILABLE;
    flags |= asked.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    // RFC 6840 section 5.8: AD is for whoever knows it.
    if ((asked.flags & AUTHENTIC) !== 0 || asked.dnssecOk) flags |= said & AUTHENTIC;
    if (!isWhole) flags |= TRUNCATED;
    setWord(bytes, start, asked.id);
    setWord(bytes, start + FLAGS, flags);
    setWord(bytes, start + COUNTS, 1);
    for (let at = COUNTS + 2; at < HEADER; at += 2) {
      setWord(bytes, start + at, isWhole ? word(stored, at) : 0);
    }
    if (isWhole) this.#writeTimes(bytes, start, age, ttl);
    if (!asked.hasEdns) return length;
    setWord(bytes, start + COUNTS + 6, (isWhole ? word(stored, COUNTS + 6) : 0) + 1);
    return writeOpt(bytes, start + length, asked.dnssecOk, 0) - start;
  }

  #writeTimes(bytes: Uint8Array, start: number, age: number, same: number): void {
    const times = this.#times;
    for (let i = 0; i < times.length; i++) {
      const at = times[i]!;
      const ttl = same < 0 ? Math.max(0, timeAt(this.bytes, at) - age) : same;
      setWord(bytes, start + at, ttl >>> 16);
      setWord(bytes, start + at + 2, ttl & 0xffff);
    }
  }
}

/** A record of a message of one's own; its name is the question's unless one is given, in the bytes of messages. */
export function encodeRecord(type: number, ttl: number, data: Uint8Array, name?: Uint8Array): Uint8Array {
  const start = name?.length ?? 2;
  const record = new Uint8Array(start + RECORD + data.length);
  if (name === undefined) setWord(record, 0, TO_QUESTION);
  else record.set(name);
  setWord(record, start, type);
  setWord(record, start + 2, CLASS_IN);
  setWord(record, start + 4, ttl >>> 16);
  setWord(record, start + 6, ttl & 0xffff);
  setWord(record, start + 8, data.length);
  record.set(data, start + RECORD);
  return record;
}

/** A `Map`'s key of a name in lower case and the bytes of messages. */
export function keyOf(name: Uint8Array, length: number = name.length): string {
  // An array is read three times as fast as bytes are.
  letters.length = length;
  for (let i = 0; i < length; i++) letters[i] = name[i]!;
  return String.fromCharCode.apply(null, letters);
}
const letters: number[] = [];

function writeOpt(bytes: Uint8Array, start: number, dnssecOk: boolean, extendedRcode: number): number {
  bytes[start] = 0;
  setWord(bytes, start + 1, Type.Opt);
  setWord(bytes, start + 3, EDNS_SIZE);
  setWord(bytes, start + 5, extendedRcode << 8);
  setWord(bytes, start + 7, dnssecOk ? DNSSEC_OK : 0);
  setWord(bytes, start + 9, 0);
  return start + OPT_LENGTH;
}

function timeAt(bytes: Uint8Array, at: number): number {
  const ttl = word(bytes, at) * 0x10000 + word(bytes, at + 2);
  return ttl > MAX_TTL ? 0 : ttl;
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

function setWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}
