/** Parses the comparisons of numbers in a filter. */

import type { Token } from "./_lexer.ts";
import { MAX_DEPTH, type Tokens } from "./_tokens.ts";
import { all, load, type Operator, type Relation, relation, type Test, type Value } from "./_tree.ts";
import { PROTOCOL_WORDS } from "./_words.ts";

/** Operator precedence; `%` and `^` have none: everything after them is their right operand. */
const PRECEDENCE: ReadonlyMap<string, number> = new Map([
  ["|", 1],
  ["&", 2],
  ["<<", 3],
  [">>", 3],
  ["+", 4],
  ["-", 4],
  ["*", 5],
  ["/", 5],
]);
const MAX_PRECEDENCE = 6;
const GREEDY: ReadonlySet<string> = new Set(["%", "^"]);
const RELATIONS: ReadonlySet<string> = new Set<Relation>(["=", "!=", "<", "<=", ">", ">="]);

/** A value, and the tests that a packet must pass before the value is read. */
interface Expression {
  readonly value: Value;
  readonly checks: readonly Test[];
  readonly depth: number;
}

/** Reports whether a comparison of numbers starts here. */
export function isRelation(tokens: Tokens): boolean {
  const { kind, text } = tokens.token;
  if (kind === "number") return isOperator(tokens, 1);
  if (kind !== "sign") return false;
  if (text === "(") return isOperator(tokens, tokens.closing() + 1);
  return text === "-" || text === "len" || tokens.isSign("[", 1);
}

function isOperator(tokens: Tokens, ahead: number): boolean {
  const token = tokens.ahead(ahead);
  return token?.kind === "sign" &&
    (PRECEDENCE.has(token.text) || GREEDY.has(token.text) || RELATIONS.has(token.text));
}

/** Reads `expr relation expr`. */
export function readRelation(tokens: Tokens, depth: number): Test {
  const left = readExpression(tokens, 0, depth);
  const { kind, text } = tokens.token;
  if (kind !== "sign" || !RELATIONS.has(text)) tokens.unexpected("a comparison");
  tokens.skip();
  const right = readExpression(tokens, 0, depth);
  const operator = text as Relation;
  const compare: Test = { kind: "relation", operator, left: left.value, right: right.value };
  return all([...left.checks, ...right.checks, compare]);
}

/** Reads operands and operators of higher precedence. */
function readExpression(tokens: Tokens, precedence: number, depth: number): Expression {
  let left = readOperand(tokens, depth);
  while (tokens.token.kind === "sign") {
    const { text } = tokens.token;
    const own = PRECEDENCE.get(text) ?? 0;
    const isGreedy = GREEDY.has(text);
    if (!isGreedy && own <= precedence) break;
    tokens.skip();
    const start = tokens.token;
    const right = readExpression(tokens, isGreedy ? 0 : own, tokens.deeper(depth));
    left = joinExpressions(tokens, text as Operator, left, right, start);
  }
  return left;
}

function joinExpressions(
  tokens: Tokens,
  operator: Operator,
  left: Expression,
  right: Expression,
  at: Token,
): Expression {
  if (right.value.kind === "number") {
    const { value } = right.value;
    if ((operator === "/" || operator === "%") && value === 0) tokens.refuse("division by zero", at);
    if ((operator === "<<" || operator === ">>") && value >>> 0 > 31) {
      tokens.refuse(`shift must be at most 31 bits, got ${value >>> 0}`, at);
    }
  }
  const depth = Math.max(left.depth, right.depth) + 1;
  if (depth > MAX_DEPTH) tokens.refuse(`operations must be nested at most ${MAX_DEPTH} deep`, at);
  const value: Value = { kind: "operation", operator, left: left.value, right: right.value };
  // Like libpcap, only the left operand's protocol is tested.
  return { value, checks: left.checks, depth };
}

function readOperand(tokens: Tokens, depth: number): Expression {
  const { kind, text, value } = tokens.token;
  if (kind === "number") {
    tokens.skip();
    return { value: { kind: "number", value: value | 0 }, checks: [], depth: 0 };
  }
  if (tokens.accept("-")) {
    const operand = readExpression(tokens, MAX_PRECEDENCE, tokens.deeper(depth));
    return { ...operand, value: { kind: "negation", value: operand.value }, depth: operand.depth + 1 };
  }
  if (tokens.accept("(")) {
    const operand = readExpression(tokens, 0, tokens.deeper(depth));
    tokens.expect(")");
    return operand;
  }
  if (tokens.accept("len")) return { value: { kind: "length" }, checks: [], depth: 0 };
  if (kind !== "sign" || !tokens.isSign("[", 1)) tokens.unexpected("a number");
  return readLoad(tokens, text, tokens.deeper(depth));
}

/** Reads `protocol [ expr : size ]`. */
function readLoad(tokens: Tokens, word: string, depth: number): Expression {
  const own = loadChecks(word);
  if (own === undefined) {
    if (PROTOCOL_WORDS.has(word)) tokens.refuse(`"${word}" cannot be indexed`);
    tokens.unexpected("a number");
  }
  tokens.skip(2);
  const { value: index, checks, depth: indexDepth } = readExpression(tokens, 0, depth);
  let size = 1;
  if (tokens.accept(":")) {
    const token = tokens.token;
    size = tokens.number();
    if (size !== 1 && size !== 2 && size !== 4) {
      tokens.refuse(`size must be 1, 2 or 4, got ${size}`, token);
    }
  }
  tokens.expect("]");
  const base = word === "ip" || word === "ip6" ? "ip" : word === "icmp6" ? "ipv6 payload" : "transport";
  const value: Value = { kind: "load", base, size: size as 1 | 2 | 4, index };
  // In libpcap's order, which matters for a truncated packet.
  const inOrder = base === "transport" ? [own[0]!, ...checks, ...own.slice(1)] : [...checks, ...own];
  return { value, checks: inOrder, depth: indexDepth + 1 };
}

/** Returns the tests that a packet must pass before this keyword reads its bytes. */
function loadChecks(word: string): Test[] | undefined {
  if (word === "ip") return [{ kind: "version", version: 4 }];
  if (word === "ip6") return [{ kind: "version", version: 6 }];
  const known = PROTOCOL_WORDS.get(word);
  if (known === undefined || !known.indexed) return undefined;
  if (known.version === 6) {
    return [{ kind: "version", version: 6 }, relation("=", load("ip", 1, 6), known.protocol)];
  }
  const isProtocol: Test = { kind: "protocol", version: 4, protocol: known.protocol };
  return [{ kind: "version", version: 4 }, isProtocol, { kind: "first fragment" }];
}
