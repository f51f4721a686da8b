/** Splits the text of a filter into tokens. */

import { CONSTANTS, KEYWORDS } from "./_words.ts";

/** A token of the text. */
export interface Token {
  /** Keyword or operator (`sign`), number, IPv4 address of two to four octets, IPv6 address, any other name, or end. */
  readonly kind: "sign" | "number" | "ipv4" | "ipv6" | "name" | "end";
  /** Text as written; a keyword or operator has one spelling (`and` for `&&`). */
  readonly text: string;
  /** Value of a number (32 bits). */
  readonly value: number;
  /** Offset in the text. */
  readonly at: number;
}

// Implementation

/** Maximum length of the text (characters), enough for generated filters. */
const MAX_TEXT = 65_536;
/** Length of the text in an error (characters). */
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
const NO_LINK_ADDRESS = "a link-layer address does not apply to IP packets";
const SPELLINGS: ReadonlyMap<string, string> = new Map([
  ["&&", "and"],
  ["||", "or"],
  ["not", "!"],
  ["==", "="],
  ["length", "len"],
]);

/** Throws the error for a filter, with the reason and the column. */
export function refuse(text: string, reason: string, at: number): never {
  const start = Math.max(0, Math.min(at - SHOWN / 2, text.length - SHOWN));
  const end = start + SHOWN;
  const shown = `${start > 0 ? "..." : ""}${text.slice(start, end)}${end < text.length ? "..." : ""}`;
  throw new SyntaxError(`Cannot parse filter ${JSON.stringify(shown)}: ${reason} at column ${at + 1}`);
}

/** Splits the text into tokens; the last one is the end. */
export function readTokens(text: string): Token[] {
  if (text.length > MAX_TEXT) refuse(text, `text must have at most ${MAX_TEXT} characters`, MAX_TEXT);
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
      if (LINK_ADDRESS.test(colons)) refuse(text, NO_LINK_ADDRESS, at);
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
      } else refuse(text, `unexpected ${JSON.stringify(text[at])}`, at);
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
  if (LINK_ADDRESS.test(name)) refuse(text, NO_LINK_ADDRESS, at);
  return { kind: "name", text: name, value: 0, at };
}

function readNumber(text: string, digits: string, at: number): number {
  const isOctal = /^0[0-9]/.test(digits);
  if (isOctal && /[89]/.test(digits)) {
    refuse(text, `octal number must have digits from 0 to 7, got ${digits}`, at);
  }
  const value = isOctal ? parseInt(digits, 8) : Number(digits);
  if (value > 0xffff_ffff) refuse(text, `number must have at most 32 bits, got ${digits}`, at);
  return value;
}
