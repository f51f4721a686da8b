/** ICMPv6 header, read and written in place (RFC 4443), and the types of Neighbor Discovery (RFC 4861). */

import { encodeIcmp, type IcmpFields, IcmpView } from "./_icmp_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { Ipv6 } from "./ipv6.ts";
import { Protocol } from "./protocol.ts";

export type { IcmpFields as Icmpv6Fields, IcmpView } from "./_icmp_view.ts";

// Specification: RFC 4443 sections 2.1, 3 and 4; the length of the quoted packet, RFC 4884 section 4
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |     Type      |     Code      |          Checksum             |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |           Identifier          |        Sequence Number        |  echo
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |     Length    |       MTU, pointer or unused                  |  errors
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                    As much of invoking packet                 |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const { ICMP_HEADER } = field;
const QUOTED_LENGTH = 4; // in units of 8 bytes; 0: the rest of the message

// Implementation
const VIEW = nextViewNumber();

/**
 * ICMP message over IPv6. Every setter updates the checksum. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `type` and `code` (8 bits), `id` and `seq` (16 bits), or `rest` for both of them (unsigned
 * 32 bits).
 *
 * **Limits**: a message of less than 8 bytes is malformed. The packet that an error quotes and the options of Neighbor
 * Discovery are available as bytes, not as views.
 *
 * @example Replying to a ping
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv6 } from "@warren/tunnel/address";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Icmpv6 } from "@warren/tunnel/icmpv6";
 * import { Ipv6 } from "@warren/tunnel/ipv6";
 *
 * const packet = new PacketPool().from(new Uint8Array(56))!;
 * Icmpv6.encode(packet, { type: Icmpv6.EchoRequest, id: 7, seq: 1 });
 * Ipv6.encode(packet, { src: parseIpv6("fd00::1"), dst: parseIpv6("fd00::4d"), nextHeader: 58 });
 *
 * const icmp = Icmpv6.of(packet)!;
 * icmp.type = Icmpv6.EchoReply;
 * icmp.ip.swap();
 * assert(icmp.id === 7 && icmp.ip.srcText === "fd00::4d" && icmp.checksumValid);
 * ```
 */
export class Icmpv6 extends IcmpView<Ipv6> {
  /** Error, like all types below 128: the packet cannot be delivered for the reason in `code`. */
  static readonly DestinationUnreachable = 1;
  /** Error: the packet exceeds the MTU of the next link, which is `rest`. */
  static readonly PacketTooBig = 2;
  /** Error: the packet's hop limit expired, or with code 1 its reassembly timed out. */
  static readonly TimeExceeded = 3;
  /** Error: a field of the packet is wrong, at the offset in `rest`. */
  static readonly ParameterProblem = 4;
  /** Query for an echo reply. */
  static readonly EchoRequest = 128;
  /** Reply to an echo request. */
  static readonly EchoReply = 129;
  /** Query for router advertisements (RFC 4861 section 4.1). */
  static readonly RouterSolicitation = 133;
  /** Announcement of a router with its prefixes and parameters (RFC 4861 section 4.2). */
  static readonly RouterAdvertisement = 134;
  /** Query for the owner of an address, or for its reachability (RFC 4861 section 4.3). */
  static readonly NeighborSolicitation = 135;
  /** Reply to a neighbor solicitation (RFC 4861 section 4.4). */
  static readonly NeighborAdvertisement = 136;
  /** Announcement of a shorter path (RFC 4861 section 4.5). */
  static readonly Redirect = 137;

  /**
   * Returns the packet's ICMP header over IPv6; `undefined` for other protocols and later fragments, and, with the packet
   * marked `malformed`, for a truncated header.
   */
  static of(packet: Packet): Icmpv6 | undefined {
    const ip = Ipv6.of(packet);
    if (ip === undefined || ip.protocol !== Protocol.Icmpv6 || ip.fragmentOffset !== 0) return undefined;
    const start = ip.payloadOffset;
    const length = ip.payloadLength;
    if (length < ICMP_HEADER) {
      packet.malformed = true;
      return undefined;
    }
    const icmp = (packet.views[VIEW] ??= new Icmpv6(packet, ip, Protocol.Icmpv6)) as Icmpv6;
    icmp.place(ip, start, start + ICMP_HEADER, start + length);
    return icmp;
  }

  /**
   * Prepends an 8-byte header. Its checksum is written by `Ipv6.encode`, which must follow.
   *
   * @throws {RangeError} when a field is out of range, or the packet has no headroom left; the packet is then unchanged.
   */
  static encode(packet: Packet, fields: IcmpFields): void {
    encodeIcmp(packet, "encode an ICMPv6 header", fields);
  }

  /** Offset in `packet.bytes` of the packet that an error of RFC 4443 quotes; -1 for any other message. */
  get quotedOffset(): number {
    return this.#isError ? this.payloadOffset : -1;
  }

  /** Length of the quoted packet (bytes), without the extensions of RFC 4884; 0 if the message is not an error. */
  get quotedLength(): number {
    if (!this.#isError) return 0;
    const { type } = this;
    const length = type === Icmpv6.DestinationUnreachable || type === Icmpv6.TimeExceeded
      ? this.packet.bytes[this.start + QUOTED_LENGTH]! << 3
      : 0;
    return length === 0 ? this.payloadLength : Math.min(length, this.payloadLength);
  }

  get #isError(): boolean {
    const { type } = this;
    return type >= Icmpv6.DestinationUnreachable && type <= Icmpv6.ParameterProblem;
  }
}
