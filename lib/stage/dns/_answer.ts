/**
 * An answer as the bytes that it came in, so that records of unknown types are kept.
 *
 *     upstream's bytes ──► Answer.of() ──► cache ──► Answer.write() ──► bytes for the client
 *     encoded records ───► Answer.make() ────────────────┘
 *
 * What does not fit a client's limit is left out from the end, by whole RRsets: additional records first, then
 * authority records that the answer does not need. TC is for answers that do not fit even so (RFC 2181 section 9).
 */

import {
  AUTHENTIC,
  AUTHORITATIVE,
  CHECKING_DISABLED,
  CLASS_IN,
  COUNTS,
  FLAGS,
  HEADER,
  keyOf,
  OPCODE,
  OPT_LENGTH,
  QUESTION,
  type Question,
  RCODE,
  Rcode,
  RECORD,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  RESPONSE,
  setWord,
  timeAt,
  TRUNCATED,
  Type,
  word,
  writeOpt,
} from "./_message.ts";
import { expandName, lowerCase, MAX_NAME, skipName } from "./name.ts";

// Specification
/** RFC 1035 section 4.1.4: a pointer to the question's name. */
const TO_QUESTION = 0xc0_0c;
/** RFC 1035 section 3.3.13: serial, refresh, retry, expire and minimum, behind two names. */
const SOA_TIMES = 20;
/** RFC 9460 section 2.2: a priority stands before the target of SVCB and HTTPS. */
const SVCB_TARGET = 2;

// Implementation
/** More than any honest answer has; they take 60 us to look at. */
const MAX_RECORDS = 2048;
/** The most names that an answer may lead to. */
const MAX_ALIASES = 64;
/** The length that always fits: for a client without EDNS, or the least that one can ask for with EDNS. */
const ALWAYS_FITS = 512 - OPT_LENGTH;

const scratch = new Uint8Array(MAX_NAME + 1);

/** The part of an answer that a client gets: up to `end` of the message, and an SOA behind that. */
export interface Part {
  end: number;
  answers: number;
  authorities: number;
  additionals: number;
  soa: Uint8Array | undefined;
}

/** Filled for each answer. */
const part: Part = { end: 0, answers: 0, authorities: 0, additionals: 0, soa: undefined };

/** The records of an answer. EDNS is left out, since it speaks of one hop (RFC 6891 section 6.1.1). */
export class Answer {
  /** The whole message. */
  readonly bytes: Uint8Array;
  /** Lifetime in a cache (seconds); 0: for this client alone. */
  readonly ttl: number;
  /** Tells whether it says that there is no such name or no such record (RFC 2308). */
  readonly isNegative: boolean;
  /** Names that its records lead to: targets of CNAME, DNAME, HTTPS and SVCB. */
  readonly aliases: readonly Uint8Array[];
  /** Offsets of TTLs. */
  readonly #times: Uint16Array;
  #layout: Layout | undefined;

  private constructor(
    bytes: Uint8Array,
    times: number[],
    ttl: number,
    isNegative: boolean,
    aliases: readonly Uint8Array[],
  ) {
    this.bytes = bytes;
    this.#times = Uint16Array.from(times);
    this.ttl = ttl;
    this.isNegative = isNegative;
    this.aliases = aliases;
  }

  /** The answer's code. */
  get rcode(): number {
    return word(this.bytes, FLAGS) & RCODE;
  }

  /** Bytes that it takes beside those of its message, with those of a layout that it may get. */
  get overhead(): number {
    let bytes = this.#times.length * (this.bytes.length > ALWAYS_FITS ? 6 : 2);
    for (const name of this.aliases) bytes += name.length;
    return bytes;
  }

  /** Looks through a message; `undefined` when it is malformed, or the answer to another question. */
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
    const answers = word(message, COUNTS + 2);
    const authorities = word(message, COUNTS + 4);
    const total = answers + authorities + word(message, COUNTS + 6);
    if (total > MAX_RECORDS) return undefined;

    const times: number[] = [];
    const aliases: Uint8Array[] = [];
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
        const target = targetAt(type);
        if (target >= 0) {
          const length = expandName(message, at + RECORD + target, next, scratch);
          if (length === 0 || aliases.length === MAX_ALIASES) return undefined;
          // RFC 9460 section 2.5: the root stands for the record's own name.
          if (length > 1) aliases.push(scratch.slice(0, length));
        }
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
    return new Answer(bytes, times, ttl, isNegative, aliases);
  }

  /** An answer of our own: records as {@linkcode encodeRecord} has them, whose first name is the question's. */
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
    return new Answer(bytes.subarray(0, at), [], 0, soa !== undefined, []);
  }

  /**
   * The longest part that fits a client's room (bytes); `undefined` when that is less than it needs, and TC is to be
   * said. It is good until the next call.
   */
  choose(asked: Question, room: number): Part | undefined {
    const { bytes } = this;
    const space = room - (asked.hasEdns ? OPT_LENGTH : 0);
    const answers = part.answers = word(bytes, COUNTS + 2);
    const authorities = part.authorities = word(bytes, COUNTS + 4);
    part.additionals = word(bytes, COUNTS + 6);
    part.end = bytes.length;
    part.soa = undefined;
    if (bytes.length <= space) return part;
    const layout = this.#layout ??= new Layout(bytes);
    const needed = this.#needed(layout, asked.dnssecOk);
    for (let i = layout.counts.length - 1; i >= 0 && layout.counts[i]! >= needed; i--) {
      if (layout.ends[i]! > space) continue;
      const count = layout.counts[i]!;
      part.end = layout.ends[i]!;
      part.additionals = Math.max(0, count - answers - authorities);
      part.authorities = Math.min(authorities, Math.max(0, count - answers));
      return part;
    }
    // An SOA behind other authority records goes alone.
    const { soa, answersEnd } = layout;
    if (!this.isNegative || asked.dnssecOk || soa === undefined || answersEnd + soa.length > space) {
      return undefined;
    }
    part.end = answersEnd;
    part.authorities = 1;
    part.additionals = 0;
    part.soa = soa;
    return part;
  }

  /**
   * Writes the part that {@linkcode Answer.choose} gave for a client, and returns its length: with the client's id, case
   * and EDNS, with TTLs that are `age` seconds further, or all `ttl` unless that is negative.
   */
  write(asked: Question, part: Part, bytes: Uint8Array, start: number, age: number, ttl: number): number {
    const stored = this.bytes;
    const { end, soa } = part;
    for (let i = HEADER + asked.rawLength; i < end; i++) bytes[start + i] = stored[i]!;
    for (let i = 0; i < asked.rawLength; i++) bytes[start + HEADER + i] = asked.raw[i]!;
    const said = word(stored, FLAGS);
    let flags = said & (RESPONSE | AUTHORITATIVE | TRUNCATED | RCODE) | RECURSION_AVAILABLE;
    flags |= asked.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    // RFC 6840 section 5.8: AD is for clients that know it.
    if ((asked.flags & AUTHENTIC) !== 0 || asked.dnssecOk) flags |= said & AUTHENTIC;
    setWord(bytes, start, asked.id);
    setWord(bytes, start + FLAGS, flags);
    setWord(bytes, start + COUNTS, 1);
    setWord(bytes, start + COUNTS + 2, part.answers);
    setWord(bytes, start + COUNTS + 4, part.authorities);
    setWord(bytes, start + COUNTS + 6, part.additionals + (asked.hasEdns ? 1 : 0));
    for (let i = 0; i < this.#times.length && this.#times[i]! < end; i++) {
      const at = this.#times[i]!;
      writeTime(bytes, start + at, timeAt(stored, at), age, ttl);
    }
    let length = end;
    if (soa !== undefined) {
      bytes.set(soa, start + length);
      length += soa.length;
      const at = skipName(soa, 0, soa.length) + 4;
      writeTime(bytes, start + end + at, timeAt(soa, at), age, ttl);
    }
    return asked.hasEdns ? writeOpt(bytes, start + length, asked.dnssecOk, 0) - start : length;
  }

  /** The number of records that a client needs: the answers; the SOA of a negative answer; with DNSSEC, the proofs. */
  #needed({ soaCount, hasProofs }: Layout, dnssecOk: boolean): number {
    const answers = word(this.bytes, COUNTS + 2);
    const all = answers + word(this.bytes, COUNTS + 4);
    // RFC 4035 section 3.1.3: proofs and their signatures are left out of no answer.
    if (dnssecOk && (this.isNegative || hasProofs)) return all;
    if (!this.isNegative) return answers;
    return soaCount > 0 ? soaCount : all;
  }
}

/** The places where a long answer may end: behind each record that completes all RRsets before it. */
class Layout {
  /** The bytes and the records before each such place. */
  readonly ends: Uint16Array;
  readonly counts: Uint16Array;
  readonly answersEnd: number;
  /** The records up to the SOA of the authority section; 0 without one. */
  readonly soaCount: number = 0;
  /** The SOA with names of its own, unless it stands first in the authority section. */
  readonly soa: Uint8Array | undefined;
  /** Tells whether the authority section proves something (RFC 4034, RFC 5155). */
  readonly hasProofs: boolean = false;

  constructor(bytes: Uint8Array) {
    const answers = word(bytes, COUNTS + 2);
    const authorities = word(bytes, COUNTS + 4);
    const total = answers + authorities + word(bytes, COUNTS + 6);
    let at = HEADER;
    at = skipName(bytes, at, bytes.length) + QUESTION;
    this.answersEnd = at;
    const ends: number[] = [];
    const sets: string[] = [];
    /** The last record of each RRset. */
    const last = new Map<string, number>();
    for (let i = 0; i < total; i++) {
      const owner = at;
      at = skipName(bytes, at, bytes.length);
      let type = word(bytes, at);
      const next = at + RECORD + word(bytes, at + 8);
      if (i >= answers && i < answers + authorities) {
        this.hasProofs ||= type === Type.Nsec || type === Type.Nsec3;
        if (type === Type.Soa && this.soaCount === 0) {
          this.soaCount = i + 1;
          if (i > answers) this.soa = expandSoa(bytes, owner, at, next);
        }
      }
      // A signature goes with the records that it signs (RFC 4034 section 3.1.1).
      if (type === Type.Rrsig && next - at >= RECORD + 2) type = word(bytes, at + RECORD);
      const section = i < answers ? 0 : i < answers + authorities ? 1 : 2;
      // The answers are one: they are needed together.
      const length = section === 0 ? 0 : expandName(bytes, owner, at, scratch);
      const set = section === 0 ? "" : `${section} ${type} ${keyOf(scratch, length)}`;
      sets.push(set);
      last.set(set, i);
      at = next;
      ends.push(at);
      if (i === answers - 1) this.answersEnd = at;
    }
    const places: number[] = answers === 0 ? [0] : [];
    let open = -1;
    for (const [i, set] of sets.entries()) {
      open = Math.max(open, last.get(set)!);
      if (open === i || i === this.soaCount - 1) places.push(i + 1);
    }
    this.counts = Uint16Array.from(places);
    this.ends = Uint16Array.from(places, (count) => count === 0 ? this.answersEnd : ends[count - 1]!);
  }
}

/** An SOA whose names are expanded; `undefined` when they are malformed. */
function expandSoa(bytes: Uint8Array, owner: number, fields: number, next: number): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  const name = (start: number, end: number): boolean => {
    const length = expandName(bytes, start, end, scratch);
    parts.push(scratch.slice(0, length));
    return length > 0;
  };
  const first = fields + RECORD;
  const second = skipName(bytes, first, next);
  const times = second < 0 ? -1 : skipName(bytes, second, next);
  if (times < 0 || times + SOA_TIMES !== next) return undefined;
  if (!name(owner, fields) || !name(first, second) || !name(second, times)) return undefined;
  const [ownName, server, mailbox] = parts as [Uint8Array, Uint8Array, Uint8Array];
  const data = Uint8Array.of(...server, ...mailbox, ...bytes.subarray(times, next));
  return encodeRecord(Type.Soa, timeAt(bytes, fields + 4), data, ownName);
}

/** The offset of a target in the data of a record that leads to another name; -1 for other types. */
function targetAt(type: number): number {
  if (type === Type.Cname || type === Type.Dname) return 0;
  return type === Type.Https || type === Type.Svcb ? SVCB_TARGET : -1;
}

function writeTime(bytes: Uint8Array, at: number, stored: number, age: number, same: number): void {
  const ttl = same < 0 ? Math.max(0, stored - age) : same;
  setWord(bytes, at, ttl >>> 16);
  setWord(bytes, at + 2, ttl & 0xffff);
}

/** A record of a message of our own; its name is the question's unless one is given, in the bytes of messages. */
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
