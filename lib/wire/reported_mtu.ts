/** MTU that an ICMP error reports, or an estimate if it reports none. */

import { IPV4_MIN_MTU } from "./header_fields.ts";

// Specification
/** RFC 1191 section 7.1: common MTUs, in descending order, for routers that do not report theirs. */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];

/**
 * Returns the MTU that an error reports, or if that is 0, the largest common MTU below the length of the quoted packet
 * (bytes; RFC 1191 section 5).
 */
export function reportedMtu(reported: number, length: number): number {
  if (reported > 0) return reported;
  for (const plateau of PLATEAUS) if (plateau < length) return plateau;
  return IPV4_MIN_MTU;
}
