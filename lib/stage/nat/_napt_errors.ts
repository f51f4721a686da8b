/**
 * ICMP errors through a NAPT (RFC 5508 section 4). An error takes the path of the packet that it quotes, backwards:
 *
 *     outbound   error from inside, quotes   192.0.2.1:53 > 10.9.0.5:5000 ─► flow ─► 192.0.2.1:53 > 198.51.100.1:5000
 *     inbound    error from outside, quotes  198.51.100.1:5000 > 192.0.2.1:53 ─► flow ─► 10.9.0.5:5000 > 192.0.2.1:53
 */

import * as field from "../../wire/header_fields.ts";
import { Direction, type Packet, type StageContext } from "../../core/mod.ts";
import { drop } from "../../core/drop.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { handOverToOwner } from "../../table/worker_ports.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { isQuery, isReply } from "../../wire/icmp_query.ts";
import { Protocol } from "../../wire/protocol.ts";
import { NaptDrop } from "./_napt_drop.ts";
import type { NaptFlows } from "./_napt_flows.ts";
import type { NaptTable } from "./_napt_table.ts";
import { setQuoted } from "./_quoted.ts";

// Specification
const { DST_PORT, IPV4_DST, IPV4_SRC, SRC_PORT } = field;

// Implementation
const PORTS = 65_536;
/** Flow of the packet that the current error quotes. */
const key = new FlowKey();

/** RFC 5508 section 4.2: translates an error from inside about an inbound packet; returns whether it goes on. */
export function translateErrorOutbound(packet: Packet, flows: NaptFlows, context: StageContext): boolean {
  const icmp = Icmpv4.of(packet)!;
  const table = readQuoted(icmp, flows, context);
  if (table === undefined) return false;
  key.reverse();
  const inside = key.words[1]!;
  const insidePort = key.srcPort;
  if (handOverToOwner(packet, insidePort, Direction.Outbound, context)) return false;
  const session = table.sessions.find(key, context.now);
  const place = session >= 0
    ? table.address[session]! * PORTS + table.port[session]!
    : table.placeOf(inside, insidePort);
  if (place < 0) return drop(packet, NaptDrop.NoMapping, context);
  const address = flows.outside[place / PORTS | 0]!;
  setQuoted(icmp, IPV4_DST, address, DST_PORT, place % PORTS);
  icmp.ip.src = address;
  return true;
}

/** RFC 5508 section 4.1: translates an error from outside about an outbound packet; returns whether it goes on. */
export function translateErrorInbound(
  packet: Packet,
  address: number,
  flows: NaptFlows,
  context: StageContext,
): boolean {
  const icmp = Icmpv4.of(packet)!;
  const table = readQuoted(icmp, flows, context);
  if (table === undefined) return false;
  if (!key.quoted.isReturnedBy(icmp.ip)) return drop(packet, NaptDrop.NoMapping, context);
  const port = key.srcPort;
  if (!flows.findInside(packet, table, address, port, context)) return false;
  const { inside, insidePort } = flows;
  key.words[1] = inside;
  key.srcPort = insidePort;
  if (table.protocol === Protocol.Icmp) key.dstPort = insidePort;
  const session = table.sessions.find(key, context.now);
  if (session < 0 || table.address[session] !== address || table.port[session] !== port) {
    return drop(packet, NaptDrop.NoMapping, context);
  }
  setQuoted(icmp, IPV4_SRC, inside, SRC_PORT, insidePort);
  icmp.ip.dst = inside;
  return true;
}

/** Reads the key of the packet that an error quotes; returns its table, or drops the error. */
function readQuoted(icmp: Icmpv4, flows: NaptFlows, context: StageContext): NaptTable | undefined {
  let reason: NaptDrop = NaptDrop.Malformed;
  if (icmp.quotedOffset < 0) reason = NaptDrop.Protocol;
  else if (icmp.type === Icmpv4.Redirect) reason = NaptDrop.Redirect;
  else if (key.readQuoted(icmp)) {
    const table = flows.of(key.protocol);
    const { icmpType } = key.quoted;
    const hasPorts = icmpType < 0 || isQuery(4, icmpType) || isReply(4, icmpType);
    if (table !== undefined && hasPorts) return table;
    reason = NaptDrop.Protocol;
  }
  context.drop(icmp.packet, reason);
  return undefined;
}
