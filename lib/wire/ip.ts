/** An IP packet of either version, and what it carries. */

import type { Packet } from "../core/packet.ts";
import { Ipv4 } from "./ipv4.ts";
import { Ipv6 } from "./ipv6.ts";

export { Protocol } from "./protocol.ts";

/** A header of either version; `version` tells which. */
export type Ip = Ipv4 | Ipv6;

/**
 * Finds the header of either version.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ip, Protocol } from "@warren/tunnel/ip";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: Protocol.Gre });
 * assert.equal(Ip.of(packet)?.version, 4);
 * ```
 */
export const Ip: {
  /**
   * The packet's IP header. `undefined` for one that is cut short or lies about its lengths, for any other
   * version, and for an empty packet; each is then `malformed`.
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

/** The version of IP that a packet's first byte tells, whatever else is wrong with it; 0 for an empty one. */
export function versionOf({ bytes, offset, length }: Packet): number {
  return length === 0 ? 0 : bytes[offset]! >> 4;
}

/**
 * The IP header of a packet that carries this protocol, whose transport header starts at the result's
 * `payloadOffset`. `undefined` for another protocol, for what {@linkcode Ip} refuses, and for a fragment other
 * than the first, which has no transport header.
 */
export function transport(packet: Packet, protocol: number): Ip | undefined {
  const ip = Ip.of(packet);
  return ip !== undefined && ip.protocol === protocol && ip.fragmentOffset === 0 ? ip : undefined;
}
