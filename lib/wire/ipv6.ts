/** The IPv6 header and its extension headers, in place (RFC 8200). */

import { checkField, writeTransport } from "./_encode.ts";
import { chain, findExtension, isExtension, lastAddress, walkExtensions } from "./ipv6_extensions.ts";
import { formatIpv6 } from "./address.ts";
import { difference32, pseudoHeaderSumIpv6 } from "../core/checksum.ts";
import { adjustPseudoHeader } from "./transport_checksum.ts";
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
const VIEW = nextViewNumber();

/** What {@linkcode Ipv6.encode} writes. */
export interface Ipv6Fields {
  /** Where the packet comes from (16 bytes). */
  src: Uint8Array;
  /** Where it goes (16 bytes). */
  dst: Uint8Array;
  /** What it carries, one of `Protocol`. */
  nextHeader: number;
  /** How many more routers may pass it on. @default {64} */
  hopLimit?: number;
  /** Service class and congestion mark (RFC 8200 section 7). @default {0} */
  trafficClass?: number;
  /** What the packets of one flow have in common (RFC 6437), 20 bits. @default {0} */
  flowLabel?: number;
}

/**
 * An IPv6 header with the extension headers behind it; `protocol` and the payload are those of the upper layer.
 * The headers walked are Hop-by-Hop Options, Routing, Fragment, Destination Options and Authentication; any other
 * number is the upper layer. Setting an address keeps the checksum of the transport header behind it: UDP,
 * UDP-Lite, TCP, DCCP and ICMPv6. A number that does not fit its field loses its high bits.
 *
 * **Fields that can be set**: `src` and `dst` (16 bytes each), `hopLimit`, which is also `ttl` (8 bits), `trafficClass`
 * (8 bits), `dscp` (its upper 6 bits), `ecn` (its lower 2 bits), `flowLabel` (20 bits).
 *
 * **Limits**: a packet with more than 16 extension headers, a fragment inside a fragment (two Fragment headers that both
 * say so; atomic ones may stand beside, RFC 6946), and a jumbogram (RFC 2675) are malformed. The home
 * address of a mobile node (RFC 6275 section 6.3) is not looked for: transport checksums are taken to cover
 * `src`. Where segments of a route are left, they cover the route's last address and not `dst` (RFC 8200
 * section 8.1). A change breaks an Authentication header, as it should.
 *
 * @example Passing a packet on, as a router does
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
  /** Always 6; tells an `Ip` apart. */
  readonly version = 6;
  readonly #src = new Uint8Array(16);
  readonly #dst = new Uint8Array(16);
  #protocol = 0;
  #payloadOffset = 0;
  #end = 0;
  #fragment = -1;
  #routing = -1;

  /**
   * The packet's IPv6 header. `undefined` for another version; and for a header or extension header that is cut
   * short, lies about its length or reaches out of the packet's slot, and an empty packet, which are then `malformed`.
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
   * Puts a header of 40 bytes in front of what the packet holds, and writes the transport checksum of the UDP,
   * TCP or ICMPv6 header that it starts with or that extension headers lead to.
   *
   * @throws {RangeError} when a field does not fit, the payload is longer than 65,535 bytes, or the packet's
   * headroom is used up; the packet is then as it was.
   */
  static encode(packet: Packet, fields: Ipv6Fields): void {
    const { src, dst, nextHeader, hopLimit = DEFAULT_HOP_LIMIT, trafficClass = 0, flowLabel = 0 } = fields;
    const payloadLength = packet.length;
    if (payloadLength > MAX_PAYLOAD) {
      throw new RangeError(`Cannot encode an IPv6 packet with ${payloadLength} bytes: 65535 is the most`);
    }
    checkAddress("src", src);
    checkAddress("dst", dst);
    checkField("an IPv6", "nextHeader", nextHeader, 0xff);
    checkField("an IPv6", "hopLimit", hopLimit, 0xff);
    checkField("an IPv6", "trafficClass", trafficClass, 0xff);
    checkField("an IPv6", "flowLabel", flowLabel, 0xfffff);
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

  /** Service class and congestion mark together (RFC 8200 section 7). */
  get trafficClass(): number {
    return this.packet.view.getUint16(this.start + TRAFFIC_CLASS) >> 4 & 0xff;
  }
  set trafficClass(value: number) {
    const { view } = this.packet;
    const word = view.getUint16(this.start + TRAFFIC_CLASS);
    view.setUint16(this.start + TRAFFIC_CLASS, word & 0xf00f | (value & 0xff) << 4);
  }

  /** The differentiated services code point (RFC 2474 section 3), 6 bits. */
  get dscp(): number {
    return this.trafficClass >> 2;
  }
  set dscp(value: number) {
    this.trafficClass = value << 2 | this.ecn;
  }

  /** The congestion mark (RFC 3168 section 5), 2 bits; 3 says that congestion was met. */
  get ecn(): number {
    return this.trafficClass & 0x03;
  }
  set ecn(value: number) {
    this.trafficClass = this.trafficClass & 0xfc | value & 0x03;
  }

  /** What the packets of one flow have in common (RFC 6437), 20 bits. */
  get flowLabel(): number {
    return this.packet.view.getUint32(this.start + FLOW_LABEL) & 0xfffff;
  }
  set flowLabel(value: number) {
    const { view } = this.packet;
    const word = view.getUint32(this.start + FLOW_LABEL);
    view.setUint32(this.start + FLOW_LABEL, word & 0xfff00000 | value & 0xfffff);
  }

  /**
   * The packet's bytes with this header: 40 more than the payload length that it states; `packet.length` may
   * include padding behind it.
   */
  get totalLength(): number {
    return this.#end - this.start;
  }

  /** The bytes of this header with its extension headers. */
  get headerLength(): number {
    return this.#payloadOffset - this.start;
  }

  /** The type of what follows the 40 bytes: an extension header, or the upper layer. */
  get nextHeader(): number {
    return this.packet.bytes[this.start + NEXT_HEADER]!;
  }

  /** How many more routers may pass the packet on. */
  get hopLimit(): number {
    return this.packet.bytes[this.start + HOP_LIMIT]!;
  }
  set hopLimit(value: number) {
    this.packet.bytes[this.start + HOP_LIMIT] = value;
  }

  /** The hop limit, under the name that it shares with IPv4. */
  get ttl(): number {
    return this.hopLimit;
  }
  set ttl(value: number) {
    this.hopLimit = value;
  }

  /**
   * Where the packet comes from. The 16 bytes are this view's own: the next read of `src`, of any packet in the
   * same slot, overwrites them, and writing to them changes no packet. Setting copies 16 bytes into the packet.
   *
   * @throws {TypeError} when set to something other than 16 bytes.
   */
  get src(): Uint8Array {
    return this.#read(SRC, this.#src);
  }
  set src(address: Uint8Array) {
    const change = this.#write(SRC, address);
    this.#adjust(change);
  }

  /**
   * Where the packet goes, for now: {@linkcode Ipv6.extension} finds a route. The 16 bytes are this view's
   * own: the next read of `dst`, of any packet in the same slot, overwrites them, and writing to them changes
   * no packet. Setting copies 16 bytes into the packet.
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

  /** {@linkcode Ipv6.src} as text, for logs: allocates. */
  get srcText(): string {
    return formatIpv6(this.packet.bytes, this.start + SRC);
  }

  /** {@linkcode Ipv6.dst} as text, for logs: allocates. */
  get dstText(): string {
    return formatIpv6(this.packet.bytes, this.start + DST);
  }

  /**
   * The upper layer's protocol, behind all extension headers, one of `Protocol`. In a fragment other than the
   * first it is what the Fragment header names.
   */
  get protocol(): number {
    return this.#protocol;
  }

  /** Where the upper layer starts in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** The bytes of the upper layer; padding behind the packet is not among them. */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /**
   * Where the Fragment header stands in `packet.bytes` that makes this a fragment, or an atomic one when none does; -1
   * for none.
   */
  get fragmentHeader(): number {
    return this.#fragment;
  }

  /** Whether this is a part of a larger packet: there is a transport header in the first fragment alone. */
  get isFragment(): boolean {
    // RFC 6946: a Fragment header around a whole packet makes no fragment of it.
    return (this.#fragmentWord & (FRAGMENT_OFFSET_IPV6 | MORE_FRAGMENTS_IPV6)) !== 0;
  }

  /** Where this fragment's payload belongs in the whole one (bytes, a multiple of 8). */
  get fragmentOffset(): number {
    return this.#fragmentWord & FRAGMENT_OFFSET_IPV6;
  }

  /** Whether further fragments of the same packet follow this one. */
  get moreFragments(): boolean {
    return (this.#fragmentWord & MORE_FRAGMENTS_IPV6) !== 0;
  }

  /** Where the first extension header of this type starts in `packet.bytes`; -1 when there is none. */
  extension(type: number): number {
    const { bytes } = this.packet;
    const next = bytes[this.start + NEXT_HEADER]!;
    return findExtension(bytes, next, this.start + HEADER, this.#payloadOffset, type);
  }

  /**
   * Says that what follows the 40 bytes is another header, one of `Protocol`. The transport checksum is then the new
   * header's affair: `Udp.refreshChecksum` and its like write it. Where there are extension headers, the view stays
   * as it was: ask {@linkcode Ipv6.of} again.
   */
  setNextHeader(nextHeader: number): void {
    this.packet.bytes[this.start + NEXT_HEADER] = nextHeader;
    if (this.#payloadOffset === this.start + HEADER) this.#protocol = nextHeader & 0xff;
  }

  /**
   * Exchanges source and destination. No checksum changes, since a sum does not depend on the order of its words;
   * but where segments of a route are left, the transport checksum covers the source alone, and is kept.
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
   * The sum of the pseudo-header that a transport checksum covers, to be gone on from. -1 when it cannot be told:
   * for ICMPv4, which has none over IPv6, and where a route of a kind that is not known here hides the final
   * destination. `length` is the transport's (bytes).
   */
  pseudoHeaderSum(protocol: number, length: number): number {
    const dst = protocol === Protocol.Icmp ? -1 : this.#finalDestination();
    return dst < 0 ? -1 : pseudoHeaderSumIpv6(this.packet.bytes, this.start + SRC, dst, protocol, length);
  }

  /** Finds the upper layer, and says whether it got there. */
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

  /** Whether the packet is on its way to another address than its last. */
  get #routed(): boolean {
    return this.#routing >= 0 && this.packet.bytes[this.#routing + ROUTING_SEGMENTS_LEFT] !== 0;
  }

  /** Where the address stands that transport checksums cover; -1 when it cannot be told. */
  #finalDestination(): number {
    if (!this.#routed) return this.start + DST;
    return lastAddress(this.packet.bytes, this.#routing);
  }

  #read(at: number, into: Uint8Array): Uint8Array {
    const { bytes } = this.packet;
    const from = this.start + at;
    for (let i = 0; i < 16; i++) into[i] = bytes[from + i]!;
    return into;
  }

  #write(at: number, address: Uint8Array): number {
    if (address.length !== 16) {
      throw new TypeError(`Cannot set an IPv6 address: it has ${address.length} bytes, not 16`);
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
    // Only the first fragment has the transport header, whose sum covers the addresses.
    if (this.fragmentOffset !== 0) return;
    adjustPseudoHeader(this.packet, this.#payloadOffset, this.#end, this.#protocol, change);
  }
}

function checkAddress(name: string, address: Uint8Array): void {
  if (address.length === 16) return;
  throw new RangeError(`Cannot encode an IPv6 header: ${name}'s length is ${address.length}, not 16`);
}
