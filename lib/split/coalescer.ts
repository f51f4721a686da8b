/** Generic receive offload (GRO) in software: groups packets of a batch into super-packets. */

import * as field from "../wire/header_fields.ts";
import { flowStart, Group, MAX_GROUPED, type SegmentGroup } from "./_segment_group.ts";
import type { PacketBatch } from "../core/batch.ts";
import type { Packet } from "../core/packet.ts";
import { isExtension } from "../wire/ipv6_extensions.ts";
import { Protocol } from "../wire/protocol.ts";
import { Tcp } from "../wire/tcp.ts";

// Specification
const { FRAGMENT_BITS, IPV4_FLAGS, IPV4_HEADER, IPV4_PLAIN, IPV4_PROTOCOL, IPV4_TOTAL_LENGTH } = field;
const { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH } = field;
const { TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, TCP_RESERVED, UDP_CHECKSUM, UDP_HEADER } = field;
const { UDP_LENGTH } = field;

export { MAX_GROUPED, type SegmentGroup };

// Implementation
const MIN_TABLE = 256;
const MAX_PROBES = 16;
const EMPTY = -1;

/** Options for {@linkcode Coalescer}. */
export interface CoalescerOptions {
  /** Groups UDP datagrams as well, for a device that takes UDP super-packets (Linux from 6.2). @default {false} */
  udp?: boolean;
}

/**
 * Groups consecutive segments of a batch: a device with offload gets each group as one super-packet, without a copy.
 * Allocates only when a batch is longer than all before.
 *
 * Packets are grouped if segmentation of the super-packet would restore them: same flow and `to`, valid or partial
 * checksums, payloads of one size (the last may be shorter), and equal IP fields (IPv4: TOS, flags, TTL, and without Don't
 * Fragment consecutive ids; IPv6: traffic class, flow label, hop limit). TCP segments have consecutive sequence numbers,
 * equal acknowledgments, windows and options, and no flag but ACK; the last may have PSH. Any other packet of a flow ends
 * its group, so that the flow keeps its order; a fragment, or a packet of unknown ports, ends all groups.
 *
 * Groups are in the order of their first packets and have at most 64 packets and 65,535 bytes.
 *
 * **Limits**: packets with IPv4 options, IPv6 extension headers or padding, UDP without a checksum, and inner packets of
 * tunnels are not grouped. An out-of-order segment starts a new group. In a batch of very many flows, a few are not
 * grouped.
 *
 * @example Three segments become one super-packet
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
 * assert.equal(coalescer.group(batch), 1);
 * const group = coalescer.groups[0]!;
 * group.seal();
 * const { length, segmentSize } = group.packets[0]!;
 * assert.deepEqual([group.bytes, length, segmentSize], [3040, 1040, 1000]);
 * ```
 */
export class Coalescer {
  readonly #groups: Group[] = [];
  readonly #udp: boolean;
  /** Newest group of each flow, by the hash of addresses and ports, with open addressing. */
  #table = new Int32Array(MIN_TABLE);
  #count = 0;

  // Results of #locate
  #transport = 0;
  #isTcp = false;
  #payloadLength = 0;

  /** Creates a coalescer, which a device reuses for all batches. */
  constructor({ udp = false }: CoalescerOptions = {}) {
    this.#udp = udp;
  }

  /** Groups; only as many count as {@linkcode Coalescer.group} returned. */
  get groups(): readonly SegmentGroup[] {
    return this.#groups;
  }

  /** Groups the packets of a batch without changing it; returns the number of groups. */
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
    if (flow !== Flow.Found) {
      if (flow === Flow.Unknown) this.#table.fill(EMPTY);
      this.#next().startSingle(packet);
      return;
    }
    const slot = this.#find(packet);
    if (slot === EMPTY) {
      this.#next().startSingle(packet);
      return;
    }
    const index = this.#table[slot]!;
    if (this.#payloadLength === 0) {
      if (index !== EMPTY) this.#groups[index]!.open = false;
      this.#next().startSingle(packet);
      return;
    }
    if (index !== EMPTY && this.#groups[index]!.join(packet, this.#payloadLength)) return;
    this.#table[slot] = this.#count;
    this.#next().start(packet, this.#transport, this.#isTcp, this.#payloadLength);
  }

  #next(): Group {
    return this.#groups[this.#count++] ??= new Group();
  }

  /** Finds the transport header and the payload length, which is 0 for a packet that ends its flow's group. */
  #locate(packet: Packet): number {
    const { bytes, view, offset, length } = packet;
    if (!packet.isInSlot) return Flow.Unknown;
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
        return Flow.Unknown;
      }
    } else if (first >> 4 === 6 && length >= IPV6_HEADER) {
      protocol = bytes[offset + IPV6_NEXT_HEADER]!;
      transport = IPV6_HEADER;
      stated = IPV6_HEADER + view.getUint16(offset + IPV6_PAYLOAD_LENGTH);
      if (isExtension(protocol)) return Flow.Unknown;
      if (protocol !== Protocol.Tcp && protocol !== Protocol.Udp) return Flow.Other;
    } else return Flow.Unknown;
    if (length < transport + UDP_HEADER) return Flow.Unknown;
    const isTcp = protocol === Protocol.Tcp;
    this.#transport = transport;
    this.#isTcp = isTcp;
    const field = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    const { segmentSize, checksumStart } = packet;
    const partial = checksumStart === transport && packet.checksumOffset === field;
    if (stated !== length || segmentSize !== 0 || checksumStart !== 0 && !partial) this.#payloadLength = 0;
    else if (isTcp) this.#payloadLength = tcpPayload(packet, offset + transport);
    else this.#payloadLength = this.#udp ? udpPayload(packet, offset + transport) : 0;
    return Flow.Found;
  }

  /** Returns the flow's slot in the table, taken or free; `EMPTY` if there is none nearby. */
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

/** Result of the search for a packet's flow. */
const Flow = {
  Found: 0,
  /** Neither TCP nor UDP. */
  Other: 1,
  /** Possibly any flow: a fragment, or a header that cannot be read. */
  Unknown: 2,
} as const;

/** Returns the payload length of a TCP segment; 0 if it cannot be grouped. */
function tcpPayload(packet: Packet, start: number): number {
  const { view, offset, length } = packet;
  const room = offset + length - start;
  const flags = view.getUint16(start + TCP_FLAGS);
  if ((flags & ~Tcp.Psh & (TCP_RESERVED | 0xff)) !== Tcp.Ack) return 0;
  const headerLength = flags >> 12 << 2;
  return headerLength < TCP_HEADER || headerLength > room ? 0 : room - headerLength;
}

/** Returns the payload length of a datagram; 0 if it cannot be grouped. */
function udpPayload(packet: Packet, start: number): number {
  const room = packet.offset + packet.length - start;
  return packet.view.getUint16(start + UDP_LENGTH) === room ? room - UDP_HEADER : 0;
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
