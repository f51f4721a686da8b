/** ICMP errors through a NAT64: an error takes the path of the packet that it quotes, backwards (RFC 6146 section 3.5). */

import * as field from "../../wire/header_fields.ts";
import { difference } from "../../core/checksum.ts";
import { drop } from "../../core/drop.ts";
import { Direction, type Packet, type StageContext } from "../../core/mod.ts";
import type { FlowKey } from "../../table/flow_key.ts";
import { handOverToOwner } from "../../table/worker_ports.ts";
import type { Icmpv4 } from "../../wire/icmpv4.ts";
import type { Icmpv6 } from "../../wire/icmpv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import type { QuotedPacket } from "../../wire/quoted_packet.ts";
import { adjustTransport } from "../../wire/transport_checksum.ts";
import { fillKey, type Flows } from "./_flows.ts";
import { Nat64Drop } from "./_nat64_drop.ts";
import { type Ipv4Addresses, type Ipv6Addresses, Untranslatable } from "./_translation.ts";
import { readWords, writeWords } from "./_words.ts";
import type { EmbeddingPrefix } from "./embedded_address.ts";

// Specification
const { DST_PORT, ICMP_ID, SRC_PORT } = field;

/** Finds the addresses of ICMP errors, and translates the ports that they quote. */
export class Nat64Errors {
  readonly #prefix: EmbeddingPrefix;
  readonly #key: FlowKey;
  readonly #four: Ipv4Addresses;
  readonly #six: Ipv6Addresses;

  /** Leaves the key of an error's session in `key`, and the addresses of the translated error in `four` and `six`. */
  constructor(prefix: EmbeddingPrefix, key: FlowKey, four: Ipv4Addresses, six: Ipv6Addresses) {
    this.#prefix = prefix;
    this.#key = key;
    this.#four = four;
    this.#six = six;
  }

  /** Prepares an error from inside about an inbound packet; returns its session, or -1 when it was dropped or handed over. */
  translateOutbound(packet: Packet, icmp: Icmpv6, flows: Flows, context: StageContext): number {
    if (!this.#readQuoted(packet, icmp, context)) return -1;
    const key = this.#key;
    const four = this.#four;
    const { protocol, quoted, srcPort: remotePort, dstPort: port } = key;
    if (handOverToOwner(packet, port, Direction.Outbound, context)) return -1;
    const isIcmp = protocol === Protocol.Icmpv6;
    fillKey(key, protocol, four.dst, port, isIcmp ? 0 : remotePort);
    readWords(packet, quoted.dstOffset, key.words, 1);
    const session = quoted.isReturnedBy(icmp.ip) ? flows.sessions.find(key, context.now) : -1;
    if (session < 0) {
      context.drop(packet, Nat64Drop.NoMapping);
      return -1;
    }
    four.src = four.quotedDst = flows.outside[flows.outsideOf(session)]!;
    four.quotedSrc = four.dst;
    setQuotedWord(packet, icmp, quoted, isIcmp ? ICMP_ID : DST_PORT, flows.outsidePortOf(session));
    return session;
  }

  /** Prepares an error from outside about an outbound packet; returns whether it goes on. */
  translateInbound(packet: Packet, icmp: Icmpv4, flows: Flows, context: StageContext): boolean {
    if (!this.#readQuoted(packet, icmp, context)) return false;
    const key = this.#key;
    const { quoted, srcPort: port, dstPort: remotePort } = key;
    const remote = key.words[2]!;
    if (handOverToOwner(packet, port, context.direction, context)) return false;
    const isIcmp = key.protocol === Protocol.Icmp;
    const protocol = isIcmp ? Protocol.Icmpv6 : key.protocol;
    const outside = flows.indexOf(icmp.ip.dst);
    const binding = quoted.isReturnedBy(icmp.ip) ? flows.bindingAt(protocol, outside, port) : -1;
    if (binding < 0) return drop(packet, Nat64Drop.NoMapping, context);
    const insidePort = flows.insidePortOf(binding);
    fillKey(key, protocol, remote, insidePort, isIcmp ? 0 : remotePort);
    flows.readInside(binding, key.words);
    if (flows.sessions.find(key, context.now) < 0) return drop(packet, Nat64Drop.NoMapping, context);
    writeWords(key.words, 1, this.#six.quotedSrc);
    this.#prefix.write(remote, this.#six.quotedDst);
    setQuotedWord(packet, icmp, quoted, isIcmp ? ICMP_ID : SRC_PORT, insidePort);
    return true;
  }

  /** Reads the key of the packet that an error quotes; returns `false` when the error was dropped. */
  #readQuoted(packet: Packet, icmp: Icmpv4 | Icmpv6, context: StageContext): boolean {
    const key = this.#key;
    packet.finish();
    if (!icmp.checksumValid) return drop(packet, Untranslatable.Checksum, context);
    if (!key.readQuoted(icmp)) return drop(packet, Untranslatable.Malformed, context);
    const { protocol, quoted } = key;
    if (protocol === Protocol.Tcp || protocol === Protocol.Udp || quoted.icmpType >= 0) return true;
    return drop(packet, Untranslatable.Protocol, context);
  }
}

/** Sets a quoted port or identifier at this offset, and adjusts the quoted checksum and that of the error. */
function setQuotedWord(
  packet: Packet,
  icmp: Icmpv4 | Icmpv6,
  { upperOffset, end, protocol }: QuotedPacket,
  offset: number,
  value: number,
): void {
  const { view } = packet;
  const before = view.getUint16(upperOffset + offset);
  if (before === value) return;
  view.setUint16(upperOffset + offset, value);
  adjustTransport(packet, upperOffset, end, protocol, difference(before, value));
  icmp.refreshChecksum();
}
