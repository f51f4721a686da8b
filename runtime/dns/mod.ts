/**
 * Who the resolver of `@warren/tunnel/dns` asks: name servers over UDP, TCP and HTTPS, by the system's own sockets.
 *
 * @module
 */

export { dohUpstream } from "./doh.ts";
export { parseUpstream } from "./parse.ts";
export { tcpUpstream } from "./tcp.ts";
export { udpUpstream } from "./udp.ts";
export type { Upstream } from "./upstream.ts";
