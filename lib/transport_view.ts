/** What the views of UDP, TCP and ICMP share: the IP header in front, the payload behind, one checksum over all. */

import {
  adjustTransport,
  difference,
  difference32,
  isPartial,
  pseudoHeaderSumIpv4,
  pseudoHeaderSumIpv6,
  sum,
  transportChecksum,
  writeTransportChecksum,
} from "./checksum.ts";
import type { Packet } from "./core/packet.ts";
import { HeaderView } from "./header_view.ts";
import { type Ip, Protocol } from "./ip.ts";
import type { Ipv6 } from "./ipv6.ts";

// Specification: RFC 792; RFC 8200 sections 3 and 4.4, RFC 6275 section 6.4, RFC 8754 section 2
const ICMP_CHECKSUM = 2;
const IPV6_SRC = 8;
const IPV6_DST = 24;
const ROUTING_LENGTH = 1; // behind the first 8 bytes, in units of 8 bytes
const ROUTING_TYPE = 2;
const SEGMENTS_LEFT = 3;
const SEGMENTS = 8;
const ROUTING_SOURCE = 0;
const ROUTING_MOBILE = 2;
const ROUTING_SEGMENTS = 4;

/** A transport header, seen in place. */
export abstract class TransportView<Header extends Ip = Ip> extends HeaderView {
  readonly #protocol: number;
  #ip: Header;
  #payloadOffset = 0;
  #end = 0;

  /** For the `of` of each protocol. */
  constructor(packet: Packet, ip: Header, protocol: number) {
    super(packet);
    this.#ip = ip;
    this.#protocol = protocol;
  }

  /** The IP header in front of it. */
  get ip(): Header {
    return this.#ip;
  }

  /** Where the payload starts in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** The bytes of the payload that this packet has. */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /** The payload, as a fresh view of the packet's slot: allocates, so hot code uses `payloadOffset`. */
  get payload(): Uint8Array {
    return this.packet.bytes.subarray(this.#payloadOffset, this.#end);
  }

  /** The checksum: as it stands, or in a partly summed packet as it will be once finished. */
  get checksum(): number {
    return transportChecksum(this.packet, this.start, this.#end, this.#protocol);
  }

  /**
   * Whether the checksum is right; reads the whole packet. A partly summed packet's is, since it is still to be
   * written, and so is UDP's zero over IPv4, which says that there is none. A fragment's cannot be told
   * and is `false`, and so is that of a route which hides the last address.
   */
  get checksumValid(): boolean {
    const { packet, start } = this;
    if (isPartial(packet, start)) return true;
    if (this.#ip.isFragment) return false;
    // RFC 768; RFC 8200 section 8.1: over IPv6 there must be one.
    if (this.#protocol === Protocol.Udp && this.checksum === 0) return this.#ip.version === 4;
    const pseudoHeader = this.#pseudoHeaderSum();
    return pseudoHeader >= 0 && finishedSum(packet, start, this.#end, pseudoHeader) === 0xffff;
  }

  /**
   * Writes the checksum in full: for a payload that was changed by hand. UDP without a checksum gets one. A partly
   * summed packet needs nothing and stays as it is; a fragment, too, since its sum covers bytes elsewhere.
   */
  refreshChecksum(): void {
    const { packet, start } = this;
    if (isPartial(packet, start) || this.#ip.isFragment) return;
    const pseudoHeader = this.#pseudoHeaderSum();
    if (pseudoHeader < 0) return;
    writeTransportChecksum(packet, start, this.#end, this.#protocol, pseudoHeader);
  }

  /** Puts the view where the header is, for the `of` of each protocol. */
  protected place(ip: Header, start: number, payloadOffset: number, end: number): void {
    this.#ip = ip;
    this.start = start;
    this.#payloadOffset = payloadOffset;
    this.#end = end;
  }

  /** Sets 16 bits at an offset from the header's start, and keeps the checksum. */
  protected setWord(at: number, value: number): void {
    const { view } = this.packet;
    let before = view.getUint16(this.start + at);
    let after = value & 0xffff;
    view.setUint16(this.start + at, after);
    if ((at & 1) === 1) {
      // The halves belong to two words of the sum: the high byte is a low one there, the low byte a high one.
      before = before << 8 & 0xff00 | before >> 8;
      after = after << 8 & 0xff00 | after >> 8;
    }
    this.#adjust(difference(before, after));
  }

  /** Sets 32 bits at an offset from the header's start, and keeps the checksum. */
  protected setDoubleWord(at: number, value: number): void {
    if ((at & 1) === 1) {
      this.setWord(at, value >>> 16);
      this.setWord(at + 2, value);
      return;
    }
    const { view } = this.packet;
    const change = difference32(view.getUint32(this.start + at), value);
    view.setUint32(this.start + at, value);
    this.#adjust(change);
  }

  #adjust(change: number): void {
    const { packet, start } = this;
    adjustTransport(packet, start, this.#end, this.#protocol, change);
    // Zero and 0xffff are one sum, except where all bytes are zero, as in an ICMP echo reply with nothing in it:
    // there only 0xffff is right. An update cannot tell (RFC 1624 section 3), and 0xffff is right for both.
    if (this.#protocol !== Protocol.Icmp || isPartial(packet, start)) return;
    if (packet.view.getUint16(start + ICMP_CHECKSUM) === 0) {
      packet.view.setUint16(start + ICMP_CHECKSUM, 0xffff);
    }
  }

  /** The pseudo-header's sum; -1 when the address that it covers cannot be told. */
  #pseudoHeaderSum(): number {
    const ip: Ip = this.#ip;
    const protocol = this.#protocol;
    const length = this.#end - this.start;
    if (protocol === Protocol.Icmp) return 0;
    if (ip.version === 4) return pseudoHeaderSumIpv4(ip.src, ip.dst, protocol, length);
    const dst = finalDestination(ip);
    if (dst < 0) return -1;
    return pseudoHeaderSumIpv6(this.packet.bytes, ip.start + IPV6_SRC, dst, protocol, length);
  }
}

/** Where the address stands that transport checksums cover (RFC 8200 section 8.1); -1 when it cannot be told. */
function finalDestination(ip: Ipv6): number {
  const { bytes } = ip.packet;
  const routing = ip.extension(Protocol.Routing);
  if (routing < 0 || bytes[routing + SEGMENTS_LEFT] === 0) return ip.start + IPV6_DST;
  const length = (bytes[routing + ROUTING_LENGTH]! + 1) << 3;
  if (length < SEGMENTS + 16) return -1;
  switch (bytes[routing + ROUTING_TYPE]) {
    case ROUTING_SOURCE:
      return routing + length - 16;
    case ROUTING_MOBILE:
    case ROUTING_SEGMENTS:
      return routing + SEGMENTS;
    default:
      return -1;
  }
}

/** The sum from `start` to `end`, where the sum of an inner packet may be unfinished: as if it were finished. */
function finishedSum(packet: Packet, start: number, end: number, initial: number): number {
  const inner = packet.offset + packet.checksumStart;
  const innerField = inner + packet.checksumOffset;
  if (packet.checksumStart === 0 || inner <= start || innerField + 2 > end) {
    return sum(packet.bytes, start, end - start, initial);
  }
  // What the unfinished sum covers will sum up to the complement of what its field holds now; at an odd
  // distance, its bytes change places.
  let rest = ~packet.view.getUint16(innerField) & 0xffff;
  if ((inner - start) % 2 === 1) rest = rest << 8 & 0xff00 | rest >> 8;
  return sum(packet.bytes, start, inner - start, initial + rest);
}

/**
 * For the `encode` of each protocol.
 *
 * @throws {RangeError} unless the value is a whole number from 0 to `most`.
 */
export function checkField(header: string, name: string, value: number, most: number): void {
  if (!(value >= 0 && value <= most && Number.isInteger(value))) {
    throw new RangeError(
      `Cannot encode ${header} header: ${name} is ${value}, not a whole number up to ${most}`,
    );
  }
}
