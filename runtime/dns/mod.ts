/**
 * Upstreams for the resolver in `@warren/tunnel/dns`: name servers that are reached over UDP, TCP or HTTPS.
 *
 * @module
 */

export { dohUpstream } from "./doh.ts";
export { parseUpstream } from "./parse.ts";
export { tcpUpstream } from "./tcp.ts";
export { udpUpstream } from "./udp.ts";
export type { Upstream } from "./upstream.ts";
