/** The UDP header, in place (RFC 768). */

import { checkField } from "./_encode.ts";
import { PortsView } from "./_ports_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { transport } from "./ip.ts";
import { Protocol } from "./protocol.ts";

export type { PortsView } from "./_ports_view.ts";

// Specification: RFC 768
//
//     0      7 8     15 16    23 24    31
//    +--------+--------+--------+--------+
//    |     Source      |   Destination   |
//    |      Port       |      Port       |
//    +--------+--------+--------+--------+
//    |                 |                 |
//    |     Length      |    Checksum     |
//    +--------+--------+--------+--------+
const { SRC_PORT, DST_PORT, UDP_LENGTH: LENGTH, UDP_CHECKSUM: CHECKSUM } = field;
const { UDP_HEADER: HEADER, UDP_MAX_LENGTH: MAX_LENGTH } = field;

// Implementation
const VIEW = nextViewNumber();

/** What {@linkcode Udp.encode} writes. */
export interface UdpFields {
  /** The sender's port; 0 when no answer is wanted. */
  srcPort: number;
  /** The receiver's port. */
  dstPort: number;
}

/**
 * A UDP header. Every setter keeps the checksum; a zero one, which says that there is none, stays zero. A number
 * that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `srcPort` and `dstPort` (16 bits).
 *
 * **Limits**: a length of 0, as jumbograms have it (RFC 2675 section 4), is malformed. What an IP payload has
 * beyond the datagram, such as UDP options (RFC 9868), is no part of the payload.
 *
 * @example Sending a datagram back
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 7 });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 17 });
 *
 * const udp = Udp.of(packet)!;
 * udp.swapPorts();
 * udp.ip.swap();
 * assert(udp.dstPort === 5000 && udp.ip.dstText === "10.9.0.1" && udp.checksumValid);
 * ```
 */
export class Udp extends PortsView {
  /**
   * The packet's UDP header, over IPv4 or IPv6. `undefined` for another protocol and for a fragment other than the
   * first; and for a header that is cut short or lies about its length, which makes the packet `malformed`.
   */
  static of(packet: Packet): Udp | undefined {
    const ip = transport(packet, Protocol.Udp);
    if (ip === undefined) return undefined;
    const start = ip.payloadOffset;
    const room = ip.payloadLength;
    let length = room < HEADER ? 0 : packet.view.getUint16(start + LENGTH);
    // A first fragment has the length of the whole datagram.
    if (length > room && ip.isFragment) length = room;
    if (length < HEADER || length > room) {
      packet.malformed = true;
      return undefined;
    }
    const udp = (packet.views[VIEW] ??= new Udp(packet, ip, Protocol.Udp)) as Udp;
    udp.place(ip, start, start + HEADER, start + length);
    return udp;
  }

  /**
   * Puts a header of 8 bytes in front of what the packet holds. Its checksum is written by the IP header's
   * `encode`, which has to follow.
   *
   * @throws {RangeError} when a port does not fit, the datagram would be longer than 65,535 bytes, or the packet's
   * headroom is used up; the packet is then as it was.
   */
  static encode(packet: Packet, fields: UdpFields): void {
    const { srcPort, dstPort } = fields;
    const length = packet.length + HEADER;
    if (length > MAX_LENGTH) {
      throw new RangeError(`Cannot encode a UDP datagram of ${length} bytes: ${MAX_LENGTH} is the most`);
    }
    checkField("a UDP", "srcPort", srcPort, 0xffff);
    checkField("a UDP", "dstPort", dstPort, 0xffff);
    packet.prepend(HEADER);
    const { view, offset } = packet;
    view.setUint16(offset + SRC_PORT, srcPort);
    view.setUint16(offset + DST_PORT, dstPort);
    view.setUint16(offset + LENGTH, length);
    view.setUint16(offset + CHECKSUM, 0);
  }

  /** The bytes of the datagram with its header, as it says itself; in a first fragment more than are here. */
  get udpLength(): number {
    return this.packet.view.getUint16(this.start + LENGTH);
  }
}
