/** The end of a connection that nobody wants, so that nobody waits for it (RFC 9293 section 3.10.7.1). */

import { isFromHost } from "../_unicast.ts";
import { Direction, type Packet, type StageContext } from "../core/mod.ts";
import { Protocol } from "../protocol.ts";
import { Tcp } from "../tcp.ts";
import type { Route } from "./_route.ts";

/** Turns a segment into the RST that answers it; one that has none is dropped. */
export function refuseConnection(packet: Packet, tcp: Tcp, route: Route, context: StageContext): void {
  const { flags, srcPort, dstPort, seq, ack } = tcp;
  if ((flags & Tcp.Rst) !== 0 || tcp.ip.isFragment || !isFromHost(tcp.ip) || !tcp.checksumValid) {
    return context.drop(packet, "no DNS over TCP");
  }
  const isAck = (flags & Tcp.Ack) !== 0;
  const length = tcp.payloadLength + ((flags & Tcp.Syn) !== 0 ? 1 : 0) + ((flags & Tcp.Fin) !== 0 ? 1 : 0);
  route.read(tcp);
  route.turn(packet);
  Tcp.encode(packet, {
    srcPort: dstPort,
    dstPort: srcPort,
    seq: isAck ? ack : 0,
    ack: isAck ? 0 : seq + length >>> 0,
    flags: isAck ? Tcp.Rst : Tcp.Rst | Tcp.Ack,
    window: 0,
  });
  route.wrapIp(packet, Protocol.Tcp);
  context.emit(packet, context.direction === Direction.Outbound ? Direction.Inbound : Direction.Outbound);
}
