/**
 * Answer kept as the bytes of its message, so that records of unknown types survive.
 *
 *     upstream's bytes ──► Answer.of() ──► cache ──► Answer.write() ──► bytes for the client
 *     encoded records ───► Answer.make() ────────────────┘
 *
 * To fit a client's limit, whole RRsets are removed from the end: additional records, then authority records that the
 * answer does not need. An answer that is still too long gets TC (RFC 2181 section 9).
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
/** Compression pointer to the question's name (RFC 1035 section 4.1.4). */
const TO_QUESTION = 0xc0_0c;
/** Length of serial, refresh, retry, expire and minimum after the two names (RFC 1035 section 3.3.13). */
const SOA_TIMES = 20;
/** Length of the priority before the target of SVCB and HTTPS (RFC 9460 section 2.2). */
const SVCB_TARGET = 2;

// Implementation
/** Maximum records of an answer, more than a legitimate one has; parsing them takes 60 us. */
const MAX_RECORDS = 2048;
/** Maximum names that an answer may lead to. */
const MAX_ALIASES = 64;
/** Length that every client accepts, with EDNS or without. */
const ALWAYS_FITS = 512 - OPT_LENGTH;

const scratch = new Uint8Array(MAX_NAME + 1);

/** Part of an answer that a client gets: the message up to `end`, followed by an SOA. */
export interface Part {
  end: number;
  answers: number;
  authorities: number;
  additionals: number;
  soa: Uint8Array | undefined;
}

/** Reused for each answer. */
const part: Part = { end: 0, answers: 0, authorities: 0, additionals: 0, soa: undefined };

/** Records of an answer, without OPT, which is hop-by-hop (RFC 6891 section 6.1.1). */
export class Answer {
  /** Whole message. */
  readonly bytes: Uint8Array;
  /** Lifetime in a cache (seconds); 0: not to be cached. */
  readonly ttl: number;
  /** True for NXDOMAIN and NODATA (RFC 2308). */
  readonly isNegative: boolean;
  /** Names that its records lead to: targets of CNAME, DNAME, HTTPS and SVCB. */
  readonly aliases: readonly Uint8Array[];
  /** Offsets of the TTLs. */
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

  get rcode(): number {
    return word(this.bytes, FLAGS) & RCODE;
  }

  /** Memory besides the message, including that of a layout (bytes). */
  get overhead(): number {
    let bytes = this.#times.length * (this.bytes.length > ALWAYS_FITS ? 6 : 2);
    for (const name of this.aliases) bytes += name.length;
    return bytes;
  }

  /** Parses a message; returns `undefined` if it is malformed or does not match the question. */
  static of(message: Uint8Array, question: Question): Answer | undefined {
    if (!isResponseTo(message, question)) return undefined;
    const end = message.length;
    const flags = word(message, FLAGS);
    const answers = word(message, COUNTS + 2);
    const authorities = word(message, COUNTS + 4);
    const total = answers + authorities + word(message, COUNTS + 6);
    if (total > MAX_RECORDS) return undefined;

    const times: number[] = [];
    const aliases: Uint8Array[] = [];
    let at = HEADER + question.rawLength;
    // Bytes after the last record are removed: our OPT goes there.
    let kept = at;
    let keptCount = total;
    let minTtl = Infinity;
    let negative = -1;
    let isFound = false;
    for (let i = 0; i < total; i++) {
      at = skipName(message, at, end);
      if (at < 0 || at + RECORD > end) return undefined;
      const type = word(message, at);
      const next = at + RECORD + word(message, at + 8);
      if (next > end) return undefined;
      if (type === Type.Opt) {
        // Records after it are additional and dispensable; few servers send any.
        if (i < answers + authorities) return undefined;
        // Extended codes (BADVERS, BADCOOKIE) concern only our exchange with the upstream.
        if (message[at + 4] !== 0) return undefined;
        keptCount = i;
        break;
      }
      const ttl = timeAt(message, at + 4);
      times.push(at + 4);
      if (i < answers) {
        minTtl = Math.min(minTtl, ttl);
        isFound ||= type === question.type || question.type === Type.Any;
        const target = targetAt(type);
        if (target >= 0) {
          const length = expandName(message, at + RECORD + target, next, scratch);
          if (length === 0 || aliases.length === MAX_ALIASES) return undefined;
          // RFC 9460 section 2.5: the root stands for the record's own name.
          if (length > 1) aliases.push(scratch.slice(0, length));
        }
      } else if (i < answers + authorities && type === Type.Soa && next - at >= RECORD + 22) {
        // RFC 2308 section 5: the lesser of the SOA's TTL and its minimum field.
        negative = Math.min(ttl, timeAt(message, next - 4));
      }
      at = kept = next;
    }
    const bytes = message.slice(0, kept);
    // The answer is not authoritative any more.
    setWord(bytes, FLAGS, flags & ~AUTHORITATIVE);
    setWord(bytes, COUNTS + 6, keptCount - answers - authorities);
    const rcode = flags & RCODE;
    const isNegative = rcode === Rcode.NxDomain || rcode === Rcode.NoError && !isFound;
    let ttl = isNegative ? Math.min(minTtl, negative) : minTtl;
    // Negative answers without an SOA are not cached (RFC 2308 section 5).
    if (ttl < 0 || ttl === Infinity || (flags & TRUNCATED) !== 0) ttl = 0;
    if (rcode !== Rcode.NoError && rcode !== Rcode.NxDomain) ttl = 0;
    return new Answer(bytes, times, ttl, isNegative, aliases);
  }

  /** Creates an authoritative answer from records of {@linkcode encodeRecord}; the first has the question's name. */
  static make(question: Question, rcode: number, answers: readonly Uint8Array[], soa?: Uint8Array): Answer {
    const parts = soa === undefined ? answers : [...answers, soa];
    const length = parts.reduce((sum, part) => sum + part.length, HEADER + question.rawLength);
    const bytes = new Uint8Array(Math.min(length, 0xffff));
    setWord(bytes, FLAGS, RESPONSE | AUTHORITATIVE | rcode);
    setWord(bytes, COUNTS, 1);
    bytes.set(question.name.subarray(0, question.nameLength), HEADER);
    setWord(bytes, HEADER + question.nameLength, question.type);
    setWord(bytes, HEADER + question.nameLength + 2, CLASS_IN);
    let at = HEADER + question.rawLength;
    for (const part of parts) {
      if (at + part.length > bytes.length) {
        // The answer is longer than a DNS message may be.
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
   * Returns the longest part that fits a client's room (bytes); `undefined` if the needed records do not fit and the client
   * gets TC. Valid until the next call.
   */
  choose(question: Question, room: number): Part | undefined {
    const { bytes } = this;
    const space = room - (question.hasEdns ? OPT_LENGTH : 0);
    const answers = part.answers = word(bytes, COUNTS + 2);
    const authorities = part.authorities = word(bytes, COUNTS + 4);
    part.additionals = word(bytes, COUNTS + 6);
    part.end = bytes.length;
    part.soa = undefined;
    if (bytes.length <= space) return part;
    const layout = this.#layout ??= new Layout(bytes);
    const needed = this.#needed(layout, question.dnssecOk);
    for (let i = layout.counts.length - 1; i >= 0 && layout.counts[i]! >= needed; i--) {
      if (layout.ends[i]! > space) continue;
      const count = layout.counts[i]!;
      part.end = layout.ends[i]!;
      part.additionals = Math.max(0, count - answers - authorities);
      part.authorities = Math.min(authorities, Math.max(0, count - answers));
      return part;
    }
    // An SOA after other authority records is sent alone.
    const { soa, answersEnd } = layout;
    if (!this.isNegative || question.dnssecOk || soa === undefined || answersEnd + soa.length > space) {
      return undefined;
    }
    part.end = answersEnd;
    part.authorities = 1;
    part.additionals = 0;
    part.soa = soa;
    return part;
  }

  /**
   * Writes the part from {@linkcode Answer.choose} with the client's id, case and EDNS, and returns its length. If `ttl`
   * is negative, TTLs are reduced by `age` seconds; otherwise all are `ttl`.
   */
  write(question: Question, part: Part, bytes: Uint8Array, start: number, age: number, ttl: number): number {
    const stored = this.bytes;
    const { end, soa } = part;
    for (let i = HEADER + question.rawLength; i < end; i++) bytes[start + i] = stored[i]!;
    for (let i = 0; i < question.rawLength; i++) bytes[start + HEADER + i] = question.raw[i]!;
    const storedFlags = word(stored, FLAGS);
    let flags = storedFlags & (RESPONSE | AUTHORITATIVE | TRUNCATED | RCODE) | RECURSION_AVAILABLE;
    flags |= question.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    // RFC 6840 section 5.8: only clients that set AD or DO get AD.
    if ((question.flags & AUTHENTIC) !== 0 || question.dnssecOk) flags |= storedFlags & AUTHENTIC;
    setWord(bytes, start, question.id);
    setWord(bytes, start + FLAGS, flags);
    setWord(bytes, start + COUNTS, 1);
    setWord(bytes, start + COUNTS + 2, part.answers);
    setWord(bytes, start + COUNTS + 4, part.authorities);
    setWord(bytes, start + COUNTS + 6, part.additionals + (question.hasEdns ? 1 : 0));
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
    return question.hasEdns ? writeOpt(bytes, start + length, question.dnssecOk, 0) - start : length;
  }

  /** Returns how many records a client needs: the answers; the SOA of a negative answer; with DNSSEC, the proofs. */
  #needed({ soaCount, hasProofs }: Layout, dnssecOk: boolean): number {
    const answers = word(this.bytes, COUNTS + 2);
    const all = answers + word(this.bytes, COUNTS + 4);
    // RFC 4035 section 3.1.3: proofs and their signatures are never removed.
    if (dnssecOk && (this.isNegative || hasProofs)) return all;
    if (!this.isNegative) return answers;
    return soaCount > 0 ? soaCount : all;
  }
}

/** Places where a long answer may end: those that split no RRset. */
class Layout {
  /** Bytes before each place. */
  readonly ends: Uint16Array;
  /** Records before each place. */
  readonly counts: Uint16Array;
  readonly answersEnd: number;
  /** Number of records up to the SOA of the authority section; 0 without one. */
  readonly soaCount: number = 0;
  /** SOA with expanded names, unless it stands first in the authority section. */
  readonly soa: Uint8Array | undefined;
  /** True if the authority section has NSEC or NSEC3 proofs (RFC 4034, RFC 5155). */
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
    /** Index of the last record of each RRset. */
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
      // All answer records are one set: the client needs them together.
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

/** Reports whether a message is a response to the question; its records may be malformed. */
function isResponseTo(message: Uint8Array, question: Question): boolean {
  const { length } = message;
  if (length < HEADER + question.rawLength || length > 0xffff) return false;
  if ((word(message, FLAGS) & (RESPONSE | OPCODE)) !== RESPONSE || word(message, COUNTS) !== 1) return false;
  for (let i = 0; i < question.nameLength; i++) {
    if (lowerCase(message[HEADER + i]!) !== question.name[i]) return false;
  }
  const typeAt = HEADER + question.nameLength;
  return word(message, typeAt) === question.type && word(message, typeAt + 2) === CLASS_IN;
}

/** Returns an SOA with expanded names; `undefined` if they are malformed. */
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

/** Returns the offset of the target in the data of a record that leads to another name; -1 for other types. */
function targetAt(type: number): number {
  if (type === Type.Cname || type === Type.Dname) return 0;
  return type === Type.Https || type === Type.Svcb ? SVCB_TARGET : -1;
}

function writeTime(bytes: Uint8Array, at: number, stored: number, age: number, same: number): void {
  const ttl = same < 0 ? Math.max(0, stored - age) : same;
  setWord(bytes, at, ttl >>> 16);
  setWord(bytes, at + 2, ttl & 0xffff);
}

/** Encodes a record. Its name is a pointer to the question's unless one is given in wire format. */
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
