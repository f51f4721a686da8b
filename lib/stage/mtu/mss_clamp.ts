/** The maximum segment size that both sides of a TCP connection offer, brought down to what a tunnel carries. */

import { IPV4_HEADER, IPV4_MIN_MTU, IPV6_HEADER, TCP_HEADER } from "../../wire/header_fields.ts";
import type { PacketBatch, Stage } from "../../core/mod.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Tcp } from "../../wire/tcp.ts";

// Specification: what an MTU holds beside a segment, options not counted (RFC 6691 section 2)
const IPV4_HEADERS = IPV4_HEADER + TCP_HEADER;
const IPV6_HEADERS = IPV6_HEADER + TCP_HEADER;
const MOST = 65_535;

/** What segments have to fit: one of the two. */
export type MssClampOptions =
  /** A segment's payload (bytes), in both versions. */
  | { readonly mss: number }
  /** A packet (bytes): 40 more than a segment's payload over IPv4, 60 over IPv6. */
  | { readonly mtu: number };

const NAMES: OptionNames<{ mss?: number; mtu?: number }> = { mss: "optional", mtu: "optional" };

/**
 * Lowers the maximum segment size in connections' first segments, so that neither side sends what is too long for a
 * tunnel. It needs no ICMP errors to come through, as path MTU discovery does (RFC 2923 section 2.1).
 *
 * **Outbound** and **inbound**: the option of each segment with SYN, over IPv4 and IPv6, is lowered where it is more.
 * All else passes as it is.
 *
 * **Options**: `mss`, or `mtu` to take the headers off (RFC 6691). No default: one of them must be told.
 *
 * **Counters**: none.
 *
 * **Limits**: a SYN without the option offers 536 bytes over IPv4 and 1220 over IPv6 (RFC 9293 section 3.7.1), and is left
 * so: an option is not added. What IPsec or another tunnel hides is not seen.
 *
 * @throws {TypeError} unless either is told.
 * @throws {RangeError} when the MTU is not a whole number from 68 to 65,535, or the MSS one from 1 on.
 *
 * @example For a tunnel that carries 1420 bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { mssClamp } from "@warren/tunnel/mss_clamp";
 *
 * assert.equal(mssClamp({ mtu: 1420 }).name, "mss clamp");
 * ```
 */
export function mssClamp(options: MssClampOptions): Stage {
  checkNames("clamp the MSS", options, NAMES);
  const { mss, mtu } = options as { mss?: number; mtu?: number };
  if ((mss === undefined) === (mtu === undefined)) {
    throw new TypeError("Cannot clamp the MSS: say either an mss or an mtu");
  }
  check("an mss", mss ?? 1, 1);
  check("an mtu", mtu ?? IPV4_MIN_MTU, IPV4_MIN_MTU);
  const most4 = mss ?? mtu! - IPV4_HEADERS;
  const most6 = mss ?? mtu! - IPV6_HEADERS;
  const clamp = ({ packets, length }: PacketBatch): void => {
    for (let i = 0; i < length; i++) {
      const tcp = Tcp.of(packets[i]!);
      if (tcp === undefined || !tcp.isSyn) continue;
      const most = tcp.ip.version === 4 ? most4 : most6;
      const offered = tcp.mss;
      if (offered !== undefined && offered > most) tcp.mss = most;
    }
  };
  return { name: "mss clamp", outbound: clamp, inbound: clamp };
}

function check(name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least && value <= MOST) return;
  throw new RangeError(`Cannot clamp to ${name} of ${value}: it is a whole number from ${least} to ${MOST}`);
}
