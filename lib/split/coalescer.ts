/** Finds the packets of a batch that one super-packet stands for. */

import {
  DONT_FRAGMENT,
  FRAGMENT_BITS,
  IPV4_CHECKSUM,
  IPV4_DST,
  IPV4_FLAGS,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_MAX_LENGTH,
  IPV4_PLAIN,
  IPV4_PROTOCOL,
  IPV4_SRC,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SRC,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_OPTIONS,
  TCP_RESERVED,
  TCP_SEQ,
  TCP_URGENT,
  TCP_WINDOW,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from "../wire/header_fields.ts";
import { adjust, difference, pseudoHeaderSumIpv4, pseudoHeaderSumIpv6, sum } from "../core/checksum.ts";
import type { PacketBatch } from "../core/batch.ts";
import type { Packet } from "../core/packet.ts";
import { Protocol } from "../wire/protocol.ts";
import { Tcp } from "../wire/tcp.ts";

// Implementation
/**
 * How many packets a group has at most: as many as Linux makes one of datagrams (`UDP_GRO_CNT_MAX` in
 * `net/ipv4/udp_offload.c`), and fewer than the 1024 pieces that a `writev` takes.
 */
export const MAX_GROUPED = 64;
const SMALLEST_TABLE = 256;
const MAX_PROBES = 16;
const EMPTY = -1;

/** Options for {@linkcode Coalescer}. */
export interface CoalescerOptions {
  /** Whether datagrams make super-packets, too: for a device that takes them (Linux from 6.2). @default {false} */
  udp?: boolean;
}

/**
 * Packets that one `writev` hands to the system as one: the first one whole, then of each other what lies behind
 * `headerLength`. Valid until the coalescer groups another batch. Packets stay their owner's.
 */
export interface SegmentGroup {
  /** The packets in their order; only the first `length` count. */
  readonly packets: readonly Packet[];
  /** How many packets are in it; one is as it came, an ordinary packet or a super-packet. */
  readonly length: number;
  /** The bytes of the IP and transport headers of each packet; 0 in a group of one. */
  readonly headerLength: number;
  /** The bytes that are written in all, up to 65,535. */
  readonly bytes: number;
  /**
   * Makes the first packet's headers those of the super-packet, with the pseudo-header's sum in the checksum field; sets
   * its `segmentSize`, `checksumStart` and `checksumOffset`. Its `length` stays that of its own bytes. A group of one
   * stays as it is.
   */
  seal(): void;
  /** Takes back `seal`, when the system did not take the group. */
  unseal(): void;
}

class Group implements SegmentGroup {
  readonly packets: Packet[] = [];
  length = 0;
  headerLength = 0;
  bytes = 0;
  /** Whether the next packet of the flow may join. */
  open = false;

  #transport = 0;
  #isTcp = false;
  #segmentSize = 0;
  #nextSeq = 0;
  /** Whether the first packet's sums were found right. */
  #checked = false;
  #push = false;

  #sealed = false;
  #savedIpv4 = 0;
  #savedFlags = 0;
  #savedField = 0;
  #savedStart = 0;

  /** Starts with a packet that nothing joins. */
  alone(packet: Packet): void {
    this.packets[0] = packet;
    this.length = 1;
    this.headerLength = 0;
    this.bytes = packet.length;
    this.open = false;
    this.#sealed = false;
  }

  /** Starts with a packet that others of its flow may join. */
  start(packet: Packet, transport: number, isTcp: boolean, payloadLength: number): void {
    this.alone(packet);
    this.open = true;
    this.#transport = transport;
    this.#isTcp = isTcp;
    this.#segmentSize = payloadLength;
    this.#checked = false;
    this.#push = false;
    if (isTcp) this.#follow(packet, payloadLength);
  }

  /** Adds the flow's next packet, if it is the next segment; says whether it was. */
  join(packet: Packet, payloadLength: number): boolean {
    if (!this.open || payloadLength > this.#segmentSize || this.length === MAX_GROUPED) return false;
    const first = this.packets[0]!;
    const bytes = this.bytes + payloadLength;
    if (bytes > IPV4_MAX_LENGTH || packet.to !== first.to) return false;
    if (packet.pool !== first.pool || !this.#isNext(first, packet)) return false;
    if (!this.#checked && !isRight(first, this.#transport, this.#isTcp)) return false;
    this.#checked = true;
    if (!isRight(packet, this.#transport, this.#isTcp)) return false;
    this.packets[this.length++] = packet;
    this.headerLength = packet.length - payloadLength;
    this.bytes = bytes;
    if (payloadLength < this.#segmentSize) this.open = false;
    if (this.#isTcp) this.#follow(packet, payloadLength);
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
    const protocol = this.#isTcp ? Protocol.Tcp : Protocol.Udp;
    this.#savedField = view.getUint16(field);
    this.#savedStart = packet.checksumStart;
    let pseudoHeader: number;
    if (bytes[offset]! === IPV4_PLAIN) {
      this.#savedIpv4 = view.getUint16(offset + IPV4_CHECKSUM);
      const change = difference(view.getUint16(offset + IPV4_TOTAL_LENGTH), this.bytes);
      view.setUint16(offset + IPV4_TOTAL_LENGTH, this.bytes);
      view.setUint16(offset + IPV4_CHECKSUM, adjust(this.#savedIpv4, change));
      pseudoHeader = ipv4Sum(packet, protocol, transportLength);
    } else {
      view.setUint16(offset + IPV6_PAYLOAD_LENGTH, this.bytes - IPV6_HEADER);
      pseudoHeader = ipv6Sum(packet, protocol, transportLength);
    }
    if (this.#isTcp) {
      this.#savedFlags = view.getUint16(start + TCP_FLAGS);
      if (this.#push) view.setUint16(start + TCP_FLAGS, this.#savedFlags | Tcp.Psh);
    } else {
      view.setUint16(start + UDP_LENGTH, transportLength);
    }
    view.setUint16(field, pseudoHeader);
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
    } else {
      view.setUint16(offset + IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
    }
    if (this.#isTcp) view.setUint16(start + TCP_FLAGS, this.#savedFlags);
    else view.setUint16(start + UDP_LENGTH, length - this.#transport);
    view.setUint16(start + packet.checksumOffset, this.#savedField);
    packet.segmentSize = 0;
    packet.checksumStart = this.#savedStart;
    if (this.#savedStart === 0) packet.checksumOffset = 0;
  }

  /** Whether the packet has the flow of this group. */
  isOf(packet: Packet, transport: number): boolean {
    return isSameFlow(this.packets[0]!, packet, transport);
  }

  #follow(packet: Packet, payloadLength: number): void {
    const start = packet.offset + this.#transport;
    this.#nextSeq = packet.view.getUint32(start + TCP_SEQ) + payloadLength >>> 0;
    this.#push = (packet.bytes[start + TCP_FLAGS + 1]! & Tcp.Psh) !== 0;
    if (this.#push) this.open = false;
  }

  /** Whether the headers of the packet are what cutting would make of the first one's. */
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
      // RFC 6864 section 4.1: where fragmenting is forbidden, the id says nothing.
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
    for (let i = TCP_OPTIONS; i < headerLength; i += 4) {
      if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
    }
    return true;
  }
}

/**
 * Finds the packets of a batch that are one another's next segments, so that a device with offload is given them as one
 * super-packet, without a copy. Nothing is allocated but once for the longest batch so far.
 *
 * Packets join when cutting the super-packet would make them again: of one flow and one `to`, with equal IP fields (of
 * IPv4 the service, flags and TTL, and without "don't fragment" ids that count up; of IPv6 the traffic class, flow label
 * and hop limit), right checksums, and payloads of one size, of which the last may be shorter. TCP: one after the other
 * in the sequence, with the flag ACK alone, equal acknowledgments, windows and options; PSH is the last one's.
 * Whatever else comes in a flow ends its group, so that the order within it is kept: fragments and packets
 * whose ports cannot be found end every group. A packet that was summed in part joins, too.
 *
 * Groups stand in the order of their first packets, and take at most {@linkcode MAX_GROUPED} packets and 65,535 bytes.
 *
 * **Limits**: IPv4 options, IPv6 extension headers, padding, UDP without a checksum, and packets in a tunnel's packet
 * pass as they are. A segment that comes before an earlier one starts a group of its own. Among very many
 * flows in a batch, a few are left alone.
 *
 * @example Writing a batch
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Coalescer } from "@warren/tunnel/segment";
 * import { Tcp } from "@warren/tunnel/tcp";
 *
 * const pool = new PacketPool();
 * const batch = new PacketBatch();
 * for (let i = 0; i < 3; i++) {
 *   const packet = pool.from(new Uint8Array(1000))!;
 *   Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1000 * i, flags: Tcp.Ack });
 *   Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 6 });
 *   batch.push(packet);
 * }
 *
 * const coalescer = new Coalescer();
 * const count = coalescer.group(batch);
 * assert.equal(count, 1);
 * const group = coalescer.groups[0]!;
 * group.seal();
 * const pieces = [group.packets[0]!.data];
 * for (let i = 1; i < group.length; i++) pieces.push(group.packets[i]!.data.subarray(group.headerLength));
 * assert.equal(group.bytes, 3040); // what one writev of the pieces writes
 * assert.equal(group.packets[0]!.segmentSize, 1000);
 * ```
 */
export class Coalescer {
  readonly #groups: Group[] = [];
  readonly #udp: boolean;
  /** Flows by the hash of addresses and ports, each with its newest group; open addressing. */
  #table = new Int32Array(SMALLEST_TABLE);
  #count = 0;

  // What #locate found
  #transport = 0;
  #isTcp = false;
  #payloadLength = 0;

  /** A coalescer; one serves a device for good. */
  constructor(options: CoalescerOptions = {}) {
    const { udp = false } = options;
    this.#udp = udp;
  }

  /** The groups; only as many count as {@linkcode Coalescer.group} returned. */
  get groups(): readonly SegmentGroup[] {
    return this.#groups;
  }

  /** Groups the packets of a batch, which stays as it is; returns how many groups there are. */
  group(batch: PacketBatch): number {
    const { packets, length } = batch;
    if (this.#table.length < 2 * length) this.#table = new Int32Array(2 ** Math.ceil(Math.log2(2 * length)));
    this.#table.fill(EMPTY);
    this.#count = 0;
    for (let i = 0; i < length; i++) this.#add(packets[i]!);
    return this.#count;
  }

  #add(packet: Packet): void {
    const flow = this.#locate(packet);
    if (flow !== Flow.Known) {
      if (flow === Flow.Hidden) this.#table.fill(EMPTY);
      this.#next().alone(packet);
      return;
    }
    const slot = this.#find(packet);
    if (slot === EMPTY) {
      this.#next().alone(packet);
      return;
    }
    const index = this.#table[slot]!;
    if (this.#payloadLength === 0) {
      if (index !== EMPTY) this.#groups[index]!.open = false;
      this.#next().alone(packet);
      return;
    }
    if (index !== EMPTY && this.#groups[index]!.join(packet, this.#payloadLength)) return;
    this.#table[slot] = this.#count;
    this.#next().start(packet, this.#transport, this.#isTcp, this.#payloadLength);
  }

  #next(): Group {
    return this.#groups[this.#count++] ??= new Group();
  }

  /**
   * Finds the transport header and the length of a payload that may be merged: 0 for a packet that passes alone and
   * ends its flow's group.
   */
  #locate(packet: Packet): number {
    const { bytes, view, offset, length } = packet;
    if (!packet.isInSlot) return Flow.Hidden;
    const first = bytes[offset]!;
    let protocol: number;
    let transport: number;
    let stated: number;
    if (first >> 4 === 4 && length >= IPV4_HEADER) {
      protocol = bytes[offset + IPV4_PROTOCOL]!;
      transport = IPV4_HEADER;
      stated = view.getUint16(offset + IPV4_TOTAL_LENGTH);
      if (protocol !== Protocol.Tcp && protocol !== Protocol.Udp) return Flow.Other;
      if (first !== IPV4_PLAIN || (view.getUint16(offset + IPV4_FLAGS) & FRAGMENT_BITS) !== 0) {
        return Flow.Hidden;
      }
    } else if (first >> 4 === 6 && length >= IPV6_HEADER) {
      protocol = bytes[offset + IPV6_NEXT_HEADER]!;
      transport = IPV6_HEADER;
      stated = IPV6_HEADER + view.getUint16(offset + IPV6_PAYLOAD_LENGTH);
      if (isExtension(protocol)) return Flow.Hidden;
      if (protocol !== Protocol.Tcp && protocol !== Protocol.Udp) return Flow.Other;
    } else return Flow.Hidden;
    if (length < transport + UDP_HEADER) return Flow.Hidden;
    const isTcp = protocol === Protocol.Tcp;
    this.#transport = transport;
    this.#isTcp = isTcp;
    const field = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    const { segmentSize, checksumStart } = packet;
    const partial = checksumStart === transport && packet.checksumOffset === field;
    if (stated !== length || segmentSize !== 0 || checksumStart !== 0 && !partial) this.#payloadLength = 0;
    else if (isTcp) this.#payloadLength = tcpPayload(packet, offset + transport);
    else this.#payloadLength = this.#udp ? udpPayload(packet, offset + transport) : 0;
    return Flow.Known;
  }

  /** The flow's place in the table, taken or free; `EMPTY` where there is none near. */
  #find(packet: Packet): number {
    const table = this.#table;
    const transport = this.#transport;
    const last = table.length - 1;
    let slot = flowHash(packet, transport) & last;
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const index = table[slot]!;
      if (index === EMPTY || this.#groups[index]!.isOf(packet, transport)) return slot;
      slot = slot + 1 & last;
    }
    return EMPTY;
  }
}

/** What is known of a packet's flow. */
const Flow = {
  Known: 0,
  /** No flow of TCP or UDP. */
  Other: 1,
  /** One that cannot be told. */
  Hidden: 2,
} as const;

/** Whether what follows an IPv6 header may hide TCP or UDP. */
function isExtension(type: number): boolean {
  return type === Protocol.HopByHop || type === Protocol.Routing || type === Protocol.Fragment ||
    type === Protocol.Ah || type === Protocol.DestinationOptions;
}

/** The bytes of payload that a TCP segment brings to a super-packet; 0: it passes alone. */
function tcpPayload(packet: Packet, start: number): number {
  const { view, offset, length } = packet;
  const room = offset + length - start;
  const flags = view.getUint16(start + TCP_FLAGS);
  if ((flags & ~Tcp.Psh & (TCP_RESERVED | 0xff)) !== Tcp.Ack) return 0;
  const headerLength = flags >> 12 << 2;
  return headerLength < TCP_OPTIONS || headerLength > room ? 0 : room - headerLength;
}

/** The bytes of payload that a datagram brings to a super-packet; 0: it passes alone. */
function udpPayload(packet: Packet, start: number): number {
  const room = packet.offset + packet.length - start;
  return packet.view.getUint16(start + UDP_LENGTH) === room ? room - UDP_HEADER : 0;
}

/** Whether a packet's checksums are right, or still to be finished; UDP's zero, which says that there is none, is not. */
function isRight(packet: Packet, transport: number, isTcp: boolean): boolean {
  const { bytes, offset, length } = packet;
  const isIpv4 = transport === IPV4_HEADER;
  if (isIpv4 && sum(bytes, offset, IPV4_HEADER) !== 0xffff) return false;
  if (packet.checksumStart !== 0) return true;
  const protocol = isTcp ? Protocol.Tcp : Protocol.Udp;
  const room = length - transport;
  const pseudoHeader = isIpv4 ? ipv4Sum(packet, protocol, room) : ipv6Sum(packet, protocol, room);
  return sum(bytes, offset + transport, room, pseudoHeader) === 0xffff;
}

function ipv4Sum(packet: Packet, protocol: number, length: number): number {
  const { view, offset } = packet;
  const src = view.getUint32(offset + IPV4_SRC);
  return pseudoHeaderSumIpv4(src, view.getUint32(offset + IPV4_DST), protocol, length);
}

function ipv6Sum(packet: Packet, protocol: number, length: number): number {
  const { bytes, offset } = packet;
  return pseudoHeaderSumIpv6(bytes, offset + IPV6_SRC, offset + IPV6_DST, protocol, length);
}

/** Addresses and ports stand in a row, from the source address to the destination port. */
function flowStart(transport: number): number {
  return transport === IPV4_HEADER ? IPV4_SRC : IPV6_SRC;
}

function flowHash(packet: Packet, transport: number): number {
  const { view, offset } = packet;
  let hash = 0;
  for (let at = flowStart(transport); at < transport + 4; at += 4) {
    hash = Math.imul(hash ^ view.getInt32(offset + at), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
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
