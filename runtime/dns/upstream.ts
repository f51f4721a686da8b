/** What the upstreams of every kind share. */

import { lowerCase, nameLength } from "../../lib/stage/dns/name.ts";
import type { DnsUpstream } from "../../lib/stage/dns/mod.ts";
import { type HostPort, parsePeer } from "../transport/host_port.ts";

// Specification: RFC 1035 section 4.1.1
const HEADER = 12;
const QUESTION = 4;
const RESPONSE = 0x80;
const TRUNCATED = 0x02;
const RCODE = 0x0f;
export const DNS_PORT = 53;

/** A name server to ask. Disposing of it ends what is being asked; after that, every query is rejected. */
export interface Upstream extends DnsUpstream, Disposable {
  /** Such as `udp 192.0.2.1:53`. */
  readonly name: string;
}

/** Ends with its upstream, or with the query's own signal. */
export class Life {
  readonly #controller = new AbortController();
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  /** What ends a query. */
  bound(signal: AbortSignal): AbortSignal {
    if (this.#controller.signal.aborted) {
      throw new Deno.errors.BadResource(`Cannot ask ${this.#name}: it is closed`);
    }
    return AbortSignal.any([signal, this.#controller.signal]);
  }

  end(): void {
    this.#controller.abort(new Deno.errors.BadResource(`Cannot ask ${this.#name}: it is closed`));
  }
}

/**
 * Reads `ADDRESS` or `ADDRESS:PORT` of a name server. A name would need a name server.
 *
 * @throws {SyntaxError} when it is anything else.
 */
export function parseServer(text: string): HostPort & { family: 4 | 6 } {
  const isBare = /^[^:]*$/.test(text) || /:.*:/.test(text) && !text.startsWith("[");
  const host = isBare && text.includes(":") ? `[${text}]` : text;
  const withPort = isBare || /\]$/.test(text) ? `${host}:${DNS_PORT}` : text;
  const server = parsePeer(withPort, `upstream "${text}"`);
  const { family } = server;
  if (family === undefined) {
    throw new SyntaxError(
      `Cannot parse upstream "${text}": "${server.host}" is no address: write one such as 192.0.2.1`,
    );
  }
  return { ...server, family };
}

/**
 * Tells whether a message is an answer to a query: the same id and, but for letters' case, the same question. A server that
 * cannot read a query may answer with a code alone (RFC 6891 section 7).
 */
export function isAnswerTo(query: Uint8Array, message: Uint8Array): boolean {
  const length = nameLength(query, HEADER, query.length);
  const end = HEADER + length + QUESTION;
  if (length < 0 || message.length < HEADER || query.length < end) return false;
  if (message[0] !== query[0] || message[1] !== query[1] || (message[2]! & RESPONSE) === 0) return false;
  if (message[4] === 0 && message[5] === 0) return (message[3]! & RCODE) !== 0;
  if (message.length < end) return false;
  // Both have one question.
  if (message[4] !== 0 || message[5] !== 1) return false;
  for (let i = HEADER; i < HEADER + length; i++) {
    if (lowerCase(message[i]!) !== lowerCase(query[i]!)) return false;
  }
  for (let i = HEADER + length; i < end; i++) if (message[i] !== query[i]) return false;
  return true;
}

/** Whether an answer was cut. */
export function isTruncated(message: Uint8Array): boolean {
  return (message[2]! & TRUNCATED) !== 0;
}

/** A copy of a query with an id that nobody can guess (RFC 5452 section 4.3). */
export function withRandomId(query: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(query);
  crypto.getRandomValues(copy.subarray(0, 2));
  return copy;
}
