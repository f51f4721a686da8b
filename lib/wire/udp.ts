/** UDP header, read and written in place (RFC 768). */

import { checkInteger } from "../core/options.ts";
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
const ENCODE = "encode a UDP header";

/** Header fields for {@linkcode Udp.encode}. */
export interface UdpFields {
  /** Source port; 0 if no reply is expected. */
  srcPort: number;
  /** Destination port. */
  dstPort: number;
}

/**
 * UDP header. Every setter updates the checksum; a checksum of zero, which means none, stays zero. A number that does not
 * fit its field loses its high bits.
 *
 * **Fields that can be set**: `srcPort` and `dstPort` (16 bits).
 *
 * **Limits**: a length of 0, as in jumbograms (RFC 2675 section 4), is malformed. Bytes of the IP payload after the
 * datagram, such as UDP options (RFC 9868), are not part of the payload.
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
   * Returns the packet's UDP header over IPv4 or IPv6; `undefined` for other protocols and later fragments. The result is
   * also `undefined`, and the packet marked `malformed`, if the header is truncated or has an inconsistent length.
   */
  static of(packet: Packet): Udp | undefined {
    const ip = transport(packet, Protocol.Udp);
    if (ip === undefined) return undefined;
    const start = ip.payloadOffset;
    const room = ip.payloadLength;
    let length = room < HEADER ? 0 : packet.view.getUint16(start + LENGTH);
    // A first fragment states the length of the whole datagram.
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
   * Prepends an 8-byte header. Its checksum is written by the IP header's `encode`, which must follow.
   *
   * @throws {RangeError} when a port is out of range, the datagram would exceed 65,535 bytes, or the packet has no headroom
   * left; the packet is then unchanged.
   */
  static encode(packet: Packet, fields: UdpFields): void {
    const { srcPort, dstPort } = fields;
    const length = packet.length + HEADER;
    if (length > MAX_LENGTH) {
      throw new RangeError(`Cannot ${ENCODE}: its length must be at most ${MAX_LENGTH}, got ${length}`);
    }
    checkInteger(ENCODE, "srcPort", srcPort, 0, 0xffff);
    checkInteger(ENCODE, "dstPort", dstPort, 0, 0xffff);
    packet.prepend(HEADER);
    const { view, offset } = packet;
    view.setUint16(offset + SRC_PORT, srcPort);
    view.setUint16(offset + DST_PORT, dstPort);
    view.setUint16(offset + LENGTH, length);
    view.setUint16(offset + CHECKSUM, 0);
  }

  /** Length field: the datagram with its header (bytes), in a first fragment the whole datagram. */
  get udpLength(): number {
    return this.packet.view.getUint16(this.start + LENGTH);
  }
}
