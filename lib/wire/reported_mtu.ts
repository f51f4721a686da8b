/** The MTU that an ICMP error reports, or leaves to be guessed. */

import { IPV4_MIN_MTU } from "./header_fields.ts";

// Specification
/** RFC 1191 section 7.1: common MTUs, in descending order, for routers that do not tell theirs. */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];

/**
 * The MTU told by an error about a packet of this length (bytes). For an error that tells none, the greatest common MTU
 * below the length (RFC 1191 section 5).
 */
export function reportedMtu(told: number, length: number): number {
  if (told > 0) return told;
  for (const plateau of PLATEAUS) if (plateau < length) return plateau;
  return IPV4_MIN_MTU;
}
