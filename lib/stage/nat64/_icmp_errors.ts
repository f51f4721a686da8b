/** ICMP errors through a NAT64: an error takes the path of the packet that it quotes, backwards (RFC 6146 section 3.5). */

import { IPV6_DST, IPV6_SRC } from "../../wire/header_fields.ts";
import { difference } from "../../core/checksum.ts";
import { drop } from "../../core/drop.ts";
import { Direction, type Packet, type StageContext } from "../../core/mod.ts";
import { type FlowKey, FlowKind } from "../../table/flow_key.ts";
import { handOverToOwner } from "../../table/port_taker.ts";
import type { Icmpv4 } from "../../wire/icmpv4.ts";
import type { Icmpv6 } from "../../wire/icmpv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { adjustTransport } from "../../wire/transport_checksum.ts";
import type { Flows } from "./_flows.ts";
import type { Ipv4Addresses, Ipv6Addresses } from "./_translation.ts";
import { readWords, writeWords } from "./_words.ts";
import type { EmbeddingPrefix } from "./embedded_address.ts";

/** Parts of a NAT64 that errors need. */
export interface Nat64Parts {
  readonly prefix: EmbeddingPrefix;
  readonly outside: Uint32Array;
  /** Key for any use. */
  readonly key: FlowKey;
  /** Addresses of the translated error. */
  readonly four: Ipv4Addresses;
  readonly six: Ipv6Addresses;
  readonly now: () => number;
  readonly flows: () => Flows;
  /** Fills in the key of a session, except the inside address. */
  readonly fill: (protocol: number, remote: number, port: number, remotePort: number) => FlowKey;
}

/** Finds the addresses of ICMP errors, and translates the ports that they quote. */
export class Nat64Errors {
  readonly #nat: Nat64Parts;

  constructor(nat: Nat64Parts) {
    this.#nat = nat;
  }

  /** Prepares an error from inside about an inbound packet; returns its session, or -1 when it was claimed. */
  translateOutbound(packet: Packet, icmp: Icmpv6, context: StageContext): number {
    const { prefix, outside, four, now, flows, fill } = this.#nat;
    const key = this.#readQuoted(packet, icmp, 6, context);
    if (key === undefined) return -1;
    const { bytes } = packet;
    const { protocol, srcPort: remotePort, dstPort: port } = key;
    if (handOverToOwner(packet, port, Direction.Outbound, context)) return -1;
    const start = icmp.quotedOffset;
    const remote = prefix.read(bytes, start + IPV6_SRC);
    const isReply = prefix.contains(bytes, start + IPV6_SRC) && remote === four.dst;
    const isIcmp = protocol === Protocol.Icmpv6;
    fill(protocol, remote, port, isIcmp ? 0 : remotePort);
    readWords(packet, start + IPV6_DST, key.words, 1);
    const session = isReply ? flows().sessions.find(key, now()) : -1;
    if (session < 0) {
      context.drop(packet, "no mapping");
      return -1;
    }
    four.src = four.quotedDst = outside[flows().outsideOf(session)]!;
    four.quotedSrc = remote;
    const outsidePort = flows().outsidePortOf(session);
    setQuotedWord(packet, icmp, key.quoted.upperOffset, protocol, isIcmp ? 4 : 2, outsidePort);
    return session;
  }

  /** Prepares an error from outside about an outbound packet; returns whether it goes on. */
  translateInbound(packet: Packet, icmp: Icmpv4, context: StageContext): boolean {
    const { prefix, outside, six, now, fill } = this.#nat;
    const key = this.#readQuoted(packet, icmp, 4, context);
    if (key === undefined) return false;
    const { srcPort: port, dstPort: remotePort, protocol: quotedProtocol } = key;
    const src = key.words[1]!;
    const remote = key.words[2]!;
    if (handOverToOwner(packet, port, context.direction, context)) return false;
    const flows = this.#nat.flows();
    const isIcmp = quotedProtocol === Protocol.Icmp;
    const protocol = isIcmp ? Protocol.Icmpv6 : quotedProtocol;
    const isOurs = src === icmp.ip.dst;
    const binding = isOurs ? flows.bindingAt(protocol, outside.indexOf(src), port) : -1;
    if (binding < 0) return drop(packet, "no mapping", context);
    const insidePort = flows.insidePortOf(binding);
    fill(protocol, remote, insidePort, isIcmp ? 0 : remotePort);
    flows.readInside(binding, key.words);
    if (flows.sessions.find(key, now()) < 0) return drop(packet, "no mapping", context);
    writeWords(key.words, 1, six.quotedSrc);
    prefix.write(remote, six.quotedDst);
    setQuotedWord(packet, icmp, key.quoted.upperOffset, quotedProtocol, isIcmp ? 4 : 0, insidePort);
    return true;
  }

  /** Reads the key of the packet that an error quotes; `undefined` when the error was dropped. */
  #readQuoted(
    packet: Packet,
    icmp: Icmpv4 | Icmpv6,
    version: number,
    context: StageContext,
  ): FlowKey | undefined {
    packet.finish();
    const { key } = this.#nat;
    let reason = "malformed";
    if (!icmp.checksumValid) reason = "wrong checksum";
    else if (key.read(packet) === FlowKind.Error && key.version === version) {
      const { protocol } = key;
      const isIcmp = protocol === (version === 4 ? Protocol.Icmp : Protocol.Icmpv6);
      if (protocol === Protocol.Tcp || protocol === Protocol.Udp || isIcmp) return key;
      reason = "protocol not translated";
    }
    context.drop(packet, reason);
    return undefined;
  }
}

/** Sets a quoted port or identifier, and adjusts the quoted checksum and that of the error. */
function setQuotedWord(
  packet: Packet,
  icmp: Icmpv4 | Icmpv6,
  upper: number,
  protocol: number,
  offset: number,
  value: number,
): void {
  const { view } = packet;
  const before = view.getUint16(upper + offset);
  if (before === value) return;
  view.setUint16(upper + offset, value);
  const end = icmp.quotedOffset + icmp.quotedLength;
  adjustTransport(packet, upper, end, protocol, difference(before, value));
  icmp.refreshChecksum();
}
