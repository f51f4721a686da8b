/** Packet that an ICMP error quotes: its IP header and extension headers. */

import * as field from "./header_fields.ts";
import { chain, walkExtensions } from "./ipv6_extensions.ts";
import type { Packet } from "../core/packet.ts";
import type { Icmpv4 } from "./icmpv4.ts";
import type { Icmpv6 } from "./icmpv6.ts";
import type { Ip } from "./ip.ts";
import { Protocol } from "./protocol.ts";

// Specification
const { IPV4_SRC, IPV4_DST, IPV4_FLAGS, IPV4_HEADER, IPV4_PROTOCOL, IPV4_TOTAL_LENGTH } = field;
const { MORE_FRAGMENTS, FRAGMENT_OFFSET, FRAGMENT_WORD, FRAGMENT_OFFSET_IPV6, MORE_FRAGMENTS_IPV6 } = field;
const { IPV6_SRC, IPV6_DST, IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH } = field;

/**
 * Quoted packet, read in place; made once and filled for each error. All code that acts on ICMP errors reads them with
 * this class. Extension headers are walked as in `Ipv6`, with the same limits.
 */
export class QuotedPacket {
  /** IP version: 4 or 6, that of the error. */
  version: 4 | 6 = 4;
  /** Offset of the quoted packet in the error's `packet.bytes`. */
  start = 0;
  /** End of the quoted bytes; headers from `upperOffset` may be truncated there. */
  end = 0;
  /** Length by the quoted IP header (bytes); usually more than is quoted. */
  totalLength = 0;
  /** Upper-layer protocol; of a later IPv6 fragment, the next header of its Fragment header. */
  protocol = 0;
  /** Offset of the upper layer; at most `end`. */
  upperOffset = 0;
  /** Offset of the IPv6 Fragment header; -1 for none, and for IPv4. */
  fragmentHeader: number = -1;
  /** Fragment offset (bytes). A later fragment has no transport header. */
  fragmentOffset = 0;
  /** More Fragments flag: this is not the last fragment. */
  moreFragments = false;
  /** Type of a quoted ICMP message of this version; -1 for another protocol, a later fragment and an empty quote. */
  icmpType: number = -1;

  /**
   * Reads the packet that an ICMP message quotes. Returns `false` if there is none, it has another IP version than the
   * error, or its IP header or extension headers are malformed or truncated.
   */
  read({ ip, packet, quotedOffset, quotedLength }: Icmpv4 | Icmpv6): boolean {
    if (quotedOffset < 0) return false;
    this.start = quotedOffset;
    this.end = quotedOffset + quotedLength;
    this.version = ip.version;
    const header = ip.version === 4 ? IPV4_HEADER : IPV6_HEADER;
    if (quotedLength < header || packet.bytes[quotedOffset]! >> 4 !== ip.version) return false;
    if (!(ip.version === 4 ? this.#readIpv4(packet) : this.#readIpv6(packet))) return false;
    const isIcmp = this.protocol === (ip.version === 4 ? Protocol.Icmp : Protocol.Icmpv6) &&
      this.fragmentOffset === 0 && this.upperOffset < this.end;
    this.icmpType = isIcmp ? packet.bytes[this.upperOffset]! : -1;
    return true;
  }

  /**
   * Reports whether the error goes to the sender of the quoted packet (RFC 792). Otherwise, anybody who has a flow to one
   * host could send errors to all.
   */
  isReturnedBy({ packet: { view }, version, start }: Ip): boolean {
    const src = this.start + (version === 4 ? IPV4_SRC : IPV6_SRC);
    const dst = start + (version === 4 ? IPV4_DST : IPV6_DST);
    for (let i = 0; i < (version === 4 ? 4 : 16); i += 4) {
      if (view.getUint32(dst + i) !== view.getUint32(src + i)) return false;
    }
    return true;
  }

  /** Offset of the destination address. */
  get dstOffset(): number {
    return this.start + (this.version === 4 ? IPV4_DST : IPV6_DST);
  }

  #readIpv4({ bytes, view }: Packet): boolean {
    const { start } = this;
    const headerLength = (bytes[start]! & 0x0f) << 2;
    const word = view.getUint16(start + IPV4_FLAGS);
    this.totalLength = view.getUint16(start + IPV4_TOTAL_LENGTH);
    this.protocol = bytes[start + IPV4_PROTOCOL]!;
    this.upperOffset = start + headerLength;
    this.fragmentHeader = -1;
    this.fragmentOffset = (word & FRAGMENT_OFFSET) << 3;
    this.moreFragments = (word & MORE_FRAGMENTS) !== 0;
    return headerLength >= IPV4_HEADER && this.upperOffset <= this.end;
  }

  #readIpv6(packet: Packet): boolean {
    const { bytes, view } = packet;
    const { start } = this;
    this.totalLength = IPV6_HEADER + view.getUint16(start + IPV6_PAYLOAD_LENGTH);
    const end = Math.min(this.end, start + this.totalLength);
    const next = bytes[start + IPV6_NEXT_HEADER]!;
    if (!walkExtensions(packet, next, start + IPV6_HEADER, end)) return false;
    const { fragment } = chain;
    const word = fragment < 0 ? 0 : view.getUint16(fragment + FRAGMENT_WORD);
    this.protocol = chain.protocol;
    this.upperOffset = chain.upperOffset;
    this.fragmentHeader = fragment;
    this.fragmentOffset = word & FRAGMENT_OFFSET_IPV6;
    this.moreFragments = (word & MORE_FRAGMENTS_IPV6) !== 0;
    return true;
  }
}
