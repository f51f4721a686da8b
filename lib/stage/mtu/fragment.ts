/**
 * A stage that fragments packets longer than an MTU, or answers them with an ICMP error that reports the MTU.
 *
 *     batch ─► fits? ─ yes ─────────────────────────────────────────────────────► onward
 *                │ no
 *                └─► may be fragmented? ─ no ─► fragmentation needed, packet too big ─► back to the sender
 *                          │ yes
 *                          └─► segment super-packets ─► fragment: the first in its slot, others in new ones ─► onward
 */

import { IPV4_MAX_LENGTH, IPV4_MIN_MTU } from "../../wire/header_fields.ts";
import { MtuLimiter } from "./_mtu_limiter.ts";
import { Direction, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../../core/options.ts";

/** Options of {@linkcode fragment}. */
export interface FragmentOptions {
  /** Direction to fragment. @default {Direction.Outbound} */
  readonly direction?: Direction;
  /** Fragments IPv4 packets with Don't Fragment set. @default {false} */
  readonly ignoreDontFragment?: boolean;
  /** Fragments IPv6 packets, which only their source may do. @default {false} */
  readonly fragmentIpv6?: boolean;
  /** Sends errors about packets that must not be fragmented. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

const NAMES: OptionKinds<FragmentOptions> = {
  direction: "direction",
  ignoreDontFragment: "boolean",
  fragmentIpv6: "boolean",
  errors: IcmpErrors,
};

/**
 * Fragments packets longer than an MTU (bytes), as a router does (RFC 791 section 3.2). The order of packets is kept.
 *
 * **Outbound**: fragments IPv4 packets, super-packets after segmentation. Answers packets with Don't Fragment with
 * fragmentation needed (RFC 1191), IPv6 packets with packet too big.
 * **Inbound**: passes all packets; the option `direction` swaps the two.
 * **Options**: {@linkcode FragmentOptions}. **Drops**: `longer than the MTU` when no error could be sent,
 * `no room for fragments`, `wrong header checksum`, `headers longer than the MTU` and others, see the README.
 * **Limits**: below an MTU of 1280, IPv6 needs `fragmentIpv6`. Packets that are not IP pass at any length.
 *
 * @throws {RangeError} when the MTU is not an integer from 68 to 65,535.
 *
 * @example A packet of 1500 bytes before a link that carries 1400
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { fragment } from "@warren/tunnel/fragment";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const pool = new PacketPool();
 * const packet = pool.from(new Uint8Array(1480))!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 17, dontFragment: false });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * const lengths: number[] = [];
 * const context: Partial<StageContext> = {
 *   take: (length) => pool.take(length),
 *   emit: (fragment) => void lengths.push(fragment.length),
 * };
 * fragment(1400).outbound!(batch, context as StageContext); // the tunnel does this
 * assert.deepEqual(lengths, [1396, 124]);
 * ```
 */
export function fragment(mtu: number, options: FragmentOptions = {}): Stage {
  checkInteger("fragment", "mtu", mtu, IPV4_MIN_MTU, IPV4_MAX_LENGTH);
  checkOptions("fragment", options, NAMES);
  const { direction = Direction.Outbound } = options;
  const limiter = new MtuLimiter(mtu, options);
  const pass = (batch: PacketBatch, context: StageContext): void => limiter.pass(batch, context);
  return direction === Direction.Outbound
    ? { name: "fragment", outbound: pass }
    : { name: "fragment", inbound: pass };
}
