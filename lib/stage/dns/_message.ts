/**
 * Header, question and EDNS option of a message, read and written in place.
 *
 *     client's bytes ──► Question.read() ──► source ──► Answer ──► Answer.write() ──► bytes for the client
 */

import { lowerCase, nameLength, skipName } from "./name.ts";

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
export const FLAGS = 2;
export const COUNTS = 4;
export const RESPONSE = 0x8000;
export const OPCODE = 0x7800;
export const AUTHORITATIVE = 0x0400;
export const TRUNCATED = 0x0200;
export const RECURSION_DESIRED = 0x0100;
export const RECURSION_AVAILABLE = 0x0080;
/** RFC 4035 section 3.2.3. */
export const AUTHENTIC = 0x0020;
export const CHECKING_DISABLED = 0x0010;
export const RCODE = 0x000f;
/** Length of type, class, TTL and data length after a record's name (bytes). */
export const RECORD = 10;
/** Length of type and class after a question's name (bytes). */
export const QUESTION = 4;
export const CLASS_IN = 1;
/** Message size that every client accepts over UDP (bytes; RFC 1035 section 4.2.1). */
const PLAIN_LIMIT = 512;
/** Length of an OPT record without options (bytes; RFC 6891 section 6.1.2). */
export const OPT_LENGTH = 11;
const DNSSEC_OK = 0x8000;
const MAX_QUESTION = 255 + QUESTION;
/** RFC 2181 section 8: a TTL with its highest bit set is 0. */
const MAX_TTL = 0x7fffffff;

// Implementation
/** UDP payload size in our OPT, which avoids fragmentation on every path (bytes; DNS flag day 2020). */
export const EDNS_SIZE = 1232;
/** Maximum records after the question of a query: OPT, TSIG and a few rare ones. */
const MAX_QUERY_RECORDS = 8;

/** Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9). */
export const Rcode = {
  NoError: 0,
  FormErr: 1,
  ServFail: 2,
  NxDomain: 3,
  NotImp: 4,
  Refused: 5,
  BadVers: 16,
} as const;

/** Record types that the resolver handles (IANA "Resource Record (RR) TYPEs"). */
export const Type = {
  A: 1,
  Ns: 2,
  Cname: 5,
  Soa: 6,
  Ptr: 12,
  Aaaa: 28,
  Dname: 39,
  Opt: 41,
  Ds: 43,
  Rrsig: 46,
  Nsec: 47,
  Nsec3: 50,
  Svcb: 64,
  Https: 65,
  Ixfr: 251,
  Axfr: 252,
  Any: 255,
} as const;

/** In place of a response code: the message gets no answer. */
export const NO_ANSWER = -1;

/** Parsed query: question, header fields and EDNS. Created once and filled for each query. */
export class Question {
  /** Name, type and class in the client's letter case. */
  readonly raw: Uint8Array = new Uint8Array(MAX_QUESTION);
  /** Length of {@linkcode Question.raw} (bytes); 0 if the query has no complete question. */
  rawLength = 0;
  /** Name in lower case. */
  readonly name: Uint8Array = new Uint8Array(MAX_QUESTION);
  /** Length of the name including the root (bytes). */
  nameLength = 0;
  type = 0;
  id = 0;
  flags = 0;
  /** True if the client uses EDNS (RFC 6891). */
  hasEdns = false;
  /** Maximum length of an answer that the client accepts (bytes). */
  limit = PLAIN_LIMIT;
  /** True if the client wants DNSSEC records (RFC 3225). */
  dnssecOk = false;

  /** Reads a query; returns `Rcode.NoError`, the code to answer with at once, or {@linkcode NO_ANSWER}. */
  read(bytes: Uint8Array, start: number, length: number): number {
    this.rawLength = 0;
    this.hasEdns = false;
    this.dnssecOk = false;
    this.limit = PLAIN_LIMIT;
    if (length < HEADER) return NO_ANSWER;
    this.id = word(bytes, start);
    this.flags = word(bytes, start + FLAGS);
    if ((this.flags & RESPONSE) !== 0) return NO_ANSWER;
    if ((this.flags & OPCODE) !== 0) return Rcode.NotImp;
    const end = start + length;
    const nameStart = start + HEADER;
    // RFC 9619: a query has one question. Answer and authority sections of a standard query are empty.
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

  /** Copies a question, but with this name in lower case. */
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

  /** Name in lower case and wire format, as a key of a `Map`. */
  get nameKey(): string {
    return keyOf(this.name, this.nameLength);
  }

  /** Key of the answer: name, type, CD and DO. */
  get key(): string {
    const checking = (this.flags & CHECKING_DISABLED) === 0 ? 0 : 2;
    return this.nameKey + String.fromCharCode(this.type, checking | (this.dnssecOk ? 1 : 0));
  }

  /** True if the client wants recursion (RFC 1035 section 4.1.1). */
  get recursionDesired(): boolean {
    return (this.flags & RECURSION_DESIRED) !== 0;
  }

  /** Encodes the query for an upstream, with id 0 (RFC 8484 section 4.1). */
  toUpstream(withEdns: boolean): Uint8Array {
    const message = new Uint8Array(HEADER + this.rawLength + (withEdns ? OPT_LENGTH : 0));
    setWord(message, FLAGS, RECURSION_DESIRED | this.flags & CHECKING_DISABLED | AUTHENTIC);
    setWord(message, COUNTS, 1);
    setWord(message, COUNTS + 6, withEdns ? 1 : 0);
    message.set(this.name.subarray(0, this.nameLength), HEADER);
    setWord(message, HEADER + this.nameLength, this.type);
    setWord(message, HEADER + this.nameLength + 2, CLASS_IN);
    if (withEdns) writeOpt(message, HEADER + this.rawLength, this.dnssecOk, 0);
    return message;
  }

  /**
   * Writes an answer without records and returns its length, at most 286 bytes: for errors, and with TC for answers that
   * do not fit.
   */
  writeEmpty(rcode: number, bytes: Uint8Array, start: number, isTruncated = false): number {
    bytes.fill(0, start, start + HEADER);
    setWord(bytes, start, this.id);
    const kept = this.flags & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    const flags = RESPONSE | RECURSION_AVAILABLE | kept | (isTruncated ? TRUNCATED : 0);
    setWord(bytes, start + FLAGS, flags | rcode & RCODE);
    setWord(bytes, start + COUNTS, this.rawLength === 0 ? 0 : 1);
    for (let i = 0; i < this.rawLength; i++) bytes[start + HEADER + i] = this.raw[i]!;
    let at = start + HEADER + this.rawLength;
    if (this.hasEdns) {
      setWord(bytes, start + COUNTS + 6, 1);
      at = writeOpt(bytes, at, this.dnssecOk, rcode >> 4);
    }
    return at - start;
  }

  /** Reads EDNS after the question. */
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
        // RFC 6891 section 6.1.1: at most one OPT, with the root as its name.
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

/** Reports whether an upstream's response rejects EDNS or our version of it (RFC 6891 sections 6.1.3 and 7). */
export function refusesEdns(message: Uint8Array): boolean {
  const end = message.length;
  if (end < HEADER || (word(message, FLAGS) & RESPONSE) === 0) return false;
  const rcode = word(message, FLAGS) & RCODE;
  if (rcode === Rcode.FormErr || rcode === Rcode.NotImp) return true;
  let at = HEADER;
  if (word(message, COUNTS) === 1) at = skipName(message, at, end) + QUESTION;
  const records = word(message, COUNTS + 2) + word(message, COUNTS + 4) + word(message, COUNTS + 6);
  // A rejection has no records but OPT.
  for (let i = 0; i < Math.min(records, MAX_QUERY_RECORDS) && at >= HEADER; i++) {
    at = skipName(message, at, end);
    if (at < 0 || at + RECORD > end) return false;
    if (word(message, at) === Type.Opt) return message[at + 4] === Rcode.BadVers >> 4 && rcode === 0;
    at += RECORD + word(message, at + 8);
  }
  return false;
}

/** Returns a key of a `Map` for a name in lower case and wire format. */
export function keyOf(name: Uint8Array, length: number = name.length): string {
  // `apply` takes an array three times as fast as a `Uint8Array`.
  letters.length = length;
  for (let i = 0; i < length; i++) letters[i] = name[i]!;
  return String.fromCharCode.apply(null, letters);
}
const letters: number[] = [];

/** Writes an OPT record (RFC 6891 section 6.1.2); returns its end. */
export function writeOpt(bytes: Uint8Array, start: number, dnssecOk: boolean, extendedRcode: number): number {
  bytes[start] = 0;
  setWord(bytes, start + 1, Type.Opt);
  setWord(bytes, start + 3, EDNS_SIZE);
  setWord(bytes, start + 5, extendedRcode << 8);
  setWord(bytes, start + 7, dnssecOk ? DNSSEC_OK : 0);
  setWord(bytes, start + 9, 0);
  return start + OPT_LENGTH;
}

/** Reads a TTL (seconds). */
export function timeAt(bytes: Uint8Array, at: number): number {
  const ttl = word(bytes, at) * 0x10000 + word(bytes, at + 2);
  return ttl > MAX_TTL ? 0 : ttl;
}

/** Reads a 16-bit word. */
export function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** Writes a 16-bit word. */
export function setWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}
