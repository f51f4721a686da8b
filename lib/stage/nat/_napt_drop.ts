/** Reasons for which {@linkcode Napt44} drops packets. */

/** Drop reasons of {@linkcode Napt44}. */
export const NaptDrop = {
  /** A header is truncated or states a wrong length. */
  Malformed: "malformed",
  /** No mapping or flow belongs to the packet; also all inbound ICMP queries. */
  NoMapping: "no mapping",
  /** The filter does not admit the sender. */
  Filtered: "filtered",
  /** The destination is not an outside address, with `unmatched: "drop"`. */
  NotInside: "not inside",
  /** No outside port is free. */
  NoPort: "no port",
  /** The host has `flowsPerHost` flows. */
  TooManyFlows: "too many flows",
  /** A remote port reaches one inside port through two outside ports. */
  MappingConflict: "mapping conflict",
  /** The protocol has no ports that are translated, such as GRE, ESP and SCTP. */
  Protocol: "protocol not translated",
  /** ICMP redirects are not translated. */
  Redirect: "redirect",
  /** A later fragment whose first one did not arrive in time. */
  FragmentWithoutFirst: "fragment without its first",
} as const;
/** One of {@linkcode NaptDrop}'s values. */
export type NaptDrop = typeof NaptDrop[keyof typeof NaptDrop];
