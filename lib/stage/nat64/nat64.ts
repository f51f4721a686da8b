/**
 * NAT64: IPv6-only hosts reach IPv4 hosts (RFC 6146). ICMP errors are in `_icmp_errors.ts`.
 *
 *     outbound  [fd64::5]:5000 > [64:ff9b::c000:201]:53 ─► session, binding ─► toIpv4 ─► 198.51.100.1:5000 > 192.0.2.1:53
 *     inbound   [fd64::5]:5000 < [64:ff9b::c000:201]:53 ◄─ toIpv6 ◄─ filter, binding ◄─ 198.51.100.1:5000 < 192.0.2.1:53
 *     hairpin   [fd64::5]:5000 > [64:ff9b::c633:6401]:6000 ─► outbound ─► inbound ─► [64:ff9b::c633:6401]:5000 > [fd64::6]:6000
 */

import { Fragmenter } from "../../split/fragmenter.ts";
import { drop } from "../../core/drop.ts";
import { FragmentIds } from "../../split/fragment_ids.ts";
import * as field from "../../wire/header_fields.ts";
import { isUnicast4, isUnicast6 } from "../../wire/unicast.ts";
import { difference } from "../../core/checksum.ts";
import { gotValue } from "../../core/options.ts";
import { adjustTransport } from "../../wire/transport_checksum.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { IcmpError, type IcmpErrors } from "../../icmp/icmp_error.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { type Ip, versionOf } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { handOverToOwner, NatWorker } from "../../table/worker_ports.ts";
import { fillKey, Flows, isSaved, type SavedSession } from "./_flows.ts";
import { Fragments } from "./_fragments.ts";
import { Nat64Drop } from "./_nat64_drop.ts";
import { checkNat64Options, type Nat64Options } from "./_nat64_options.ts";
import type { EmbeddingPrefix } from "./embedded_address.ts";
import { Nat64Errors } from "./_icmp_errors.ts";
import { toIpv4 } from "./_to_ipv4.ts";
import { toIpv6 } from "./_to_ipv6.ts";
import { type Ipv4Addresses, type Ipv6Addresses, Untranslatable } from "./_translation.ts";
import { readWords, writeWords } from "./_words.ts";

// Specification
const {
  DONT_FRAGMENT,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  IPV4_FLAGS,
  IPV6_DST,
  IPV6_MIN_MTU,
  IPV6_SRC,
  TCP_FLAGS_BYTE,
  TCP_HEADER,
} = field;
const PORTS_HEADER = 8;
/** RFC 7915 section 4: the longest IPv4 packet that fits the minimum IPv6 MTU after translation. */
const MAX_IPV4_LENGTH = 1260;

// Implementation
/** Flags that distinguish the SYN that opens a connection. */
const OPENING = Tcp.Syn | Tcp.Fin | Tcp.Rst | Tcp.Ack;
const VERSION = 2;

/**
 * NAT64: inside IPv6 hosts reach IPv4 hosts through a few outside IPv4 addresses (RFC 6146), with endpoint-independent
 * mapping.
 *
 * **Outbound**: translates packets to the prefix (TCP, UDP, ICMP echo requests); keeps the port if it is free. Hairpins.
 * **Inbound**: translates back to IPv6 if the filter admits the sender, and fragments to 1280 bytes; other packets pass.
 * **Options**: {@linkcode Nat64Options}. **Counters**: `flows`, `bindings`. **Drops**: {@linkcode Nat64Drop},
 * {@linkcode Untranslatable}.
 * **Timeouts**: UDP 5 min, TCP 2 h 4 min, TCP that opens or closes 4 min, ICMP 60 s.
 * **Workers**: worker `(port >>> 1) % count` owns a port; packets that reach another worker are handed over.
 * **Limits**: no DNS64; later fragments must follow their first one to the same worker; inbound ICMP echo requests are
 * dropped; a packet grows by up to 28 bytes: use `mssClamp()`.
 *
 * @example A packet leaves as IPv4
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv6 } from "@warren/tunnel/address";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv6 } from "@warren/tunnel/ipv6";
 * import { Nat64 } from "@warren/tunnel/nat64";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const nat = new Nat64({ outside: "198.51.100.1" }); // tunnel.use(nat)
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv6.encode(packet, { src: parseIpv6("fd64::5"), dst: parseIpv6("64:ff9b::192.0.2.1"), nextHeader: 17 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * nat.outbound(batch, { now: 0, worker: { index: 0, count: 1 }, wake() {} } as StageContext);
 * const udp = Udp.of(packet)!;
 * assert.equal(`${udp.ip.srcText}:${udp.srcPort} > ${udp.ip.dstText}`, "198.51.100.1:5000 > 192.0.2.1");
 * ```
 */
export class Nat64 implements Stage {
  /** `nat64`. */
  readonly name = "nat64";

  readonly #prefix: EmbeddingPrefix;
  readonly #isOpen: boolean;
  readonly #errors: IcmpErrors | undefined;
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
  /** Start of the IPv4 identifications of the current session. */
  #idStart = 0;
  readonly #fragmenter = new Fragmenter(IPV6_MIN_MTU);
  readonly #icmpErrors: Nat64Errors;
  readonly #worker: NatWorker<Flows, readonly SavedSession[]>;

  /**
   * A NAT without sessions.
   *
   * @throws {SyntaxError} when an address or the prefix does not parse.
   * @throws {TypeError} when there is no outside address, `filtering` is unknown, or the prefix is IPv4.
   * @throws {RangeError} when the prefix has a length that RFC 6052 does not allow, the capacity is out of range, or there
   * are more than 64 outside addresses.
   */
  constructor(options: Nat64Options) {
    const checked = checkNat64Options(options);
    const { prefix, isOpen, errors, random } = checked;
    this.#prefix = prefix;
    this.#isOpen = isOpen;
    this.#errors = errors;
    this.#ids = new FragmentIds([random(), random()]);
    this.#icmpErrors = new Nat64Errors(prefix, this.#key, this.#four, this.#six);
    this.#worker = new NatWorker((place) => new Flows(checked, this.#ids, place));
  }

  /** Sessions, each between an inside and a remote endpoint. */
  get flows(): number {
    return this.#worker.flows.size;
  }

  /** Inside endpoints that have an outside endpoint now. */
  get bindings(): number {
    return this.#worker.flows.bindings;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { flows: this.flows, bindings: this.bindings };
  }

  /** Translates packets to the prefix. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#worker.begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 4) {
        // Hairpinned by another worker, to an inside host of this one.
        const hairpinned = context.worker.count > 1 ? Ipv4.of(packet) : undefined;
        if (
          hairpinned !== undefined && this.#worker.flows.indexOf(hairpinned.dst) >= 0 &&
          this.#worker.flows.indexOf(hairpinned.src) >= 0
        ) {
          this.#fromOutside(packet, hairpinned, true, context);
        }
        continue;
      }
      const ip = Ipv6.of(packet);
      if (ip === undefined) context.drop(packet, Untranslatable.Malformed);
      else if (this.#prefix.contains(packet.bytes, ip.start + IPV6_DST)) {
        this.#fromInside(packet, ip, context);
      }
    }
  }

  /** Translates packets to an outside address. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#worker.begin(context);
    const { packets, length } = batch;
    // Fragments are emitted and would overtake packets left in the batch: then all packets are emitted, in order.
    let isEmitted = false;
    for (let i = 0; i < length && !isEmitted; i++) isEmitted = mayBeFragmented(packets[i]!);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (this.#translateInbound(packet, context) && isEmitted) this.#emit(packet, context);
    }
  }

  /** Removes idle sessions. */
  tick(context: StageContext): number | undefined {
    this.#worker.begin(context);
    this.#fragments.expire(context.now);
    return this.#worker.tick(this.#fragments.due(context.now));
  }

  /** Sessions of this worker, for {@linkcode Nat64.restore}. */
  save(): unknown {
    return { version: VERSION, sessions: this.#worker.save() };
  }

  /**
   * Replaces all sessions by those that {@linkcode Nat64.save} returned; idle times continue. Sessions whose outside
   * address or port is no longer available are left out.
   *
   * @throws {TypeError} when the state does not come from {@linkcode Nat64.save}.
   */
  restore(state: unknown): void {
    const { version, sessions } = Object(state) as { version?: unknown; sessions?: unknown };
    if (version !== VERSION || !Array.isArray(sessions) || !sessions.every(isSaved)) {
      throw new TypeError(`Cannot restore a Nat64: state must come from save(), ${gotValue(state)}`);
    }
    this.#worker.restore(sessions);
  }

  /** Translates a packet to the prefix, and hairpins it if it goes to an outside address. */
  #fromInside(packet: Packet, ip: Ipv6, context: StageContext): void {
    const { bytes } = packet;
    const { start, protocol } = ip;
    // RFC 6146 section 3.5: packets from the prefix would loop.
    if (this.#prefix.contains(bytes, start + IPV6_SRC) || !isHost(packet, start + IPV6_SRC)) {
      return context.drop(packet, Nat64Drop.BadAddress);
    }
    const four = this.#four;
    four.dst = this.#prefix.read(bytes, start + IPV6_DST);
    if (!isUnicast4(four.dst)) return context.drop(packet, Nat64Drop.BadAddress);
    if (ip.hopLimit <= 1) return void this.#exceeded(packet, context);
    if (ip.isFragment && ip.payloadOffset !== ip.fragmentHeader + FRAGMENT_HEADER) {
      return context.drop(packet, Untranslatable.FragmentedHeaders);
    }
    let id = -1;
    if (ip.fragmentOffset !== 0) {
      if (!this.#fragments.find(ip, this.#worker.now)) {
        return context.drop(packet, Nat64Drop.FragmentWithoutFirst);
      }
      four.src = this.#fragments.address[0]!;
      id = this.#fragments.address[1]!;
    } else if (protocol === Protocol.Tcp || protocol === Protocol.Udp) {
      const ports = this.#portsOf(packet, ip, context);
      if (ports < 0) return;
      const session = this.#openFromInside(packet, ip, ports >>> 16, ports & 0xffff, context);
      if (session < 0) return;
      setWord(packet, ip, ip.payloadOffset, this.#worker.flows.outsidePortOf(session));
      if (ip.moreFragments) {
        this.#fragments.address[0] = four.src;
        this.#fragments.address[1] = id = this.#nextId(packet);
        this.#noteFirst(ip, context);
      }
    } else if (protocol !== Protocol.Icmpv6) return context.drop(packet, Untranslatable.Protocol);
    else if (!this.#messageFromInside(packet, ip, context)) return;
    ip.hopLimit--;
    if (id < 0) id = this.#nextId(packet);
    const fragment = ip.fragmentHeader;
    if (fragment >= 0) packet.view.setUint16(fragment + FRAGMENT_ID + 2, id);
    const reason = toIpv4(packet, four, id, ip);
    if (reason !== undefined) return context.drop(packet, reason);
    if (this.#worker.flows.indexOf(four.dst) < 0) return;
    this.#fromOutside(packet, Ipv4.of(packet)!, true, context);
  }

  /** Prepares an ICMP message from inside; returns whether it goes on. */
  #messageFromInside(packet: Packet, ip: Ipv6, context: StageContext): boolean {
    const { flows } = this.#worker;
    const icmp = Icmpv6.of(packet);
    if (icmp === undefined) return drop(packet, Untranslatable.Malformed, context);
    if (icmp.quotedOffset >= 0) {
      const session = this.#icmpErrors.translateOutbound(packet, icmp, flows, context);
      if (session >= 0) this.#idStart = flows.idStartOf(session);
      return session >= 0;
    }
    if (icmp.type !== Icmpv6.EchoRequest) return drop(packet, Nat64Drop.NoMapping, context);
    const session = this.#openFromInside(packet, ip, icmp.id, 0, context);
    if (session >= 0) icmp.id = flows.outsidePortOf(session);
    return session >= 0;
  }

  /** Translates a packet if it goes to an outside address; returns whether it goes on. */
  #translateInbound(packet: Packet, context: StageContext): boolean {
    if (versionOf(packet) === 6) return true;
    const ip = Ipv4.of(packet);
    if (ip === undefined) return drop(packet, Untranslatable.Malformed, context);
    return this.#worker.flows.indexOf(ip.dst) < 0 || this.#fromOutside(packet, ip, false, context);
  }

  /** Translates a packet to an outside address; returns whether it goes on. A hairpinned one has been outbound. */
  #fromOutside(packet: Packet, ip: Ipv4, isHairpin: boolean, context: StageContext): boolean {
    const { src, protocol } = ip;
    if (!isHairpin && (!isUnicast4(src) || this.#worker.flows.indexOf(src) >= 0)) {
      return drop(packet, Nat64Drop.BadAddress, context);
    }
    if (!isHairpin && ip.ttl <= 1) return this.#exceeded(packet, context);
    const { words } = this.#key;
    if (ip.fragmentOffset !== 0) {
      if (!this.#fragments.find(ip, this.#worker.now)) {
        return drop(packet, Nat64Drop.FragmentWithoutFirst, context);
      }
      words.set(this.#fragments.address, 1);
    } else if (protocol === Protocol.Tcp || protocol === Protocol.Udp) {
      const ports = this.#portsOf(packet, ip, context);
      if (ports < 0) return false;
      if (this.#openFromOutside(packet, ip, ports & 0xffff, ports >>> 16, context) < 0) return false;
      setWord(packet, ip, ip.payloadOffset + 2, this.#key.srcPort);
      if (ip.moreFragments) {
        for (let i = 0; i < 4; i++) this.#fragments.address[i] = words[1 + i]!;
        this.#noteFirst(ip, context);
      }
    } else if (protocol !== Protocol.Icmp) return drop(packet, Untranslatable.Protocol, context);
    else if (!this.#messageFromOutside(packet, ip, context)) return false;
    this.#prefix.write(src, this.#six.src);
    writeWords(words, 1, this.#six.dst);
    if (!isHairpin) ip.ttl--;
    const reason = toIpv6(packet, this.#six, ip);
    if (reason !== undefined) return drop(packet, reason, context);
    if (isHairpin) context.emit(packet, Direction.Inbound);
    return !isHairpin;
  }

  /** Prepares an ICMP message from outside; returns whether it goes on. */
  #messageFromOutside(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    const icmp = Icmpv4.of(packet);
    if (icmp === undefined) return drop(packet, Untranslatable.Malformed, context);
    if (icmp.quotedOffset >= 0) {
      return this.#icmpErrors.translateInbound(packet, icmp, this.#worker.flows, context);
    }
    if (icmp.type !== Icmpv4.EchoReply) return drop(packet, Nat64Drop.NoMapping, context);
    if (this.#openFromOutside(packet, ip, icmp.id, 0, context) < 0) return false;
    icmp.id = this.#key.srcPort;
    return true;
  }

  /** Emits a packet, fragmented if it has a Fragment header and is too long (RFC 7915 section 4.1). */
  #emit(packet: Packet, context: StageContext): void {
    const ip = packet.length > IPV6_MIN_MTU && packet.segmentSize === 0 ? Ipv6.of(packet) : undefined;
    if (ip !== undefined && ip.fragmentHeader >= 0) this.#fragmenter.fragment(packet, context);
    else context.emit(packet, context.direction);
  }

  /** Finds or opens the session of a packet from inside; -1 when the packet was dropped or handed over. */
  #openFromInside(
    packet: Packet,
    ip: Ipv6,
    port: number,
    remotePort: number,
    context: StageContext,
  ): number {
    const { protocol } = ip;
    const flags = flagsOf(packet, ip);
    if (handOverToOwner(packet, port, Direction.Outbound, context)) return -1;
    const { flows, now } = this.#worker;
    const key = fillKey(this.#key, protocol, this.#four.dst, port, remotePort);
    readWords(packet, ip.start + IPV6_SRC, key.words, 1);
    let session = flows.sessions.find(key, now);
    if (session < 0) {
      if (protocol === Protocol.Tcp && (flags & OPENING) !== Tcp.Syn) {
        return refuse(packet, Nat64Drop.NoSession, context);
      }
      session = flows.open(key, this.#poolOf(key.words), true, now);
      if (session < 0) return refuse(packet, Nat64Drop.NoPort, context);
      this.#worker.watch(context);
    }
    flows.note(session, protocol, true, flags, now);
    this.#four.src = flows.outside[flows.outsideOf(session)]!;
    this.#idStart = flows.idStartOf(session);
    return session;
  }

  /** Finds or opens the session of a packet from outside; -1 when the packet was dropped or handed over. */
  #openFromOutside(
    packet: Packet,
    ip: Ipv4,
    port: number,
    remotePort: number,
    context: StageContext,
  ): number {
    const protocol = ip.protocol === Protocol.Icmp ? Protocol.Icmpv6 : ip.protocol;
    const flags = flagsOf(packet, ip);
    if (handOverToOwner(packet, port, context.direction, context)) return -1;
    const { flows, now } = this.#worker;
    const outside = flows.indexOf(ip.dst);
    const binding = flows.bindingAt(protocol, outside, port);
    if (binding < 0) return refuse(packet, Nat64Drop.NoMapping, context);
    const key = fillKey(this.#key, protocol, ip.src, flows.insidePortOf(binding), remotePort);
    flows.readInside(binding, key.words);
    let session = flows.sessions.find(key, now);
    if (session < 0) {
      if (protocol === Protocol.Icmpv6) return refuse(packet, Nat64Drop.NoMapping, context);
      if (!this.#isOpen && !flows.knows(key)) return refuse(packet, Nat64Drop.Filtered, context);
      if (protocol === Protocol.Tcp && (flags & OPENING) !== Tcp.Syn) {
        return refuse(packet, Nat64Drop.NoSession, context);
      }
      session = flows.open(key, outside, false, now);
      if (session < 0) return refuse(packet, Nat64Drop.NoPort, context);
    }
    flows.note(session, protocol, false, flags, now);
    return session;
  }

  /** Returns both ports in one word; -1 when the packet was dropped. */
  #portsOf(packet: Packet, ip: Ip, context: StageContext): number {
    const minLength = ip.protocol === Protocol.Tcp ? TCP_HEADER : PORTS_HEADER;
    if (ip.payloadLength < minLength) return refuse(packet, Untranslatable.Malformed, context);
    return packet.view.getUint32(ip.payloadOffset);
  }

  /** Records the address of later fragments. */
  #noteFirst(ip: Ip, context: StageContext): void {
    this.#fragments.note(ip, this.#worker.now);
    this.#worker.watch(context);
  }

  #exceeded(packet: Packet, context: StageContext): false {
    if (this.#errors === undefined) context.drop(packet, Nat64Drop.TtlExceeded);
    else this.#errors.answer(packet, IcmpError.TimeExceeded, context, Nat64Drop.TtlExceeded);
    return false;
  }

  /** Index of the outside address that an inside address always gets. */
  #poolOf(words: Uint32Array): number {
    const mixed = Math.imul(words[1]! ^ words[2]! ^ words[3]! ^ words[4]!, 0x9e3779b1);
    return (mixed >>> 16) % this.#worker.flows.outside.length;
  }

  /** Takes an identification for a packet of the current session, one per segment; unique across workers. */
  #nextId({ segmentSize, length }: Packet): number {
    const { index, count } = this.#worker.place;
    const taken = segmentSize > 0 ? Math.ceil(length / segmentSize) : 1;
    return this.#ids.next(this.#idStart, taken) * count + index & 0xffff;
  }
}

function refuse(packet: Packet, reason: Nat64Drop | Untranslatable, context: StageContext): -1 {
  context.drop(packet, reason);
  return -1;
}

/** Reports whether a packet is IPv4, routers may fragment it, and it exceeds the minimum IPv6 MTU after translation. */
function mayBeFragmented(packet: Packet): boolean {
  const { view, offset, length } = packet;
  return length > MAX_IPV4_LENGTH && versionOf(packet) === 4 &&
    (view.getUint16(offset + IPV4_FLAGS) & DONT_FRAGMENT) === 0;
}

function flagsOf({ bytes }: Packet, { protocol, payloadOffset }: Ip): number {
  return protocol === Protocol.Tcp ? bytes[payloadOffset + TCP_FLAGS_BYTE]! : 0;
}

/** Sets a port, and adjusts the checksum. */
function setWord(packet: Packet, ip: Ip, at: number, value: number): void {
  const { view } = packet;
  const before = view.getUint16(at);
  if (before === value) return;
  view.setUint16(at, value);
  const { payloadOffset: upper, payloadLength, protocol } = ip;
  adjustTransport(packet, upper, upper + payloadLength, protocol, difference(before, value));
}

/** Reports whether the IPv6 address at `at` is that of a host, and not link-local. */
function isHost({ view }: Packet, at: number): boolean {
  return isUnicast6(view, at) && view.getUint32(at) >>> 22 !== 0x3fa;
}
