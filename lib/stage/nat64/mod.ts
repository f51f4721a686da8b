/** Translation between IPv6 and IPv4: addresses (RFC 6052), packets (RFC 7915), flows (RFC 6146). */

export { EmbeddingPrefix } from "./embedded_address.ts";
export { type Ipv4Addresses, type Ipv6Addresses, toIpv4, toIpv6, Untranslatable } from "./translate.ts";
export { Nat64 } from "./nat64.ts";
export type { Nat64Options } from "./_nat64_options.ts";
