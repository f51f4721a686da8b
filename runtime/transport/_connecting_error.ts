/** Errors for failed WebSocket connections, with the reason and a remedy. */

import { errorMessage } from "../../driver/error.ts";

// Implementation
/** Maximum length of text from a server in a message (characters). */
const MAX_TEXT = 200;

type Explanation = readonly [reason: string, remedy: string];

/** A response with a status other than 101. */
export class StatusError extends Error {
  /** @param line The status line. */
  constructor(readonly status: number, line: string) {
    super(`the server answered ${printable(line)}`);
  }
}

/** A failure of the proxy. */
export class ProxyError extends Error {
  /** @param fault The predicate of the message, such as `answered HTTP/1.1 403 Forbidden`. */
  constructor(place: string, fault: string, options?: ErrorOptions) {
    super(`the proxy ${place} ${printable(fault)}`, options);
  }
}

/** Explanations for the messages of rustls about certificates and about servers without TLS. */
const TLS: readonly (readonly [RegExp, ...Explanation])[] = [
  [
    /UnknownIssuer/,
    "the server's certificate is from an unknown authority",
    "pass that authority's certificate to deno with --cert FILE, or set DENO_TLS_CA_STORE=system",
  ],
  [
    /certificate expired|: Expired/,
    "the server's certificate has expired",
    "renew it, or correct this machine's clock",
  ],
  [/not valid yet|NotValidYet/, "the server's certificate is not valid yet", "correct this machine's clock"],
  [
    /not valid for name|NotValidForName/,
    "the server's certificate is for another name",
    "connect to a name in the certificate",
  ],
  [
    /InvalidContentType|HandshakePayload|corrupt message/,
    "the server does not speak TLS on this port",
    "write ws:// for a server without TLS, or check the port",
  ],
];

/** Creates the error for a failed connection, with the class of its cause if that is in `Deno.errors`. */
export function connectingError(name: string, cause: unknown): Error {
  if (cause instanceof Deno.errors.NotCapable) return cause;
  const [reason, remedy] = explain(name, cause);
  const message = `Cannot connect to ${name}: ${reason}: ${remedy}`;
  const Class = Object.values(Deno.errors).find((known) => cause instanceof known) ?? Error;
  return new Class(message, { cause });
}

function explain(name: string, cause: unknown): Explanation {
  const text = printable(errorMessage(cause));
  if (cause instanceof StatusError) return [text, statusRemedy(name, cause.status)];
  if (cause instanceof ProxyError) {
    return [text, "check the proxy, and whether it allows connections to this port"];
  }
  const tls = TLS.find(([pattern]) => pattern.test(text));
  if (tls !== undefined) {
    const [, reason, remedy] = tls;
    const detail = /certificate is only valid for (.*)$/.exec(text)?.[1];
    return [detail === undefined ? reason : `${reason}, ${detail}`, remedy];
  }
  if (cause instanceof SyntaxError || cause instanceof RangeError) {
    return [
      text,
      name.startsWith("ws:") ? "check the port, and write wss:// if it speaks TLS" : "check the port",
    ];
  }
  const [, nowhere, remedy] = /: (it has no .*): (check the name.*)$/.exec(text) ?? [];
  if (nowhere !== undefined) return [nowhere, remedy!];
  if (/failed to lookup address/.test(text)) {
    return [`it has no address (${text})`, "check the name, or write its address"];
  }
  if (cause instanceof Deno.errors.UnexpectedEof || cause instanceof Deno.errors.ConnectionReset) {
    return [
      "the server closed the connection without a response",
      "check the address, the port and the path",
    ];
  }
  return [text, "check the address, and start the other side first"];
}

/** Returns the remedy for a status (RFC 9110 section 15). */
function statusRemedy(name: string, status: number): string {
  if (status >= 300 && status < 400) return "use the address that it redirects to";
  switch (status) {
    case 400:
      return name.startsWith("ws:")
        ? "check the port, and write wss:// if it speaks TLS"
        : "check the address";
    case 401:
    case 403:
    case 407:
      return "access is denied: check the path and the server's rules";
    case 404:
      return "check the path";
    case 426:
      return "configure the proxy in between to forward Upgrade and Connection, with HTTP/1.1";
    case 502:
    case 504:
      return "its proxy cannot reach the other side: start the other side";
    case 503:
      return "another machine is connected already, or the server is busy: try later";
    default:
      return "check the address and the path";
  }
}

/** Converts untrusted text to printable ASCII, which is safe for a terminal, and truncates it. */
function printable(text: string): string {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}...` : text;
  return short.replace(
    /[^\x20-\x7e]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
