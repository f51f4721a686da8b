/**
 * DNS over TCP from clients (RFC 7766): a TCP endpoint with the part of RFC 9293 that queries and answers need.
 *
 *     SYN ──► SYN cookie, no state ──► ACK with the cookie ──► free place? ──► connection ──► queries
 *                                                                 │ no             ┊
 *                                               the client with the most           └··· answers, in segments
 *                                               loses a connection, or this one is refused
 */

import { DnsDrop } from "./_dns_drop.ts";
import type { Direction, Packet, StageContext } from "../../core/mod.ts";
import { opposite } from "../../core/mod.ts";
import type { IcmpErrors } from "../../icmp/icmp_error.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp, type TcpOptions } from "../../wire/tcp.ts";
import { isFromHost } from "../../wire/unicast.ts";
import type { Question } from "./_message.ts";
import { type Query, SMALL_SHARE, sourceOf } from "./_query.ts";
import { Route } from "./_route.ts";
import { Cookie, SynCookies } from "./_syn_cookie.ts";
import {
  Connection,
  type Peer,
  RECEIVE_BUFFER,
  Received,
  type Segment,
  type SegmentWriter,
} from "./_tcp_connection.ts";

// Specification: RFC 1035 section 4.2.2
const MAX_MESSAGE = 0xffff;

// Implementation
/** MSS in our SYN: for the minimum MTU of IPv6, which every path carries (bytes). */
const SEGMENT_SIZE = 1220;
/** Maximum buffered answers of all connections (bytes); above it, the connection with the most is reset. */
const MAX_BUFFERED = 8 * 1024 * 1024;

export interface TcpServerLimits {
  readonly connections: number;
  /** Time that a connection may be idle (milliseconds). */
  readonly idleTimeout: number;
}

/** Answers a query; called while a segment is handled. */
export type QueryHandler = (query: Query, context: StageContext) => void;

/** Return path of a connection's packets, and its key. */
class Path implements Peer {
  version: 4 | 6 = 4;
  key = "";
  source = "";
  direction: Direction = 0;
  from = 0;
  mark = 0;
  /** Addresses and ports, for cookies. */
  flow = new Uint32Array(3);
  readonly #route = new Route(Protocol.Tcp);

  read(tcp: Tcp, direction: Direction): void {
    const { ip, srcPort, packet } = tcp;
    this.version = ip.version;
    this.source = sourceOf(ip);
    this.direction = direction;
    this.from = packet.from;
    this.mark = packet.mark;
    this.#route.read(tcp);
    this.#route.swap();
    if (ip.version === 4) this.flow = Uint32Array.of(ip.dst, ip.src, srcPort);
    else {
      const bytes = [...ip.dst, ...ip.src];
      this.flow = new Uint32Array(9);
      for (const [i, byte] of bytes.entries()) this.flow[i >> 2] = this.flow[i >> 2]! << 8 | byte;
      this.flow[8] = srcPort;
    }
    this.key = this.flow.join();
  }

  /** Prepends headers to the payload and sends the packet. */
  send(
    packet: Packet,
    seq: number,
    ack: number,
    flags: number,
    window: number,
    context: StageContext,
    options: TcpOptions = {},
  ): void {
    packet.to = packet.from = this.from;
    packet.mark = this.mark;
    const { srcPort, dstPort } = this.#route.ports;
    Tcp.encode(packet, { srcPort, dstPort, seq, ack, flags, window, options });
    this.#route.encodeIp(packet);
    context.emit(packet, opposite(this.direction));
  }
}

export class TcpServer implements SegmentWriter {
  readonly #limits: TcpServerLimits;
  readonly #errors: IcmpErrors;
  readonly #handle: QueryHandler;
  readonly #cookies = new SynCookies();
  readonly #connections = new Map<string, Connection>();
  readonly #paths = new Map<Connection, Path>();
  /** Number of connections of each client. */
  readonly #counts = new Map<string, number>();
  readonly #segment: Segment = {
    seq: 0,
    ack: 0,
    window: 0,
    isSyn: false,
    isRst: false,
    isFin: false,
    isAck: false,
    bytes: new Uint8Array(0),
    start: 0,
    length: 0,
  };
  /** Return path of the current packet. */
  readonly #path = new Path();
  /** Connection whose queries are being read. */
  #current: Connection | undefined;
  /** Connections with answers for the next tick: answers may come while queries of another connection are read. */
  readonly #answered = new Set<Connection>();
  /** Context of the current breath. */
  #context: StageContext | undefined;
  readonly answer = new Uint8Array(MAX_MESSAGE);

  constructor(limits: TcpServerLimits, errors: IcmpErrors, handle: QueryHandler) {
    this.#limits = limits;
    this.#errors = errors;
    this.#handle = handle;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Takes a packet to port 53. `owner` is the worker that answers all queries; `undefined` for any worker. */
  receive(packet: Packet, tcp: Tcp, context: StageContext, owner: number | undefined): void {
    if (owner !== undefined && context.worker.index !== owner) return context.handOver(packet, owner);
    if (!isFromHost(tcp.ip)) return context.drop(packet, DnsDrop.MartianSource);
    if (tcp.ip.isFragment) return context.drop(packet, DnsDrop.Fragment);
    if (tcp.srcPort === 0) return context.drop(packet, DnsDrop.FromPortZero);
    if (this.#limits.connections === 0) return this.#errors.reset(packet, context, DnsDrop.NoTcp);
    if (!tcp.checksumValid) return context.drop(packet, DnsDrop.BadChecksum);
    this.#context = context;
    const path = this.#path;
    path.read(tcp, context.direction);
    const segment = this.#read(packet, tcp);
    const connection = this.#connections.get(path.key) ?? this.#accept(packet, segment, context);
    if (connection !== undefined) this.#deliver(connection, packet, segment, context);
  }

  /** Sends pending answers and runs timers; returns the time of the next timer (monotonic milliseconds). */
  tick(context: StageContext): number {
    this.#context = context;
    for (const connection of this.#answered) {
      this.#answered.delete(connection);
      this.#readOn(connection, context);
    }
    let due = Infinity;
    for (const connection of this.#connections.values()) {
      if (connection.due <= context.now) {
        this.#settle(connection, connection.tick(context.now, this), context);
      }
      if (!connection.isClosed && connection.due < due) due = connection.due;
    }
    return due;
  }

  /** Closes all connections without RST. */
  close(): void {
    for (const connection of this.#connections.values()) connection.isClosed = true;
    this.#connections.clear();
    this.#paths.clear();
    this.#counts.clear();
    this.#answered.clear();
  }

  /** Ends a query with its answer; without one, resets the connection. */
  finish(connection: Connection, message: Uint8Array | undefined, context: StageContext): void {
    if (connection.isClosed) return;
    this.#context = context;
    if (message === undefined) return this.#settle(connection, Received.Reset, context);
    connection.send(message, context.now);
    this.#bound(context);
    if (connection === this.#current || connection.isClosed) return;
    this.#answered.add(connection);
    context.wake();
  }

  query(connection: Connection, message: Uint8Array): void {
    this.#handle(new TcpQuery(this, connection, message), this.#context!);
  }

  write(connection: Connection, seq: number, from: number, length: number, isFin: boolean): boolean {
    const context = this.#context!;
    const packet = context.take(length);
    if (packet === undefined) return false;
    connection.answers.copy(from, length, packet.bytes, packet.offset);
    const flags = Tcp.Ack | (isFin ? Tcp.Fin : length > 0 ? Tcp.Psh : 0);
    const { expected, receiveWindow } = connection;
    this.#paths.get(connection)!.send(packet, seq, expected, flags, receiveWindow, context);
    return true;
  }

  #read(packet: Packet, tcp: Tcp): Segment {
    const segment = this.#segment;
    segment.seq = tcp.seq;
    segment.ack = tcp.ack;
    segment.window = tcp.window;
    segment.isSyn = tcp.isSyn;
    segment.isRst = tcp.isRst;
    segment.isFin = tcp.isFin;
    segment.isAck = tcp.isAck;
    segment.bytes = packet.bytes;
    segment.start = tcp.payloadOffset;
    segment.length = tcp.payloadLength;
    return segment;
  }

  /** Opens a connection; answers a SYN, and resets any other packet without a connection. */
  #accept(packet: Packet, segment: Segment, context: StageContext): Connection | undefined {
    const { now } = context;
    const path = this.#path;
    if (segment.isRst) {
      context.done(packet);
      return undefined;
    }
    if (segment.isSyn && !segment.isAck) {
      const seq = this.#cookies.make(path.flow, segment.seq, Tcp.of(packet)!.mss, now);
      packet.reset(0);
      const options = { mss: SEGMENT_SIZE };
      path.send(packet, seq, segment.seq + 1 >>> 0, Tcp.Syn | Tcp.Ack, RECEIVE_BUFFER, context, options);
      return undefined;
    }
    const size = segment.isAck && !segment.isSyn
      ? this.#cookies.read(path.flow, segment.ack - 1 >>> 0, segment.seq - 1 >>> 0, now)
      : Cookie.Wrong;
    if (size === Cookie.Early) {
      context.done(packet);
      return undefined;
    }
    if (size === Cookie.Wrong || !this.#makeRoom(path.source, context)) {
      const reason = size === Cookie.Wrong ? DnsDrop.NoConnection : DnsDrop.TooManyConnections;
      this.#errors.reset(packet, context, reason);
      return undefined;
    }
    const own = new Path();
    own.read(Tcp.of(packet)!, context.direction);
    const connection = new Connection(own, segment.ack, segment, size, now, this.#limits.idleTimeout);
    this.#connections.set(own.key, connection);
    this.#paths.set(connection, own);
    this.#counts.set(own.source, (this.#counts.get(own.source) ?? 0) + 1);
    return connection;
  }

  #deliver(connection: Connection, packet: Packet, segment: Segment, context: StageContext): void {
    const path = this.#paths.get(connection)!;
    // The client's address may have moved to another peer of the tunnel.
    path.from = packet.from;
    path.mark = packet.mark;
    path.direction = context.direction;
    this.#current = connection;
    const received = connection.receive(segment, context.now, this);
    this.#current = undefined;
    const isOpen = received !== Received.Closed && received !== Received.Reset && !connection.isClosed;
    const hasSent = isOpen && connection.output(context.now, this);
    // Handling a query may have ended the connection.
    if (received === Received.Acknowledge && !hasSent && this.#paths.has(connection)) {
      packet.reset(0);
      path.send(packet, connection.nextSeq, connection.expected, Tcp.Ack, connection.receiveWindow, context);
    } else context.done(packet);
    this.#settle(connection, connection.isClosed ? Received.Closed : received, context);
    context.wake();
  }

  /** Sends answers, and reads the queries that fit now. */
  #readOn(connection: Connection, context: StageContext): void {
    this.#current = connection;
    const isGood = connection.readQueries(context.now, this);
    this.#current = undefined;
    if (connection.isClosed) return;
    if (isGood) connection.output(context.now, this);
    else this.#settle(connection, Received.Reset, context);
  }

  /** Removes a connection that has ended. */
  #settle(connection: Connection, received: Received, context: StageContext): void {
    if (received !== Received.Closed && received !== Received.Reset) return;
    const path = this.#paths.get(connection);
    if (path === undefined) return;
    if (received === Received.Reset) {
      const packet = context.take(0);
      if (packet !== undefined) {
        path.send(packet, connection.nextSeq, connection.expected, Tcp.Rst | Tcp.Ack, 0, context);
      }
    }
    connection.isClosed = true;
    this.#answered.delete(connection);
    this.#connections.delete(path.key);
    this.#paths.delete(connection);
    const count = this.#counts.get(path.source)! - 1;
    if (count > 0) this.#counts.set(path.source, count);
    else this.#counts.delete(path.source);
  }

  /**
   * Makes room for a connection: ends one of the client with the most, or of any client if none has many; preferably an
   * idle one. Returns false if this client has the most.
   */
  #makeRoom(source: string, context: StageContext): boolean {
    const { connections } = this.#limits;
    if (this.#connections.size < connections) return true;
    let busiest = source;
    for (const [other, count] of this.#counts) {
      if (count > (this.#counts.get(busiest) ?? 0)) busiest = other;
    }
    const isAny = this.#counts.get(busiest)! <= Math.max(1, connections * SMALL_SHARE);
    if (busiest === source && !isAny) return false;
    let loser: Connection | undefined;
    for (const connection of this.#connections.values()) {
      if (!isAny && connection.peer.source !== busiest) continue;
      // The longest idle connection, or the oldest one.
      const isBetter = connection.isIdle && (!loser?.isIdle || connection.idleAt < loser.idleAt);
      if (loser === undefined || isBetter) loser = connection;
    }
    this.#settle(loser!, Received.Reset, context);
    return true;
  }

  /** Resets the connection with the most buffered answers if all together exceed the limit. */
  #bound(context: StageContext): void {
    let total = 0;
    let largest: Connection | undefined;
    for (const connection of this.#connections.values()) {
      total += connection.buffered;
      if (connection.buffered > (largest?.buffered ?? 0)) largest = connection;
    }
    if (total > MAX_BUFFERED) this.#settle(largest!, Received.Reset, context);
  }
}

class TcpQuery implements Query {
  readonly source: string;
  readonly #server: TcpServer;
  readonly #connection: Connection;
  readonly #message: Uint8Array;

  constructor(server: TcpServer, connection: Connection, message: Uint8Array) {
    this.#server = server;
    this.#connection = connection;
    this.#message = message;
    this.source = connection.peer.source;
  }

  read(question: Question): number {
    return question.read(this.#message, 0, this.#message.length);
  }

  repeats(): boolean {
    return false;
  }

  hold(): void {
    // Its bytes are a copy already.
  }

  drop(_reason: DnsDrop, context: StageContext): void {
    this.#server.finish(this.#connection, undefined, context);
  }

  room(): number {
    return MAX_MESSAGE;
  }

  open(): { bytes: Uint8Array; start: number } {
    return { bytes: this.#server.answer, start: 0 };
  }

  send(length: number, context: StageContext): void {
    this.#server.finish(this.#connection, this.#server.answer.slice(0, length), context);
  }
}
