/** A group of packets that can be sent as one super-packet. */

import * as field from "../wire/header_fields.ts";
import { adjust, difference, sum } from "../core/checksum.ts";
import { pseudoHeaderSumIpv4, pseudoHeaderSumIpv6 } from "../wire/transport_checksum.ts";
import type { Packet } from "../core/packet.ts";
import { Protocol } from "../wire/protocol.ts";
import { Tcp } from "../wire/tcp.ts";

// Specification
const { DONT_FRAGMENT, IPV4_CHECKSUM, IPV4_DST, IPV4_FLAGS, IPV4_HEADER, IPV4_ID } = field;
const { IPV4_MAX_LENGTH, IPV4_PLAIN, IPV4_PROTOCOL, IPV4_SRC, IPV4_TOTAL_LENGTH, IPV4_TTL } = field;
const { IPV6_DST, IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SRC } = field;
const { TCP_ACK, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, TCP_SEQ, TCP_URGENT, TCP_WINDOW } = field;
const { UDP_CHECKSUM, UDP_LENGTH } = field;

// Implementation
/** Maximum packets in a group, as in Linux (`UDP_GRO_CNT_MAX` in `net/ipv4/udp_offload.c`). */
export const MAX_GROUPED = 64;

/**
 * Packets that one `writev` hands to the system as a super-packet: the whole first packet, then the payload of the others,
 * after `headerLength` bytes. Valid until the coalescer groups the next batch. The packets keep their owner.
 */
export interface SegmentGroup {
  /** Packets in order; only the first `length` count. */
  readonly packets: readonly Packet[];
  /** Number of packets. A single packet, ordinary or a super-packet, is sent unchanged. */
  readonly length: number;
  /** Bytes of the IP and transport headers of each packet; 0 in a group of one. */
  readonly headerLength: number;
  /** Bytes to write in total, at most 65,535. */
  readonly bytes: number;
  /**
   * Changes the first packet's headers to those of the super-packet, with a partial checksum, and sets its `segmentSize`,
   * `checksumStart` and `checksumOffset`, but not its `length`. A group of one does not change.
   */
  seal(): void;
  /** Reverts `seal` if the system did not take the group. */
  unseal(): void;
}

/** A {@linkcode SegmentGroup} that packets join. */
export class Group implements SegmentGroup {
  readonly packets: Packet[] = [];
  length = 0;
  headerLength = 0;
  bytes = 0;
  /** Set while the flow's next packet may join. */
  open = false;

  #transport = 0;
  #isTcp = false;
  #segmentSize = 0;
  #nextSeq = 0;
  /** Set once the first packet's checksums have been verified. */
  #checked = false;
  #push = false;

  #sealed = false;
  #savedIpv4 = 0;
  #savedFlags = 0;
  #savedField = 0;
  #savedStart = 0;

  /** Starts with a packet that is alone in its group. */
  startSingle(packet: Packet): void {
    this.packets[0] = packet;
    this.length = 1;
    this.headerLength = 0;
    this.bytes = packet.length;
    this.open = false;
    this.#sealed = false;
  }

  /** Starts with a packet that others of its flow may join. */
  start(packet: Packet, transport: number, isTcp: boolean, payloadLength: number): void {
    this.startSingle(packet);
    this.open = true;
    this.#transport = transport;
    this.#isTcp = isTcp;
    this.#segmentSize = payloadLength;
    this.#checked = false;
    this.#push = false;
    if (isTcp) this.#expectAfter(packet, payloadLength);
  }

  /** Adds the flow's next packet if it is the next segment; returns whether it was added. */
  join(packet: Packet, payloadLength: number): boolean {
    if (!this.open || payloadLength > this.#segmentSize || this.length === MAX_GROUPED) return false;
    const first = this.packets[0]!;
    const bytes = this.bytes + payloadLength;
    if (bytes > IPV4_MAX_LENGTH || packet.to !== first.to) return false;
    if (packet.pool !== first.pool || !this.#isNext(first, packet)) return false;
    if (!this.#checked && !hasValidChecksums(first, this.#transport, this.#isTcp)) return false;
    this.#checked = true;
    if (!hasValidChecksums(packet, this.#transport, this.#isTcp)) return false;
    this.packets[this.length++] = packet;
    this.headerLength = packet.length - payloadLength;
    this.bytes = bytes;
    if (payloadLength < this.#segmentSize) this.open = false;
    if (this.#isTcp) this.#expectAfter(packet, payloadLength);
    return true;
  }

  seal(): void {
    if (this.#sealed || this.length === 1) return;
    this.#sealed = true;
    const packet = this.packets[0]!;
    const { view, bytes, offset } = packet;
    const start = offset + this.#transport;
    const field = start + (this.#isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    const transportLength = this.bytes - this.#transport;
    this.#savedField = view.getUint16(field);
    this.#savedStart = packet.checksumStart;
    if (bytes[offset]! === IPV4_PLAIN) {
      this.#savedIpv4 = view.getUint16(offset + IPV4_CHECKSUM);
      const change = difference(view.getUint16(offset + IPV4_TOTAL_LENGTH), this.bytes);
      view.setUint16(offset + IPV4_TOTAL_LENGTH, this.bytes);
      view.setUint16(offset + IPV4_CHECKSUM, adjust(this.#savedIpv4, change));
    } else view.setUint16(offset + IPV6_PAYLOAD_LENGTH, this.bytes - IPV6_HEADER);
    if (this.#isTcp) {
      this.#savedFlags = view.getUint16(start + TCP_FLAGS);
      if (this.#push) view.setUint16(start + TCP_FLAGS, this.#savedFlags | Tcp.Psh);
    } else {
      view.setUint16(start + UDP_LENGTH, transportLength);
    }
    view.setUint16(field, pseudoHeaderSum(packet, this.#transport, this.#isTcp, transportLength));
    packet.segmentSize = this.#segmentSize;
    packet.checksumStart = this.#transport;
    packet.checksumOffset = field - start;
  }

  unseal(): void {
    if (!this.#sealed) return;
    this.#sealed = false;
    const packet = this.packets[0]!;
    const { view, bytes, offset, length } = packet;
    const start = offset + this.#transport;
    if (bytes[offset]! === IPV4_PLAIN) {
      view.setUint16(offset + IPV4_TOTAL_LENGTH, length);
      view.setUint16(offset + IPV4_CHECKSUM, this.#savedIpv4);
    } else view.setUint16(offset + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
    if (this.#isTcp) view.setUint16(start + TCP_FLAGS, this.#savedFlags);
    else view.setUint16(start + UDP_LENGTH, length - this.#transport);
    view.setUint16(start + packet.checksumOffset, this.#savedField);
    packet.segmentSize = 0;
    packet.checksumStart = this.#savedStart;
    if (this.#savedStart === 0) packet.checksumOffset = 0;
  }

  /** Reports whether the packet belongs to the group's flow. */
  isOf(packet: Packet, transport: number): boolean {
    return isSameFlow(this.packets[0]!, packet, transport);
  }

  #expectAfter(packet: Packet, payloadLength: number): void {
    const start = packet.offset + this.#transport;
    this.#nextSeq = packet.view.getUint32(start + TCP_SEQ) + payloadLength >>> 0;
    this.#push = (packet.bytes[start + TCP_FLAGS + 1]! & Tcp.Psh) !== 0;
    if (this.#push) this.open = false;
  }

  /** Reports whether segmentation would give the packet its headers. */
  #isNext(first: Packet, packet: Packet): boolean {
    const { view } = packet;
    const a = first.offset;
    const b = packet.offset;
    if (this.#transport === IPV4_HEADER) {
      const flags = view.getUint16(b + IPV4_FLAGS);
      if (
        view.getUint16(a) !== view.getUint16(b) || view.getUint16(a + IPV4_FLAGS) !== flags ||
        view.getUint16(a + IPV4_TTL) !== view.getUint16(b + IPV4_TTL)
      ) return false;
      // RFC 6864 section 4.1: with Don't Fragment, the id has no meaning.
      const next = view.getUint16(a + IPV4_ID) + this.length & 0xffff;
      if ((flags & DONT_FRAGMENT) === 0 && view.getUint16(b + IPV4_ID) !== next) return false;
    } else if (
      view.getInt32(a) !== view.getInt32(b) ||
      view.getUint16(a + IPV6_NEXT_HEADER) !== view.getUint16(b + IPV6_NEXT_HEADER)
    ) return false;
    return !this.#isTcp || this.#isNextTcp(view, a + this.#transport, b + this.#transport);
  }

  #isNextTcp(view: DataView, a: number, b: number): boolean {
    if (
      view.getUint32(b + TCP_SEQ) !== this.#nextSeq ||
      view.getInt32(a + TCP_ACK) !== view.getInt32(b + TCP_ACK) ||
      view.getUint16(a + TCP_WINDOW) !== view.getUint16(b + TCP_WINDOW) ||
      view.getUint16(a + TCP_URGENT) !== view.getUint16(b + TCP_URGENT)
    ) return false;
    const flags = view.getUint16(b + TCP_FLAGS);
    if (((view.getUint16(a + TCP_FLAGS) ^ flags) & ~Tcp.Psh) !== 0) return false;
    const headerLength = flags >> 12 << 2;
    for (let i = TCP_HEADER; i < headerLength; i += 4) {
      if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
    }
    return true;
  }
}

/** Verifies a packet's checksums: a partial checksum is valid, a UDP checksum of zero (none) is not. */
function hasValidChecksums(packet: Packet, transport: number, isTcp: boolean): boolean {
  const { bytes, offset, length } = packet;
  if (transport === IPV4_HEADER && sum(bytes, offset, IPV4_HEADER) !== 0xffff) return false;
  if (packet.checksumStart !== 0) return true;
  const room = length - transport;
  return sum(bytes, offset + transport, room, pseudoHeaderSum(packet, transport, isTcp, room)) === 0xffff;
}

function pseudoHeaderSum(packet: Packet, transport: number, isTcp: boolean, length: number): number {
  const { bytes, view, offset } = packet;
  const protocol = isTcp ? Protocol.Tcp : Protocol.Udp;
  if (transport !== IPV4_HEADER) {
    return pseudoHeaderSumIpv6(bytes, offset + IPV6_SRC, offset + IPV6_DST, protocol, length);
  }
  const src = view.getUint32(offset + IPV4_SRC);
  return pseudoHeaderSumIpv4(src, view.getUint32(offset + IPV4_DST), protocol, length);
}

/** Returns the offset of the source address: from there to the destination port, addresses and ports are contiguous. */
export function flowStart(transport: number): number {
  return transport === IPV4_HEADER ? IPV4_SRC : IPV6_SRC;
}

function isSameFlow(a: Packet, b: Packet, transport: number): boolean {
  if (a.bytes[a.offset]! >> 4 !== b.bytes[b.offset]! >> 4) return false;
  const protocol = transport === IPV4_HEADER ? IPV4_PROTOCOL : IPV6_NEXT_HEADER;
  if (a.bytes[a.offset + protocol] !== b.bytes[b.offset + protocol]) return false;
  for (let at = flowStart(transport); at < transport + 4; at += 4) {
    if (a.view.getInt32(a.offset + at) !== b.view.getInt32(b.offset + at)) return false;
  }
  return true;
}
