/** Headers of packets that a NAT translates. */

import type { Packet, StageContext } from "../../core/mod.ts";
import { versionOf } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";

/** Returns the IPv4 header; `undefined` for IPv6, which passes, and for a malformed packet, which is dropped. */
export function ipv4Of(packet: Packet, context: StageContext): Ipv4 | undefined {
  if (versionOf(packet) === 6) return undefined;
  const ip = Ipv4.of(packet);
  if (ip === undefined) context.drop(packet, "malformed");
  return ip;
}

/** Returns the IPv6 header; `undefined` for IPv4, which passes, and for a malformed packet, which is dropped. */
export function ipv6Of(packet: Packet, context: StageContext): Ipv6 | undefined {
  if (versionOf(packet) === 4) return undefined;
  const ip = Ipv6.of(packet);
  if (ip === undefined) context.drop(packet, "malformed");
  return ip;
}
