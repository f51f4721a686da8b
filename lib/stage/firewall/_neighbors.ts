/** IPv6 packets that only neighbors send: Neighbor Discovery and Multicast Listener Discovery. */

import { LISTENER_DONE, LISTENER_QUERY, LISTENER_REPORT, LISTENER_REPORT_2 } from "../../wire/icmp_query.ts";
import { Direction, type Packet } from "../../core/mod.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { type Ip, Protocol } from "../../wire/ip.ts";

// Specification: Multicast Listener Discovery, RFC 2710 section 3 and RFC 3810 section 5
const LISTENER_HOP_LIMIT = 1;
/** RFC 4861 section 6.1: no router has forwarded it. */
const NEIGHBOR_HOP_LIMIT = 255;

/** Tells, by hop limit and type, whether a packet comes from a neighbor and no router has forwarded it. */
export function isNeighborMessage(packet: Packet, ip: Ip, direction: Direction): boolean {
  if (ip.version === 4 || ip.protocol !== Protocol.Icmpv6 || ip.isFragment) return false;
  const { bytes } = packet;
  const at = ip.payloadOffset;
  const isOutbound = direction === Direction.Outbound;
  switch (bytes[at]!) {
    case Icmpv6.NeighborSolicitation:
    case Icmpv6.NeighborAdvertisement:
      return ip.hopLimit === NEIGHBOR_HOP_LIMIT && bytes[at + 1] === 0;
    case Icmpv6.RouterSolicitation:
      return isOutbound && ip.hopLimit === NEIGHBOR_HOP_LIMIT && bytes[at + 1] === 0;
    case Icmpv6.RouterAdvertisement:
      return !isOutbound && ip.hopLimit === NEIGHBOR_HOP_LIMIT && bytes[at + 1] === 0;
    case LISTENER_QUERY:
    case LISTENER_REPORT:
    case LISTENER_DONE:
    case LISTENER_REPORT_2:
      return ip.hopLimit === LISTENER_HOP_LIMIT && isLinkLocalOrNone(ip.src);
    default:
      return false;
  }
}

function isLinkLocalOrNone(address: Uint8Array): boolean {
  if (address[0] === 0xfe && (address[1]! & 0xc0) === 0x80) return true;
  for (let i = 0; i < 16; i++) if (address[i] !== 0) return false;
  return true;
}
