/**
 * Hosts with IPv6 alone reach IPv4 (RFC 6146).
 *
 *     outbound  [fd64::5]:5000 > [64:ff9b::c000:201]:53 ─► session, binding ─► toIpv4 ─► 198.51.100.1:5000 > 192.0.2.1:53
 *     inbound   [fd64::5]:5000 < [64:ff9b::c000:201]:53 ◄─ toIpv6 ◄─ filter, binding ◄─ 198.51.100.1:5000 < 192.0.2.1:53
 *     hairpin   [fd64::5]:5000 > [64:ff9b::c633:6401]:6000 ─► outbound ─► inbound ─► [64:ff9b::c633:6401]:5000 > [fd64::6]:6000
 */

import { Fragmenter } from "../../split/fragmenter.ts";
import { drop } from "../../core/drop.ts";
import { FragmentIds } from "../../split/fragment_ids.ts";
import {
  DONT_FRAGMENT,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  IPV4_FLAGS,
  IPV6_DST,
  IPV6_MIN_MTU,
  IPV6_SRC,
  TCP_FLAGS_BYTE,
  TCP_HEADER,
} from "../../wire/header_fields.ts";
import { isUnicast4, isUnicast6 } from "../../wire/unicast.ts";
import { difference } from "../../core/checksum.ts";
import { adjustTransport } from "../../wire/transport_checksum.ts";
import {
  Direction,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
  type WorkerPlace,
} from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { IcmpError, type IcmpErrors } from "../../icmp/icmp_error.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { type Ip, versionOf } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { Flows, isSaved, type SavedSession } from "./_flows.ts";
import { Fragments } from "./_fragments.ts";
import { checkNat64Options, type Nat64Options } from "./_nat64_options.ts";
import type { EmbeddingPrefix } from "./embedded_address.ts";
import { type Ipv4Addresses, type Ipv6Addresses, toIpv4, toIpv6, Untranslatable } from "./translate.ts";

// Specification
const PORTS_HEADER = 8;
/** RFC 7915 section 4: the longest IPv4 packet that fits the least IPv6 MTU without fragmentation. */
const MAX_IPV4_LENGTH = 1260;

// Implementation
/** The flags that tell a SYN that opens a connection. */
const OPENING = Tcp.Syn | Tcp.Fin | Tcp.Rst | Tcp.Ack;
const VERSION = 2;
/** How often idle flows are looked for while there are any (ms). */
const EXPIRY = 1000;
const EXPIRY_LIMIT = 1024;
const ALONE: WorkerPlace = { index: 0, count: 1 };

/**
 * NAT64: IPv6 hosts inside, IPv4 outside, with endpoint-independent mapping (RFC 6146).
 *
 * **Outbound**: an IPv6 packet of TCP, UDP or an ICMP echo request to an address of the prefix becomes an IPv4 packet to
 * the address in it, from an outside address with the same port if that is free, else one of the same parity. What goes
 * to an outside address turns round to the inside host behind it. Other packets pass.
 *
 * **Inbound**: an IPv4 packet to an outside address becomes an IPv6 packet to the inside host that has the port, if the
 * filter lets it; its source is in the prefix. What routers may divide is divided to 1280 bytes. Other packets pass. ICMP
 * errors go the way of the packet that they quote, backwards, and show no inside address. Each way is a hop.
 *
 * **Options**: see {@linkcode Nat64Options}; only `outside` is needed.
 *
 * **Counters**: {@linkcode Nat64.flows} and {@linkcode Nat64.bindings}. Drops are counted as `no mapping`, `no session`
 * (TCP that does not start with a SYN), `filtered`, `no port`, `bad address`, `ttl exceeded`, `fragment without its first`,
 * and the reasons of {@linkcode Untranslatable}.
 *
 * Idle sessions end after 5 minutes (UDP), 2 hours and 4 minutes (TCP), 4 minutes (TCP that opens or closes, and what was
 * opened from outside, until its sender follows up on an answer), 60 s (ICMP).
 *
 * **Shares**: a host may have everything while nobody else needs it. What it opens beyond an eighth of the sessions or
 * ports, or its /64 beyond a half, is surplus. Room for a new session comes first from those that were opened from outside
 * and whose sender has not followed up on an answer, then from surplus ones, then from all but open TCP connections, then
 * from these; among equals from the one that has been idle for longest.
 *
 * In several workers, a binding belongs to worker `(port >>> 1) % count`, on both sides; what comes to another worker is
 * handed over.
 *
 * **Limits**: later fragments need their first one to come before them, to the same worker; `Reassemble` on both sides
 * helps. What may not be divided is up to 28 bytes longer in IPv6: `mssClamp()` keeps TCP below the MTU, and other senders
 * hear of it. Private IPv4 addresses are translated with the well-known prefix, too (RFC 6052 section 3.1 is against it).
 * ICMP echo requests from outside are dropped, and so are ICMP errors from inside about fragments. A TCP SYN that the filter refuses is not kept for later (RFC 6146 section
 * 3.5.2.2). DNS64 is another's affair.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Nat64 } from "@warren/tunnel/nat64";
 *
 * const nat = new Nat64({ outside: "198.51.100.1", prefix: "2001:db8:64::/96" });
 * assert.equal(nat.flows, 0); // then: tunnel.use(nat)
 * ```
 */
export class Nat64 implements Stage {
  /** `nat64`. */
  readonly name = "nat64";

  readonly #prefix: EmbeddingPrefix;
  readonly #outside: Uint32Array;
  readonly #isOpen: boolean;
  readonly #capacity: number;
  readonly #errors: IcmpErrors | undefined;
  readonly #random: () => number;
  readonly #key = new FlowKey();
  readonly #four: Ipv4Addresses = { src: 0, dst: 0, quotedSrc: 0, quotedDst: 0 };
  readonly #six: Ipv6Addresses = {
    src: new Uint8Array(16),
    dst: new Uint8Array(16),
    quotedSrc: new Uint8Array(16),
    quotedDst: new Uint8Array(16),
  };
  readonly #fragments = new Fragments();
  readonly #ids: FragmentIds;
  /** The start of the identifications of the session at hand. */
  #idStart = 0;
  readonly #fragmenter = new Fragmenter(IPV6_MIN_MTU);
  #flows: Flows;
  #worker = ALONE;
  #now = 0;
  #isStarted = false;
  #isTicking = false;
  #restored: SavedSession[] | undefined;

  /**
   * A NAT without sessions.
   *
   * @throws {SyntaxError} when an address or the prefix does not parse.
   * @throws {TypeError} when there is no outside address, the filter is unknown, or the prefix is one of IPv4.
   * @throws {RangeError} when the prefix has a length that RFC 6052 does not have, the capacity is out of its range, or
   * there are more than 64 outside addresses.
   */
  constructor(options: Nat64Options) {
    const { prefix, outside, isOpen, capacity, errors, random } = checkNat64Options(options);
    this.#prefix = prefix;
    this.#outside = outside;
    this.#isOpen = isOpen;
    this.#capacity = capacity;
    this.#errors = errors;
    this.#random = random;
    this.#ids = new FragmentIds([random(), random()]);
    this.#flows = this.#makeFlows(ALONE);
  }

  /** How many sessions are known: inside endpoint and remote endpoint. */
  get flows(): number {
    return this.#flows.sessions.size;
  }

  /** How many inside endpoints have an outside one now. */
  get bindings(): number {
    return this.#flows.bindings;
  }

  /** Makes IPv4 packets of those to the prefix. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 4) {
        // Turned round by another worker, to an inside host of this one.
        const turned = this.#worker.count > 1 ? Ipv4.of(packet) : undefined;
        if (
          turned !== undefined && this.#outside.indexOf(turned.dst) >= 0 &&
          this.#outside.indexOf(turned.src) >= 0
        ) {
          this.#fromOutside(packet, turned, true, context);
        }
        continue;
      }
      const ip = Ipv6.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else if (this.#prefix.contains(packet.bytes, ip.start + IPV6_DST)) {
        this.#fromInside(packet, ip, context);
      }
    }
  }

  /** Makes IPv6 packets of those to an outside address. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    // The pieces of one would go ahead of what is left in the batch, so all is emitted then, in its order.
    let isEmitted = false;
    for (let i = 0; i < length && !isEmitted; i++) isEmitted = mayBeDivided(packets[i]!);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (this.#translateInbound(packet, context) && isEmitted) this.#emit(packet, context);
    }
  }

  /** Forgets idle sessions. */
  tick(context: StageContext): number | undefined {
    this.#begin(context);
    if (this.#flows.sessions.expire(this.#now) === EXPIRY_LIMIT) return 0;
    this.#fragments.expire(this.#now);
    this.#isTicking = this.flows > 0 || this.#fragments.size > 0;
    return this.#isTicking ? EXPIRY : undefined;
  }

  /** All sessions, for {@linkcode Nat64.restore}: of this worker alone. */
  save(): unknown {
    return { version: VERSION, sessions: this.#restored ?? Array.from(this.#flows.save(this.#now)) };
  }

  /**
   * Takes over what {@linkcode Nat64.save} gave, in place of all sessions that there are. Sessions whose outside address or
   * port is no longer to be had are left out; their idle time goes on where it stood.
   *
   * @throws {TypeError} when it is something else.
   */
  restore(state: unknown): void {
    const { version, sessions } = Object(state) as { version?: unknown; sessions?: unknown };
    if (version !== VERSION || !Array.isArray(sessions) || !sessions.every(isSaved)) {
      throw new TypeError("Cannot restore a NAT64: this is not what its save() gave");
    }
    this.#restored = sessions;
    this.#isStarted = false;
  }

  #makeFlows(worker: WorkerPlace): Flows {
    return new Flows(
      { outside: this.#outside, capacity: this.#capacity, random: this.#random, ids: this.#ids },
      worker,
    );
  }

  /** What every call starts with: the time, and at first what had to wait for it and for the worker's place. */
  #begin(context: StageContext): void {
    const { now, worker } = context;
    this.#now = now;
    if (this.#isStarted) return;
    this.#isStarted = true;
    if (this.#restored === undefined && worker.count === 1) return;
    this.#worker = worker;
    this.#flows = this.#makeFlows(worker);
    for (const session of this.#restored ?? []) {
      if (this.#ownerOf(session[2]) === worker.index) this.#flows.restore(session, now);
    }
    this.#restored = undefined;
    this.#watch(context);
  }

  /** Has ticks come while there are sessions. */
  #watch(context: StageContext): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    context.wake();
  }

  /** Translates a packet to the prefix, and turns it round when it goes to an outside address. */
  #fromInside(packet: Packet, ip: Ipv6, context: StageContext): void {
    const { bytes } = packet;
    const { start, protocol } = ip;
    // RFC 6146 section 3.5: what comes from the prefix would go round in circles.
    if (this.#prefix.contains(bytes, start + IPV6_SRC) || !isHost(packet, start + IPV6_SRC)) {
      return context.drop(packet, "bad address");
    }
    const four = this.#four;
    four.dst = this.#prefix.read(bytes, start + IPV6_DST);
    if (!isUnicast4(four.dst)) return context.drop(packet, "bad address");
    if (ip.hopLimit <= 1) return void this.#exceeded(packet, context);
    if (ip.isFragment && ip.payloadOffset !== ip.fragmentHeader + FRAGMENT_HEADER) {
      return context.drop(packet, Untranslatable.DividedHeaders);
    }
    let id = -1;
    if (ip.fragmentOffset !== 0) {
      if (!this.#fragments.find(ip, this.#now)) return context.drop(packet, "fragment without its first");
      four.src = this.#fragments.address[0]!;
      id = this.#fragments.address[1]!;
    } else if (protocol === Protocol.Tcp || protocol === Protocol.Udp) {
      const ports = this.#portsOf(packet, ip, context);
      if (ports < 0) return;
      const port = ports >>> 16;
      const session = this.#openFromInside(packet, ip, port, ports & 0xffff, flagsOf(packet, ip), context);
      if (session < 0) return;
      setWord(packet, ip, ip.payloadOffset, this.#flows.outsidePortOf(session));
      if (ip.moreFragments) {
        this.#fragments.address[0] = four.src;
        this.#fragments.address[1] = id = this.#nextId(packet);
        this.#noteFirst(ip, context);
      }
    } else if (protocol === Protocol.Icmpv6) {
      const icmp = Icmpv6.of(packet);
      if (icmp === undefined) return context.drop(packet, "malformed");
      if (icmp.quotedOffset >= 0) {
        if (!this.#readErrorFromInside(packet, icmp, context)) return;
      } else if (icmp.type === Icmpv6.EchoRequest) {
        const session = this.#openFromInside(packet, ip, icmp.id, 0, 0, context);
        if (session < 0) return;
        icmp.id = this.#flows.outsidePortOf(session);
      } else return context.drop(packet, "no mapping");
    } else return context.drop(packet, "protocol not translated");
    ip.hopLimit--;
    if (id < 0) id = this.#nextId(packet);
    const fragment = ip.fragmentHeader;
    if (fragment >= 0) packet.view.setUint16(fragment + FRAGMENT_ID + 2, id);
    const reason = toIpv4(packet, four, id);
    if (reason !== undefined) return context.drop(packet, reason);
    if (this.#outside.indexOf(four.dst) < 0) return;
    this.#fromOutside(packet, Ipv4.of(packet)!, true, context);
  }

  /** Translates a packet if it goes to an outside address; returns whether it goes on. */
  #translateInbound(packet: Packet, context: StageContext): boolean {
    if (versionOf(packet) === 6) return true;
    const ip = Ipv4.of(packet);
    if (ip === undefined) return drop(packet, "malformed", context);
    return this.#outside.indexOf(ip.dst) < 0 || this.#fromOutside(packet, ip, false, context);
  }

  /** Translates a packet to an outside address; returns whether it goes on. A turned one has been outbound before. */
  #fromOutside(packet: Packet, ip: Ipv4, isTurned: boolean, context: StageContext): boolean {
    const { src, protocol } = ip;
    if (!isTurned && (!isUnicast4(src) || this.#outside.indexOf(src) >= 0)) {
      return drop(packet, "bad address", context);
    }
    if (!isTurned && ip.ttl <= 1) return this.#exceeded(packet, context);
    const { words } = this.#key;
    if (ip.fragmentOffset !== 0) {
      if (!this.#fragments.find(ip, this.#now)) return drop(packet, "fragment without its first", context);
      words.set(this.#fragments.address, 1);
    } else if (protocol === Protocol.Tcp || protocol === Protocol.Udp) {
      const ports = this.#portsOf(packet, ip, context);
      if (ports < 0) return false;
      const flags = flagsOf(packet, ip);
      const session = this.#openFromOutside(
        packet,
        ip,
        protocol,
        ports & 0xffff,
        ports >>> 16,
        flags,
        context,
      );
      if (session < 0) return false;
      setWord(packet, ip, ip.payloadOffset + 2, this.#key.srcPort);
      if (ip.moreFragments) {
        for (let i = 0; i < 4; i++) this.#fragments.address[i] = words[1 + i]!;
        this.#noteFirst(ip, context);
      }
    } else if (protocol === Protocol.Icmp) {
      const icmp = Icmpv4.of(packet);
      if (icmp === undefined) return drop(packet, "malformed", context);
      if (icmp.quotedOffset >= 0) {
        if (!this.#readErrorFromOutside(packet, icmp, context)) return false;
      } else if (icmp.type === Icmpv4.EchoReply) {
        if (this.#openFromOutside(packet, ip, Protocol.Icmpv6, icmp.id, 0, 0, context) < 0) return false;
        icmp.id = this.#key.srcPort;
      } else return drop(packet, "no mapping", context);
    } else return drop(packet, "protocol not translated", context);
    this.#prefix.write(src, this.#six.src);
    writeWords(words, 1, this.#six.dst);
    if (!isTurned) ip.ttl--;
    const reason = toIpv6(packet, this.#six);
    if (reason !== undefined) return drop(packet, reason, context);
    if (isTurned) context.emit(packet, Direction.Inbound);
    return !isTurned;
  }

  /** Emits a packet; divides what has a Fragment header and is too long (RFC 7915 section 4.1). */
  #emit(packet: Packet, context: StageContext): void {
    const ip = packet.length > IPV6_MIN_MTU && packet.segmentSize === 0 ? Ipv6.of(packet) : undefined;
    if (ip !== undefined && ip.fragmentHeader >= 0) this.#fragmenter.fragment(packet, context);
    else context.emit(packet, context.direction);
  }

  /** The session of a packet from inside, which may be new; -1 when the packet has been claimed. */
  #openFromInside(
    packet: Packet,
    ip: Ipv6,
    port: number,
    remotePort: number,
    flags: number,
    context: StageContext,
  ): number {
    const { protocol } = ip;
    if (this.#isElsewhere(packet, port, Direction.Outbound, context)) return -1;
    const key = this.#fill(protocol, this.#four.dst, port, remotePort);
    readWords(packet, ip.start + IPV6_SRC, key.words, 1);
    let session = this.#flows.sessions.find(key, this.#now);
    if (session < 0) {
      if (protocol === Protocol.Tcp && (flags & OPENING) !== Tcp.Syn) {
        return refuse(packet, "no session", context);
      }
      session = this.#flows.open(key, this.#poolOf(key.words), true, this.#now);
      if (session < 0) return refuse(packet, "no port", context);
      this.#watch(context);
    }
    this.#flows.note(session, protocol, true, flags, this.#now);
    this.#four.src = this.#outside[this.#flows.outsideOf(session)]!;
    this.#idStart = this.#flows.idStartOf(session);
    return session;
  }

  /** The session of a packet from outside, which the filter may let in; -1 when the packet has been claimed. */
  #openFromOutside(
    packet: Packet,
    ip: Ipv4,
    protocol: number,
    port: number,
    remotePort: number,
    flags: number,
    context: StageContext,
  ): number {
    if (this.#isElsewhere(packet, port, context.direction, context)) return -1;
    const outside = this.#outside.indexOf(ip.dst);
    const binding = this.#flows.bindingAt(protocol, outside, port);
    if (binding < 0) return refuse(packet, "no mapping", context);
    const key = this.#fill(protocol, ip.src, this.#flows.insidePortOf(binding), remotePort);
    this.#flows.readInside(binding, key.words);
    let session = this.#flows.sessions.find(key, this.#now);
    if (session < 0) {
      if (protocol === Protocol.Icmpv6) return refuse(packet, "no mapping", context);
      if (!this.#isOpen && !this.#flows.knows(key)) return refuse(packet, "filtered", context);
      if (protocol === Protocol.Tcp && (flags & OPENING) !== Tcp.Syn) {
        return refuse(packet, "no session", context);
      }
      session = this.#flows.open(key, outside, false, this.#now);
      if (session < 0) return refuse(packet, "no port", context);
    }
    this.#flows.note(session, protocol, false, flags, this.#now);
    return session;
  }

  /** An error from inside, about a packet that came from outside: its addresses, and the port that it quotes. */
  #readErrorFromInside(packet: Packet, icmp: Icmpv6, context: StageContext): boolean {
    const key = this.#readQuoted(packet, icmp, 6, context);
    if (key === undefined) return false;
    const { bytes } = packet;
    const { protocol, srcPort: remotePort, dstPort: port } = key;
    if (this.#isElsewhere(packet, port, Direction.Outbound, context)) return false;
    const start = icmp.quotedOffset;
    const remote = this.#prefix.read(bytes, start + IPV6_SRC);
    const isAnswer = this.#prefix.contains(bytes, start + IPV6_SRC) && remote === this.#four.dst;
    const isIcmp = protocol === Protocol.Icmpv6;
    this.#fill(protocol, remote, port, isIcmp ? 0 : remotePort);
    readWords(packet, start + IPV6_DST, key.words, 1);
    const session = isAnswer ? this.#flows.sessions.find(key, this.#now) : -1;
    if (session < 0) return drop(packet, "no mapping", context);
    const outside = this.#outside[this.#flows.outsideOf(session)]!;
    this.#four.src = outside;
    this.#idStart = this.#flows.idStartOf(session);
    this.#four.quotedSrc = remote;
    this.#four.quotedDst = outside;
    setQuotedWord(
      packet,
      icmp,
      key.quoted.upperOffset,
      protocol,
      isIcmp ? 4 : 2,
      this.#flows.outsidePortOf(session),
    );
    return true;
  }

  /** An error from outside, about a packet that went there. */
  #readErrorFromOutside(packet: Packet, icmp: Icmpv4, context: StageContext): boolean {
    const key = this.#readQuoted(packet, icmp, 4, context);
    if (key === undefined) return false;
    const { srcPort: port, dstPort: remotePort, protocol: quotedProtocol } = key;
    const src = key.words[1]!;
    const remote = key.words[2]!;
    if (this.#isElsewhere(packet, port, context.direction, context)) return false;
    const isIcmp = quotedProtocol === Protocol.Icmp;
    const protocol = isIcmp ? Protocol.Icmpv6 : quotedProtocol;
    const isOurs = src === icmp.ip.dst;
    const binding = isOurs ? this.#flows.bindingAt(protocol, this.#outside.indexOf(src), port) : -1;
    if (binding < 0) return drop(packet, "no mapping", context);
    const insidePort = this.#flows.insidePortOf(binding);
    this.#fill(protocol, remote, insidePort, isIcmp ? 0 : remotePort);
    this.#flows.readInside(binding, key.words);
    if (this.#flows.sessions.find(key, this.#now) < 0) return drop(packet, "no mapping", context);
    writeWords(key.words, 1, this.#six.quotedSrc);
    this.#prefix.write(remote, this.#six.quotedDst);
    setQuotedWord(packet, icmp, key.quoted.upperOffset, quotedProtocol, isIcmp ? 4 : 0, insidePort);
    return true;
  }

  /** The key of the packet that an error quotes; `undefined` when the error has been dropped. */
  #readQuoted(
    packet: Packet,
    icmp: Icmpv4 | Icmpv6,
    version: number,
    context: StageContext,
  ): FlowKey | undefined {
    packet.finish();
    const key = this.#key;
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

  /** Both ports in one word; -1 when the packet has been dropped. */
  #portsOf(packet: Packet, ip: Ip, context: StageContext): number {
    const shortest = ip.protocol === Protocol.Tcp ? TCP_HEADER : PORTS_HEADER;
    if (ip.payloadLength < shortest) return refuse(packet, "malformed", context);
    return packet.view.getUint32(ip.payloadOffset);
  }

  /** Whether a port is another worker's, which then gets the packet. */
  #isElsewhere(packet: Packet, port: number, direction: Direction, context: StageContext): boolean {
    const owner = this.#ownerOf(port);
    if (owner === this.#worker.index) return false;
    context.handOver(packet, owner, direction);
    return true;
  }

  /** Remembers the address that later fragments get. */
  #noteFirst(ip: Ip, context: StageContext): void {
    this.#fragments.note(ip, this.#now);
    this.#watch(context);
  }

  #exceeded(packet: Packet, context: StageContext): false {
    if (this.#errors === undefined) context.drop(packet, "ttl exceeded");
    else this.#errors.answer(packet, IcmpError.TimeExceeded, context, "ttl exceeded");
    return false;
  }

  /** The key of a session, but for its inside address. */
  #fill(protocol: number, remote: number, port: number, remotePort: number): FlowKey {
    const key = this.#key;
    const { words } = key;
    key.length = words.length;
    words[0] = 6 << 8 | protocol;
    words[5] = remote;
    words[6] = words[7] = words[8] = 0;
    words[9] = port << 16 | remotePort;
    return key;
  }

  /** Which outside address an inside one has, always. */
  #poolOf(words: Uint32Array): number {
    const mixed = Math.imul(words[1]! ^ words[2]! ^ words[3]! ^ words[4]!, 0x9e3779b1);
    return (mixed >>> 16) % this.#outside.length;
  }

  #ownerOf(port: number): number {
    const { count } = this.#worker;
    return count === 1 ? 0 : (port >>> 1) % count;
  }

  /** An identification for a packet of the session at hand, or one for each segment; workers have different ones. */
  #nextId({ segmentSize, length }: Packet): number {
    const { index, count } = this.#worker;
    const taken = segmentSize > 0 ? Math.ceil(length / segmentSize) : 1;
    return this.#ids.next(this.#idStart, taken) * count + index & 0xffff;
  }
}

function refuse(packet: Packet, reason: string, context: StageContext): -1 {
  context.drop(packet, reason);
  return -1;
}

/** Whether it is an IPv4 packet that routers may divide, and that IPv6 ones may not pass at its length. */
function mayBeDivided(packet: Packet): boolean {
  const { view, offset, length } = packet;
  return length > MAX_IPV4_LENGTH && versionOf(packet) === 4 &&
    (view.getUint16(offset + IPV4_FLAGS) & DONT_FRAGMENT) === 0;
}

function flagsOf({ bytes }: Packet, { protocol, payloadOffset }: Ip): number {
  return protocol === Protocol.Tcp ? bytes[payloadOffset + TCP_FLAGS_BYTE]! : 0;
}

/** Sets a port, and keeps the checksum. */
function setWord(packet: Packet, ip: Ip, at: number, value: number): void {
  const { view } = packet;
  const before = view.getUint16(at);
  if (before === value) return;
  view.setUint16(at, value);
  const { payloadOffset: upper, payloadLength, protocol } = ip;
  adjustTransport(packet, upper, upper + payloadLength, protocol, difference(before, value));
}

/** Sets a port or an identifier of the packet that an error quotes, and keeps both checksums. */
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

function readWords({ view }: Packet, at: number, words: Uint32Array, first: number): void {
  for (let i = 0; i < 4; i++) words[first + i] = view.getUint32(at + 4 * i);
}

function writeWords(words: Uint32Array, first: number, address: Uint8Array): void {
  for (let i = 0; i < 16; i++) address[i] = words[first + (i >> 2)]! >>> 24 - 8 * (i & 3);
}

/** Whether the IPv6 address at `at` can be a host's beyond its link: no link-local one, either. */
function isHost({ view }: Packet, at: number): boolean {
  return isUnicast6(view, at) && view.getUint32(at) >>> 22 !== 0x3fa;
}
