/** Unicast addresses, to which ICMP errors may be sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e). */

import * as field from "./header_fields.ts";
import type { Ip } from "./ip.ts";

const { IPV6_SRC } = field;

/** Reports whether an IPv4 address can be another host's: not in 0/8 or 127/8, multicast or reserved. */
export function isUnicast4(address: number): boolean {
  const first = address >>> 24;
  return first !== 0 && first !== 127 && first < 224;
}

/** Reports whether the IPv6 address at `at` can be another host's: not in ff00::/8, `::` or `::1`. */
export function isUnicast6(view: DataView, at: number): boolean {
  const isLow = view.getInt32(at) === 0 && view.getInt32(at + 4) === 0 && view.getInt32(at + 8) === 0;
  return view.getUint8(at) !== 0xff && !(isLow && view.getUint32(at + 12) <= 1);
}

/** Reports whether a packet's source address is unicast. */
export function isFromHost(ip: Ip): boolean {
  return ip.version === 4 ? isUnicast4(ip.src) : isUnicast6(ip.packet.view, ip.start + IPV6_SRC);
}
