/** The part of a filter that compares numbers. */

import type { Token } from "./_lexer.ts";
import { MAX_DEPTH, type Tokens } from "./_tokens.ts";
import { all, load, type Operator, type Relation, relation, type Test, type Value } from "./_tree.ts";
import { PROTOCOL_WORDS } from "./_words.ts";

/** How tight an operator holds its operands. `%` and `^` are not here: each takes all that follows as its right one. */
const TIGHTNESS: ReadonlyMap<string, number> = new Map([
  ["|", 1],
  ["&", 2],
  ["<<", 3],
  [">>", 3],
  ["+", 4],
  ["-", 4],
  ["*", 5],
  ["/", 5],
]);
const TIGHTEST = 6;
const GREEDY: ReadonlySet<string> = new Set(["%", "^"]);
const RELATIONS: ReadonlySet<string> = new Set<Relation>(["=", "!=", "<", "<=", ">", ">="]);

/** A number, and what must be true of the packet for it to be read. */
interface Sum {
  readonly value: Value;
  readonly checks: readonly Test[];
  readonly depth: number;
}

/** Whether a comparison of numbers starts here. */
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
    (TIGHTNESS.has(token.text) || GREEDY.has(token.text) || RELATIONS.has(token.text));
}

/** `sum relation sum` */
export function readRelation(tokens: Tokens, depth: number): Test {
  const left = readSum(tokens, 0, depth);
  const { kind, text } = tokens.token;
  if (kind !== "sign" || !RELATIONS.has(text)) tokens.unexpected("a comparison");
  tokens.skip();
  const right = readSum(tokens, 0, depth);
  const compare: Test = {
    kind: "relation",
    operator: text as Relation,
    left: left.value,
    right: right.value,
  };
  return all([...left.checks, ...right.checks, compare]);
}

/** Operands and operators that hold tighter than `tightness`. */
function readSum(tokens: Tokens, tightness: number, depth: number): Sum {
  let left = readOperand(tokens, depth);
  while (tokens.token.kind === "sign") {
    const { text } = tokens.token;
    const own = TIGHTNESS.get(text) ?? 0;
    const isGreedy = GREEDY.has(text);
    if (!isGreedy && own <= tightness) break;
    tokens.skip();
    const start = tokens.token;
    const right = readSum(tokens, isGreedy ? 0 : own, tokens.deeper(depth));
    left = joinSums(tokens, text as Operator, left, right, start);
  }
  return left;
}

function joinSums(tokens: Tokens, operator: Operator, left: Sum, right: Sum, at: Token): Sum {
  if (right.value.kind === "number") {
    const { value } = right.value;
    if ((operator === "/" || operator === "%") && value === 0) tokens.refuse("a division by zero", at);
    if ((operator === "<<" || operator === ">>") && value >>> 0 > 31) {
      tokens.refuse("a shift by more than 31 bits", at);
    }
  }
  const depth = Math.max(left.depth, right.depth) + 1;
  if (depth > MAX_DEPTH) tokens.refuse(`more than ${MAX_DEPTH} operations on each other`, at);
  const value: Value = { kind: "operation", operator, left: left.value, right: right.value };
  // As libpcap has it, only the left operand's protocol is asked for.
  return { value, checks: left.checks, depth };
}

function readOperand(tokens: Tokens, depth: number): Sum {
  const { kind, text, value } = tokens.token;
  if (kind === "number") {
    tokens.skip();
    return { value: { kind: "number", value: value | 0 }, checks: [], depth: 0 };
  }
  if (tokens.accept("-")) {
    const sum = readSum(tokens, TIGHTEST, tokens.deeper(depth));
    return { ...sum, value: { kind: "negation", value: sum.value }, depth: sum.depth + 1 };
  }
  if (tokens.accept("(")) {
    const sum = readSum(tokens, 0, tokens.deeper(depth));
    tokens.expect(")");
    return sum;
  }
  if (tokens.accept("len")) return { value: { kind: "length" }, checks: [], depth: 0 };
  if (kind !== "sign" || !tokens.isSign("[", 1)) tokens.unexpected("a number");
  return readLoad(tokens, text, tokens.deeper(depth));
}

/** `protocol [ sum : size ]` */
function readLoad(tokens: Tokens, word: string, depth: number): Sum {
  const own = loadChecks(word);
  if (own === undefined) {
    if (PROTOCOL_WORDS.has(word)) tokens.refuse(`"${word}" has no bytes to be read by their place`);
    tokens.unexpected("a number");
  }
  tokens.skip(2);
  const { value: index, checks, depth: indexDepth } = readSum(tokens, 0, depth);
  let size = 1;
  if (tokens.accept(":")) {
    const token = tokens.token;
    size = tokens.number();
    if (size !== 1 && size !== 2 && size !== 4) tokens.refuse("a size other than 1, 2 and 4", token);
  }
  tokens.expect("]");
  const base = word === "ip" || word === "ip6" ? "ip" : word === "icmp6" ? "ipv6 payload" : "transport";
  const value: Value = { kind: "load", base, size: size as 1 | 2 | 4, index };
  // In libpcap's order, which shows where a packet is cut short.
  const inOrder = base === "transport" ? [own[0]!, ...checks, ...own.slice(1)] : [...checks, ...own];
  return { value, checks: inOrder, depth: indexDepth + 1 };
}

/** What must be true of a packet whose bytes are read by this word. */
function loadChecks(word: string): Test[] | undefined {
  if (word === "ip") return [{ kind: "version", version: 4 }];
  if (word === "ip6") return [{ kind: "version", version: 6 }];
  const known = PROTOCOL_WORDS.get(word);
  if (known === undefined || !known.indexed) return undefined;
  if (known.version === 6) {
    return [{ kind: "version", version: 6 }, relation("=", load("ip", 1, 6), known.protocol)];
  }
  const { protocol } = known;
  return [{ kind: "version", version: 4 }, { kind: "protocol", version: 4, protocol }, {
    kind: "first fragment",
  }];
}
