/** The IPv4 header, in place (RFC 791). */

import { checkField, writeTransport } from "./_encode.ts";
import { formatIpv4 } from "./address.ts";
import { adjust, checksum, difference, difference32, pseudoHeaderSumIpv4 } from "../core/checksum.ts";
import { adjustPseudoHeader } from "./transport_checksum.ts";
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
const VIEW = nextViewNumber();

/** What {@linkcode Ipv4.encode} writes. */
export interface Ipv4Fields {
  /** Where the packet comes from (unsigned 32 bits). */
  src: number;
  /** Where it goes (unsigned 32 bits). */
  dst: number;
  /** What it carries, one of `Protocol`. */
  protocol: number;
  /** How many more routers may pass it on. @default {64} */
  ttl?: number;
  /** Joins its fragments. 0 is right for a packet that cannot be fragmented (RFC 6864 section 4.1). @default {0} */
  id?: number;
  /** Forbids routers to fragment it. @default {true} */
  dontFragment?: boolean;
  /** The differentiated services code point (RFC 2474). @default {0} */
  dscp?: number;
  /** The congestion mark (RFC 3168). @default {0} */
  ecn?: number;
}

/**
 * An IPv4 header. Every setter keeps the header checksum, and an address also the checksum of the transport
 * header behind it: UDP, UDP-Lite, TCP and DCCP. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `src` and `dst` (unsigned 32 bits), `ttl` (8 bits), `dscp` (6 bits), `ecn` (2 bits), `id`
 * (16 bits), `dontFragment` and `moreFragments` (booleans), `fragmentOffset` (bytes, a multiple of 8).
 *
 * **Limits**: the header checksum is kept, not verified. A source route's final destination (RFC 791
 * section 3.1) is not looked for: transport checksums are taken to cover `dst`.
 *
 * @example Passing a packet on, as a router does
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
  /** Always 4; tells an `Ip` apart. */
  readonly version = 4;
  #payloadOffset = 0;
  #end = 0;

  /**
   * The packet's IPv4 header. `undefined` for another version; and for a header that is cut short, lies about its
   * lengths or reaches out of the packet's slot, and an empty packet, which are then `malformed`.
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
    // Section 3.1: IHL is at least 5, and the total length includes the header. What follows it is padding.
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
   * Puts a header of 20 bytes in front of what the packet holds, and writes the transport checksum of the UDP,
   * TCP or ICMPv4 header that it starts with.
   *
   * @throws {RangeError} when a field does not fit, the packet would be longer than 65,535 bytes, or its
   * headroom is used up; the packet is then as it was.
   */
  static encode(packet: Packet, fields: Ipv4Fields): void {
    const { src, dst, protocol, ttl = DEFAULT_TTL, id = 0, dontFragment = true, dscp = 0, ecn = 0 } = fields;
    const totalLength = packet.length + HEADER;
    if (totalLength > MAX_LENGTH) {
      throw new RangeError(`Cannot encode an IPv4 packet of ${totalLength} bytes: 65535 is the most`);
    }
    checkField("an IPv4", "src", src, 0xffffffff);
    checkField("an IPv4", "dst", dst, 0xffffffff);
    checkField("an IPv4", "protocol", protocol, 0xff);
    checkField("an IPv4", "ttl", ttl, 0xff);
    checkField("an IPv4", "id", id, 0xffff);
    checkField("an IPv4", "dscp", dscp, 0x3f);
    checkField("an IPv4", "ecn", ecn, 0x03);
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

  /** The differentiated services code point (RFC 2474 section 3), 6 bits. */
  get dscp(): number {
    return this.packet.bytes[this.start + SERVICE + 1]! >> 2;
  }
  set dscp(value: number) {
    this.#set(SERVICE, 0x00fc, value << 2);
  }

  /** The congestion mark (RFC 3168 section 5), 2 bits; 3 says that congestion was met. */
  get ecn(): number {
    return this.packet.bytes[this.start + SERVICE + 1]! & 0x03;
  }
  set ecn(value: number) {
    this.#set(SERVICE, 0x0003, value);
  }

  /** The packet's bytes with this header, as it says itself; `packet.length` may include padding behind it. */
  get totalLength(): number {
    return this.#end - this.start;
  }

  /** The bytes of this header with its options: 20 to 60. */
  get headerLength(): number {
    return this.#payloadOffset - this.start;
  }

  /** The bytes of the options, padding included: 0 to 40. */
  get optionsLength(): number {
    return this.#payloadOffset - this.start - HEADER;
  }

  /** Where the options start in `packet.bytes`; there may be none. */
  get optionsOffset(): number {
    return this.start + HEADER;
  }

  /** What the fragments of one packet have in common, together with addresses and protocol. */
  get id(): number {
    return this.packet.view.getUint16(this.start + ID);
  }
  set id(value: number) {
    this.#set(ID, 0xffff, value);
  }

  /** Whether routers must drop the packet rather than fragment it. */
  get dontFragment(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & DONT_FRAGMENT) !== 0;
  }
  set dontFragment(value: boolean) {
    this.#set(FLAGS, DONT_FRAGMENT, value ? DONT_FRAGMENT : 0);
  }

  /** Whether further fragments of the same packet follow this one. */
  get moreFragments(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & MORE_FRAGMENTS) !== 0;
  }
  set moreFragments(value: boolean) {
    this.#set(FLAGS, MORE_FRAGMENTS, value ? MORE_FRAGMENTS : 0);
  }

  /** Where this fragment's payload belongs in the whole one (bytes, a multiple of 8). */
  get fragmentOffset(): number {
    return (this.packet.view.getUint16(this.start + FLAGS) & FRAGMENT_OFFSET) << 3;
  }
  set fragmentOffset(value: number) {
    this.#set(FLAGS, FRAGMENT_OFFSET, value >> 3);
  }

  /** Whether this is a part of a larger packet: there is a transport header in the first fragment alone. */
  get isFragment(): boolean {
    return (this.packet.view.getUint16(this.start + FLAGS) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0;
  }

  /** How many more routers may pass the packet on. */
  get ttl(): number {
    return this.packet.bytes[this.start + TTL]!;
  }
  set ttl(value: number) {
    this.#set(TTL, 0xff00, value << 8);
  }

  /** What the packet carries, one of `Protocol`. */
  get protocol(): number {
    return this.packet.bytes[this.start + PROTOCOL]!;
  }

  /** The header checksum as it stands; right when `sum` over the whole header is 0xffff. */
  get checksum(): number {
    return this.packet.view.getUint16(this.start + CHECKSUM);
  }

  /** Where the packet comes from (unsigned 32 bits). */
  get src(): number {
    return this.packet.view.getUint32(this.start + SRC);
  }
  set src(address: number) {
    this.#setAddress(SRC, address);
  }

  /** Where the packet goes (unsigned 32 bits). */
  get dst(): number {
    return this.packet.view.getUint32(this.start + DST);
  }
  set dst(address: number) {
    this.#setAddress(DST, address);
  }

  /** {@linkcode Ipv4.src} as text, for logs: allocates. */
  get srcText(): string {
    return formatIpv4(this.src);
  }

  /** {@linkcode Ipv4.dst} as text, for logs: allocates. */
  get dstText(): string {
    return formatIpv4(this.dst);
  }

  /** Where the payload starts in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** The bytes of the payload; padding behind the packet is not among them. */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /**
   * Says that the payload is another one, one of `Protocol`. The header checksum is kept; the transport checksum
   * is then the new header's affair: `Udp.refreshChecksum` and its like write it.
   */
  setProtocol(protocol: number): void {
    this.#set(TTL, 0x00ff, protocol);
  }

  /** Exchanges source and destination. No checksum changes: a sum does not depend on the order of its words. */
  swap(): void {
    const { view } = this.packet;
    const src = view.getUint32(this.start + SRC);
    view.setUint32(this.start + SRC, view.getUint32(this.start + DST));
    view.setUint32(this.start + DST, src);
  }

  /**
   * The sum of the pseudo-header that a transport checksum covers, to be gone on from: 0 for ICMP, which has none.
   * -1 when it cannot be told: there is no ICMPv6 over IPv4. `length` is the transport's (bytes).
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
    // Only the first fragment has the transport header, whose sum covers the addresses.
    if (this.fragmentOffset === 0) {
      adjustPseudoHeader(this.packet, this.#payloadOffset, this.#end, this.protocol, change);
    }
  }

  #adjust(change: number): void {
    const { view } = this.packet;
    view.setUint16(this.start + CHECKSUM, adjust(view.getUint16(this.start + CHECKSUM), change));
  }
}
