/** What the views of UDP, TCP and ICMP share: the IP header in front, the payload behind, one checksum over all. */

import { difference, difference32 } from "../core/checksum.ts";
import {
  adjustTransport,
  finishedSum,
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
    const pseudoHeader = this.#ip.pseudoHeaderSum(this.#protocol, this.#end - start);
    return pseudoHeader >= 0 && finishedSum(packet, start, this.#end, pseudoHeader) === 0xffff;
  }

  /**
   * Writes the checksum in full: for a payload that was changed by hand. UDP without a checksum gets one. A partly
   * summed packet needs nothing and stays as it is; a fragment, too, since its sum covers bytes elsewhere.
   */
  refreshChecksum(): void {
    const { packet, start } = this;
    if (isPartial(packet, start) || this.#ip.isFragment) return;
    const pseudoHeader = this.#ip.pseudoHeaderSum(this.#protocol, this.#end - start);
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
}
