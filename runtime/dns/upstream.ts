/** Code that the upstreams share: closing, server addresses, and checks of responses. */

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

/** A name server. Disposing of it aborts its queries; further queries are rejected. */
export interface Upstream extends DnsUpstream, Disposable {
  /** Name in messages: transport and address, such as `udp 192.0.2.1:53`. */
  readonly name: string;
}

/** Lifetime of an upstream, which aborts its queries when it ends. */
export class Life {
  readonly #controller = new AbortController();
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  /**
   * Returns a signal that aborts when the query's own signal does, or when the upstream is closed.
   *
   * @throws {Deno.errors.BadResource} when the upstream is closed.
   */
  bound(signal: AbortSignal): AbortSignal {
    this.#controller.signal.throwIfAborted();
    return AbortSignal.any([signal, this.#controller.signal]);
  }

  /** Aborts all queries. */
  end(): void {
    this.#controller.abort(new Deno.errors.BadResource(`Cannot query ${this.#name}: the upstream is closed`));
  }
}

/** Closes a socket or connection, which may be closed already or not open yet. */
export function close(socket: { close(): void }): void {
  try {
    socket.close();
  } catch {
    // Nothing is left to close.
  }
}

/**
 * Parses `ADDRESS` or `ADDRESS:PORT` of a name server. A host name is rejected: resolving it would need a name server.
 *
 * @throws {SyntaxError} when the text has a different form.
 */
export function parseServer(text: string): HostPort & { family: 4 | 6 } {
  const isBare = /^[^:]*$/.test(text) || /:.*:/.test(text) && !text.startsWith("[");
  const host = isBare && text.includes(":") ? `[${text}]` : text;
  const withPort = isBare || /\]$/.test(text) ? `${host}:${DNS_PORT}` : text;
  const server = parsePeer(withPort, `upstream "${text}"`);
  const { family } = server;
  if (family === undefined) {
    throw new SyntaxError(
      `Cannot parse upstream "${text}": the host must be an address such as 192.0.2.1, got "${server.host}"`,
    );
  }
  return { ...server, family };
}

/**
 * Reports whether a message is the response to a query: it has the same ID and, ignoring case, the same question. A
 * server that cannot parse a query may respond with an error code and no question (RFC 6891 section 7).
 */
export function isResponseTo(query: Uint8Array, message: Uint8Array): boolean {
  const length = nameLength(query, HEADER, query.length);
  const end = HEADER + length + QUESTION;
  if (length < 0 || message.length < HEADER || query.length < end) return false;
  if (message[0] !== query[0] || message[1] !== query[1] || (message[2]! & RESPONSE) === 0) return false;
  if (message[4] === 0 && message[5] === 0) return (message[3]! & RCODE) !== 0;
  if (message.length < end) return false;
  // The query has one question, so the response must have one.
  if (message[4] !== 0 || message[5] !== 1) return false;
  for (let i = HEADER; i < HEADER + length; i++) {
    if (lowerCase(message[i]!) !== lowerCase(query[i]!)) return false;
  }
  for (let i = HEADER + length; i < end; i++) if (message[i] !== query[i]) return false;
  return true;
}

/** Reports whether a response has the TC bit. */
export function isTruncated(message: Uint8Array): boolean {
  return (message[2]! & TRUNCATED) !== 0;
}

/** Returns a copy of a query with an unpredictable ID (RFC 5452 section 4.3). */
export function withRandomId(query: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(query);
  crypto.getRandomValues(copy.subarray(0, 2));
  return copy;
}
