/** Parses a filter to a tree; `README.md` has the grammar. */

import { Direction } from "../core/mod.ts";
import { IPV4_DST, IPV6_DST } from "../wire/header_fields.ts";
import { type Qualifier, readId } from "./_ids.ts";
import { isRelation, readRelation } from "./_arithmetic.ts";
import { Tokens } from "./_tokens.ts";
import { all, chain, type Link, load, relation, type Side, sizeOf, type Test, type Value } from "./_tree.ts";
import { PROTOCOL_WORDS } from "./_words.ts";

// Implementation
/** Maximum size of the tree (tests, numbers and operations), which limits the time per packet. */
const MAX_SIZE = 32_768;

/** Qualifier of an address with a full-length prefix and without a keyword. */
const HOST: Qualifier = { protocol: "", side: "or", kind: "host" };

/** Kinds of an address or number. */
const KINDS: ReadonlySet<string> = new Set(["host", "net", "port", "portrange", "proto", "protochain"]);

/** A part of a filter. */
interface Part {
  readonly test: Test;
  /** Qualifier of a bare name or number that follows. */
  readonly qualifier: Qualifier | undefined;
  /** Set for bare names or numbers. */
  readonly isBare: boolean;
}

/** Parses a filter. */
export function parseFilter(text: string): Test {
  return new Parser(text).filter();
}

class Parser {
  readonly #tokens: Tokens;

  constructor(text: string) {
    this.#tokens = new Tokens(text);
  }

  filter(): Test {
    if (this.#tokens.isEnd()) return { kind: "true" };
    const { test } = this.#chain(undefined, 0);
    if (!this.#tokens.isEnd()) this.#tokens.unexpected();
    if (sizeOf(test) > MAX_SIZE) this.#tokens.refuse(`filter must have at most ${MAX_SIZE} instructions`);
    return test;
  }

  /** `part { (and | or) part }`, from left to right. */
  #chain(inherited: Qualifier | undefined, depth: number): Part {
    const first = this.#part(inherited, depth);
    let { qualifier } = first;
    const rest: Link[] = [];
    while (this.#tokens.isSign("and") || this.#tokens.isSign("or")) {
      const operator = this.#tokens.token.text as "and" | "or";
      this.#tokens.skip();
      const start = this.#tokens.token;
      const part = this.#part(qualifier, depth);
      if (first.isBare && !part.isBare) {
        this.#tokens.refuse(`expected a name or number, got ${JSON.stringify(start.text)}`, start);
      }
      qualifier = part.qualifier;
      rest.push({ operator, test: part.test });
    }
    return { test: chain(first.test, rest), qualifier, isBare: first.isBare };
  }

  /** `{ not } (( chain ) | primitive | relation | bare)` */
  #part(inherited: Qualifier | undefined, depth: number): Part {
    let isNot = false;
    while (this.#tokens.accept("!")) isNot = !isNot;
    const part = this.#positivePart(inherited, depth);
    return isNot ? { ...part, test: { kind: "not", test: part.test } } : part;
  }

  #positivePart(inherited: Qualifier | undefined, depth: number): Part {
    if (isRelation(this.#tokens)) {
      return { test: readRelation(this.#tokens, depth), qualifier: undefined, isBare: false };
    }
    const { kind, text } = this.#tokens.token;
    if (kind === "end") this.#tokens.unexpected("an expression");
    if (kind !== "sign") {
      const isPrefixed = (kind === "ipv4" || kind === "ipv6") && this.#tokens.isSign("/", 1);
      const qualifier = inherited ?? (isPrefixed ? HOST : undefined);
      if (qualifier === undefined) {
        this.#tokens.refuse(`${text} needs a word such as host, net or port before it`);
      }
      return { test: readId(this.#tokens, qualifier), qualifier, isBare: inherited !== undefined };
    }
    if (text === "(") {
      this.#tokens.skip();
      const { test, isBare } = this.#chain(inherited, depth + 1);
      this.#tokens.expect(")");
      return { test, qualifier: inherited, isBare };
    }
    return { ...this.#primitive(depth), isBare: false };
  }

  /** Parses a primitive that starts with a keyword. */
  #primitive(depth: number): { test: Test; qualifier: Qualifier | undefined } {
    const { text } = this.#tokens.token;
    switch (text) {
      case "less":
      case "greater": {
        this.#tokens.skip();
        const right: Value = { kind: "number", value: this.#tokens.number() | 0 };
        const operator = text === "less" ? "<=" : ">=";
        const test: Test = { kind: "relation", operator, left: { kind: "length" }, right };
        return { test, qualifier: undefined };
      }
      case "inbound":
      case "outbound": {
        this.#tokens.skip();
        const direction = text === "inbound" ? Direction.Inbound : Direction.Outbound;
        return { test: { kind: "direction", direction }, qualifier: undefined };
      }
      case "broadcast":
      case "multicast":
        this.#tokens.refuse(`"${text}" does not apply to IP packets: write "ip ${text}"`);
    }
    const isProtocol = text === "ip" || text === "ip6" || PROTOCOL_WORDS.has(text);
    const protocol = isProtocol ? text : "";
    if (isProtocol) this.#tokens.skip();
    const addresses = isProtocol ? this.#addressKind(protocol) : undefined;
    if (addresses !== undefined) return { test: addresses, qualifier: undefined };
    const side = this.#side();
    const kind = this.#kind();
    if (side === undefined && kind === undefined) {
      if (!isProtocol) this.#tokens.unexpected("an expression");
      return { test: protocolTest(protocol), qualifier: undefined };
    }
    if (side !== undefined && (kind === "proto" || kind === "protochain")) {
      this.#tokens.skip(-1);
      this.#tokens.refuse(`"${kind}" does not take src or dst`);
    }
    const qualifier = { protocol, side: side ?? "or", kind: kind ?? "host" };
    return { test: this.#id(qualifier, depth), qualifier };
  }

  /** `ip broadcast`, `ip multicast`, `ip6 multicast` */
  #addressKind(protocol: string): Test | undefined {
    const { text } = this.#tokens.token;
    if (!this.#tokens.isSign("broadcast") && !this.#tokens.isSign("multicast")) return undefined;
    const isKnown = protocol === "ip" || (protocol === "ip6" && text === "multicast");
    if (!isKnown) this.#tokens.refuse(`"${protocol} ${text}" has no meaning`);
    this.#tokens.skip();
    const version: Test = { kind: "version", version: protocol === "ip" ? 4 : 6 };
    const at = protocol === "ip" ? IPV4_DST : IPV6_DST;
    if (text === "multicast") {
      const first = load("ip", 1, at);
      return protocol === "ip"
        ? all([version, relation(">=", first, 0xe0)])
        : all([version, relation("=", first, 0xff)]);
    }
    const address = load("ip", 4, at);
    const everyone: Link = { operator: "or", test: relation("=", address, -1) };
    return all([version, chain(relation("=", address, 0), [everyone])]);
  }

  #side(): Side | undefined {
    const { text } = this.#tokens.token;
    if (!this.#tokens.isSign("src") && !this.#tokens.isSign("dst")) return undefined;
    this.#tokens.skip();
    const other = text === "src" ? "dst" : "src";
    for (const both of ["or", "and"] as const) {
      if (this.#tokens.isSign(both) && this.#tokens.isSign(other, 1)) {
        this.#tokens.skip(2);
        return both;
      }
    }
    return text as Side;
  }

  #kind(): string | undefined {
    const { kind, text } = this.#tokens.token;
    if (kind !== "sign" || !KINDS.has(text)) return undefined;
    this.#tokens.skip();
    return text;
  }

  /** Parses the id after keywords: bare, after `not`, or in parentheses. */
  #id(qualifier: Qualifier, depth: number): Test {
    if (this.#tokens.accept("!")) {
      return { kind: "not", test: this.#id(qualifier, this.#tokens.deeper(depth)) };
    }
    if (!this.#tokens.accept("(")) return readId(this.#tokens, qualifier);
    const start = this.#tokens.token;
    const { test, isBare } = this.#chain(qualifier, depth + 1);
    if (!isBare) {
      this.#tokens.refuse("parentheses after a keyword must contain only names and numbers", start);
    }
    this.#tokens.expect(")");
    return test;
  }
}

function protocolTest(word: string): Test {
  if (word === "ip") return { kind: "version", version: 4 };
  if (word === "ip6") return { kind: "version", version: 6 };
  const { version, protocol } = PROTOCOL_WORDS.get(word)!;
  return { kind: "protocol", version, protocol };
}
