/** What the `encode` of several protocols shares: numbers that fit their fields, and the sum behind an IP header. */

import { coveredLength, writeTransportChecksum } from "./transport_checksum.ts";
import type { Packet } from "../core/packet.ts";

/** A new IP header, and the transport header behind it. */
interface Encoded {
  readonly packet: Packet;
  readonly protocol: number;
  readonly payloadOffset: number;
  readonly payloadLength: number;
  readonly isFragment: boolean;
  pseudoHeaderSum(protocol: number, length: number): number;
}

/** @throws {RangeError} unless the value is a whole number from 0 to `most`. */
export function checkField(header: string, name: string, value: number, most: number): void {
  if (!(value >= 0 && value <= most && Number.isInteger(value))) {
    throw new RangeError(
      `Cannot encode ${header} header: ${name} is ${value}, not a whole number up to ${most}`,
    );
  }
}

/**
 * Writes the checksum of the transport header behind a new IP header, also where it was partly summed. It does
 * nothing in a fragment, nor where the pseudo-header cannot be told.
 */
export function writeTransport(ip: Encoded): void {
  if (ip.isFragment) return;
  const { packet, protocol, payloadOffset } = ip;
  const length = coveredLength(packet, payloadOffset, payloadOffset + ip.payloadLength, protocol);
  const pseudoHeader = ip.pseudoHeaderSum(protocol, length);
  if (pseudoHeader < 0) return;
  writeTransportChecksum(packet, payloadOffset, payloadOffset + length, protocol, pseudoHeader);
}
