/** IPv4 header, read and written in place (RFC 791). */

import { writeTransport } from "./_encode.ts";
import { formatIpv4 } from "./address.ts";
import { checkInteger } from "../core/options.ts";
import { adjust, checksum, difference, difference32 } from "../core/checksum.ts";
import { adjustPseudoHeader, pseudoHeaderSumIpv4 } from "./transport_checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { HeaderView, nextViewNumber } from "./header_view.ts";
import { Protocol } from "./protocol.ts";

// Specification: RFC 791 section 3.1, with the service octet of RFC 2474 and RFC 3168
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |Version|  IHL  |    DSCP   |ECN|          Total Length         |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |         Identification        |Flags|      Fragment Offset    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |  Time to Live |    Protocol   |         Header Checksum       |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                       Source Address                          |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                    Destination Address                        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                    Options                    |    Padding    |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const VERSION = 4;
const { IPV4_SERVICE: SERVICE, IPV4_TOTAL_LENGTH: TOTAL_LENGTH, IPV4_ID: ID, IPV4_FLAGS: FLAGS } = field;
const { IPV4_TTL: TTL, IPV4_PROTOCOL: PROTOCOL, IPV4_CHECKSUM: CHECKSUM } = field;
const { IPV4_SRC: SRC, IPV4_DST: DST, IPV4_HEADER: HEADER, IPV4_MAX_LENGTH: MAX_LENGTH } = field;
const { DONT_FRAGMENT, MORE_FRAGMENTS, FRAGMENT_OFFSET } = field;

// Implementation
const DEFAULT_TTL = 64; // RFC 1700
const ENCODE = "encode an IPv4 packet";
const VIEW = nextViewNumber();

/** Header fields for {@linkcode Ipv4.encode}. */
export interface Ipv4Fields {
  /** Source address (unsigned 32 bits). */
  src: number;
  /** Destination address (unsigned 32 bits). */
  dst: number;
  /** Protocol of the payload, one of `Protocol`. */
  protocol: number;
  /** Time to live: number of routers that may still forward the packet. @default {64} */
  ttl?: number;
  /** Identification of fragments; 0 for a packet that may not be fragmented (RFC 6864 section 4.1). @default {0} */
  id?: number;
  /** Forbids routers from fragmenting the packet. @default {true} */
  dontFragment?: boolean;
  /** Differentiated services code point (RFC 2474). @default {0} */
  dscp?: number;
  /** ECN field (RFC 3168). @default {0} */
  ecn?: number;
}

/**
 * IPv4 header. Every setter updates the header checksum; `src` and `dst` also update the checksum of a UDP, UDP-Lite,
 * TCP or DCCP header. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `src` and `dst` (unsigned 32 bits), `ttl` (8 bits), `dscp` (6 bits), `ecn` (2 bits), `id`
 * (16 bits), `dontFragment` and `moreFragments` (booleans), `fragmentOffset` (bytes, a multiple of 8).
 *
 * **Limits**: the header checksum is updated, not verified. Source routes (RFC 791 section 3.1) are ignored: transport
 * checksums are assumed to cover `dst`.
 *
 * @example Decrementing TTL, as a router does
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 253 });
 * const ip = Ipv4.of(packet)!;
 * ip.ttl--;
 * assert.equal(ip.ttl, 63);
 * assert.equal(ip.dstText, "10.9.0.77");
 * ```
 */
export class Ipv4 extends HeaderView {
  /** IP version: always 4; narrows the type of an `Ip`. */
  readonly version = 4;
  #payloadOffset = 0;
  #end = 0;

  /**
   * Returns the packet's IPv4 header; `undefined` for other versions. The result is also `undefined`, and the packet
   * marked `malformed`, if it is empty or the header is truncated, has inconsistent lengths, or leaves the packet's slot.
   */
  static of(packet: Packet): Ipv4 | undefined {
    const { bytes, offset, length, slotEnd } = packet;
    if (length === 0) {
      packet.malformed = true;
      return undefined;
    }
    const first = bytes[offset]!;
    if (first >> 4 !== VERSION) return undefined;
    const headerLength = (first & 0x0f) << 2;
    const totalLength = length < HEADER || offset + HEADER > slotEnd
      ? 0
      : packet.view.getUint16(offset + TOTAL_LENGTH);
    // Section 3.1: IHL is at least 5, and the total length includes the header. Padding may follow.
    if (
      headerLength < HEADER || totalLength < headerLength || !(totalLength <= length) ||
      offset + totalLength > slotEnd || offset < packet.slotStart
    ) {
      packet.malformed = true;
      return undefined;
    }
    const ip = (packet.views[VIEW] ??= new Ipv4(packet)) as Ipv4;
    ip.start = offset;
    ip.#payloadOffset = offset + headerLength;
    ip.#end = offset + totalLength;
    return ip;
  }

  /**
   * Prepends a 20-byte header and writes the checksum of the UDP, TCP or ICMPv4 header that follows it.
   *
   * @throws {RangeError} when a field is out of range, the packet would exceed 65,535 bytes, or it has no headroom left;
   * the packet is then unchanged.
   */
  static encode(packet: Packet, fields: Ipv4Fields): void {
    const { src, dst, protocol, ttl = DEFAULT_TTL, id = 0, dontFragment = true, dscp = 0, ecn = 0 } = fields;
    const totalLength = packet.length + HEADER;
    if (totalLength > MAX_LENGTH) {
      throw new RangeError(
        `Cannot ${ENCODE}: its total length must be at most ${MAX_LENGTH}, got ${totalLength}`,
      );
    }
    checkInteger(ENCODE, "src", src, 0, 0xffffffff);
    checkInteger(ENCODE, "dst", dst, 0, 0xffffffff);
    checkInteger(ENCODE, "protocol", protocol, 0, 0xff);
    checkInteger(ENCODE, "ttl", ttl, 0, 0xff);
    checkInteger(ENCODE, "id", id, 0, 0xffff);
    checkInteger(ENCODE, "dscp", dscp, 0, 0x3f);
    checkInteger(ENCODE, "ecn", ecn, 0, 0x03);
    packet.prepend(HEADER);
    const { view, offset } = packet;
    view.setUint16(offset + SERVICE, VERSION << 12 | HEADER >> 2 << 8 | dscp << 2 | ecn);
    view.setUint16(offset + TOTAL_LENGTH, totalLength);
    view.setUint16(offset + ID, id);
    view.setUint16(offset + FLAGS, dontFragment ? DONT_FRAGMENT : 0);
    view.setUint16(offset + TTL, ttl << 8 | protocol);
    view.setUint16(offset + CHECKSUM, 0);
    view.setUint32(offset + SRC, src);
    view.setUint32(offset + DST, dst);
    view.setUint16(offset + CHECKSUM, checksum(packet.bytes, offset, HEADER));
    const ip = Ipv4.of(packet);
    if (ip !== undefined) writeTransport(ip);
  }

  /** Differentiated services code point (RFC 2474 section 3), 6 bits. */
  get dscp(): number {
    return this.packet.bytes[this.start + SERVICE + 1]! >> 2;
  }
  set dscp(value: number) {
    this.#set(SERVICE, 0x00fc, value << 2);
  }

  /** ECN field (RFC 3168 section 5), 2 bits; 3 is Congestion Experienced. */
  get ecn(): number {
    return this.packet.bytes[this.start + SERVICE + 1]! & 0x03;
  }
  set ecn(value: number) {
    this.#set(SERVICE, 0x0003, value);
  }

  /** Total Length field (bytes), this header included; `packet.length` may include padding after the packet. */
  get totalLength(): number {
    return this.#end - this.start;
  }

  /** Length of this header with its options: 20 to 60 bytes. */
  get headerLength(): number {
    return this.#payloadOffset - this.start;
  }

  /** Length of the options with their padding: 0 to 40 bytes. */
  get optionsLength(): number {
    return this.#payloadOffset - this.start - HEADER;
  }

  /** Offset of the options in `packet.bytes`; there may be none. */
  get optionsOffset(): number {
    return this.start + HEADER;
  }

  /** Identification: equal in all fragments of one packet, together with addresses and protocol. */
  get id(): number {
    return this.packet.view.getUint16(this.start + ID);
  }
  set id(value: number) {
    this.#set(ID, 0xffff, value);
  }

  /** Don't Fragment flag: routers drop the packet instead of fragmenting it. */
  get dontFragment(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & DONT_FRAGMENT) !== 0;
  }
  set dontFragment(value: boolean) {
    this.#set(FLAGS, DONT_FRAGMENT, value ? DONT_FRAGMENT : 0);
  }

  /** More Fragments flag: this is not the last fragment. */
  get moreFragments(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & MORE_FRAGMENTS) !== 0;
  }
  set moreFragments(value: boolean) {
    this.#set(FLAGS, MORE_FRAGMENTS, value ? MORE_FRAGMENTS : 0);
  }

  /** Offset of this fragment's payload in the original payload (bytes, a multiple of 8). */
  get fragmentOffset(): number {
    return (this.packet.view.getUint16(this.start + FLAGS) & FRAGMENT_OFFSET) << 3;
  }
  set fragmentOffset(value: number) {
    this.#set(FLAGS, FRAGMENT_OFFSET, value >> 3);
  }

  /** Set for a fragment. Only the first fragment has a transport header. */
  get isFragment(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0;
  }

  /** Time to live: number of routers that may still forward the packet. */
  get ttl(): number {
    return this.packet.bytes[this.start + TTL]!;
  }
  set ttl(value: number) {
    this.#set(TTL, 0xff00, value << 8);
  }

  /** Protocol of the payload, one of `Protocol`; {@linkcode Ipv4.setProtocol} sets it. */
  get protocol(): number {
    return this.packet.bytes[this.start + PROTOCOL]!;
  }

  /** Header checksum as stored, valid if the `sum` of the header is 0xffff. */
  get checksum(): number {
    return this.packet.view.getUint16(this.start + CHECKSUM);
  }

  /** Source address (unsigned 32 bits). */
  get src(): number {
    return this.packet.view.getUint32(this.start + SRC);
  }
  set src(address: number) {
    this.#setAddress(SRC, address);
  }

  /** Destination address (unsigned 32 bits). */
  get dst(): number {
    return this.packet.view.getUint32(this.start + DST);
  }
  set dst(address: number) {
    this.#setAddress(DST, address);
  }

  /** Source address as text, for logs; allocates. */
  get srcText(): string {
    return formatIpv4(this.src);
  }

  /** Destination address as text, for logs; allocates. */
  get dstText(): string {
    return formatIpv4(this.dst);
  }

  /** Offset of the payload in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** Length of the payload (bytes), without padding after the packet. */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /**
   * Sets the Protocol field, for a packet that gets a different payload, and updates the header checksum. The caller
   * writes the transport checksum, as with `Udp.refreshChecksum`.
   */
  setProtocol(protocol: number): void {
    this.#set(TTL, 0x00ff, protocol);
  }

  /** Swaps source and destination. Checksums stay valid: they do not depend on the order of words. */
  swap(): void {
    const { view } = this.packet;
    const src = view.getUint32(this.start + SRC);
    view.setUint32(this.start + SRC, view.getUint32(this.start + DST));
    view.setUint32(this.start + DST, src);
  }

  /**
   * Returns the sum of the pseudo-header that a transport checksum covers: 0 for ICMP, which has none, and -1 for ICMPv6,
   * which IPv4 does not carry.
   *
   * @param length Length of the transport header and its payload (bytes).
   */
  pseudoHeaderSum(protocol: number, length: number): number {
    if (protocol === Protocol.Icmp) return 0;
    return protocol === Protocol.Icmpv6 ? -1 : pseudoHeaderSumIpv4(this.src, this.dst, protocol, length);
  }

  #set(at: number, mask: number, value: number): void {
    const { view } = this.packet;
    const before = view.getUint16(this.start + at);
    const after = before & ~mask | value & mask;
    view.setUint16(this.start + at, after);
    this.#adjust(difference(before, after));
  }

  #setAddress(at: number, address: number): void {
    const { view } = this.packet;
    const change = difference32(view.getUint32(this.start + at), address);
    view.setUint32(this.start + at, address);
    this.#adjust(change);
    // Only the first fragment has the transport header, whose checksum covers the addresses.
    if (this.fragmentOffset === 0) {
      adjustPseudoHeader(this.packet, this.#payloadOffset, this.#end, this.protocol, change);
    }
  }

  #adjust(change: number): void {
    const { view } = this.packet;
    view.setUint16(this.start + CHECKSUM, adjust(view.getUint16(this.start + CHECKSUM), change));
  }
}
