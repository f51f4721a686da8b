/** Transport checksum behind a new IP header, for `Ipv4.encode` and `Ipv6.encode`. */

import { coveredLength, writeTransportChecksum } from "./transport_checksum.ts";
import type { Packet } from "../core/packet.ts";

/** New IP header and its payload. */
interface Encoded {
  readonly packet: Packet;
  readonly protocol: number;
  readonly payloadOffset: number;
  readonly payloadLength: number;
  readonly isFragment: boolean;
  pseudoHeaderSum(protocol: number, length: number): number;
}

/** Writes the complete transport checksum, except in a fragment or with an unknown pseudo-header. */
export function writeTransport(ip: Encoded): void {
  if (ip.isFragment) return;
  const { packet, protocol, payloadOffset } = ip;
  const length = coveredLength(packet, payloadOffset, payloadOffset + ip.payloadLength, protocol);
  const pseudoHeader = ip.pseudoHeaderSum(protocol, length);
  if (pseudoHeader < 0) return;
  writeTransportChecksum(packet, payloadOffset, payloadOffset + length, protocol, pseudoHeader);
}
