/**
 * Codec of complete DNS messages, for local records and for scripts that inspect answers. It wraps the library
 * `dns-packet`, whose Node.js `Buffer`s stay inside this file.
 */

// @ts-types="./dns_packet.d.ts"
import dnsPacket from "dns-packet";

// Specification: RFC 1035 section 4.1.1
const HEADER = 12;
const MAX_MESSAGE = 0xffff;

// Implementation
/** Maximum records of a message; with the longest names, the library takes 6 ms for them. */
const MAX_RECORDS = 256;
/** Class of the library's buffers, a `Uint8Array` with more methods; the library accepts no other input. */
const LibraryBytes = dnsPacket.encode({}).constructor as unknown as {
  from(memory: ArrayBufferLike, start: number, length: number): Uint8Array;
};

/** Resource record in the form of `dns-packet`. */
export interface DnsRecord {
  /** Owner name without a trailing dot; `.` is the root. */
  name: string;
  /** Type such as `A`; `UNKNOWN_99` for types that the library does not know. */
  type: string;
  /** Class. @default {"IN"} */
  class?: string;
  /** Time to live (seconds). @default {0} */
  ttl?: number;
  /** Address of A and AAAA, name of CNAME, bytes of unknown types; `dns-packet` documents the others. */
  data?: unknown;
}

/** DNS message. A decoded message has all four lists. */
export interface DnsMessage {
  /** `query` or `response`. @default {"query"} */
  type?: string;
  /** Id that matches a response to its query. @default {0} */
  id?: number;
  /** Flags without QR, opcode and response code. @default {0} */
  flags?: number;
  /** Response code, such as `NXDOMAIN`. */
  rcode?: string;
  /** Question section. */
  questions?: { name: string; type: string; class?: string }[];
  /** Answer section. */
  answers?: DnsRecord[];
  /** Authority section. */
  authorities?: DnsRecord[];
  /** Additional section, including OPT. */
  additionals?: DnsRecord[];
}

/**
 * Encodes a message.
 *
 * @throws {TypeError} when the data of a record does not fit its type.
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
 * Decodes a message; returns `undefined` if it is malformed or has more than 256 records. Bytes of names that are not
 * UTF-8 are lost.
 */
export function decodeMessage(bytes: Uint8Array): DnsMessage | undefined {
  if (bytes.length < HEADER || bytes.length > MAX_MESSAGE) return undefined;
  // The library trusts the record counts.
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
 * Encodes a record without compression.
 *
 * @param owner Name of the record in errors.
 * @throws {TypeError} when its data does not fit its type.
 */
export function encodeAnswer(record: DnsRecord, owner = record.name): Uint8Array {
  try {
    return Uint8Array.from(dnsPacket.answer.encode(toLibrary({ class: "IN", ...record })));
  } catch (cause) {
    throw new TypeError(
      `Cannot encode ${record.type} record of "${owner}": its type, class or data is invalid`,
      { cause },
    );
  }
}

/** Copies a record for the library, which modifies it and needs bytes of its own class. */
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
