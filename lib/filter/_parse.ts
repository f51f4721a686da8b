/** Reads a filter's text: words, then terms, then a checked tree. */

import { parseIpv4, parseIpv6 } from "../address.ts";
import { Direction } from "../core/stage.ts";
import { CONSTANTS, PROTOCOL_NAMES, PROTOCOLS, REFUSED, SERVICES } from "./_names.ts";
import { calculate } from "./_program.ts";
import {
  type Arithmetic,
  type Base,
  Family,
  type Operator,
  type Relation,
  Side,
  type Test,
} from "./_tree.ts";

// Implementation
const MAX_LENGTH = 4096;
const MAX_DEPTH = 48;
const WORD = /[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?/y;
const IPV6 = /(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f.:]*/y;
const ESCAPED = /\\[^ !()\n\t]+/y;
const SIGN = /&&|\|\||>=|<=|!=|==|<<|>>|[-+*/%:[\]!<>()&|^=]/y;
const NUMBER = /^(?:0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i;
const QUAD = /^[0-9]+(?:\.[0-9]+){1,3}$/;
const SYNONYMS: ReadonlyMap<string, string> = new Map([["&&", "and"], ["||", "or"], ["not", "!"], [
  "==",
  "=",
]]);
/** How tightly operators bind; `%` and `^` take all that follows, as libpcap's grammar has it. */
const PRECEDENCE: ReadonlyMap<string, number> = new Map([
  ["|", 1],
  ["&", 2],
  ["<<", 3],
  [">>", 3],
  ["+", 4],
  ["-", 4],
  ["*", 5],
  ["/", 5],
  ["%", 9],
  ["^", 9],
]);
const RELATIONS = new Set(["=", "!=", ">", ">=", "<", "<="]);
const KEYWORDS = new Set(
  "and or ! src dst host net port portrange proto ip ip6 mask less greater len length inbound outbound multicast"
    .split(" "),
);
/** Protocols whose header can be loaded from. */
const LOADABLE = new Set(["tcp", "udp", "sctp", "icmp", "igmp", "igrp", "pim", "vrrp", "carp"]);

interface Token {
  readonly kind: "word" | "sign" | "number" | "quad" | "ipv6" | "escaped" | "end";
  readonly text: string;
  readonly at: number;
  readonly value: number;
}

/** What stands before an id, and holds for the next ones too. */
interface Qualifiers {
  readonly protocol: string;
  readonly side: Side;
  readonly type: "host" | "net" | "port" | "portrange" | "proto";
}

/** A test, and the qualifiers that an id behind it takes. */
interface Term {
  readonly test: Test;
  readonly qualifiers: Qualifiers | undefined;
}

/** Reads a filter. @throws {SyntaxError} naming the column. */
export function parse(text: string): Test {
  return new Parser(text).parse();
}

class Parser {
  readonly #text: string;
  readonly #tokens: Token[] = [];
  /** For each opening parenthesis, the token behind its closing one. */
  readonly #behind = new Map<number, number>();
  #next = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    if (text.length > MAX_LENGTH) {
      throw new SyntaxError(
        `Cannot compile the filter: ${text.length} characters, ${MAX_LENGTH} are possible, at column ${
          MAX_LENGTH + 1
        }`,
      );
    }
    this.#split();
  }

  parse(): Test {
    if (this.#tokens.length === 1) return { kind: "all" };
    const { test } = this.#expression(undefined, false);
    if (this.#peek.kind !== "end") this.#fail(`${this.#name} is not expected here`);
    return test;
  }

  #fail(what: string, token = this.#peek): never {
    throw new SyntaxError(
      `Cannot compile the filter ${JSON.stringify(this.#text)}: ${what} at column ${token.at + 1}`,
    );
  }

  get #peek(): Token {
    return this.#tokens[this.#next]!;
  }

  get #name(): string {
    return this.#peek.kind === "end" ? "the end" : JSON.stringify(this.#peek.text);
  }

  #is(text: string, at = this.#next): boolean {
    const token = this.#tokens[at];
    return token !== undefined && (token.kind === "word" || token.kind === "sign") && token.text === text;
  }

  #take(text: string): boolean {
    if (!this.#is(text)) return false;
    this.#next++;
    return true;
  }

  #expect(text: string): void {
    if (!this.#take(text)) this.#fail(`${this.#name} instead of "${text}"`);
  }

  #split(): void {
    const text = this.#text;
    const open: number[] = [];
    const match = (pattern: RegExp, at: number) => {
      pattern.lastIndex = at;
      return pattern.exec(text)?.[0];
    };
    let at = 0;
    for (;;) {
      while (at < text.length && " \t\r\n".includes(text[at]!)) at++;
      if (at === text.length) break;
      const ipv6 = match(IPV6, at);
      const word = ipv6 ?? match(WORD, at) ?? match(ESCAPED, at) ?? match(SIGN, at);
      if (word === undefined) {
        this.#fail(`${JSON.stringify(text[at])} is no part of a filter`, { at } as Token);
      }
      let kind: Token["kind"] = ipv6 !== undefined ? "ipv6" : word[0] === "\\" ? "escaped" : "word";
      let value = 0;
      if (kind === "word") {
        const constant = CONSTANTS.get(word);
        if (constant !== undefined || NUMBER.test(word)) {
          kind = "number";
          value = constant ?? Number(/^0[0-7]/.test(word) ? `0o${word}` : word);
          if (value > 0xffffffff) this.#fail(`${word} has more than 32 bits`, { at } as Token);
        } else if (QUAD.test(word)) kind = "quad";
        else if (!/^[A-Za-z0-9]/.test(word)) kind = "sign";
      }
      const index = this.#tokens.length;
      if (kind === "sign" && word === "(") open.push(index);
      if (kind === "sign" && word === ")" && open.length > 0) this.#behind.set(open.pop()!, index + 1);
      const plain = kind === "word" || kind === "sign" ? SYNONYMS.get(word) ?? word : word;
      this.#tokens.push({ kind, text: plain, at, value });
      at += word.length;
    }
    this.#tokens.push({ kind: "end", text: "", at, value: 0 });
  }

  /** Runs what nests, no deeper than is bounded. */
  #nested<T>(read: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail(`more than ${MAX_DEPTH} levels`);
    const result = read();
    this.#depth--;
    return result;
  }

  /** Terms joined by `and` and `or`, which bind alike, from left to right. */
  #expression(inherited: Qualifiers | undefined, idsOnly: boolean): Term {
    let { test, qualifiers } = this.#term(inherited, idsOnly);
    for (;;) {
      const kind = this.#is("and") ? "and" : this.#is("or") ? "or" : undefined;
      if (kind === undefined) return { test, qualifiers };
      this.#next++;
      const right = this.#term(qualifiers, idsOnly);
      test = { kind, left: test, right: right.test };
      qualifiers = right.qualifiers;
    }
  }

  #term(inherited: Qualifiers | undefined, idsOnly: boolean): Term {
    if (this.#startsId(this.#next) || idsOnly) return this.#id(inherited);
    if (this.#take("!")) {
      const { test, qualifiers } = this.#nested(() => this.#term(inherited, false));
      return { test: { kind: "not", test }, qualifiers };
    }
    if (this.#is("(") && !this.#isArithmetic(this.#next)) {
      this.#next++;
      const { test } = this.#nested(() => this.#expression(inherited, false));
      this.#expect(")");
      return { test, qualifiers: inherited };
    }
    if (this.#isArithmetic(this.#next)) return { test: this.#relation(), qualifiers: undefined };
    return this.#primitive();
  }

  /** Whether a number or sum starts here, not a test. */
  #isArithmetic(at: number): boolean {
    const token = this.#tokens[at]!;
    if (token.kind === "number") return this.#isOperator(at + 1);
    if (this.#is("(", at)) {
      const behind = this.#behind.get(at);
      return behind !== undefined && this.#isOperator(behind);
    }
    return this.#is("-", at) || this.#is("len", at) || this.#is("length", at) || this.#is("[", at + 1);
  }

  #isOperator(at: number): boolean {
    const { kind, text } = this.#tokens[at]!;
    return kind === "sign" && (PRECEDENCE.has(text) || RELATIONS.has(text));
  }

  /** Whether an id starts here: an address, a number or a name without words of its own before it. */
  #startsId(at: number): boolean {
    for (;; at++) {
      if (this.#isArithmetic(at)) return false;
      if (!this.#is("(", at) && !this.#is("!", at)) break;
    }
    const { kind, text } = this.#tokens[at]!;
    if (kind === "word") return !KEYWORDS.has(text) && !PROTOCOLS.has(text) && !REFUSED.has(text);
    return kind !== "sign" && kind !== "end";
  }

  #id(qualifiers: Qualifiers | undefined): Term {
    if (this.#take("!")) {
      const { test } = this.#nested(() => this.#id(qualifiers));
      return { test: { kind: "not", test }, qualifiers };
    }
    if (this.#take("(")) {
      const { test } = this.#nested(() => this.#expression(qualifiers, true));
      this.#expect(")");
      return { test, qualifiers };
    }
    if (qualifiers === undefined) {
      const { kind, text } = this.#peek;
      if (kind === "word" && REFUSED.has(text)) this.#fail(REFUSED.get(text)!);
      this.#fail(`${this.#name} needs a word like "host" or "port" before it`);
    }
    const { type } = qualifiers;
    if (type === "proto") return { test: this.#protocol(qualifiers), qualifiers };
    if (type === "port" || type === "portrange") return { test: this.#ports(qualifiers), qualifiers };
    return { test: this.#address(qualifiers), qualifiers };
  }

  #protocol({ protocol }: Qualifiers): Test {
    const token = this.#peek;
    const name = token.kind === "escaped" ? token.text.slice(1) : token.text;
    const number = token.kind === "number" ? token.value : PROTOCOL_NAMES.get(name);
    if (token.kind === "word" && PROTOCOLS.has(name)) this.#fail(`"${name}" needs a backslash before it`);
    if (number === undefined) this.#fail(`${this.#name} is no protocol that is known`);
    this.#next++;
    const family = protocol === "ip" ? Family.Ipv4 : protocol === "ip6" ? Family.Ipv6 : Family.Any;
    return { kind: "protocol", family, protocol: number };
  }

  #ports({ protocol, side, type }: Qualifiers): Test {
    const token = this.#peek;
    const range = [token.text];
    if (token.kind === "word" && type === "portrange") {
      const dash = token.text.indexOf("-");
      if (dash > 0) range.splice(0, 1, token.text.slice(0, dash), token.text.slice(dash + 1));
    }
    const asked = protocol === "" ? 0 : PROTOCOLS.get(protocol)!;
    const overs: number[] = [];
    const ports = range.map((name) => {
      const escaped = name.replace(/^\\/, "");
      const service = SERVICES.get(escaped);
      const port = token.kind === "number" ? token.value : NUMBER.test(name) ? Number(name) : service?.port;
      if (port === undefined) this.#fail(`${JSON.stringify(escaped)} is no port that is known`);
      if (port > 65_535) this.#fail(`${port} is above 65535`);
      const over = service?.protocol ?? 0;
      if (over !== 0 && asked !== 0 && asked !== over) {
        this.#fail(`port "${escaped}" is not one of ${protocol}`);
      }
      overs.push(over);
      return port;
    });
    this.#next++;
    const number = asked === 0 && overs.every((over) => over === overs[0]) ? overs[0]! : asked;
    return { kind: "ports", protocol: number, side, low: Math.min(...ports), high: Math.max(...ports) };
  }

  #address({ protocol, side, type }: Qualifiers): Test {
    const token = this.#peek;
    if (token.kind === "ipv6") {
      if (protocol === "ip") this.#fail(`"ip" before an IPv6 address`);
      this.#next++;
      const bytes = this.#checked(() => parseIpv6(token.text), token);
      const length = this.#prefixLength(128, type, token);
      const view = new DataView(bytes.buffer);
      const words = [0, 4, 8, 12].map((at) => view.getInt32(at));
      const masks = [0, 32, 64, 96].map((start) => maskOf(length - start));
      if (words.some((word, i) => (word & ~masks[i]!) !== 0)) {
        this.#fail("bits are set behind the prefix", token);
      }
      return { kind: "ipv6", side, words, masks };
    }
    if (protocol === "ip6") this.#fail(`"ip6" before ${this.#name}, which is no IPv6 address`);
    if (token.kind === "number") {
      this.#next++;
      let { value } = token;
      let mask = -1;
      while (type === "net" && value !== 0 && value >>> 24 === 0) {
        value = value << 8 >>> 0;
        mask <<= 8;
      }
      return { kind: "ipv4", side, address: value | 0, mask };
    }
    if (token.kind !== "quad") this.#fail(`${this.#name} is no address, and names are not looked up`);
    this.#next++;
    const [address, given] = this.#quad(token);
    let mask = maskOf(given);
    if (this.#is("/")) mask = maskOf(this.#prefixLength(32, type, token));
    else if (this.#take("mask")) {
      if (type !== "net") this.#fail(`a mask behind "${type}"`, token);
      const other = this.#peek;
      if (other.kind !== "quad") this.#fail(`${this.#name} is no mask`);
      this.#next++;
      mask = this.#quad(other)[0];
    }
    if ((address & ~mask) !== 0) this.#fail("bits are set behind the prefix", token);
    return { kind: "ipv4", side, address, mask };
  }

  /** Two to four octets as an address, and how many bits they are. */
  #quad(token: Token): [address: number, bits: number] {
    const octets = token.text.split(".").length;
    const address = this.#checked(() => parseIpv4(token.text + ".0".repeat(4 - octets)), token);
    return [address | 0, 8 * octets];
  }

  #checked<T>(read: () => T, token: Token): T {
    try {
      return read();
    } catch {
      this.#fail(`${JSON.stringify(token.text)} is no address`, token);
    }
  }

  #prefixLength(most: number, type: string, address: Token): number {
    if (!this.#take("/")) return most;
    const token = this.#peek;
    if (token.kind !== "number" || token.value > most) {
      this.#fail(`${this.#name} is no prefix length up to ${most}`);
    }
    if (type !== "net" && token.value !== most) this.#fail(`a prefix length behind "${type}"`, address);
    if (type !== "net" && most === 32) this.#fail(`a prefix length behind "${type}"`, address);
    this.#next++;
    return token.value;
  }

  #primitive(): Term {
    const start = this.#peek;
    const refusal = start.kind === "word" ? REFUSED.get(start.text) : undefined;
    if (refusal !== undefined) this.#fail(refusal);
    if (this.#take("less")) return this.#lengthTest("less");
    if (this.#take("greater")) return this.#lengthTest("greater");
    if (this.#take("inbound")) return plain({ kind: "direction", direction: Direction.Inbound });
    if (this.#take("outbound")) return plain({ kind: "direction", direction: Direction.Outbound });

    let protocol = "";
    if (start.kind === "word" && (start.text === "ip" || start.text === "ip6" || PROTOCOLS.has(start.text))) {
      protocol = start.text;
      this.#next++;
    }
    if (this.#is("multicast") || this.#is("broadcast")) {
      if (this.#is("broadcast")) this.#fail(REFUSED.get("broadcast")!);
      if (protocol !== "ip" && protocol !== "ip6") {
        this.#fail(`"multicast" without "ip" or "ip6" needs a link layer`);
      }
      this.#next++;
      return plain({ kind: "multicast", version: protocol === "ip" ? 4 : 6 });
    }
    const side = this.#side();
    const type = this.#type();
    if (side === undefined && type === undefined) {
      if (protocol === "") this.#fail(`${this.#name} is not expected here`);
      return plain(abbreviation(protocol));
    }
    if (type === "proto" && side !== undefined) this.#fail(`a direction before "proto"`, start);
    const qualifiers: Qualifiers = { protocol, side: side ?? Side.Either, type: type ?? "host" };
    const allowed = type === "port" || type === "portrange" ? ["", "tcp", "udp", "sctp"] : ["", "ip", "ip6"];
    if (!allowed.includes(protocol)) this.#fail(`"${protocol}" before "${qualifiers.type}"`, start);
    if (!this.#startsId(this.#next)) {
      const known = REFUSED.get(this.#peek.text);
      const backslash = type === "proto" && PROTOCOLS.has(this.#peek.text)
        ? ": it needs a backslash before it"
        : "";
      this.#fail(known ?? `${this.#name} instead of what "${qualifiers.type}" is about${backslash}`);
    }
    return this.#id(qualifiers);
  }

  #side(): Side | undefined {
    const first = this.#is("src") ? "src" : this.#is("dst") ? "dst" : undefined;
    if (first === undefined) return undefined;
    this.#next++;
    const other = first === "src" ? "dst" : "src";
    if ((this.#is("and") || this.#is("or")) && this.#is(other, this.#next + 1) && this.#joinsSides()) {
      const side = this.#is("and") ? Side.Both : Side.Either;
      this.#next += 2;
      return side;
    }
    return first === "src" ? Side.Src : Side.Dst;
  }

  /** `src or dst` is one thing: nothing but an id could stand between them. */
  #joinsSides(): boolean {
    return this.#tokens[this.#next]!.kind === "word";
  }

  #type(): Qualifiers["type"] | undefined {
    for (const type of ["host", "net", "port", "portrange", "proto"] as const) {
      if (this.#take(type)) return type;
    }
    if (this.#is("protochain")) this.#fail(REFUSED.get("protochain")!);
    if (this.#is("gateway")) this.#fail(REFUSED.get("gateway")!);
    return undefined;
  }

  #lengthTest(word: "less" | "greater"): Term {
    const token = this.#peek;
    if (token.kind !== "number") this.#fail(`${this.#name} is no number`);
    this.#next++;
    const right: Arithmetic = { kind: "constant", value: token.value };
    const test: Test = {
      kind: "relation",
      relation: word === "less" ? ">" : ">=",
      left: { kind: "length" },
      right,
    };
    return plain(word === "less" ? { kind: "not", test } : test);
  }

  #relation(): Test {
    const left = this.#sum(0);
    const { text } = this.#peek;
    if (!RELATIONS.has(text)) this.#fail(`${this.#name} instead of a comparison`);
    this.#next++;
    const right = this.#sum(0);
    const [relation, isNot] = ({
      "=": ["=", false],
      "!=": ["=", true],
      ">": [">", false],
      "<=": [">", true],
      ">=": [">=", false],
      "<": [">=", true],
    } as Record<string, [Relation, boolean]>)[text]!;
    let test: Test = { kind: "relation", relation, left, right };
    if (isNot) test = { kind: "not", test };
    // What is loaded from must be there before anything is loaded.
    for (const base of [...basesOf(left), ...basesOf(right)].reverse()) {
      test = { kind: "and", left: { kind: "first", base }, right: test };
    }
    return test;
  }

  #sum(least: number): Arithmetic {
    let left = this.#operand();
    for (;;) {
      const token = this.#peek;
      const precedence = token.kind === "sign" ? PRECEDENCE.get(token.text) : undefined;
      if (precedence === undefined || precedence <= least) return left;
      this.#next++;
      const right = this.#nested(() => this.#sum(precedence === 9 ? 0 : precedence));
      left = this.#combine(token, left, right);
    }
  }

  #combine(token: Token, left: Arithmetic, right: Arithmetic): Arithmetic {
    const operator = token.text as Operator;
    if (right.kind === "constant") {
      if (right.value === 0 && (operator === "/" || operator === "%")) {
        this.#fail("a division by zero", token);
      }
      if (right.value > 31 && (operator === "<<" || operator === ">>")) {
        this.#fail("a shift by more than 31", token);
      }
      if (left.kind === "constant") {
        return { kind: "constant", value: calculate(operator, left.value, right.value) };
      }
    }
    return { kind: "binary", operator, left, right };
  }

  #operand(): Arithmetic {
    const token = this.#peek;
    if (token.kind === "number") {
      this.#next++;
      return { kind: "constant", value: token.value };
    }
    if (this.#take("-")) {
      const value = this.#nested(() => this.#sum(8));
      return this.#combine({ ...token, text: "-" }, { kind: "constant", value: 0 }, value);
    }
    if (this.#take("(")) {
      const value = this.#nested(() => this.#sum(0));
      this.#expect(")");
      return value;
    }
    if (this.#take("len") || this.#take("length")) return { kind: "length" };
    const base = this.#base();
    this.#expect("[");
    const index = this.#nested(() => this.#sum(0));
    let size = 1;
    if (this.#take(":")) {
      size = this.#peek.kind === "number" ? this.#peek.value : 0;
      if (size !== 1 && size !== 2 && size !== 4) this.#fail(`${this.#name} instead of 1, 2 or 4 bytes`);
      this.#next++;
    }
    this.#expect("]");
    return { kind: "load", base, index, size: size as 1 | 2 | 4 };
  }

  #base(): Base {
    const { kind, text } = this.#peek;
    if (kind === "word" && REFUSED.has(text)) this.#fail(REFUSED.get(text)!);
    if (kind === "word" && (text === "ip" || text === "ip6" || text === "icmp6")) {
      this.#next++;
      return { kind: text };
    }
    if (kind !== "word" || !LOADABLE.has(text)) this.#fail(`${this.#name} instead of a number`);
    this.#next++;
    return { kind: "transport", protocol: PROTOCOLS.get(text)! };
  }
}

function plain(test: Test): Term {
  return { test, qualifiers: undefined };
}

/** What a protocol's name alone asks. */
function abbreviation(name: string): Test {
  if (name === "ip" || name === "ip6") return { kind: "version", version: name === "ip" ? 4 : 6 };
  const family = name === "icmp6"
    ? Family.Ipv6
    : ["icmp", "igmp", "igrp", "vrrp", "carp"].includes(name)
    ? Family.Ipv4
    : Family.Any;
  return { kind: "protocol", family, protocol: PROTOCOLS.get(name)! };
}

function maskOf(length: number): number {
  return length <= 0 ? 0 : length >= 32 ? -1 : -1 << 32 - length;
}

/** The headers that a number is loaded from, the innermost first. */
function basesOf(arithmetic: Arithmetic): Base[] {
  if (arithmetic.kind === "load") return [...basesOf(arithmetic.index), arithmetic.base];
  if (arithmetic.kind === "binary") return [...basesOf(arithmetic.left), ...basesOf(arithmetic.right)];
  return [];
}
