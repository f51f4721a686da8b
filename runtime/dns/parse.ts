/** Creates upstreams from text. */

import { dohUpstream } from "./doh.ts";
import { tcpUpstream } from "./tcp.ts";
import { udpUpstream } from "./udp.ts";
import type { Upstream } from "./upstream.ts";

/**
 * Creates an upstream from a text: `192.0.2.1` or `192.0.2.1:53` (UDP), `udp://192.0.2.1`, `tcp://[2001:db8::1]:53` or
 * `https://192.0.2.1/dns-query`.
 *
 * @throws {SyntaxError} when the text has none of these forms.
 * @throws {Deno.errors.NotCapable} without `--allow-net`.
 *
 * @example
 * ```ts
 * import { parseUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = parseUpstream("tcp://192.0.2.1");
 * console.assert(upstream.name === "tcp 192.0.2.1:53");
 * ```
 */
export function parseUpstream(text: string): Upstream {
  const [, scheme, rest] = /^([a-z]+):\/\/(.*)$/i.exec(text) ?? [undefined, "udp", text];
  // RFC 3986 section 3.1: schemes are case-insensitive.
  switch (scheme!.toLowerCase()) {
    case "udp":
      return udpUpstream(rest!);
    case "tcp":
      return tcpUpstream(rest!);
    case "http":
    case "https":
      return dohUpstream(text);
    default:
      throw new SyntaxError(`Cannot parse upstream "${text}": its scheme must be udp, tcp or https`);
  }
}
