/** ICMPv4 types and codes in ICMPv6, and vice versa (RFC 7915 sections 4.2 and 5.2). */

import { IPV6_MIN_MTU } from "../../wire/header_fields.ts";
import { reportedMtu } from "../../wire/reported_mtu.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";

/** No counterpart in the other version. */
export const NONE = -1;

// Specification: RFC 7915 section 4.2. Codes of ICMPv4's destination unreachable, as type and code of ICMPv6
const UNREACHABLE_TO_6: readonly number[] = [
  0x0100, // 0 network
  0x0100, // 1 host
  0x0401, // 2 protocol: an unrecognized next header
  0x0104, // 3 port
  0x0200, // 4 fragmentation needed
  0x0100, // 5 source route failed
  0x0100, // 6 network unknown
  0x0100, // 7 host unknown
  0x0100, // 8 source host isolated
  0x0101, // 9 network prohibited
  0x0101, // 10 host prohibited
  0x0100, // 11 network, for this type of service
  0x0100, // 12 host, for this type of service
  0x0101, // 13 prohibited
  NONE, // 14 host precedence violation
  0x0101, // 15 precedence cutoff
];
/** Section 4.2: figure 3, pointers into the header. */
const POINTER_TO_6: readonly number[] = [
  ...[0, 1, 4, 4, NONE, NONE, NONE, NONE, 7, 6, NONE, NONE],
  ...[8, 8, 8, 8, 24, 24, 24, 24],
];
/** Section 5.2: codes of ICMPv6's destination unreachable, as type and code of ICMPv4. */
const UNREACHABLE_TO_4: readonly number[] = [0x0301, 0x030a, 0x0301, 0x0301, 0x0303];
/** Section 5.2: figure 6. */
const POINTER_TO_4: readonly number[] = [
  ...[0, 1, NONE, NONE, 2, 2, 9, 8],
  ...Array<number>(16).fill(12),
  ...Array<number>(16).fill(16),
];
/** Difference between the lengths of an IPv6 and an IPv4 header. */
const LONGER = 20;

/** Translates an ICMPv4 type and code to ICMPv6, in one word; {@linkcode NONE} for messages to drop. */
export function messageToIpv6(type: number, code: number): number {
  switch (type) {
    case Icmpv4.EchoRequest:
      return Icmpv6.EchoRequest << 8;
    case Icmpv4.EchoReply:
      return Icmpv6.EchoReply << 8;
    case Icmpv4.DestinationUnreachable:
      return UNREACHABLE_TO_6[code] ?? NONE;
    case Icmpv4.TimeExceeded:
      return code <= 1 ? Icmpv6.TimeExceeded << 8 | code : NONE;
    case Icmpv4.ParameterProblem:
      return code === 0 || code === 2 ? Icmpv6.ParameterProblem << 8 : NONE;
    default:
      return NONE;
  }
}

/** Translates an ICMPv6 type and code to ICMPv4, in one word; {@linkcode NONE} for messages to drop. */
export function messageToIpv4(type: number, code: number): number {
  switch (type) {
    case Icmpv6.EchoRequest:
      return Icmpv4.EchoRequest << 8;
    case Icmpv6.EchoReply:
      return Icmpv4.EchoReply << 8;
    case Icmpv6.DestinationUnreachable:
      return UNREACHABLE_TO_4[code] ?? NONE;
    case Icmpv6.PacketTooBig:
      return 0x0304;
    case Icmpv6.TimeExceeded:
      return code <= 1 ? Icmpv4.TimeExceeded << 8 | code : NONE;
    case Icmpv6.ParameterProblem:
      return code === 0 ? Icmpv4.ParameterProblem << 8 : code === 1 ? 0x0302 : NONE;
    default:
      return NONE;
  }
}

/** Translates the second word of an ICMPv4 error to ICMPv6; `length` is that of the packet that was too long. */
export function restToIpv6(message: number, rest: number, length: number): number {
  switch (message) {
    case 0x0200:
      return Math.max(IPV6_MIN_MTU, reportedMtu(rest & 0xffff, length) + LONGER);
    case 0x0400:
      return POINTER_TO_6[rest >>> 24] ?? NONE;
    case 0x0401:
      return 6; // the next header
    default:
      return 0;
  }
}

/** Translates the second word of an ICMPv6 error to ICMPv4. */
export function restToIpv4(message: number, rest: number): number {
  if (message === 0x0304) return Math.min(0xffff, Math.max(rest, IPV6_MIN_MTU) - LONGER);
  if (message !== Icmpv4.ParameterProblem << 8) return 0;
  const pointer = POINTER_TO_4[rest] ?? NONE;
  return pointer === NONE ? NONE : pointer << 24;
}
