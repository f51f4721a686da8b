/** Heads of HTTP requests and responses (RFC 9112), for WebSocket handshakes (RFC 6455 section 4) and proxies. */

// Specification: RFC 9112 sections 2.1 and 5, RFC 9110 section 5.6.2
const END = "\r\n\r\n";
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)$/;
// deno-lint-ignore no-control-regex -- a head has no control characters except line ends and tabs.
const CONTROLS = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/;

// Implementation
/** Maximum length of a head (bytes); leaves room for cookies. */
const MAX_HEAD = 8192;

/** A head, and the bytes that followed it. */
export interface HttpHead {
  /** Request line or status line: one character per byte, and no control characters except tabs. */
  readonly start: string;
  /** Fields by lower-case name; several values of one name are joined with commas. */
  readonly fields: ReadonlyMap<string, string>;
  /** Bytes that were read after the head. */
  readonly rest: Uint8Array;
}

/**
 * Reads a head.
 *
 * @throws {SyntaxError} for bytes that are not a head.
 * @throws {RangeError} for a head of more than 8,192 bytes.
 * @throws {Deno.errors.UnexpectedEof} when the connection ends before the head is complete.
 */
export async function readHead(socket: Deno.Conn): Promise<HttpHead> {
  const bytes = new Uint8Array(MAX_HEAD);
  for (let filled = 0, text = ""; filled < bytes.length;) {
    const count = await socket.read(bytes.subarray(filled));
    if (count === null) {
      throw new Deno.errors.UnexpectedEof("Cannot read an HTTP head: the connection ended");
    }
    text += String.fromCharCode(...bytes.subarray(filled, filled + count));
    filled += count;
    const end = text.indexOf(END);
    const head = end < 0 ? text : text.slice(0, end);
    if (CONTROLS.test(head)) throw new SyntaxError("Cannot read an HTTP head: it has control characters");
    if (end >= 0) return { ...parse(head), rest: bytes.subarray(end + END.length, filled) };
  }
  throw new RangeError(`Cannot read an HTTP head: it is longer than ${MAX_HEAD} bytes`);
}

function parse(head: string): Omit<HttpHead, "rest"> {
  const [start, ...lines] = head.split("\r\n") as [string, ...string[]];
  const fields = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = FIELD.exec(line) ?? [];
    if (name === undefined) throw new SyntaxError("Cannot read an HTTP head: a line is not a field");
    const key = name.toLowerCase();
    const before = fields.get(key);
    fields.set(key, before === undefined ? value!.trim() : `${before}, ${value!.trim()}`);
  }
  return { start, fields };
}

/** Reports whether a list field contains a token, in upper or lower case. */
export function hasToken({ fields }: HttpHead, name: string, token: string): boolean {
  return fields.get(name)?.toLowerCase().split(",").some((item) => item.trim() === token) ?? false;
}

export async function writeText(socket: Deno.Conn, text: string): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += await socket.write(bytes.subarray(at));
}

/** Returns the status of a response; `undefined` if the head is not that of a response. */
export function statusOf({ start }: HttpHead): number | undefined {
  const status = /^HTTP\/1\.[01] ([1-5]\d\d)(?: |$)/.exec(start)?.[1];
  return status === undefined ? undefined : Number(status);
}
