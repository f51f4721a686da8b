/** Domain names: as people write them, and in the bytes that messages have (RFC 1035 section 3.1). */

// Specification: RFC 1035 section 2.3.4
const MAX_LABEL = 63;
/** With the length bytes and the root's. */
export const MAX_NAME = 255;

// Implementation
const DOT = 0x2e;
const BACKSLASH = 0x5c;
const HYPHEN = 0x2d;
const UNDERSCORE = 0x5f;

/** A letter A to Z in lower case; any other byte as it is (RFC 4343). */
export function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** Whether it may stand in the name of a machine or service: a letter, a digit, a hyphen, an underscore. */
function isPlain(code: number): boolean {
  const lower = lowerCase(code);
  return lower >= 0x61 && lower <= 0x7a || isDigit(code) || code === HYPHEN || code === UNDERSCORE;
}

/**
 * Writes a name in lower case to `bytes` from its start on, and returns how many bytes it took, with the root's; 0
 * when it is none, and `nameFault` then says why. A trailing dot makes no difference; `.` is the root. `\.` and
 * `\046` are bytes of a label (RFC 1035 section 5.1). `bytes` has 255 bytes of room.
 */
export function writeName(text: string, bytes: Uint8Array): number {
  if (text === ".") {
    bytes[0] = 0;
    return 1;
  }
  let label = 0; // where its length goes
  let at = 1;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code === DOT) {
      if (at === label + 1) return 0;
      bytes[label] = at - label - 1;
      label = at++;
      continue;
    }
    if (code === BACKSLASH) {
      code = text.charCodeAt(++i);
      if (isDigit(code)) {
        const digits = text.slice(i, i + 3);
        code = /^\d{3}$/.test(digits) ? Number(digits) : NaN;
        i += 2;
      }
    }
    // Written so that NaN fails, too.
    if (!(code <= 0xff) || at - label > MAX_LABEL || at >= MAX_NAME - 1) return 0;
    bytes[at++] = lowerCase(code);
  }
  if (at === label + 1) {
    // A trailing dot has begun a label that is none.
    if (label === 0) return 0;
    bytes[label] = 0;
    return at;
  }
  bytes[label] = at - label - 1;
  bytes[at++] = 0;
  return at;
}

const scratch = new Uint8Array(MAX_NAME + 1);

/** Why {@linkcode writeName} did not take a name. */
export function nameFault(text: string): string {
  if (text === "") return "it is empty";
  if (/^\.|\.\./.test(text)) return "a label is empty";
  if (text.split(".").some((label) => label.length > MAX_LABEL)) return `a label is longer than ${MAX_LABEL}`;
  if (text.length > MAX_NAME - 2) return `it is longer than ${MAX_NAME - 2}`;
  return "it has what is no letter of a name";
}

/**
 * A name in the form of messages, in lower case, with the root's byte at its end. Letters beyond ASCII become Punycode
 * (RFC 5891).
 *
 * @throws {SyntaxError} when it is none.
 */
export function parseName(text: string): Uint8Array {
  const length = writeName(toAscii(text), scratch);
  if (length === 0) throw new SyntaxError(`Cannot parse name ${JSON.stringify(text)}: ${nameFault(text)}`);
  return scratch.slice(0, length);
}

/** A name with what is beyond ASCII as Punycode; as it is where that cannot be, for the caller to refuse. */
export function toAscii(text: string): string {
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return text;
  // WHATWG URL section 3.5 is UTS #46, which the standard library has nowhere else.
  const url = URL.parse(`http://${text.normalize("NFC").replaceAll("_", "-0u0-")}/`);
  if (url === null || /[^\p{L}\p{M}\p{N}._\-·。]/u.test(text)) return text;
  return url.hostname.replaceAll("-0u0-", "_");
}

/** Whether all labels of an ASCII name are of letters, digits, hyphens and underscores. */
export function isPlainName(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (!isPlain(code) && code !== DOT) return false;
  }
  return true;
}

/** The name that starts at `start`, as text without a trailing dot; it is whole, and has no pointers. */
export function formatName(bytes: Uint8Array, start = 0): string {
  if (bytes[start] === 0) return ".";
  let text = "";
  for (let at = start; bytes[at]! > 0; at += bytes[at]! + 1) {
    if (text !== "") text += ".";
    for (let i = at + 1; i <= at + bytes[at]!; i++) {
      const byte = bytes[i]!;
      if (byte === DOT || byte === BACKSLASH) text += `\\${String.fromCharCode(byte)}`;
      else if (byte > 0x20 && byte < 0x7f) text += String.fromCharCode(byte);
      else text += `\\${String(byte).padStart(3, "0")}`;
    }
  }
  return text;
}

/** The length of the name from `start` on, with the root's byte; -1 when it is not whole, or has pointers. */
export function nameLength(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end) {
    const label = bytes[at]!;
    if (label > MAX_LABEL) return -1;
    at += label + 1;
    if (at - start > MAX_NAME) return -1;
    if (label === 0) return at <= end ? at - start : -1;
  }
  return -1;
}

/**
 * Where a name ends that may be compressed, or -1. A pointer is not followed: it is looked at alone, and points
 * backwards (RFC 1035 section 4.1.4) in the message that starts at `message`, so nobody can be led in circles.
 */
export function skipName(bytes: Uint8Array, start: number, end: number, message = 0): number {
  let at = start;
  while (at < end && at - start < MAX_NAME) {
    const label = bytes[at]!;
    if (label === 0) return at + 1;
    if (label > 0xbf) {
      if (at + 2 > end) return -1;
      return ((label & 0x3f) << 8 | bytes[at + 1]!) < start - message ? at + 2 : -1;
    }
    if (label > MAX_LABEL) return -1;
    at += label + 1;
  }
  return -1;
}

/**
 * Expands a name that may be compressed, in lower case, to the start of `name`, which has 255 bytes of room. Returns its
 * length with the root's byte; 0 when it is malformed. Each pointer leads backwards, so the search ends.
 */
export function expandName(bytes: Uint8Array, start: number, end: number, name: Uint8Array): number {
  let at = start;
  let limit = end;
  let length = 0;
  while (at < limit) {
    const label = bytes[at]!;
    if (label > 0xbf) {
      if (at + 2 > limit) return 0;
      const target = (label & 0x3f) << 8 | bytes[at + 1]!;
      if (target >= at) return 0;
      // What is read from there ends before the pointer.
      limit = at;
      at = target;
      continue;
    }
    if (label > MAX_LABEL || at + 1 + label > limit || length + 1 + label > MAX_NAME) return 0;
    name[length++] = label;
    for (let i = 1; i <= label; i++) name[length++] = lowerCase(bytes[at + i]!);
    if (label === 0) return length;
    at += 1 + label;
  }
  return 0;
}

/** Whether a name is the other one, or below it. Both are whole and in lower case. */
export function isWithin(name: Uint8Array, length: number, suffix: Uint8Array): boolean {
  for (let at = 0; length - at >= suffix.length; at += name[at]! + 1) {
    if (length - at === suffix.length) return suffix.every((byte, i) => name[at + i] === byte);
    if (name[at] === 0) return false;
  }
  return false;
}

/** The name that PTR of an address is asked by (RFC 1035 section 3.5, RFC 3596 section 2.5), as text. */
export function reverseName(address: Uint8Array): string {
  if (address.length === 4) return `${Array.from(address).reverse().join(".")}.in-addr.arpa`;
  return `${Array.from(address.toHex()).reverse().join(".")}.ip6.arpa`;
}

/** The address whose {@linkcode reverseName} this is, as text; `undefined` when it is none. */
export function reversedAddress(name: string): string | undefined {
  const ipv4 = /^((?:\d{1,3}\.){4})in-addr\.arpa$/.exec(name);
  if (ipv4 !== null) {
    const octets = ipv4[1]!.slice(0, -1).split(".").reverse();
    return octets.every((octet) => String(Math.min(Number(octet), 255)) === octet)
      ? octets.join(".")
      : undefined;
  }
  const ipv6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name);
  if (ipv6 === null) return undefined;
  return ipv6[1]!.replaceAll(".", "").split("").reverse().join("").replace(/.{4}(?!$)/g, "$&:");
}
