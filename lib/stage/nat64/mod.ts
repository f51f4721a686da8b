/** Translation between IPv6 and IPv4: addresses (RFC 6052), packets (RFC 7915), flows (RFC 6146). */

export { EmbeddingPrefix } from "./embedded_address.ts";
export { toIpv4 } from "./_to_ipv4.ts";
export { toIpv6 } from "./_to_ipv6.ts";
export { type Ipv4Addresses, type Ipv6Addresses, Untranslatable } from "./_translation.ts";
export { Nat64Drop } from "./_nat64_drop.ts";
export { Nat64 } from "./nat64.ts";
export type { Nat64Options } from "./_nat64_options.ts";
