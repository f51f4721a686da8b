/** IPv6 header and extension headers, read and written in place (RFC 8200). */

import { writeTransport } from "./_encode.ts";
import { checkInteger } from "../core/options.ts";
import { chain, findExtension, isExtension, lastAddress, walkExtensions } from "./ipv6_extensions.ts";
import { formatIpv6 } from "./address.ts";
import { difference32 } from "../core/checksum.ts";
import { adjustPseudoHeader, pseudoHeaderSumIpv6 } from "./transport_checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { HeaderView, nextViewNumber } from "./header_view.ts";
import { Protocol } from "./protocol.ts";

// Specification: RFC 8200 section 3
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |Version| Traffic Class |           Flow Label                  |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |         Payload Length        |  Next Header  |   Hop Limit   |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                                                               |
//    +                         Source Address                        +
//    |                           (16 bytes)                          |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                                                               |
//    +                      Destination Address                      +
//    |                           (16 bytes)                          |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const VERSION = 6;
const { IPV6_TRAFFIC_CLASS: TRAFFIC_CLASS, IPV6_FLOW_LABEL: FLOW_LABEL, IPV6_HEADER: HEADER } = field;
const { IPV6_PAYLOAD_LENGTH: PAYLOAD_LENGTH, IPV6_MAX_PAYLOAD: MAX_PAYLOAD } = field;
const { IPV6_NEXT_HEADER: NEXT_HEADER, IPV6_HOP_LIMIT: HOP_LIMIT, IPV6_SRC: SRC, IPV6_DST: DST } = field;
const { FRAGMENT_WORD, FRAGMENT_OFFSET_IPV6, MORE_FRAGMENTS_IPV6, ROUTING_SEGMENTS_LEFT } = field;

// Implementation
const DEFAULT_HOP_LIMIT = 64;
const ENCODE = "encode an IPv6 packet";
const VIEW = nextViewNumber();

/** Header fields for {@linkcode Ipv6.encode}. */
export interface Ipv6Fields {
  /** Source address (16 bytes). */
  src: Uint8Array;
  /** Destination address (16 bytes). */
  dst: Uint8Array;
  /** Type of the next header, one of `Protocol`. */
  nextHeader: number;
  /** Hop limit: number of routers that may still forward the packet. @default {64} */
  hopLimit?: number;
  /** Traffic class: DSCP and ECN (RFC 8200 section 7). @default {0} */
  trafficClass?: number;
  /** Flow label (RFC 6437), 20 bits. @default {0} */
  flowLabel?: number;
}

/**
 * IPv6 header with its extension headers: Hop-by-Hop Options, Routing, Fragment, Destination Options and Authentication.
 * Any other next header is the upper layer, to which `protocol` and the payload belong. Setting an address updates the
 * checksum of a UDP, UDP-Lite, TCP, DCCP or ICMPv6 header. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `src` and `dst` (16 bytes each), `hopLimit`, which is also `ttl` (8 bits), `trafficClass`
 * (8 bits), `dscp` (its upper 6 bits), `ecn` (its lower 2 bits), `flowLabel` (20 bits).
 *
 * **Limits**: malformed are packets with more than 16 extension headers, jumbograms (RFC 2675), and fragments inside
 * fragments (two Fragment headers; atomic ones do not count, RFC 6946). Transport checksums are assumed to cover `src`,
 * not a home address option (RFC 6275 section 6.3); while a Routing header has segments left, they cover its last address
 * instead of `dst` (RFC 8200 section 8.1). A changed packet no longer matches its Authentication header.
 *
 * @example Decrementing the hop limit, as a router does
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv6 } from "@warren/tunnel/address";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ipv6 } from "@warren/tunnel/ipv6";
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv6.encode(packet, { src: parseIpv6("2001:db8::1"), dst: parseIpv6("2001:db8::2"), nextHeader: 59 });
 * const ip = Ipv6.of(packet)!;
 * ip.hopLimit--;
 * assert.equal(ip.hopLimit, 63);
 * assert.equal(ip.dstText, "2001:db8::2");
 * ```
 */
export class Ipv6 extends HeaderView {
  /** IP version: always 6; narrows the type of an `Ip`. */
  readonly version = 6;
  readonly #src = new Uint8Array(16);
  readonly #dst = new Uint8Array(16);
  #protocol = 0;
  #payloadOffset = 0;
  #end = 0;
  #fragment = -1;
  #routing = -1;

  /**
   * Returns the packet's IPv6 header; `undefined` for other versions. The result is also `undefined`, and the packet
   * marked `malformed`, if it is empty or a header is truncated, has an inconsistent length, or leaves the packet's slot.
   */
  static of(packet: Packet): Ipv6 | undefined {
    const { bytes, offset, lengthInSlot: length } = packet;
    if (length <= 0) {
      packet.malformed = true;
      return undefined;
    }
    if (bytes[offset]! >> 4 !== VERSION) return undefined;
    if (length < HEADER) {
      packet.malformed = true;
      return undefined;
    }
    const end = offset + HEADER + packet.view.getUint16(offset + PAYLOAD_LENGTH);
    const ip = (packet.views[VIEW] ??= new Ipv6(packet)) as Ipv6;
    if (end > offset + length || !ip.#walk(offset, end)) {
      packet.malformed = true;
      return undefined;
    }
    return ip;
  }

  /**
   * Prepends a 40-byte header and writes the checksum of the UDP, TCP or ICMPv6 header that follows it, directly or after
   * extension headers.
   *
   * @throws {RangeError} when a field is out of range, the payload exceeds 65,535 bytes, or the packet has no headroom
   * left; the packet is then unchanged.
   */
  static encode(packet: Packet, fields: Ipv6Fields): void {
    const { src, dst, nextHeader, hopLimit = DEFAULT_HOP_LIMIT, trafficClass = 0, flowLabel = 0 } = fields;
    const payloadLength = packet.length;
    if (payloadLength > MAX_PAYLOAD) {
      throw new RangeError(
        `Cannot ${ENCODE}: its payload length must be at most ${MAX_PAYLOAD}, got ${payloadLength}`,
      );
    }
    checkAddress("src", src);
    checkAddress("dst", dst);
    checkInteger(ENCODE, "nextHeader", nextHeader, 0, 0xff);
    checkInteger(ENCODE, "hopLimit", hopLimit, 0, 0xff);
    checkInteger(ENCODE, "trafficClass", trafficClass, 0, 0xff);
    checkInteger(ENCODE, "flowLabel", flowLabel, 0, 0xfffff);
    packet.prepend(HEADER);
    const { bytes, view, offset } = packet;
    view.setUint32(offset, VERSION << 28 | trafficClass << 20 | flowLabel);
    view.setUint16(offset + PAYLOAD_LENGTH, payloadLength);
    bytes[offset + NEXT_HEADER] = nextHeader;
    bytes[offset + HOP_LIMIT] = hopLimit;
    bytes.set(src, offset + SRC);
    bytes.set(dst, offset + DST);
    const ip = Ipv6.of(packet);
    if (ip !== undefined) writeTransport(ip);
  }

  /** Traffic class: DSCP and ECN together (RFC 8200 section 7). */
  get trafficClass(): number {
    return this.packet.view.getUint16(this.start + TRAFFIC_CLASS) >> 4 & 0xff;
  }
  set trafficClass(value: number) {
    const { view } = this.packet;
    const word = view.getUint16(this.start + TRAFFIC_CLASS);
    view.setUint16(this.start + TRAFFIC_CLASS, word & 0xf00f | (value & 0xff) << 4);
  }

  /** Differentiated services code point (RFC 2474 section 3), 6 bits. */
  get dscp(): number {
    return this.trafficClass >> 2;
  }
  set dscp(value: number) {
    this.trafficClass = value << 2 | this.ecn;
  }

  /** ECN field (RFC 3168 section 5), 2 bits; 3 is Congestion Experienced. */
  get ecn(): number {
    return this.trafficClass & 0x03;
  }
  set ecn(value: number) {
    this.trafficClass = this.trafficClass & 0xfc | value & 0x03;
  }

  /** Flow label (RFC 6437), 20 bits. */
  get flowLabel(): number {
    return this.packet.view.getUint32(this.start + FLOW_LABEL) & 0xfffff;
  }
  set flowLabel(value: number) {
    const { view } = this.packet;
    const word = view.getUint32(this.start + FLOW_LABEL);
    view.setUint32(this.start + FLOW_LABEL, word & 0xfff00000 | value & 0xfffff);
  }

  /** Payload Length field plus 40 (bytes); `packet.length` may include padding after the packet. */
  get totalLength(): number {
    return this.#end - this.start;
  }

  /** Length of this header with its extension headers (bytes). */
  get headerLength(): number {
    return this.#payloadOffset - this.start;
  }

  /** Type of the header after the first 40 bytes: an extension header or the upper layer. */
  get nextHeader(): number {
    return this.packet.bytes[this.start + NEXT_HEADER]!;
  }

  /** Hop limit: number of routers that may still forward the packet. */
  get hopLimit(): number {
    return this.packet.bytes[this.start + HOP_LIMIT]!;
  }
  set hopLimit(value: number) {
    this.packet.bytes[this.start + HOP_LIMIT] = value;
  }

  /** Hop limit, by the name of IPv4's field. */
  get ttl(): number {
    return this.hopLimit;
  }
  set ttl(value: number) {
    this.hopLimit = value;
  }

  /**
   * Source address: a copy of 16 bytes, which the next read of `src` in the same slot overwrites. Setting copies 16 bytes
   * into the packet.
   *
   * @throws {TypeError} when set to something other than 16 bytes.
   */
  get src(): Uint8Array {
    return this.#read(SRC, this.#src);
  }
  set src(address: Uint8Array) {
    this.#adjust(this.#write(SRC, address));
  }

  /**
   * Destination address, or the next hop of a Routing header, which {@linkcode Ipv6.extension} finds: a copy of 16 bytes,
   * which the next read of `dst` in the same slot overwrites. Setting copies 16 bytes into the packet.
   *
   * @throws {TypeError} when set to something other than 16 bytes.
   */
  get dst(): Uint8Array {
    return this.#read(DST, this.#dst);
  }
  set dst(address: Uint8Array) {
    const change = this.#write(DST, address);
    if (!this.#routed) this.#adjust(change);
  }

  /** Source address as text, for logs; allocates. */
  get srcText(): string {
    return formatIpv6(this.packet.bytes, this.start + SRC);
  }

  /** Destination address as text, for logs; allocates. */
  get dstText(): string {
    return formatIpv6(this.packet.bytes, this.start + DST);
  }

  /** Upper-layer protocol, one of `Protocol`; in a later fragment, the next header of its Fragment header. */
  get protocol(): number {
    return this.#protocol;
  }

  /** Offset of the upper layer in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** Length of the upper layer (bytes), without padding after the packet. */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /**
   * Offset in `packet.bytes` of the Fragment header of a fragment, else of an atomic fragment's header; -1 for none.
   */
  get fragmentHeader(): number {
    return this.#fragment;
  }

  /** Set for a fragment. Only the first fragment has a transport header. */
  get isFragment(): boolean {
    // RFC 6946: an atomic fragment, with offset 0 and no more fragments, is a whole packet.
    return (this.#fragmentWord & (FRAGMENT_OFFSET_IPV6 | MORE_FRAGMENTS_IPV6)) !== 0;
  }

  /** Offset of this fragment's payload in the original fragmentable part (bytes, a multiple of 8). */
  get fragmentOffset(): number {
    return this.#fragmentWord & FRAGMENT_OFFSET_IPV6;
  }

  /** More Fragments flag: this is not the last fragment. */
  get moreFragments(): boolean {
    return (this.#fragmentWord & MORE_FRAGMENTS_IPV6) !== 0;
  }

  /** Returns the offset in `packet.bytes` of the first extension header of a type, one of `Protocol`; -1 for none. */
  extension(type: number): number {
    const { bytes } = this.packet;
    const next = bytes[this.start + NEXT_HEADER]!;
    return findExtension(bytes, next, this.start + HEADER, this.#payloadOffset, type);
  }

  /**
   * Sets the type of the header after the first 40 bytes, one of `Protocol`. The caller writes the transport checksum, as
   * with `Udp.refreshChecksum`. If there are extension headers, the view is unchanged: call {@linkcode Ipv6.of} again.
   */
  setNextHeader(nextHeader: number): void {
    this.packet.bytes[this.start + NEXT_HEADER] = nextHeader;
    if (this.#payloadOffset === this.start + HEADER) this.#protocol = nextHeader & 0xff;
  }

  /**
   * Swaps source and destination. Checksums stay valid: they do not depend on the order of words. While a Routing header
   * has segments left, the transport checksum covers only the source of the two, and is updated.
   */
  swap(): void {
    const { view } = this.packet;
    let change = 0;
    for (let at = this.start + SRC; at < this.start + DST; at += 4) {
      const src = view.getUint32(at);
      const dst = view.getUint32(at + DST - SRC);
      view.setUint32(at, dst);
      view.setUint32(at + DST - SRC, src);
      change += difference32(src, dst);
    }
    if (this.#routed) this.#adjust(change);
  }

  /**
   * Returns the sum of the pseudo-header that a transport checksum covers; -1 for ICMPv4, which IPv6 does not carry, and
   * when a Routing header of an unknown type hides the final destination.
   *
   * @param length Length of the upper-layer header and its payload (bytes).
   */
  pseudoHeaderSum(protocol: number, length: number): number {
    const dst = protocol === Protocol.Icmp ? -1 : this.#finalDestination();
    return dst < 0 ? -1 : pseudoHeaderSumIpv6(this.packet.bytes, this.start + SRC, dst, protocol, length);
  }

  /** Finds the upper layer; returns `false` for malformed extension headers. */
  #walk(start: number, end: number): boolean {
    const { packet } = this;
    const next = packet.bytes[start + NEXT_HEADER]!;
    this.start = start;
    this.#end = end;
    if (!isExtension(next)) {
      this.#protocol = next;
      this.#payloadOffset = start + HEADER;
      this.#fragment = -1;
      this.#routing = -1;
      return true;
    }
    if (!walkExtensions(packet, next, start + HEADER, end)) return false;
    this.#protocol = chain.protocol;
    this.#payloadOffset = chain.upperOffset;
    this.#fragment = chain.fragment;
    this.#routing = chain.routing;
    return true;
  }

  get #fragmentWord(): number {
    return this.#fragment < 0 ? 0 : this.packet.view.getUint16(this.#fragment + FRAGMENT_WORD);
  }

  /** Set while a Routing header has segments left: `dst` is not the final destination. */
  get #routed(): boolean {
    return this.#routing >= 0 && this.packet.bytes[this.#routing + ROUTING_SEGMENTS_LEFT] !== 0;
  }

  /** Offset of the destination address that transport checksums cover; -1 if unknown. */
  #finalDestination(): number {
    return this.#routed ? lastAddress(this.packet.bytes, this.#routing) : this.start + DST;
  }

  #read(at: number, into: Uint8Array): Uint8Array {
    const { bytes } = this.packet;
    const from = this.start + at;
    for (let i = 0; i < 16; i++) into[i] = bytes[from + i]!;
    return into;
  }

  #write(at: number, address: Uint8Array): number {
    if (address.length !== 16) {
      throw new TypeError(`Cannot set an IPv6 address: it must have 16 bytes, got ${address.length}`);
    }
    const { view } = this.packet;
    let change = 0;
    for (let i = 0; i < 16; i += 4) {
      const where = this.start + at + i;
      const word = address[i]! << 24 | address[i + 1]! << 16 | address[i + 2]! << 8 | address[i + 3]!;
      change += difference32(view.getUint32(where), word);
      view.setUint32(where, word);
    }
    return change;
  }

  #adjust(change: number): void {
    // Only the first fragment has the transport header, whose checksum covers the addresses.
    if (this.fragmentOffset !== 0) return;
    adjustPseudoHeader(this.packet, this.#payloadOffset, this.#end, this.#protocol, change);
  }
}

function checkAddress(name: string, address: Uint8Array): void {
  if (address.length === 16) return;
  throw new RangeError(`Cannot ${ENCODE}: ${name} must have 16 bytes, got ${address.length}`);
}
