/** Reads a filter's tokens, for the parser. */

import { readTokens, refuse, type Token } from "./_lexer.ts";
import { LINK_WORDS } from "./_words.ts";

// Implementation

/** Maximum nesting of parentheses, indices and operations. */
export const MAX_DEPTH = 64;
const TOO_DEEP = `nesting must be at most ${MAX_DEPTH} levels`;

/** Tokens of a filter with a current position. */
export class Tokens {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  /** Index of the closing parenthesis by that of the opening one. */
  readonly #closings: ReadonlyMap<number, number>;
  #next = 0;

  constructor(text: string) {
    this.#text = text;
    this.#tokens = readTokens(text);
    this.#closings = this.#matchParentheses();
  }

  #matchParentheses(): ReadonlyMap<number, number> {
    const closings = new Map<number, number>();
    const open: number[] = [];
    this.#tokens.forEach((token, index) => {
      if (token.kind !== "sign") return;
      if (token.text === "(") {
        if (open.push(index) > MAX_DEPTH) this.refuse(TOO_DEEP, token);
      } else if (token.text === ")") {
        const opening = open.pop();
        if (opening === undefined) this.refuse('")" has no "("', token);
        closings.set(opening, index);
      }
    });
    const unclosed = open.pop();
    if (unclosed !== undefined) this.refuse('"(" has no ")"', this.#tokens[unclosed]);
    return closings;
  }

  /** Next token. */
  get token(): Token {
    return this.#tokens[this.#next]!;
  }

  /** Throws the error for a token, by default the next one. */
  refuse(reason: string, token = this.token): never {
    refuse(this.#text, reason, token.at);
  }

  /** Throws the error for a next token that the grammar does not allow. */
  unexpected(expected = ""): never {
    const { kind, text } = this.token;
    if (kind === "sign" && LINK_WORDS.has(text)) this.refuse(`"${text}" does not apply to IP packets`);
    const found = kind === "end" ? "end" : JSON.stringify(text);
    this.refuse(expected === "" ? `unexpected ${found}` : `expected ${expected}, got ${found}`);
  }

  /** Returns the token that is `count` after the next; `undefined` after the end. */
  ahead(count: number): Token | undefined {
    return this.#tokens[this.#next + count];
  }

  /** Returns the distance from the next token, an opening parenthesis, to the closing one. */
  closing(): number {
    return this.#closings.get(this.#next)! - this.#next;
  }

  skip(count = 1): void {
    this.#next += count;
  }

  isEnd(): boolean {
    return this.token.kind === "end";
  }

  /** Reports whether the next token, or the one `ahead` after it, is this keyword or operator. */
  isSign(text: string, ahead = 0): boolean {
    const token = this.ahead(ahead);
    return token?.kind === "sign" && token.text === text;
  }

  /** Skips this keyword or operator if it is the next token; returns whether it was. */
  accept(text: string): boolean {
    const found = this.isSign(text);
    if (found) this.skip();
    return found;
  }

  /** Skips this keyword or operator, which must be the next token. */
  expect(text: string): void {
    if (!this.accept(text)) this.unexpected(JSON.stringify(text));
  }

  /** Returns and skips a number, which must be the next token. */
  number(): number {
    const { kind, value } = this.token;
    if (kind !== "number") this.unexpected("a number");
    this.skip();
    return value;
  }

  /** Returns the next level of nesting. */
  deeper(depth: number): number {
    if (depth >= MAX_DEPTH) this.refuse(TOO_DEEP);
    return depth + 1;
  }
}
