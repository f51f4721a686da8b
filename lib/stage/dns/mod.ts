/**
 * DNS resolver on an address of the tunnel, with local records, block lists and synthetic addresses.
 *
 * @module
 */

export { BlockList, type BlockListOptions, type BlockListWarning, type NameMatch } from "./block_list.ts";
export type { DnsCacheOptions } from "./_cache.ts";
export { decodeMessage, type DnsMessage, type DnsRecord, encodeMessage } from "./codec.ts";
export { DnsDrop } from "./_dns_drop.ts";
export { FakeIp, type FakeIpOptions } from "./fake_ip.ts";
export { DnsResolver } from "./resolver.ts";
export type { DnsCounters, DnsResolverOptions, DnsUpstream } from "./resolver_options.ts";
