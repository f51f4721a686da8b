/** A filter's tokens as its parser takes them. */

import { readTokens, refuse, type Token } from "./_lexer.ts";
import { LINK_WORDS } from "./_words.ts";

// Implementation

/** How deep parentheses, indices and operations nest. */
export const MAX_DEPTH = 64;

/** Tokens, read one by one. */
export class Tokens {
  readonly #text: string;
  readonly #tokens: readonly Token[];
  /** For each opening parenthesis where it is closed, as indices of tokens. */
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
        if (open.push(index) > MAX_DEPTH) this.refuse(`more than ${MAX_DEPTH} levels`, token);
      } else if (token.text === ")") {
        const opening = open.pop();
        if (opening === undefined) this.refuse("a ) without its (", token);
        closings.set(opening, index);
      }
    });
    const unclosed = open.pop();
    if (unclosed !== undefined) this.refuse("a ( without its )", this.#tokens[unclosed]);
    return closings;
  }

  /** The next token. */
  get token(): Token {
    return this.#tokens[this.#next]!;
  }

  /** Refuses the filter because of the next token, or another. */
  refuse(what: string, token = this.token): never {
    refuse(this.#text, what, token.at);
  }

  /** Refuses the next token, instead of which something else is wanted. */
  unexpected(wanted = ""): never {
    const { kind, text } = this.token;
    if (kind === "sign" && LINK_WORDS.has(text)) this.refuse(`"${text}" asks for what IP packets have not`);
    const found = kind === "end" ? "the text ends" : `unexpected ${JSON.stringify(text)}`;
    this.refuse(wanted === "" ? found : `${found} instead of ${wanted}`);
  }

  /** The token so many behind the next one; `undefined` behind the end. */
  ahead(count: number): Token | undefined {
    return this.#tokens[this.#next + count];
  }

  /** How many tokens behind the next one, an opening parenthesis, its closing one stands. */
  closing(): number {
    return this.#closings.get(this.#next)! - this.#next;
  }

  /** Steps over tokens. */
  skip(count = 1): void {
    this.#next += count;
  }

  /** Whether no token is left. */
  isEnd(): boolean {
    return this.token.kind === "end";
  }

  /** Whether this keyword or sign comes next, or so many behind. */
  isSign(text: string, ahead = 0): boolean {
    const token = this.ahead(ahead);
    return token?.kind === "sign" && token.text === text;
  }

  /** Steps over this keyword or sign; whether it was there. */
  accept(text: string): boolean {
    const found = this.isSign(text);
    if (found) this.skip();
    return found;
  }

  /** Steps over this keyword or sign, which must be there. */
  expect(text: string): void {
    if (!this.accept(text)) this.unexpected(JSON.stringify(text));
  }

  /** Steps over a number, which must be there. */
  number(): number {
    const { kind, value } = this.token;
    if (kind !== "number") this.unexpected("a number");
    this.skip();
    return value;
  }

  /** One level more, if there may be. */
  deeper(depth: number): number {
    if (depth >= MAX_DEPTH) this.refuse(`more than ${MAX_DEPTH} levels`);
    return depth + 1;
  }
}
