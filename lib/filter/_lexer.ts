/** The text of a filter as tokens. */

import { CONSTANTS, KEYWORDS } from "./_words.ts";

/** A piece of the text. */
export interface Token {
  /**
   * What it is: a keyword or sign of the language, a number, an IPv4 address of two to four octets, an IPv6 address,
   * any other name, or the text's end.
   */
  readonly kind: "sign" | "number" | "ipv4" | "ipv6" | "name" | "end";
  /** The sign or keyword, spelled one way (`and` for `&&`); else as it was written. */
  readonly text: string;
  /** A number's value, 32 bits. */
  readonly value: number;
  /** Where it starts in the text. */
  readonly at: number;
}

// Implementation

/** The longest text (characters): what programs write; its tree is bounded besides. */
const MAX_TEXT = 65_536;
/** How much of the text an error shows (characters). */
const SHOWN = 60;

const SPACE = /[ \t\r\n]+/y;
const SIGN = /&&|\|\||[<>=!]=|<<|>>|[-+*/%:[\]!<>()&|^=]/y;
const NAME = /[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?/y;
const ESCAPED = /\\([^ !()\n\t]+)/y;
const COLONS = /[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*/y;
const NUMBER = /^(?:[0-9]+|0[xX][0-9A-Fa-f]+)$/;
const OCTETS = /^[0-9]+(?:\.[0-9]+){1,3}$/;
const LINK_ADDRESS =
  /^(?:[0-9a-f]{1,2}([:.-])[0-9a-f]{1,2}(?:\1[0-9a-f]{1,2}){4}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4})$/i;
const SPELLINGS: ReadonlyMap<string, string> = new Map([
  ["&&", "and"],
  ["||", "or"],
  ["not", "!"],
  ["==", "="],
  ["length", "len"],
]);

/** Refuses a filter, and tells why and where. */
export function refuse(text: string, what: string, at: number): never {
  const start = Math.max(0, Math.min(at - SHOWN / 2, text.length - SHOWN));
  const end = start + SHOWN;
  const shown = `${start > 0 ? "..." : ""}${text.slice(start, end)}${end < text.length ? "..." : ""}`;
  throw new SyntaxError(`Cannot parse filter ${JSON.stringify(shown)}: ${what} at column ${at + 1}`);
}

/** Splits the text; the last token is the end. */
export function readTokens(text: string): Token[] {
  if (text.length > MAX_TEXT) refuse(text, `more than ${MAX_TEXT} characters`, MAX_TEXT);
  const tokens: Token[] = [];
  let at = 0;
  const match = (pattern: RegExp) => {
    pattern.lastIndex = at;
    return pattern.exec(text);
  };
  while (true) {
    at += match(SPACE)?.[0].length ?? 0;
    if (at === text.length) break;
    const colons = match(COLONS)?.[0];
    const name = match(NAME)?.[0];
    if (colons !== undefined && colons.length > (name?.length ?? 0)) {
      if (LINK_ADDRESS.test(colons)) refuse(text, "a link-layer address, which IP packets have not", at);
      tokens.push({ kind: "ipv6", text: colons, value: 0, at });
      at += colons.length;
    } else if (name !== undefined) {
      tokens.push(readName(text, name, at));
      at += name.length;
    } else {
      const sign = match(SIGN)?.[0];
      const escaped = match(ESCAPED);
      if (sign !== undefined) {
        tokens.push({ kind: "sign", text: SPELLINGS.get(sign) ?? sign, value: 0, at });
        at += sign.length;
      } else if (escaped !== null) {
        tokens.push({ kind: "name", text: escaped[1]!, value: 0, at });
        at += escaped[0].length;
      } else refuse(text, `${JSON.stringify(text[at])} is no sign of the language`, at);
    }
  }
  tokens.push({ kind: "end", text: "", value: 0, at });
  return tokens;
}

function readName(text: string, name: string, at: number): Token {
  const constant = CONSTANTS.get(name);
  if (constant !== undefined) return { kind: "number", text: name, value: constant, at };
  if (KEYWORDS.has(name)) return { kind: "sign", text: SPELLINGS.get(name) ?? name, value: 0, at };
  if (NUMBER.test(name)) return { kind: "number", text: name, value: readNumber(text, name, at), at };
  if (OCTETS.test(name)) return { kind: "ipv4", text: name, value: 0, at };
  if (LINK_ADDRESS.test(name)) refuse(text, "a link-layer address, which IP packets have not", at);
  return { kind: "name", text: name, value: 0, at };
}

function readNumber(text: string, digits: string, at: number): number {
  const isOctal = /^0[0-9]/.test(digits);
  if (isOctal && /[89]/.test(digits)) refuse(text, "an octal number with an 8 or 9", at);
  const value = isOctal ? parseInt(digits, 8) : Number(digits);
  if (value > 0xffff_ffff) refuse(text, "a number of more than 32 bits", at);
  return value;
}
