/**
 * Fragmentation: packets longer than an MTU leave in pieces, or come back as an error that tells the MTU.
 *
 *     batch ─► fits? ─ yes ───────────────────────────────────────────────► onward
 *                │ no
 *                └─► may be divided? ─ no ─► fragmentation needed, packet too big ─► back
 *                          │ yes
 *                          └─► cut super-packets ─► divide ─► first piece in its slot, the others in new ones ─► onward
 */

import { IPV4_MAX_LENGTH, IPV4_MIN_MTU } from "../../wire/header_fields.ts";
import { MtuLimiter } from "./_mtu_limiter.ts";
import { Direction, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import type { IcmpErrors } from "../../icmp/icmp_error.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

/** Options for {@linkcode fragment}. */
export interface FragmentOptions {
  /** Which way packets go that are divided. @default {Direction.Outbound} */
  readonly direction?: Direction;
  /** Whether IPv4 packets that forbid it are divided, too. @default {false} */
  readonly ignoreDontFragment?: boolean;
  /** Whether IPv6 packets are divided, which their source alone may do. @default {false} */
  readonly fragmentIpv6?: boolean;
  /** What answers packets that must not be divided. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

const NAMES: OptionNames<FragmentOptions> = {
  direction: "optional",
  ignoreDontFragment: "optional",
  fragmentIpv6: "optional",
  errors: "optional",
};

/**
 * Divides packets that are longer than an MTU (bytes) into fragments, as a router does (RFC 791 section 3.2). Further
 * fragments stand behind the first, and the order of all packets is kept.
 *
 * **Outbound**: IPv4 packets are divided, those of super-packets after they are cut; those that forbid it are
 * answered by fragmentation needed with the MTU (RFC 1191). IPv6 packets are answered by packet too big.
 *
 * **Inbound**: nothing; with `direction` the two change places.
 *
 * **Options**: `direction`: outbound. `ignoreDontFragment`: off; such packets get an identification of their own, since
 * theirs may mean nothing (RFC 6864 section 4.1). `fragmentIpv6`: off; for a packet's source (RFC 8200 section 5).
 * `errors`: what answers.
 *
 * **Counters**: those of `errors`. Reasons: `longer than the mtu` for what could not be answered, `no room for fragments`
 * when the pool is empty, `wrong header checksum`, `headers longer than the mtu`, `no headroom`, `fragment beyond the
 * longest packet`, and those of super-packets that cannot be cut.
 *
 * **Limits**: below an MTU of 1280, IPv6 needs `fragmentIpv6`. What is no IP packet passes at any length.
 *
 * @throws {RangeError} when the MTU is not a whole number from 68 to 65,535.
 *
 * @example Through a tunnel that carries 1400 bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { fragment } from "@warren/tunnel/fragment";
 *
 * assert.equal(fragment(1400).name, "fragment");
 * ```
 */
export function fragment(mtu: number, options: FragmentOptions = {}): Stage {
  if (!(Number.isInteger(mtu) && mtu >= IPV4_MIN_MTU && mtu <= IPV4_MAX_LENGTH)) {
    throw new RangeError(`Cannot fragment packets: mtu must be an integer from 68 to 65535, got ${mtu}`);
  }
  checkNames("fragment", options, NAMES);
  const { direction = Direction.Outbound } = options;
  const limiter = new MtuLimiter(mtu, options);
  const pass = (batch: PacketBatch, context: StageContext): void => limiter.pass(batch, context);
  return direction === Direction.Outbound
    ? { name: "fragment", outbound: pass }
    : { name: "fragment", inbound: pass };
}
