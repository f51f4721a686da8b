/** A stage that lowers the MSS of TCP connections to what a tunnel carries. */

import * as field from "../../wire/header_fields.ts";
import type { PacketBatch, Stage } from "../../core/mod.ts";
import { checkInteger, checkOptions, type OptionKinds } from "../../core/options.ts";
import { Tcp } from "../../wire/tcp.ts";

// Specification: IP and TCP headers without options (RFC 6691 section 2)
const { IPV4_HEADER, IPV4_MAX_LENGTH, IPV4_MIN_MTU, IPV6_HEADER, TCP_HEADER } = field;
const IPV4_HEADERS = IPV4_HEADER + TCP_HEADER;
const IPV6_HEADERS = IPV6_HEADER + TCP_HEADER;

/** Maximum length of segments, given as an MSS or an MTU. */
export type MssClampOptions =
  /** MSS over IPv4 and IPv6 (bytes). */
  | { readonly mss: number }
  /** MTU (bytes): the MSS is 40 less over IPv4, 60 less over IPv6. */
  | { readonly mtu: number };

const NAMES: OptionKinds<{ mss?: number; mtu?: number }> = { mss: "number", mtu: "number" };

/**
 * Clamps the MSS of TCP connections, so that neither side sends segments too long for the tunnel. In contrast to path MTU
 * discovery, it works where ICMP errors are filtered (RFC 2923 section 2.1).
 *
 * **Outbound** and **inbound**: lowers the MSS option of segments with SYN where it is higher; passes all packets.
 * **Options**: {@linkcode MssClampOptions}, one of the two. **Counters**, **drops**: none.
 * **Limits**: a SYN without the option stays as it is: it means 536 bytes over IPv4 and 1220 over IPv6 (RFC 9293 section
 * 3.7.1). TCP inside IPsec or another tunnel is not seen.
 *
 * @throws {TypeError} unless exactly one option is given.
 * @throws {RangeError} when `mtu` is not an integer from 68 to 65,535, or `mss` not one from 1 to 65,535.
 *
 * @example A SYN on its way to a tunnel that carries 1420 bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { mssClamp } from "@warren/tunnel/mss_clamp";
 * import { Tcp } from "@warren/tunnel/tcp";
 *
 * const packet = new PacketPool().take(0)!;
 * const options = Uint8Array.of(2, 4, 1460 >> 8, 1460 & 0xff);
 * Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 7, flags: Tcp.Syn, options });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 6 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * mssClamp({ mtu: 1420 }).outbound!(batch, { now: 0 } as StageContext); // the tunnel does this
 * assert.equal(Tcp.of(packet)!.mss, 1380);
 * ```
 */
export function mssClamp(options: MssClampOptions): Stage {
  checkOptions("clamp the MSS", options, NAMES);
  const { mss, mtu } = options as { mss?: number; mtu?: number };
  if ((mss === undefined) === (mtu === undefined)) {
    throw new TypeError("Cannot clamp the MSS: give either mss or mtu");
  }
  checkInteger("clamp the MSS", "mss", mss ?? 1, 1, IPV4_MAX_LENGTH);
  checkInteger("clamp the MSS", "mtu", mtu ?? IPV4_MIN_MTU, IPV4_MIN_MTU, IPV4_MAX_LENGTH);
  const max4 = mss ?? mtu! - IPV4_HEADERS;
  const max6 = mss ?? mtu! - IPV6_HEADERS;
  const clamp = ({ packets, length }: PacketBatch): void => {
    for (let i = 0; i < length; i++) {
      const tcp = Tcp.of(packets[i]!);
      if (tcp === undefined || !tcp.isSyn) continue;
      const max = tcp.ip.version === 4 ? max4 : max6;
      const offered = tcp.mss;
      if (offered !== undefined && offered > max) tcp.mss = max;
    }
  };
  return { name: "mss clamp", outbound: clamp, inbound: clamp };
}
