/** ICMP header, read and written in place (RFC 792). */

import { encodeIcmp, type IcmpFields, IcmpView } from "./_icmp_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { Ipv4 } from "./ipv4.ts";
import { Protocol } from "./protocol.ts";

export type { IcmpFields as Icmpv4Fields, IcmpView } from "./_icmp_view.ts";

// Specification: RFC 792; the length of the quoted packet, RFC 4884 section 4
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
const QUOTED_LENGTH = 5; // in units of 4 bytes; 0: the rest of the message

// Implementation
const VIEW = nextViewNumber();

/**
 * ICMP message over IPv4. Every setter updates the checksum. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `type` and `code` (8 bits), `id` and `seq` (16 bits), or `rest` for both of them (unsigned
 * 32 bits).
 *
 * **Limits**: a message of less than 8 bytes is malformed. The packet that an error quotes is available as bytes, not as
 * views.
 *
 * @example Replying to a ping
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
  /** Reply to an echo request. */
  static readonly EchoReply = 0;
  /** Error: the packet cannot be delivered for the reason in `code`; 4 is fragmentation needed (RFC 1191). */
  static readonly DestinationUnreachable = 3;
  /** Error: the sender should slow down. Deprecated by RFC 6633. */
  static readonly SourceQuench = 4;
  /** Error: a shorter path leads through the router with the address in `rest`. */
  static readonly Redirect = 5;
  /** Query for an echo reply. */
  static readonly EchoRequest = 8;
  /** Announcement of a router (RFC 1256). */
  static readonly RouterAdvertisement = 9;
  /** Query for router advertisements (RFC 1256). */
  static readonly RouterSolicitation = 10;
  /** Error: the packet's TTL expired, or with code 1 its reassembly timed out. */
  static readonly TimeExceeded = 11;
  /** Error: a header field is wrong, at the offset in the high byte of `rest`. */
  static readonly ParameterProblem = 12;
  /** Query for the time of a clock. */
  static readonly TimestampRequest = 13;
  /** Reply to a timestamp request. */
  static readonly TimestampReply = 14;

  /**
   * Returns the packet's ICMP header over IPv4; `undefined` for other protocols and later fragments, and, with the packet
   * marked `malformed`, for a truncated header.
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
   * Prepends an 8-byte header. Its checksum is written by `Ipv4.encode`, which must follow.
   *
   * @throws {RangeError} when a field is out of range, or the packet has no headroom left; the packet is then unchanged.
   */
  static encode(packet: Packet, fields: IcmpFields): void {
    encodeIcmp(packet, "encode an ICMP header", fields);
  }

  /** Offset in `packet.bytes` of the packet that an error quotes; -1 if the message is not an error. */
  get quotedOffset(): number {
    return this.#isError ? this.payloadOffset : -1;
  }

  /** Length of the quoted packet (bytes), without the extensions of RFC 4884; 0 if the message is not an error. */
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
