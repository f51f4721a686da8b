/** Flow keys: protocol, both addresses and both ports, as 32-bit words. */

import * as field from "../wire/header_fields.ts";
import { isQuery, isReply } from "../wire/icmp_query.ts";
import { QuotedPacket } from "../wire/quoted_packet.ts";
import type { Address } from "../wire/address.ts";
import type { Packet } from "../core/packet.ts";
import { Icmpv4 } from "../wire/icmpv4.ts";
import { Icmpv6 } from "../wire/icmpv6.ts";
import { Ip } from "../wire/ip.ts";
import { Protocol } from "../wire/protocol.ts";

export type { QuotedPacket } from "../wire/quoted_packet.ts";

// Specification
const { ICMP_ID, IPV4_DST, IPV4_SRC, IPV6_SRC, MIN_HEADERS } = field;
/** Minimum number of transport header bytes that an ICMP error quotes: RFC 792. */
const QUOTED_HEADER = 8;

// Implementation: the words. The first determines their number, so that no key is a prefix of another.
//
//     IPv4   version, protocol │ source │ destination │ ports
//     IPv6   version, protocol │ source (4 words) │ destination (4 words) │ ports
const IPV4_WORDS = 4;
const IPV6_WORDS = 10;

/** Relation of a packet to a flow. */
export const FlowKind = {
  /** No flow: malformed, or a fragment without ports. */
  None: 0,
  /** Packet of the key's flow. */
  Packet: 1,
  /** ICMP error about a packet of the key's flow; the key has that packet's direction. */
  Error: 2,
} as const;
/** One of {@linkcode FlowKind}'s values. */
export type FlowKind = typeof FlowKind[keyof typeof FlowKind];

/**
 * Key of a flow in one direction, created once and filled for each packet. The identifier of an ICMP query or reply stands
 * for both ports; protocols without ports have zeros. IPv6 extension headers are skipped, also in quoted packets.
 *
 * **Limits**: an error about a later fragment, or without the quoted ports, has no flow. In an error about a packet
 * with Routing header segments left (RFC 8200 section 4.4), the destination is the next segment, not the last.
 *
 * **Fields that can be set**: `srcPort` and `dstPort` (16 bits).
 *
 * @example A reply belongs to its request's flow, reversed
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { FlowKey, FlowKind } from "@warren/tunnel/flow_key";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 17 });
 *
 * const key = new FlowKey();
 * assert.equal(key.read(packet), FlowKind.Packet);
 * key.reverse();
 * assert(key.srcPort === 53 && key.dstPort === 5000);
 * ```
 */
export class FlowKey {
  /** Words of the key; the first {@linkcode FlowKey.length} are valid. */
  readonly words: Uint32Array = new Uint32Array(IPV6_WORDS);
  /** Number of valid words. */
  length = 0;
  /** Packet quoted by the last error that was read: valid after {@linkcode FlowKind.Error}. */
  readonly quoted: QuotedPacket = new QuotedPacket();

  /** IP version: 4 or 6. */
  get version(): number {
    return this.words[0]! >>> 8;
  }

  /** Protocol of the upper layer, one of `Protocol`. */
  get protocol(): number {
    return this.words[0]! & 0xff;
  }

  /** Source address; allocates. */
  get src(): Address {
    return this.#address(1);
  }

  /** Destination address; allocates. */
  get dst(): Address {
    return this.#address(this.length >> 1);
  }

  /** Source port, or the identifier of an ICMP query or reply. */
  get srcPort(): number {
    return this.words[this.length - 1]! >>> 16;
  }
  set srcPort(value: number) {
    this.words[this.length - 1] = value << 16 | this.dstPort;
  }

  /** Destination port, or the same identifier. */
  get dstPort(): number {
    return this.words[this.length - 1]! & 0xffff;
  }
  set dstPort(value: number) {
    this.words[this.length - 1] = this.srcPort << 16 | value & 0xffff;
  }

  /**
   * Reads the flow of a packet, or of the packet that an ICMP error is about; returns which.
   *
   * @param ip Header of the packet, if the caller has it.
   */
  read(packet: Packet, ip: Ip | undefined = Ip.of(packet)): FlowKind {
    if (ip === undefined || ip.fragmentOffset !== 0) return FlowKind.None;
    const { protocol, payloadOffset, version } = ip;
    if (protocol === (version === 4 ? Protocol.Icmp : Protocol.Icmpv6)) {
      const icmp = version === 4 ? Icmpv4.of(packet) : Icmpv6.of(packet);
      if (icmp === undefined) return FlowKind.None;
      if (icmp.quotedOffset >= 0) return this.readQuoted(icmp) ? FlowKind.Error : FlowKind.None;
      this.#readAddresses(packet, version, protocol, ip.start);
      this.words[this.length - 1] = hasId(version, icmp.type) ? icmp.id << 16 | icmp.id : 0;
      return FlowKind.Packet;
    }
    const shortest = MIN_HEADERS[protocol]!;
    if (ip.payloadLength < shortest) {
      packet.malformed = true;
      return FlowKind.None;
    }
    this.#readAddresses(packet, version, protocol, ip.start);
    this.words[this.length - 1] = shortest === 0 ? 0 : packet.view.getUint32(payloadOffset);
    return FlowKind.Packet;
  }

  /** Reads the flow of the packet that an ICMP error quotes; returns `false` if there is no such packet or flow. */
  readQuoted(icmp: Icmpv4 | Icmpv6): boolean {
    const { packet: { view } } = icmp;
    const { quoted } = this;
    if (!quoted.read(icmp) || quoted.fragmentOffset !== 0) return false;
    const { version, protocol, upperOffset, icmpType } = quoted;
    const isIcmp = protocol === (version === 4 ? Protocol.Icmp : Protocol.Icmpv6);
    const hasPorts = MIN_HEADERS[protocol]! > 0;
    if ((isIcmp || hasPorts) && upperOffset + QUOTED_HEADER > quoted.end) return false;
    let ports = hasPorts ? view.getUint32(upperOffset) : 0;
    if (hasId(version, icmpType)) {
      const id = view.getUint16(upperOffset + ICMP_ID);
      ports = id << 16 | id;
    }
    this.#readAddresses(icmp.packet, version, protocol, quoted.start);
    this.words[this.length - 1] = ports;
    return true;
  }

  /** Reverses the direction. */
  reverse(): void {
    const { words, length } = this;
    const addressWords = length - 2 >> 1;
    for (let i = 1; i <= addressWords; i++) {
      const word = words[i]!;
      words[i] = words[i + addressWords]!;
      words[i + addressWords] = word;
    }
    const ports = words[length - 1]!;
    words[length - 1] = ports << 16 | ports >>> 16;
  }

  #readAddresses({ view }: Packet, version: number, protocol: number, start: number): void {
    const { words } = this;
    words[0] = version << 8 | protocol;
    if (version === 4) {
      this.length = IPV4_WORDS;
      words[1] = view.getUint32(start + IPV4_SRC);
      words[2] = view.getUint32(start + IPV4_DST);
      return;
    }
    this.length = IPV6_WORDS;
    for (let i = 0; i < 8; i++) words[1 + i] = view.getUint32(start + IPV6_SRC + 4 * i);
  }

  #address(first: number): Address {
    const family = this.version === 4 ? 4 : 6;
    const bytes = new Uint8Array(family === 4 ? 4 : 16);
    const view = new DataView(bytes.buffer);
    for (let i = 0; 4 * i < bytes.length; i++) view.setUint32(4 * i, this.words[first + i]!);
    return { family, bytes };
  }
}

/** Reports whether an ICMP message has an identifier that matches replies to queries. */
function hasId(version: number, type: number): boolean {
  return isQuery(version, type) || isReply(version, type);
}
