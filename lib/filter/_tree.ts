/** A filter's checked tree: what the parser makes and the compiler takes. */

/** Which of a packet's two addresses or ports are asked. */
export const Side = { Either: 0, Src: 1, Dst: 2, Both: 3 } as const;
/** One of {@linkcode Side}'s values. */
export type Side = typeof Side[keyof typeof Side];

/** Which headers a protocol is looked for in. */
export const Family = { Any: 0, Ipv4: 4, Ipv6: 6 } as const;
/** One of {@linkcode Family}'s values. */
export type Family = typeof Family[keyof typeof Family];

/** Where a load starts. */
export type Base =
  | { readonly kind: "ip" | "ip6" | "icmp6" }
  | { readonly kind: "transport"; readonly protocol: number };

/** An operator between two numbers. */
export type Operator = "+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>";

/** A number of 32 bits, without a sign. */
export type Arithmetic =
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "length" }
  | { readonly kind: "load"; readonly base: Base; readonly index: Arithmetic; readonly size: 1 | 2 | 4 }
  | {
    readonly kind: "binary";
    readonly operator: Operator;
    readonly left: Arithmetic;
    readonly right: Arithmetic;
  };

/** What two numbers are asked; the others are these with sides or targets exchanged. */
export type Relation = "=" | ">" | ">=";

/** A question with the answers yes, no, and "the packet is too short", which ends the filter with no. */
export type Test =
  | { readonly kind: "and" | "or"; readonly left: Test; readonly right: Test }
  | { readonly kind: "not"; readonly test: Test }
  | { readonly kind: "all" }
  | { readonly kind: "version"; readonly version: number }
  | { readonly kind: "protocol"; readonly family: Family; readonly protocol: number }
  | {
    readonly kind: "ports";
    readonly protocol: number;
    readonly side: Side;
    readonly low: number;
    readonly high: number;
  }
  | { readonly kind: "ipv4"; readonly side: Side; readonly address: number; readonly mask: number }
  | {
    readonly kind: "ipv6";
    readonly side: Side;
    readonly words: readonly number[];
    readonly masks: readonly number[];
  }
  | { readonly kind: "multicast"; readonly version: 4 | 6 }
  | { readonly kind: "direction"; readonly direction: number }
  | { readonly kind: "first"; readonly base: Base }
  | {
    readonly kind: "relation";
    readonly relation: Relation;
    readonly left: Arithmetic;
    readonly right: Arithmetic;
  };
