/**
 * ICMP errors through a NAPT (RFC 5508 section 4). An error takes the path of the packet that it quotes, backwards:
 *
 *     outbound   error from inside, quotes   192.0.2.1:53 > 10.9.0.5:5000 ─► flow ─► 192.0.2.1:53 > 198.51.100.1:5000
 *     inbound    error from outside, quotes  198.51.100.1:5000 > 192.0.2.1:53 ─► flow ─► 10.9.0.5:5000 > 192.0.2.1:53
 */

import * as field from "../../wire/header_fields.ts";
import { Direction, type Packet, type StageContext } from "../../core/mod.ts";
import { drop } from "../../core/drop.ts";
import { type FlowKey, FlowKind } from "../../table/flow_key.ts";
import { handOverToOwner } from "../../table/port_taker.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { isQuery, isReply } from "../../wire/icmp_query.ts";
import { Protocol } from "../../wire/protocol.ts";
import { NaptDrop } from "./_napt_drop.ts";
import type { NaptTable } from "./_napt_table.ts";
import { setQuoted } from "./_quoted.ts";

// Specification
const { DST_PORT, IPV4_DST, IPV4_SRC, SRC_PORT } = field;

// Implementation
const PORTS = 65_536;

/** Parts of a NAPT that errors need. */
export interface NaptParts {
  readonly outside: Uint32Array;
  /** Key of IPv4 flows, for any use. */
  readonly key: FlowKey;
  /** Result of `findInside`. */
  readonly behind: { readonly inside: number; readonly insidePort: number };
  readonly now: () => number;
  readonly tableOf: (protocol: number) => NaptTable | undefined;
  /** Finds the inside endpoint of an outside port; `false` when the packet was dropped or handed over. */
  readonly findInside: (
    packet: Packet,
    table: NaptTable,
    address: number,
    port: number,
    context: StageContext,
  ) => boolean;
}

/** Translates ICMP errors, and the packets that they quote. */
export class NaptErrors {
  readonly #nat: NaptParts;

  constructor(nat: NaptParts) {
    this.#nat = nat;
  }

  /** RFC 5508 section 4.2: translates an error from inside about an inbound packet; returns whether it goes on. */
  translateOutbound(packet: Packet, context: StageContext): boolean {
    const { key, outside, now } = this.#nat;
    const icmp = Icmpv4.of(packet)!;
    const table = this.#readQuoted(packet, icmp, context);
    if (table === undefined) return false;
    key.reverse();
    const inside = key.words[1]!;
    const insidePort = key.srcPort;
    if (handOverToOwner(packet, insidePort, Direction.Outbound, context)) return false;
    const session = table.sessions.find(key, now());
    const place = session >= 0
      ? table.address[session]! * PORTS + table.port[session]!
      : table.placeOf(inside, insidePort);
    if (place < 0) return drop(packet, NaptDrop.NoMapping, context);
    const address = outside[place / PORTS | 0]!;
    setQuoted(icmp, IPV4_DST, address, DST_PORT, place % PORTS);
    icmp.ip.src = address;
    return true;
  }

  /** RFC 5508 section 4.1: translates an error from outside about an outbound packet; returns whether it goes on. */
  translateInbound(packet: Packet, address: number, context: StageContext): boolean {
    const { key, behind, now } = this.#nat;
    const icmp = Icmpv4.of(packet)!;
    const table = this.#readQuoted(packet, icmp, context);
    if (table === undefined) return false;
    const { words } = key;
    if (words[1] !== icmp.ip.dst) return drop(packet, NaptDrop.NoMapping, context);
    const port = key.srcPort;
    if (!this.#nat.findInside(packet, table, address, port, context)) return false;
    const { inside, insidePort } = behind;
    const remotePort = table.protocol === Protocol.Icmp ? insidePort : key.dstPort;
    words[0] = 4 << 8 | table.protocol;
    words[1] = inside;
    words[3] = insidePort << 16 | remotePort;
    const session = table.sessions.find(key, now());
    if (session < 0 || table.address[session] !== address || table.port[session] !== port) {
      return drop(packet, NaptDrop.NoMapping, context);
    }
    setQuoted(icmp, IPV4_SRC, inside, SRC_PORT, insidePort);
    icmp.ip.dst = inside;
    return true;
  }

  /** Reads the key of the packet that an error quotes; returns its table, or drops the error. */
  #readQuoted(packet: Packet, icmp: Icmpv4, context: StageContext): NaptTable | undefined {
    const { key } = this.#nat;
    let reason: NaptDrop = NaptDrop.Malformed;
    if (icmp.quotedOffset < 0) reason = NaptDrop.Protocol;
    else if (icmp.type === Icmpv4.Redirect) reason = NaptDrop.Redirect;
    else if (key.read(packet) === FlowKind.Error && key.version === 4) {
      const table = this.#nat.tableOf(key.protocol);
      if (table !== undefined && (key.protocol !== Protocol.Icmp || isQuoteOfQuery(icmp))) return table;
      reason = NaptDrop.Protocol;
    }
    key.length = 4;
    context.drop(packet, reason);
    return undefined;
  }
}

/** Tells whether the quoted ICMP message is a query or a reply; its header is complete. */
function isQuoteOfQuery({ packet, quotedOffset }: Icmpv4): boolean {
  const { bytes } = packet;
  const type = bytes[quotedOffset + ((bytes[quotedOffset]! & 0x0f) << 2)]!;
  return isQuery(4, type) || isReply(4, type);
}
