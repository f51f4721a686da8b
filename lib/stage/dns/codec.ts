/**
 * Whole messages with all that is in them, by the library `dns-packet`: for records of one's own, and for scripts that
 * look into answers. It works on Node's `Buffer`, of which nothing is seen outside of this file.
 */

// @ts-types="./dns_packet.d.ts"
import dnsPacket from "dns-packet";

// Specification: RFC 1035 section 4.1.1
const HEADER = 12;
const MAX_MESSAGE = 0xffff;

// Implementation
/** The library takes 6 ms for so many records with the longest names. */
const MAX_RECORDS = 256;
/** The class of what the library makes is what it reads: a `Uint8Array` with methods for its words. */
const LibraryBytes = dnsPacket.encode({}).constructor as unknown as {
  from(memory: ArrayBufferLike, start: number, length: number): Uint8Array;
};

/** A record: who has it, its type, and what it says in the form that `dns-packet` has for the type. */
export interface DnsRecord {
  /** Without a trailing dot; `.` is the root. */
  name: string;
  /** Such as `A`; `UNKNOWN_99` for those that the library does not know. */
  type: string;
  /** Nearly always that of the Internet. @default {"IN"} */
  class?: string;
  /** For how long it is good (seconds). @default {0} */
  ttl?: number;
  /** An address of A and AAAA, a name of CNAME, bytes of what is not known; see `dns-packet` for the others. */
  data?: unknown;
}

/** A message. Of a decoded one, all lists are there. */
export interface DnsMessage {
  /** `query` or `response`. @default {"query"} */
  type?: string;
  /** What an answer is known by. @default {0} */
  id?: number;
  /** The word of flags, without QR, opcode and code. @default {0} */
  flags?: number;
  /** The answer's code, such as `NXDOMAIN`. */
  rcode?: string;
  /** What is asked. */
  questions?: { name: string; type: string; class?: string }[];
  /** What is answered. */
  answers?: DnsRecord[];
  /** Who says so. */
  authorities?: DnsRecord[];
  /** What else is good to know, with the EDNS option. */
  additionals?: DnsRecord[];
}

/**
 * A message's bytes.
 *
 * @throws {TypeError} when a record's data is not what its type asks for.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { decodeMessage, encodeMessage } from "@warren/tunnel/dns";
 *
 * const bytes = encodeMessage({ questions: [{ name: "www.example.com", type: "A" }] });
 * assert.equal(decodeMessage(bytes)?.questions?.[0]?.name, "www.example.com");
 * ```
 */
export function encodeMessage(message: DnsMessage): Uint8Array {
  try {
    const { questions = [], answers = [], authorities = [], additionals = [] } = message;
    return Uint8Array.from(dnsPacket.encode({
      ...message,
      questions,
      answers: answers.map(toLibrary),
      authorities: authorities.map(toLibrary),
      additionals: additionals.map(toLibrary),
    }));
  } catch (cause) {
    throw new TypeError(`Cannot encode a DNS message: ${errorMessage(cause)}`, { cause });
  }
}

/**
 * What is in a message; `undefined` when it is malformed, or has more than 256 records. Bytes of names that are no
 * UTF-8 are lost.
 */
export function decodeMessage(bytes: Uint8Array): DnsMessage | undefined {
  if (bytes.length < HEADER || bytes.length > MAX_MESSAGE) return undefined;
  // The library reads on as long as a count says so.
  let records = 0;
  for (let at = 4; at < HEADER; at += 2) records += bytes[at]! << 8 | bytes[at + 1]!;
  if (records > MAX_RECORDS) return undefined;
  try {
    return dnsPacket.decode(libraryBytes(bytes));
  } catch {
    return undefined;
  }
}

/**
 * A record's bytes, uncompressed, with its name.
 *
 * @throws {TypeError} when its data is not what its type asks for.
 */
export function encodeAnswer(record: DnsRecord): Uint8Array {
  try {
    return Uint8Array.from(dnsPacket.answer.encode(toLibrary({ class: "IN", ...record })));
  } catch (cause) {
    throw new TypeError(`Cannot encode ${record.type} of "${record.name}": ${errorMessage(cause)}`, {
      cause,
    });
  }
}

/** A copy that the library may change, as it does, and whose bytes are of its class. */
function toLibrary(record: DnsRecord): DnsRecord {
  const { data } = record;
  if (data instanceof Uint8Array) return { ...record, data: libraryBytes(data) };
  if (!Array.isArray(data)) return { ...record };
  return {
    ...record,
    data: data.map((part) => part instanceof Uint8Array ? libraryBytes(part) : part),
  };
}

function libraryBytes(bytes: Uint8Array): Uint8Array {
  return LibraryBytes.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function errorMessage(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
