/** DNS over UDP from clients: takes queries from datagrams to port 53 and from super-packets of them. */

import { DnsDrop } from "./_dns_drop.ts";
import type { Packet, StageContext } from "../../core/mod.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Udp } from "../../wire/udp.ts";
import { isFromHost } from "../../wire/unicast.ts";
import { NO_ANSWER, type Question } from "./_message.ts";
import { type Query, UdpQuery } from "./_query.ts";
import { Route } from "./_route.ts";

/** Answers a query with this response code or, for `Rcode.NoError`, by its question. */
type UdpQueryHandler = (query: Query, rcode: number, context: StageContext) => void;

export class UdpServer {
  readonly #question: Question;
  readonly #limit: number;
  readonly #handle: UdpQueryHandler;
  readonly #route = new Route(Protocol.Udp);

  /**
   * @param question Filled for each query before the handler is called.
   * @param limit Maximum length of an answer (bytes).
   */
  constructor(question: Question, limit: number, handle: UdpQueryHandler) {
    this.#question = question;
    this.#limit = limit;
    this.#handle = handle;
  }

  /** Takes a packet to port 53. `owner` is the worker that answers all queries; `undefined` for any worker. */
  receive(packet: Packet, udp: Udp, context: StageContext, owner: number | undefined): void {
    if (!isFromHost(udp.ip)) return context.drop(packet, DnsDrop.MartianSource);
    if (udp.ip.isFragment) return context.drop(packet, DnsDrop.Fragment);
    if (udp.srcPort === 0) return context.drop(packet, DnsDrop.FromPortZero);
    if (!udp.checksumValid) return context.drop(packet, DnsDrop.BadChecksum);
    if (owner !== undefined && context.worker.index !== owner) return context.handOver(packet, owner);
    if (packet.segmentSize === 0) this.#answer(packet, udp, context);
    else this.#segment(packet, udp, context);
  }

  #answer(packet: Packet, udp: Udp, context: StageContext): void {
    const rcode = this.#question.read(packet.bytes, udp.payloadOffset, udp.payloadLength);
    if (rcode === NO_ANSWER) return context.drop(packet, DnsDrop.NotAQuery);
    this.#handle(new UdpQuery(udp, context.direction, this.#limit, this.#route), rcode, context);
  }

  /** Segments a super-packet into queries; its own packet carries the last one. */
  #segment(packet: Packet, udp: Udp, context: StageContext): void {
    const { segmentSize, from, to, mark } = packet;
    let at = udp.payloadOffset;
    const end = at + udp.payloadLength;
    if (!(segmentSize >= 1) || end - at > segmentSize * 64) {
      return context.drop(packet, DnsDrop.TooManySegments);
    }
    for (;; at += segmentSize) {
      this.#route.read(udp);
      const length = Math.min(segmentSize, end - at);
      const isLast = at + length >= end;
      const query = isLast ? packet : context.take(length);
      if (query === undefined) return context.drop(packet, DnsDrop.PoolEmpty);
      if (isLast) query.reset(length);
      query.bytes.copyWithin(query.offset, at, at + length);
      query.from = from;
      query.to = to;
      query.mark = mark;
      this.#route.encodeUdp(query);
      this.#answer(query, Udp.of(query)!, context);
      if (isLast) return;
    }
  }
}
