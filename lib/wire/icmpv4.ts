/** The ICMP header, in place (RFC 792). */

import { encodeIcmp, type IcmpFields, IcmpView } from "./_icmp_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { Ipv4 } from "./ipv4.ts";
import { Protocol } from "./protocol.ts";

export type { IcmpFields as Icmpv4Fields, IcmpView } from "./_icmp_view.ts";

// Specification: RFC 792; the length of what is quoted, RFC 4884 section 4
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |     Type      |     Code      |          Checksum             |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |           Identifier          |        Sequence Number        |  echo, timestamp
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |    Pointer    |    Length     |         Next-Hop MTU          |  errors
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |      Internet Header + leading octets of original datagram    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const { ICMP_HEADER } = field;
const QUOTED_LENGTH = 5; // in units of 4 bytes; 0: all that follows

// Implementation
const VIEW = nextViewNumber();

/**
 * An ICMP message over IPv4. Every setter keeps the checksum. A number that does not fit its field loses its high
 * bits.
 *
 * **Fields that can be set**: `type` and `code` (8 bits), `id` and `seq` (16 bits), `rest`, which is both of them
 * (unsigned 32 bits).
 *
 * **Limits**: a message shorter than 8 bytes is malformed: RFC 792 has none. The packet that an error quotes is
 * shown as bytes, not as views.
 *
 * @example Answering a ping
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Icmpv4 } from "@warren/tunnel/icmpv4";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const packet = new PacketPool().from(new Uint8Array(56))!;
 * Icmpv4.encode(packet, { type: Icmpv4.EchoRequest, id: 7, seq: 1 });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 1 });
 *
 * const icmp = Icmpv4.of(packet)!;
 * icmp.type = Icmpv4.EchoReply;
 * icmp.ip.swap();
 * assert(icmp.id === 7 && icmp.ip.srcText === "10.9.0.77" && icmp.checksumValid);
 * ```
 */
export class Icmpv4 extends IcmpView<Ipv4> {
  /** The answer to an echo request. */
  static readonly EchoReply = 0;
  /** An error: the packet cannot be delivered; the code says why, and 4 that it is too long (RFC 1191). */
  static readonly DestinationUnreachable = 3;
  /** An error: send more slowly. Deprecated by RFC 6633. */
  static readonly SourceQuench = 4;
  /** An error: there is a shorter way, through the router whose address is `rest`. */
  static readonly Redirect = 5;
  /** Asks for an echo reply. */
  static readonly EchoRequest = 8;
  /** A router says that it is there (RFC 1256). */
  static readonly RouterAdvertisement = 9;
  /** Asks routers to say so (RFC 1256). */
  static readonly RouterSolicitation = 10;
  /** An error: the packet's time to live ran out, or with code 1 its reassembly's. */
  static readonly TimeExceeded = 11;
  /** An error: a field of the header is wrong; the high byte of `rest` says where. */
  static readonly ParameterProblem = 12;
  /** Asks for a clock's time. */
  static readonly TimestampRequest = 13;
  /** The answer to a timestamp request. */
  static readonly TimestampReply = 14;

  /**
   * The packet's ICMP header over IPv4. `undefined` for another protocol and for a fragment other than the first;
   * and for a header that is cut short, which makes the packet `malformed`.
   */
  static of(packet: Packet): Icmpv4 | undefined {
    const ip = Ipv4.of(packet);
    if (ip === undefined || ip.protocol !== Protocol.Icmp || ip.fragmentOffset !== 0) return undefined;
    const start = ip.payloadOffset;
    const length = ip.payloadLength;
    if (length < ICMP_HEADER) {
      packet.malformed = true;
      return undefined;
    }
    const icmp = (packet.views[VIEW] ??= new Icmpv4(packet, ip, Protocol.Icmp)) as Icmpv4;
    icmp.place(ip, start, start + ICMP_HEADER, start + length);
    return icmp;
  }

  /**
   * Puts a header of 8 bytes in front of what the packet holds. Its checksum is written by `Ipv4.encode`, which
   * has to follow.
   *
   * @throws {RangeError} when a field does not fit, or the packet's headroom is used up; the packet is then as it
   * was.
   */
  static encode(packet: Packet, fields: IcmpFields): void {
    encodeIcmp(packet, "an ICMP", fields);
  }

  /** Where the packet that an error is about starts in `packet.bytes`; -1 when this is no error. */
  get quotedOffset(): number {
    return this.#isError ? this.payloadOffset : -1;
  }

  /** How many bytes of that packet are quoted, by RFC 4884 section 4 less than there are; 0 when this is no error. */
  get quotedLength(): number {
    if (!this.#isError) return 0;
    const length = this.#hasQuotedLength ? this.packet.bytes[this.start + QUOTED_LENGTH]! << 2 : 0;
    return length === 0 ? this.payloadLength : Math.min(length, this.payloadLength);
  }

  get #isError(): boolean {
    const { type } = this;
    return type === Icmpv4.SourceQuench || type === Icmpv4.Redirect || this.#hasQuotedLength;
  }

  get #hasQuotedLength(): boolean {
    const { type } = this;
    return type === Icmpv4.DestinationUnreachable || type === Icmpv4.TimeExceeded ||
      type === Icmpv4.ParameterProblem;
  }
}
