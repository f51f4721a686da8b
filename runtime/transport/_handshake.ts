/** The WebSocket handshake of both sides (RFC 6455 section 4). */

import { gotValue } from "../../lib/core/options.ts";
import { hasToken, type HttpHead } from "./_http_head.ts";

// Specification: RFC 6455 sections 1.3, 4.1 and 4.2
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION = "13";
const KEY_BYTES = 16;
const KEY = /^[A-Za-z0-9+/]{22}==$/;

// Implementation
const STATUS_TEXT: Readonly<Record<number, string>> = {
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  426: "Upgrade Required",
  431: "Request Header Fields Too Large",
  503: "Service Unavailable",
};

/** Conditions that the listening side sets for requests. */
export interface HandshakeRules {
  /** Required path, as {@linkcode URL} normalizes it. */
  readonly path: string;
  /** Origins of web pages that may connect. */
  readonly origins: readonly string[];
}

/** Checks and normalizes the rules. @throws {SyntaxError} for a path or an origin that no request can have. */
export function handshakeRules(path: string = "/", origins: readonly string[] = []): HandshakeRules {
  if (!/^\/(?!\/)[^?#]*$/.test(path)) {
    throw new SyntaxError(
      `Cannot parse path ${JSON.stringify(path)}: it must begin with one "/" and have no "?" and no "#"`,
    );
  }
  for (const origin of origins) {
    if (URL.parse(origin)?.origin === origin) continue;
    throw new SyntaxError(
      `Cannot parse origins: each must be an origin such as "https://vpn.example", ${gotValue(origin)}`,
    );
  }
  return { path: new URL(path, "http://host").pathname, origins };
}

/** A response with a status other than 101. */
export interface Refusal {
  readonly status: number;
  /** Reason, which contains nothing from the request. */
  readonly text: string;
}

/** Returns the refusal for a request; `undefined` if the request is acceptable. */
export function refusalOf(head: HttpHead, { path, origins }: HandshakeRules): Refusal | undefined {
  const target = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(head.start)?.slice(1);
  if (target === undefined) return { status: 400, text: "not an HTTP request" };
  const [method, text] = target as [string, string];
  if (pathOf(text) !== path) return { status: 404, text: "no tunnel at this path" };
  const { fields } = head;
  if (!hasToken(head, "upgrade", "websocket")) return { status: 426, text: "a WebSocket is needed" };
  // Browsers let any page connect to any WebSocket server, even on this machine, and send the origin of the page.
  const origin = fields.get("origin");
  if (origin !== undefined && !origins.includes(origin)) return { status: 403, text: "not for this page" };
  if (fields.get("sec-websocket-version") !== VERSION) return { status: 426, text: "version 13 is needed" };
  const isWhole = method === "GET" && hasToken(head, "connection", "upgrade") && fields.has("host") &&
    KEY.test(fields.get("sec-websocket-key") ?? "");
  return isWhole ? undefined : { status: 400, text: "not a WebSocket handshake" };
}

/** Returns the path of a request target in origin form or absolute form (RFC 9112 section 3.2). */
function pathOf(target: string): string | undefined {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, "");
  return path === "" || path.startsWith("/") ? URL.parse(`http://host${path}`)?.pathname : undefined;
}

/** Returns the response for a refusal. */
export function refusalText({ status, text }: Refusal): string {
  const body = `${text}\n`;
  const upgrade = status === 426 ? `Upgrade: websocket\r\nSec-WebSocket-Version: ${VERSION}\r\n` : "";
  return `HTTP/1.1 ${status} ${STATUS_TEXT[status]}\r\n${upgrade}Connection: close\r\n` +
    `Content-Type: text/plain\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

/** Returns the response with status 101. */
export async function acceptanceText({ fields }: HttpHead): Promise<string> {
  return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${await acceptKey(fields.get("sec-websocket-key")!)}\r\n\r\n`;
}

/** Returns a random key for {@linkcode requestText}. */
export function newKey(): string {
  return crypto.getRandomValues(new Uint8Array(KEY_BYTES)).toBase64();
}

/** Returns the request of the connecting side. */
export function requestText(url: URL, key: string): string {
  return `GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\nUpgrade: websocket\r\n` +
    `Connection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: ${VERSION}\r\n\r\n`;
}

/** Reports whether a response with status 101 accepts the request with this key. */
export async function isAcceptance(head: HttpHead, key: string): Promise<boolean> {
  const { fields } = head;
  return hasToken(head, "upgrade", "websocket") && hasToken(head, "connection", "upgrade") &&
    fields.get("sec-websocket-accept") === await acceptKey(key) &&
    !fields.has("sec-websocket-extensions") && !fields.has("sec-websocket-protocol");
}

async function acceptKey(key: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-1", new TextEncoder().encode(key + GUID));
  return new Uint8Array(digest).toBase64();
}
