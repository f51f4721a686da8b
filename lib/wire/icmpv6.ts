/** The ICMPv6 header, in place (RFC 4443), and the types of Neighbor Discovery (RFC 4861). */

import { encodeIcmp, type IcmpFields, IcmpView } from "./_icmp_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { Ipv6 } from "./ipv6.ts";
import { Protocol } from "./protocol.ts";

export type { IcmpFields as Icmpv6Fields, IcmpView } from "./_icmp_view.ts";

// Specification: RFC 4443 sections 2.1, 3 and 4; the length of what is quoted, RFC 4884 section 4
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
const QUOTED_LENGTH = 4; // in units of 8 bytes; 0: all that follows

// Implementation
const VIEW = nextViewNumber();

/**
 * An ICMP message over IPv6. Every setter keeps the checksum. A number that does not fit its field loses its high
 * bits.
 *
 * **Fields that can be set**: `type` and `code` (8 bits), `id` and `seq` (16 bits), `rest`, which is both of them
 * (unsigned 32 bits).
 *
 * **Limits**: a message shorter than 8 bytes is malformed: RFC 4443 and RFC 4861 have none. The packet that an
 * error quotes is shown as bytes, not as views; so are Neighbor Discovery's options.
 *
 * @example Answering a ping
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
  /** An error, as all types below 128 are: the packet cannot be delivered; the code says why. */
  static readonly DestinationUnreachable = 1;
  /** An error: the packet is longer than the next link's MTU, which is `rest`. */
  static readonly PacketTooBig = 2;
  /** An error: the packet's hop limit ran out, or with code 1 its reassembly's time. */
  static readonly TimeExceeded = 3;
  /** An error: a field of the packet is wrong; `rest` says where. */
  static readonly ParameterProblem = 4;
  /** Asks for an echo reply. */
  static readonly EchoRequest = 128;
  /** The answer to an echo request. */
  static readonly EchoReply = 129;
  /** Asks routers to say that they are there (RFC 4861 section 4.1). */
  static readonly RouterSolicitation = 133;
  /** A router says so, with prefixes and parameters (RFC 4861 section 4.2). */
  static readonly RouterAdvertisement = 134;
  /** Asks who has an address, or whether it is still there (RFC 4861 section 4.3). */
  static readonly NeighborSolicitation = 135;
  /** The answer to that (RFC 4861 section 4.4). */
  static readonly NeighborAdvertisement = 136;
  /** There is a shorter way (RFC 4861 section 4.5). */
  static readonly Redirect = 137;

  /**
   * The packet's ICMP header over IPv6. `undefined` for another protocol and for a fragment other than the first;
   * and for a header that is cut short, which makes the packet `malformed`.
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
   * Puts a header of 8 bytes in front of what the packet holds. Its checksum is written by `Ipv6.encode`, which
   * has to follow.
   *
   * @throws {RangeError} when a field does not fit, or the packet's headroom is used up; the packet is then as it
   * was.
   */
  static encode(packet: Packet, fields: IcmpFields): void {
    encodeIcmp(packet, "an ICMPv6", fields);
  }

  /** Where the packet that an error is about starts in `packet.bytes`; -1 when this is no error of RFC 4443. */
  get quotedOffset(): number {
    return this.#isError ? this.payloadOffset : -1;
  }

  /** How many bytes of that packet are quoted, by RFC 4884 section 4 less than there are; 0 when this is no error. */
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
