/** Reasons for which {@linkcode Firewall} drops packets. */

/** Drop reasons of {@linkcode Firewall}, besides `rule NAME` and `rule NUMBER` for the rule that drops the packet. */
export const FirewallDrop = {
  /** No rule matches, and the default drops or rejects the packet. */
  NoRule: "no rule",
  /** The packet does not fit the state of its connection, or is an error about no known flow. */
  Invalid: "invalid",
  /** The first fragment has not arrived, or was dropped. */
  NoFirstFragment: "no first fragment",
  /** A header is truncated or has a wrong length, or a fragment overlaps its first one. */
  Malformed: "malformed",
} as const;
/** One of {@linkcode FirewallDrop}'s values. */
export type FirewallDrop = typeof FirewallDrop[keyof typeof FirewallDrop];
