/** The tree of a parsed filter. */

/** Source or destination address or port, either, or both. */
export type Side = "src" | "dst" | "or" | "and";

/** A test that is true or false for a packet. */
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
    /** Protocol number; 0 for TCP, UDP and SCTP. */
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

/** A step of a chain, evaluated from left to right: `and` and `or` have equal precedence. */
export interface Link {
  readonly operator: "and" | "or";
  readonly test: Test;
}

/** 32 bits of an IPv6 address. */
export interface Word {
  /** Offset in the address (bytes). */
  readonly at: number;
  readonly address: number;
  readonly mask: number;
}

/** Comparison of two numbers. */
export type Relation = "=" | "!=" | "<" | "<=" | ">" | ">=";
/** Operation on two numbers. */
export type Operator = "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>";

/** An unsigned 32-bit number, held as signed. */
export type Value =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "length" }
  | {
    readonly kind: "load";
    /** Base of the index: the IP header, the end of the IPv4 header, or the end of the 40 bytes of an IPv6 header. */
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

/** Returns the number of instructions of a test: its tests, numbers and operations. */
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
