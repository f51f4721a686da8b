/**
 * Packet filters in the language of tcpdump and of Wireshark's capture filters, pcap-filter(7).
 *
 * @module
 */

import type { Direction } from "../core/mod.ts";
import type { Packet } from "../core/packet.ts";
import { compileTest } from "./_compile.ts";
import { parseFilter } from "./_parser.ts";

/** Reports whether a packet matches a filter. Without a direction, neither `inbound` nor `outbound` is true. */
export type PacketFilter = (packet: Packet, direction?: Direction) => boolean;

/** Summary of the language, for the `--help` of a command. */
export const FILTER_HELP = `A filter is made of these, joined by and, or, not and parentheses:
  host 10.0.0.1   src host fd00::1    an address; src or dst alone means the host
  net 10.0.0.0/8  dst net fd00::/8    a network; also: net 10, net 10.0.0.0 mask 255.0.0.0
  port 53   tcp src port http         a port of TCP, UDP or SCTP, or of the named protocol
  portrange 6000-6008                 a range of ports
  ip  ip6  tcp  udp  icmp  icmp6      a protocol; also: sctp igmp pim esp ah, proto 47, ip6 proto gre
  less 100  greater 1400              a length in bytes, inclusive
  ip multicast  ip6 multicast  ip broadcast
  inbound  outbound                   a direction
  ip[8] < 5                           a comparison of bytes; [2:4] reads 4 bytes at offset 2
  tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
  icmp[icmptype] = icmp-echo
Words apply to the following values: "tcp port 80 or 443" is "tcp port 80 or tcp port 443".
"and" and "or" have equal precedence, from left to right; "not" has a higher one.
`;

/**
 * Compiles a filter to a function that allocates nothing per packet. The language is pcap-filter(7) for IP packets without
 * a link layer, and a filter matches what libpcap's program for `DLT_RAW` matches; `lib/filter/README.md` has the grammar
 * and the differences. An empty text matches every packet.
 *
 * **Limits**: no host and network names; the usual port and protocol names only; at most 65,536 characters, 64 levels,
 * and 32,768 instructions (tests, numbers and operations).
 *
 * @throws {SyntaxError} naming the column and the reason; also for keywords of the link layer.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction, PacketPool } from "@warren/tunnel/core";
 * import { compileFilter } from "@warren/tunnel/filter";
 * import { Protocol } from "@warren/tunnel/ip";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const packet = new PacketPool().take(0)!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: Protocol.Udp });
 *
 * const isQuery = compileFilter("udp dst port 53 and src net 10.0.0.0/8");
 * assert(isQuery(packet));
 * assert(!compileFilter("tcp[tcpflags] & (tcp-syn|tcp-fin) != 0")(packet));
 * assert(compileFilter("outbound and ip[8] > 1")(packet, Direction.Outbound));
 * assert.throws(() => compileFilter("ether host 2:0:0:0:0:1"), SyntaxError);
 * ```
 */
export function compileFilter(text: string): PacketFilter {
  return compileTest(parseFilter(text));
}
