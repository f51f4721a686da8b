/**
 * Local records and authoritative zones. A record is a line `NAME [TTL] TYPE DATA`, as in a zone file with absolute names
 * (RFC 1035 section 5.1), or an object of `dns-packet`, which covers all types.
 */

import { checkInteger, checkOption, gotValue } from "../../core/options.ts";
import { parseAddress } from "../../wire/address.ts";
import { decodeMessage, type DnsRecord, encodeAnswer } from "./codec.ts";
import { Answer, encodeRecord } from "./_answer.ts";
import { keyOf, type Question, Rcode, Type } from "./_message.ts";
import { formatName, isWithin, parseName, reverseName } from "./name.ts";

// Specification: RFC 1035 section 3.2.1: offsets in a record whose name is the root
const RECORD_TYPE = 1;
const RECORD_TTL = 5;
const RECORD_DATA = 11;
const MAX_TTL = 0x7fffffff;

// Implementation
/** TTL of records without one (seconds). */
const TTL = 60;
/** Maximum length of a chain of aliases. */
const MAX_ALIASES = 8;

/** Local answer to a question: response code and records. */
export interface FoundRecords {
  readonly rcode: number;
  /** Records in wire format. */
  readonly records: readonly Uint8Array[];
  /** SOA of a negative answer. */
  readonly soa: Uint8Array | undefined;
  /** Target of the last alias, if other sources have to resolve it. */
  readonly target: Uint8Array | undefined;
}

/** Records of a name by type. */
type Node = Map<number, { ttl: number; data: Uint8Array }[]>;

/** Local records by name, and authoritative zones. */
export class Records {
  readonly #nodes = new Map<string, Node>();
  readonly #zones: { name: Uint8Array; soa: Uint8Array }[];
  #hasWildcards = false;

  /**
   * @throws {SyntaxError} when a line or a name does not parse; {@linkcode TypeError} for data that does not fit its type,
   * or a CNAME with other records; {@linkcode RangeError} for a TTL out of range.
   */
  constructor(records: string | Iterable<string | DnsRecord>, zones: readonly string[]) {
    this.#zones = zones.map((zone) => {
      const name = parseName(zone);
      return { name, soa: encodeSoa(TTL, name) };
    }).sort((a, b) => b.name.length - a.name.length);
    const addresses: [name: string, address: string, ttl: number][] = [];
    if (!(Symbol.iterator in Object(records))) throw recordsError(records);
    for (const given of typeof records === "string" ? [records] : records) {
      const record = typeof given === "string" ? parseLine(given) : given;
      if (typeof record?.name !== "string" || typeof record.type !== "string") throw recordsError(record);
      this.#add(record);
      const isAddress = /^(A|AAAA)$/i.test(record.type);
      if (isAddress && !record.name.startsWith("*.")) {
        addresses.push([formatName(parseName(record.name)), String(record.data), record.ttl ?? TTL]);
      }
    }
    for (const [name, address, ttl] of addresses) {
      const reverse = reverseName(parseAddress(address).bytes);
      if (name.includes("\\") || this.#nodes.get(keyOf(parseName(reverse)))?.has(Type.Ptr)) continue;
      this.#add({ name: reverse, type: "PTR", data: name, ttl });
    }
    for (const [key, node] of this.#nodes) {
      if (node.has(Type.Cname) && (node.size > 1 || node.get(Type.Cname)!.length > 1)) {
        const name = formatName(Uint8Array.from(key, (letter) => letter.charCodeAt(0)));
        throw new TypeError(`Cannot add a CNAME record of "${name}": the name has other records`);
      }
    }
  }

  /** Returns the local answer to a question; `undefined` if other sources have to answer. */
  find(question: Question): FoundRecords | undefined {
    let name = question.name.subarray(0, question.nameLength);
    let owner: Uint8Array | undefined;
    const records: Uint8Array[] = [];
    for (let aliases = 0;; aliases++) {
      const zone = this.#zones.find((zone) => isWithin(name, name.length, zone.name));
      const node = this.#node(name);
      if (node === undefined && zone === undefined) {
        if (owner === undefined) return undefined;
        return { rcode: Rcode.NoError, records, soa: undefined, target: name };
      }
      const soa = zone?.soa ?? encodeSoa(TTL, name);
      if (node === undefined) return { rcode: Rcode.NxDomain, records, soa, target: undefined };
      const found = question.type === Type.Any
        ? Array.from(node.keys())
        : node.has(question.type)
        ? [question.type]
        : [];
      for (const type of found) {
        for (const { ttl, data } of node.get(type)!) records.push(encodeRecord(type, ttl, data, owner));
      }
      if (found.length > 0) return { rcode: Rcode.NoError, records, soa: undefined, target: undefined };
      const alias = node.get(Type.Cname)?.[0];
      if (alias === undefined) return { rcode: Rcode.NoError, records, soa, target: undefined };
      // The chain of aliases is too long, or a loop.
      if (aliases === MAX_ALIASES) {
        return { rcode: Rcode.ServFail, records: [], soa: undefined, target: undefined };
      }
      records.push(encodeRecord(Type.Cname, alias.ttl, alias.data, owner));
      name = owner = parseName(formatName(alias.data));
    }
  }

  /** Returns the records of a name, or of the wildcard that matches it (RFC 4592 section 3.3.1). */
  #node(name: Uint8Array): Node | undefined {
    const own = this.#nodes.get(keyOf(name));
    if (own !== undefined || !this.#hasWildcards) return own;
    for (let at = name[0]! + 1; at < name.length; at += name[at]! + 1) {
      const encloser = keyOf(name.subarray(at));
      // Only the wildcard below the closest existing name matches.
      const wildcard = this.#nodes.get(`\x01*${encloser}`);
      if (wildcard !== undefined) return wildcard;
      if (this.#nodes.has(encloser)) return undefined;
    }
    return undefined;
  }

  #add(record: DnsRecord): void {
    const name = parseName(record.name);
    const { ttl = TTL } = record;
    checkInteger(`add a record of "${record.name}"`, "ttl", ttl, 0, MAX_TTL);
    const attempt = `add ${record.type} record of "${record.name}"`;
    const isName = /^(CNAME|DNAME|NS|PTR)$/i.test(record.type);
    const isAddress = /^(A|AAAA)$/i.test(record.type);
    if (isName || isAddress) checkOption(attempt, "data", record.data, "text");
    const text = record.data as string;
    if (isAddress) {
      const { family } = parseAddress(text);
      if (family !== (record.type.length === 1 ? 4 : 6)) {
        throw new TypeError(`Cannot ${attempt}: ${text} is an IPv${family} address`);
      }
    }
    const data = isName ? plainName(text) : record.data;
    const bytes = encodeAnswer({ ...record, name: ".", ttl, data }, record.name);
    const view = new DataView(bytes.buffer);
    const type = view.getUint16(RECORD_TYPE);
    const key = keyOf(name);
    this.#hasWildcards ||= key.startsWith("\x01*");
    const node = this.#nodes.get(key) ?? new Map();
    this.#nodes.set(key, node);
    if (!node.has(type)) node.set(type, []);
    node.get(type)!.push({ ttl: view.getUint32(RECORD_TTL), data: bytes.slice(RECORD_DATA) });
    // Empty non-terminals above it exist as well, up to the zone (RFC 4592 section 2.2.2).
    const zone = this.#zones.find((zone) => isWithin(name, name.length, zone.name));
    if (zone === undefined) return;
    for (let at = name[0]! + 1; name.length - at >= zone.name.length; at += name[at]! + 1) {
      const parent = keyOf(name.subarray(at));
      if (!this.#nodes.has(parent)) this.#nodes.set(parent, new Map());
      if (name[at] === 0) break;
    }
  }
}

/** Encodes the SOA of a negative answer with this TTL (seconds); its name is the question's unless one is given. */
export function encodeSoa(ttl: number, name?: Uint8Array): Uint8Array {
  const data = { mname: ".", rname: ".", serial: 1, refresh: 3600, retry: 600, expire: 86_400, minimum: ttl };
  const record = encodeAnswer({ name: ".", type: "SOA", ttl, data });
  return encodeRecord(Type.Soa, ttl, record.subarray(RECORD_DATA), name);
}

function parseLine(line: string): DnsRecord {
  const words = line.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? [];
  const fail = (reason: string): never => {
    throw new SyntaxError(`Cannot parse record ${JSON.stringify(line)}: ${reason}`);
  };
  const [name, ...rest] = words;
  if (name === undefined || rest.length < 2) fail("a record must be NAME [TTL] TYPE DATA");
  const ownTtl = /^\d+$/.test(rest[0]!) ? Number(rest.shift()) : TTL;
  if (rest[0]?.toUpperCase() === "IN") rest.shift();
  const type = (rest.shift() ?? "").toUpperCase();
  const number = (at: number, max: number): number => {
    const word = rest[at] ?? "";
    return /^\d{1,5}$/.test(word) && Number(word) <= max
      ? Number(word)
      : fail(`word ${at + 1} of the data must be an integer from 0 to ${max}, got "${word}"`);
  };
  const host = (at: number): string => {
    const text = rest[at] ?? fail("a name is missing");
    return plainName(text);
  };
  const expect = (count: number): void => {
    if (rest.length === count) return;
    fail(`${type} data must have ${count} ${count === 1 ? "word" : "words"}, got ${rest.length}`);
  };
  const record = { name: name!, type, ttl: ownTtl };
  switch (type) {
    case "A":
    case "AAAA":
      expect(1);
      return { ...record, data: rest[0] };
    case "CNAME":
    case "NS":
    case "PTR":
      expect(1);
      return { ...record, data: host(0) };
    case "MX":
      expect(2);
      return { ...record, data: { preference: number(0, 0xffff), exchange: host(1) } };
    case "SRV": {
      expect(4);
      const [priority, weight, port] = [0, 1, 2].map((at) => number(at, 0xffff));
      return { ...record, data: { priority, weight, port, target: host(3) } };
    }
    case "CAA":
      expect(3);
      return { ...record, data: { flags: number(0, 0xff), tag: rest[1], value: unquote(rest[2]!) } };
    case "TXT": {
      const texts = rest.map(unquote);
      if (texts.some((text) => new TextEncoder().encode(text).length > 255)) {
        fail("a text of TXT must have at most 255 bytes");
      }
      return { ...record, data: texts };
    }
    default:
      return fail(
        `lines must have type A, AAAA, CAA, CNAME, MX, NS, PTR, SRV or TXT, got "${type}": use an object`,
      );
  }
}

/** Returns a name in the form of the library, which does not support `\\.` in a label. */
function plainName(text: string): string {
  const name = formatName(parseName(text));
  if (!name.includes("\\")) return name;
  throw new SyntaxError(
    `Cannot parse name ${JSON.stringify(text)}: a name in a record's data must have no escapes`,
  );
}

function unquote(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, "$1") : word;
}

/**
 * Prepends aliases to an answer; returns `undefined` if it cannot be decoded, or has names that the library cannot encode.
 */
export function joinAliases(
  question: Question,
  { records }: FoundRecords,
  answer: Answer,
  age: number,
  ttl: number,
): Answer | undefined {
  const message = decodeMessage(answer.bytes);
  if (message === undefined) return undefined;
  const encode = (record: DnsRecord): Uint8Array => {
    // The library decodes a label with a dot as two labels.
    if (hasOddDot(record.name) || hasOddDot(record.data)) throw new SyntaxError("Cannot encode this name");
    return encodeAnswer({ ...record, ttl: ttl < 0 ? Math.max(0, (record.ttl ?? 0) - age) : ttl });
  };
  let joined: Answer;
  try {
    const own = message.answers!.map(encode);
    // Lifetime of a negative answer (RFC 2308 section 3).
    const soa = message.authorities!.find(({ type }) => type === "SOA");
    joined = Answer.make(question, answer.rcode, [...records, ...own], soa && encode(soa));
  } catch {
    return undefined;
  }
  return Answer.of(joined.bytes, question) === undefined ? undefined : joined;
}

function recordsError(given: unknown): TypeError {
  const rule = "a line NAME [TTL] TYPE DATA, or an iterable of lines and of objects with name and type";
  return new TypeError(`Cannot resolve names: records must be ${rule}, ${gotValue(given)}`);
}

function hasOddDot(text: unknown): boolean {
  return typeof text === "string" && /^\..|\.\.|.\.$/.test(text);
}
