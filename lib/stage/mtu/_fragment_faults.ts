/** Faults of fragments: drop reasons, and the ICMPv6 errors about them. */

import { FRAGMENT_WORD, IPV6_PAYLOAD_LENGTH } from "../../wire/header_fields.ts";
import { IcmpError } from "../../icmp/icmp_error.ts";

/** A fault of a fragment. */
export interface Fault {
  readonly reason: string;
  /** ICMPv6 error to the sender; none over IPv4. */
  readonly error?: IcmpError;
  /** Offset of the wrong field in the IPv6 header or the Fragment header. */
  readonly field?: number;
  readonly isInFragmentHeader?: boolean;
}

/**
 * All faults, with the ICMPv6 errors of RFC 8200 section 4.5. Over IPv4, errors are optional and hosts send none;
 * most faults are in fragments other than the first, about which no error may be sent (RFC 1122 section 3.2.2).
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
    reason: "datagram too long",
    error: IcmpError.ParameterProblem,
    field: FRAGMENT_WORD,
    isInFragmentHeader: true,
  },
  /** RFC 7112 section 5: the first fragment does not hold all headers. */
  Tiny: { reason: "tiny fragment", error: IcmpError.IncompleteHeaders },
  /** RFC 3128 section 4: the fragment would overwrite the TCP header. */
  TcpOverwrite: { reason: "tiny fragment" },
  TooMany: { reason: "too many fragments" },
  Overflow: { reason: "reassembly overflow" },
  Overlap: { reason: "overlapping fragments" },
  EndMismatch: { reason: "fragments disagree on length" },
} as const satisfies Record<string, Fault>;
