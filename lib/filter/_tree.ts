/** What a filter asks, as a tree. */

/** Which of a packet's two addresses or ports. */
export type Side = "src" | "dst" | "or" | "and";

/** A question that is true or false. */
export type Test =
  | { readonly kind: "true" }
  | { readonly kind: "chain"; readonly first: Test; readonly rest: readonly Link[] }
  | { readonly kind: "not"; readonly test: Test }
  | { readonly kind: "version"; readonly version: 4 | 6 }
  | { readonly kind: "protocol"; readonly version: 0 | 4 | 6; readonly protocol: number }
  | { readonly kind: "chained"; readonly version: 0 | 4 | 6; readonly protocol: number }
  | { readonly kind: "net4"; readonly side: Side; readonly address: number; readonly mask: number }
  | { readonly kind: "net6"; readonly side: Side; readonly words: readonly Word[] }
  | {
    readonly kind: "ports";
    readonly side: Side;
    /** 0 for TCP, UDP and SCTP. */
    readonly protocol: number;
    readonly low: number;
    readonly high: number;
  }
  | { readonly kind: "first fragment" }
  | { readonly kind: "direction"; readonly direction: number }
  | {
    readonly kind: "relation";
    readonly operator: Relation;
    readonly left: Value;
    readonly right: Value;
  };

/** A step of a chain, which goes from left to right: `and` and `or` bind alike. */
export interface Link {
  readonly operator: "and" | "or";
  readonly test: Test;
}

/** 32 bits of an IPv6 address. */
export interface Word {
  /** Where they stand in the address (bytes). */
  readonly at: number;
  readonly address: number;
  readonly mask: number;
}

/** How two numbers are compared. */
export type Relation = "=" | "!=" | "<" | "<=" | ">" | ">=";
/** How two numbers become one. */
export type Operator = "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>";

/** A number of 32 bits without a sign, held as a signed one. */
export type Value =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "length" }
  | {
    readonly kind: "load";
    /** What the index counts from: the IP header, what follows an IPv4 header, or what follows 40 bytes of IPv6's. */
    readonly base: "ip" | "transport" | "ipv6 payload";
    readonly size: 1 | 2 | 4;
    readonly index: Value;
  }
  | { readonly kind: "operation"; readonly operator: Operator; readonly left: Value; readonly right: Value }
  | { readonly kind: "negation"; readonly value: Value };

export function load(base: "ip", size: 1 | 4, at: number): Value {
  return { kind: "load", base, size, index: { kind: "number", value: at } };
}

export function relation(operator: Relation, left: Value, right: number): Test {
  return { kind: "relation", operator, left, right: { kind: "number", value: right } };
}

export function chain(first: Test, rest: readonly Link[]): Test {
  return rest.length === 0 ? first : { kind: "chain", first, rest };
}

export function all([first, ...rest]: readonly Test[]): Test {
  return chain(first!, rest.map((test) => ({ operator: "and", test })));
}

/** The number of instructions that a test takes: each test, number and operation is one. */
export function sizeOf(test: Test): number {
  switch (test.kind) {
    case "chain":
      return test.rest.reduce((sum, { test }) => sum + sizeOf(test), sizeOf(test.first));
    case "not":
      return 1 + sizeOf(test.test);
    case "relation":
      return 1 + valueSize(test.left) + valueSize(test.right);
    default:
      return 1;
  }
}

function valueSize(value: Value): number {
  switch (value.kind) {
    case "load":
      return 1 + valueSize(value.index);
    case "operation":
      return 1 + valueSize(value.left) + valueSize(value.right);
    case "negation":
      return 1 + valueSize(value.value);
    default:
      return 1;
  }
}
