/** The faults that a fragment can have, and what its sender is told. */

import { FRAGMENT_WORD, IPV6_PAYLOAD_LENGTH } from "../../wire/header_fields.ts";
import { IcmpError } from "../../icmp/icmp_error.ts";

/** A fault of a fragment: the drop reason, and the ICMPv6 error that its sender gets over IPv6, if any. */
export interface Fault {
  readonly reason: string;
  readonly error?: IcmpError;
  /** The offset of the wrong field in the IPv6 header or the Fragment header. */
  readonly field?: number;
  readonly isInFragmentHeader?: boolean;
}

/**
 * The faults of fragments, with what RFC 8200 section 4.5 has their senders told. Over IPv4, RFC 792 leaves that open, and
 * hosts do not; most of these fragments are later ones, about which nothing may be said (RFC 1122 section 3.2.2).
 */
export const FAULTS = {
  Checksum: { reason: "wrong header checksum" },
  Empty: { reason: "empty fragment" },
  OddLength: {
    reason: "fragment of odd length",
    error: IcmpError.ParameterProblem,
    field: IPV6_PAYLOAD_LENGTH,
  },
  TooLong: {
    reason: "too long when whole",
    error: IcmpError.ParameterProblem,
    field: FRAGMENT_WORD,
    isInFragmentHeader: true,
  },
  /** RFC 7112 section 5: without all headers in its first fragment, nobody can tell what the datagram is. */
  Tiny: { reason: "tiny fragment", error: IcmpError.IncompleteHeaders },
  /** RFC 3128 section 4: it would write over the TCP header. */
  Rewriting: { reason: "tiny fragment" },
  TooMany: { reason: "too many fragments" },
  Overflow: { reason: "reassembly overflow" },
  Overlap: { reason: "overlapping fragments" },
  Disagreement: { reason: "fragments disagree" },
} as const satisfies Record<string, Fault>;
