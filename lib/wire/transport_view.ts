/** Common base of the UDP, TCP and ICMP views: the IP header, the payload and the checksum. */

import { difference, difference32 } from "../core/checksum.ts";
import {
  adjustTransport,
  completeSum,
  isPartial,
  transportChecksum,
  writeTransportChecksum,
} from "./transport_checksum.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { HeaderView } from "./header_view.ts";
import type { Ip } from "./ip.ts";
import { Protocol } from "./protocol.ts";

// Specification: RFC 792
const { ICMP_CHECKSUM } = field;

/** Transport header of a packet. */
export abstract class TransportView<Header extends Ip = Ip> extends HeaderView {
  readonly #protocol: number;
  #ip: Header;
  #payloadOffset = 0;
  #end = 0;

  /** Creates the view of a packet; `of` of each protocol calls it once. */
  constructor(packet: Packet, ip: Header, protocol: number) {
    super(packet);
    this.#ip = ip;
    this.#protocol = protocol;
  }

  /** IP header of the packet. */
  get ip(): Header {
    return this.#ip;
  }

  /** Offset of the payload in `packet.bytes`. */
  get payloadOffset(): number {
    return this.#payloadOffset;
  }

  /** Length of the payload in this packet (bytes). */
  get payloadLength(): number {
    return this.#end - this.#payloadOffset;
  }

  /** Payload as a new view of the packet's slot. Allocates: per-packet code uses `payloadOffset`. */
  get payload(): Uint8Array {
    return this.packet.bytes.subarray(this.#payloadOffset, this.#end);
  }

  /** Checksum as stored, or the completion of a partial checksum. */
  get checksum(): number {
    return transportChecksum(this.packet, this.start, this.#end, this.#protocol);
  }

  /**
   * Validity of the checksum, from a sum over the whole packet. Partial checksums, and UDP's zero over IPv4, which means
   * none, are valid. `false` for fragments and Routing headers of unknown types, which cannot be verified.
   */
  get checksumValid(): boolean {
    const { packet, start } = this;
    if (isPartial(packet, start)) return true;
    if (this.#ip.isFragment) return false;
    // RFC 768; RFC 8200 section 8.1: required over IPv6.
    if (this.#protocol === Protocol.Udp && this.checksum === 0) return this.#ip.version === 4;
    const pseudoHeader = this.#ip.pseudoHeaderSum(this.#protocol, this.#end - start);
    return pseudoHeader >= 0 && completeSum(packet, start, this.#end, pseudoHeader) === 0xffff;
  }

  /**
   * Computes and writes the checksum, after a direct change of the payload. UDP without a checksum gets one. Partial
   * checksums need no update, and fragments, whose checksum covers bytes of other packets, are unchanged.
   */
  refreshChecksum(): void {
    const { packet, start } = this;
    if (isPartial(packet, start) || this.#ip.isFragment) return;
    const pseudoHeader = this.#ip.pseudoHeaderSum(this.#protocol, this.#end - start);
    if (pseudoHeader < 0) return;
    writeTransportChecksum(packet, start, this.#end, this.#protocol, pseudoHeader);
  }

  /** Places the view on a header, for `of` of each protocol. */
  protected place(ip: Header, start: number, payloadOffset: number, end: number): void {
    this.#ip = ip;
    this.start = start;
    this.#payloadOffset = payloadOffset;
    this.#end = end;
  }

  /** Sets 16 bits at an offset from the header's start and updates the checksum. */
  protected setWord(at: number, value: number): void {
    const { view } = this.packet;
    let before = view.getUint16(this.start + at);
    let after = value & 0xffff;
    view.setUint16(this.start + at, after);
    if ((at & 1) === 1) {
      // The bytes belong to two words of the checksum: the high byte is the low byte of the first, and vice versa.
      before = before << 8 & 0xff00 | before >> 8;
      after = after << 8 & 0xff00 | after >> 8;
    }
    this.#adjust(difference(before, after));
  }

  /** Sets 32 bits at an offset from the header's start and updates the checksum. */
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
    // Zero and 0xffff are equal in one's complement, but an ICMP message of zeros, such as an empty echo reply, needs
    // 0xffff. An incremental update cannot distinguish them (RFC 1624 section 3), and 0xffff is valid for both.
    if (this.#protocol !== Protocol.Icmp || isPartial(packet, start)) return;
    if (packet.view.getUint16(start + ICMP_CHECKSUM) === 0) {
      packet.view.setUint16(start + ICMP_CHECKSUM, 0xffff);
    }
  }
}
