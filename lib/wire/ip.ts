/** IP header of either version, and search for the transport header. */

import type { Packet } from "../core/packet.ts";
import { Ipv4 } from "./ipv4.ts";
import { Ipv6 } from "./ipv6.ts";

export { Protocol } from "./protocol.ts";

/** IPv4 or IPv6 header, by `version`. */
export type Ip = Ipv4 | Ipv6;

/**
 * Finds the IP header of either version.
 *
 * @example Reading the TTL or hop limit of any IP packet
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ip, Protocol } from "@warren/tunnel/ip";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: Protocol.Gre, ttl: 9 });
 * const ip = Ip.of(packet)!;
 * assert(ip.version === 4 && ip.protocol === Protocol.Gre && ip.ttl === 9 && ip.dstText === "10.9.0.77");
 * ```
 */
export const Ip: {
  /**
   * Returns the packet's IP header; `undefined`, with the packet marked `malformed`, if it is empty, has a different
   * version, or its header is truncated or has inconsistent lengths.
   */
  of(packet: Packet): Ip | undefined;
} = {
  of(packet: Packet): Ip | undefined {
    const version = versionOf(packet);
    if (version === 4) return Ipv4.of(packet);
    if (version === 6) return Ipv6.of(packet);
    packet.malformed = true;
    return undefined;
  },
};

/** Returns the IP version in a packet's first byte, without further checks; 0 for an empty packet. */
export function versionOf({ bytes, offset, length }: Packet): number {
  return length === 0 ? 0 : bytes[offset]! >> 4;
}

/**
 * Returns the IP header of a packet whose transport header, at `payloadOffset`, is of this protocol; `undefined` for
 * other protocols, malformed packets and later fragments.
 */
export function transport(packet: Packet, protocol: number): Ip | undefined {
  const ip = Ip.of(packet);
  return ip !== undefined && ip.protocol === protocol && ip.fragmentOffset === 0 ? ip : undefined;
}
