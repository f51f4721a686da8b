/** Reasons for which {@linkcode Nat64} drops packets. */

/** Drop reasons of {@linkcode Nat64}, besides those of {@linkcode Untranslatable}. */
export const Nat64Drop = {
  /** No binding or session belongs to the packet; also all inbound echo requests. */
  NoMapping: "no mapping",
  /** A TCP packet without a session is not a SYN. */
  NoSession: "no session",
  /** The filter does not admit the sender. */
  Filtered: "filtered",
  /** No outside port is free. */
  NoPort: "no port",
  /** An address is not that of a host, or comes from the wrong side. */
  BadAddress: "bad address",
  /** The hop limit or time to live is exhausted. */
  TtlExceeded: "ttl exceeded",
  /** A later fragment that arrived before its first one. */
  FragmentWithoutFirst: "fragment without its first",
} as const;
/** One of {@linkcode Nat64Drop}'s values. */
export type Nat64Drop = typeof Nat64Drop[keyof typeof Nat64Drop];
