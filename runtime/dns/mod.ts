/**
 * Upstreams of the resolver in `@warren/tunnel/dns`: name servers over UDP, TCP and HTTPS, by the system's sockets.
 *
 * @module
 */

export { dohUpstream } from "./doh.ts";
export { parseUpstream } from "./parse.ts";
export { tcpUpstream } from "./tcp.ts";
export { udpUpstream } from "./udp.ts";
export type { Upstream } from "./upstream.ts";
