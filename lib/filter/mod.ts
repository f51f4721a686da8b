/**
 * Filter expressions: the syntax of pcap-filter(7), compiled to a function of a packet.
 *
 *     text ─► _parse.ts: words, terms ─► _tree.ts: a checked tree ─► _program.ts: instructions ─► (packet) => boolean
 */

import type { Packet } from "../core/packet.ts";
import type { Direction } from "../core/stage.ts";
import { parse } from "./_parse.ts";
import { assemble, run } from "./_program.ts";

/** Whether a packet is meant. `inbound` and `outbound` need the direction; without one, neither is so. */
export type PacketFilter = (packet: Packet, direction?: Direction) => boolean;

/** The grammar in short, for the help of command lines. */
export const FILTER_HELP =
  `A filter is made of these, joined by "and", "or" (from left to right), "not" and ( ):
  ip, ip6, tcp, udp, sctp, icmp, icmp6, igmp, pim, esp, ah    the protocol
  [ip|ip6] [src|dst] host 10.9.0.1                            an address
  [ip|ip6] [src|dst] net 10.9.0.0/24                          a prefix
  [tcp|udp|sctp] [src|dst] port 53 (or http, domain, ...)     a port
  [tcp|udp|sctp] [src|dst] portrange 1000-2000                several ports
  [ip|ip6] proto 47, ip multicast, ip6 multicast              others
  less 100, greater 1000, inbound, outbound                   length and direction
  tcp[tcpflags] & tcp-syn != 0, ip[8] < 5, len > 100          numbers
Several values follow one word: tcp port 80 or 443`;

/**
 * Compiles a filter, such as `tcp port 80 and net 10.0.0.0/8`, in the syntax and with the meaning that
 * pcap-filter(7) has for packets without a link layer. An empty text means every packet. The function allocates
 * nothing and never throws.
 *
 * As with libpcap, a packet that ends before a byte that is asked for does not pass, whatever `not` stands before;
 * nor does one for which a sum divides by zero. Libpcap's optimiser leaves some of these loads out; this has them all,
 * as `tcpdump -O`. Numbers have 32 bits and no sign. `tcp`, `port` and the like
 * look at the first header behind IPv6's, `tcp[...]` at IPv4 alone, and ports are not found in later fragments.
 * `and` and `or` bind alike, from left to right; `%` and `^` take the whole sum to their right.
 *
 * A super-packet is asked as it is: `len` is that of all its segments, and flags and lengths are those of its one
 * header. A sum that is still to be finished is seen unfinished.
 *
 * **Limits**: at most 4096 characters and 48 levels. No link-layer words, no names of hosts, no `broadcast`, no
 * `protochain`; of services those that are most usual. Addresses are decimal, without leading zeros.
 * In a sum over several headers, such as `ip[2:2] - tcp[12]`, all of them must be there; libpcap 1.10 asks for
 * the left one alone.
 *
 * @throws {SyntaxError} naming the column and the reason.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { compileFilter } from "@warren/tunnel/filter";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const filter = compileFilter("icmp and net 10.0.0.0/8");
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 1 });
 * assert(filter(packet));
 * ```
 */
export function compileFilter(text: string): PacketFilter {
  const program = assemble(parse(text));
  return (packet, direction) => run(program, packet, direction ?? -1);
}
