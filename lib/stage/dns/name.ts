/** Domain names as text and in wire format (RFC 1035 section 3.1). */

// Specification: RFC 1035 section 2.3.4
const MAX_LABEL = 63;
/** Maximum length of a name in wire format, including length bytes and root (bytes). */
export const MAX_NAME = 255;

// Implementation
const DOT = 0x2e;
const BACKSLASH = 0x5c;
const HYPHEN = 0x2d;
const UNDERSCORE = 0x5f;

/** Returns the lower case of a letter A to Z, and any other byte unchanged (RFC 4343). */
export function lowerCase(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** Reports whether a character may be in a host or service name: letters, digits, hyphen and underscore. */
function isPlain(code: number): boolean {
  const lower = lowerCase(code);
  return lower >= 0x61 && lower <= 0x7a || isDigit(code) || code === HYPHEN || code === UNDERSCORE;
}

/**
 * Writes a name in lower case to the start of `bytes`, which has room for 255 bytes, and returns its length including the
 * root; 0 if the text is not a name, for which {@linkcode nameFault} gives the reason. A trailing dot is optional; `.` is
 * the root. `\.` and `\046` are bytes of a label (RFC 1035 section 5.1).
 */
export function writeName(text: string, bytes: Uint8Array): number {
  if (text === ".") {
    bytes[0] = 0;
    return 1;
  }
  let label = 0; // offset of its length
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
    // NaN fails this comparison as well.
    if (!(code <= 0xff) || at - label > MAX_LABEL || at >= MAX_NAME - 1) return 0;
    bytes[at++] = lowerCase(code);
  }
  if (at === label + 1) {
    // A trailing dot leaves an empty label, which becomes the root.
    if (label === 0) return 0;
    bytes[label] = 0;
    return at;
  }
  bytes[label] = at - label - 1;
  bytes[at++] = 0;
  return at;
}

const scratch = new Uint8Array(MAX_NAME + 1);

/** Returns the reason why {@linkcode writeName} rejects a name. */
export function nameFault(text: string): string {
  if (text === "") return "it is empty";
  if (/^\.|\.\./.test(text)) return "a label is empty";
  if (text.split(".").some(({ length }) => length > MAX_LABEL)) return `a label is longer than ${MAX_LABEL}`;
  if (text.length > MAX_NAME - 2) return `it is longer than ${MAX_NAME - 2}`;
  return "it contains a character that names cannot have";
}

/**
 * Parses a name into wire format, in lower case, with the root at its end. Non-ASCII letters become Punycode (RFC 5891).
 *
 * @throws {SyntaxError} when the text is not a name.
 */
export function parseName(text: string): Uint8Array {
  const length = writeName(toAscii(text), scratch);
  if (length === 0) throw new SyntaxError(`Cannot parse name ${JSON.stringify(text)}: ${nameFault(text)}`);
  return scratch.slice(0, length);
}

/** Converts a name to Punycode; returns it unchanged if that is impossible, for the caller to reject. */
export function toAscii(text: string): string {
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return text;
  // WHATWG URL section 3.5 applies UTS #46, which the standard library offers nowhere else.
  const url = URL.parse(`http://${text.normalize("NFC").replaceAll("_", "-0u0-")}/`);
  if (url === null || /[^\p{L}\p{M}\p{N}._\-·。]/u.test(text)) return text;
  return url.hostname.replaceAll("-0u0-", "_");
}

/** Reports whether an ASCII name consists of letters, digits, hyphens, underscores and dots. */
export function isPlainName(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (!isPlain(code) && code !== DOT) return false;
  }
  return true;
}

/** Formats the complete, uncompressed name at `start` without a trailing dot. */
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

/** Returns the length of the name at `start` including the root; -1 if it is incomplete or compressed. */
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
 * Returns the end of a name that may be compressed, or -1 if it is malformed. A pointer is checked and not followed: it
 * must point backwards in the message that starts at `message`, which rules out loops (RFC 1035 section 4.1.4).
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
 * Expands a name that may be compressed, in lower case, to the start of `name`, which has room for 255 bytes. Returns its
 * length including the root; 0 if it is malformed. Pointers must point backwards, so the expansion ends.
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
      // The rest of the name must end before the pointer.
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

/** Reports whether a name is `suffix` or below it. Both are complete and in lower case. */
export function isWithin(name: Uint8Array, length: number, suffix: Uint8Array): boolean {
  for (let at = 0; length - at >= suffix.length; at += name[at]! + 1) {
    if (length - at === suffix.length) return suffix.every((byte, i) => name[at + i] === byte);
    if (name[at] === 0) return false;
  }
  return false;
}

/** Returns the reverse-lookup name of an address (RFC 1035 section 3.5, RFC 3596 section 2.5). */
export function reverseName(address: Uint8Array): string {
  if (address.length === 4) return `${Array.from(address).reverse().join(".")}.in-addr.arpa`;
  return `${Array.from(address.toHex()).reverse().join(".")}.ip6.arpa`;
}

/** Returns the address of a {@linkcode reverseName}; `undefined` for other names. */
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
