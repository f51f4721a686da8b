/**
 * Filters as text: the language of tcpdump and Wireshark's captures, pcap-filter(7), for IP packets.
 *
 * @module
 */

import type { Direction } from "../core/mod.ts";
import type { Packet } from "../core/packet.ts";
import { compileTest } from "./_compile.ts";
import { parseFilter } from "./_parser.ts";

/**
 * Whether a packet is one of those that a filter asks for. Without a direction, neither `inbound` nor `outbound` is
 * true.
 */
export type PacketFilter = (packet: Packet, direction?: Direction) => boolean;

/** The language in a screenful, for the `--help` of a command. */
export const FILTER_HELP = `A filter is made of these, joined by and, or, not and parentheses:
  host 10.0.0.1   src host fd00::1    an address; src or dst alone means the host
  net 10.0.0.0/8  dst net fd00::/8    a network; also: net 10, net 10.0.0.0 mask 255.0.0.0
  port 53   tcp src port http         a port of TCP, UDP or SCTP, or of the one that is named
  portrange 6000-6008                 ports from one to another
  ip  ip6  tcp  udp  icmp  icmp6      a protocol; also: sctp igmp pim esp ah, proto 47, ip6 proto gre
  less 100  greater 1400              a length in bytes, this one included
  ip multicast  ip6 multicast  ip broadcast
  inbound  outbound                   a direction
  ip[8] < 5                           bytes by their place, compared; [2:4] are 4 bytes from 2 on
  tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
  icmp[icmptype] = icmp-echo
Words are carried on: "tcp port 80 or 443" is "tcp port 80 or tcp port 443".
and and or bind alike, from left to right; not binds tighter.
`;

/**
 * Compiles a filter, once, to a function that is called for each packet and allocates nothing.
 *
 * The language is pcap-filter(7) for packets without a link layer, and what a filter matches is what libpcap's
 * `DLT_RAW` program matches:
 *
 * ```text
 * filter    = [ part { ("and" | "&&" | "or" | "||") part } ]       from left to right, "and" and "or" alike
 * part      = { "not" | "!" } ( "(" filter ")" | primitive | relation | id )
 * primitive = [ protocol ] [ side ] [ kind ] id                     some word at least
 *           | protocol | ("ip" | "ip6") "multicast" | "ip" "broadcast"
 *           | ("less" | "greater") number | "inbound" | "outbound"
 * protocol  = "ip" | "ip6" | "tcp" | "udp" | "sctp" | "icmp" | "icmp6" | "igmp" | "igrp" | "pim" | "vrrp" | "carp"
 *           | "esp" | "ah"
 * side      = "src" | "dst" | "src or dst" | "src and dst"          without one: "src or dst"
 * kind      = "host" | "net" | "port" | "portrange" | "proto" | "protochain"     without one: "host"
 * id        = address | address "/" bits | address "mask" address | number | name | number "-" number
 *           | "not" id | "(" id { ("and" | "or") id } ")"
 * relation  = sum ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") sum
 * sum       = number | "len" | protocol "[" sum [ ":" (1 | 2 | 4) ] "]" | "-" sum | "(" sum ")"
 *           | sum ("+" | "-" | "*" | "/" | "%" | "&" | "|" | "^" | "<<" | ">>") sum
 * ```
 *
 * An `id` alone takes the words of the one before: `tcp port 80 or 443`. A name that is also a word is written with a
 * backslash, `proto \tcp`. Numbers are decimal, `0x` hexadecimal or `0` octal; sums are of 32 bits without a sign.
 * Empty text matches every packet.
 *
 * A byte that is asked for and that the packet has not, or a division by zero, makes the whole filter false, under a
 * `not`, too, as in BPF. `and` and `or` ask the right side only where it decides.
 *
 * **Limits**: `tcp`, `proto` and the like look over IPv6 at the first next header and behind one fragment header, and
 * `port` at the first next header alone: `ip6 protochain` goes behind all extension headers. `port` is false for
 * fragments after the first (IPv4). `tcp[...]` and the like read over IPv4, `icmp6[...]` over IPv6. In a sum, the
 * protocol is asked for by the leftmost operand alone, and `%` and `^` take all that follows as their right operand;
 * both as libpcap does. A super-packet and a partly summed one are asked about as they are: `len` is the whole, a sum
 * is what is stored. Host and network names are not looked up; of ports and protocols, the usual names are known. At
 * most 65,536 characters, 64 levels, and 32,768 instructions (tests, numbers and operations).
 *
 * A prefix of all bits is an address, so it may stand behind `host`, or alone; libpcap takes it behind `host` over IPv6.
 *
 * libpcap's optimizer may leave out, or put elsewhere, what reads behind a packet's end or divides by zero, and takes
 * `tcp[- 1]` for a read behind the end; here all is read in the order of the text, once it is needed, as `tcpdump -O`
 * does. `protochain` steps over an authentication header by its length, where libpcap 1.10 loses its place. An
 * expression that no packet can match is not refused.
 *
 * @param text The filter.
 * @throws {SyntaxError} naming the column and the reason: also for words that ask for a link layer.
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
