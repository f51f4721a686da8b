/**
 * Many inside hosts behind few outside addresses: NAT of IPv4 addresses and ports.
 *
 *     outbound   10.9.0.5:5000 > 192.0.2.1:53  ─► session, mapping ─► 198.51.100.1:5000 > 192.0.2.1:53
 *     inbound    10.9.0.5:5000 < 192.0.2.1:53  ◄─ filter, session, mapping ◄─ 198.51.100.1:5000 < 192.0.2.1:53
 *     hairpin    10.9.0.5:5000 > 198.51.100.1:6000  ─► outbound ─► inbound ─► 198.51.100.1:5000 > 10.9.0.6:6000
 *
 * An ICMP error goes the way of the packet that it quotes, backwards.
 */

import { DST_PORT, IPV4_DST, IPV4_SRC, SRC_PORT } from "../../wire/header_fields.ts";
import type { Prefix } from "../../wire/address.ts";
import {
  Direction,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
  type WorkerPlace,
} from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { versionOf } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Fragments } from "./_fragments.ts";
import {
  type CheckedNaptOptions,
  checkNaptOptions,
  type Forward,
  type Napt44Options,
} from "./_napt_options.ts";
import { checkState, type SavedState, stateOf } from "./_napt_state.ts";
import { Hosts, NaptTable, Refusal, Seen } from "./_napt_table.ts";
import { Ports } from "./_ports.ts";
import { setQuoted } from "./_quoted.ts";
import { drop } from "../../core/drop.ts";
import { FragmentIds } from "../../split/fragment_ids.ts";
import { isQuery, isReply } from "../../wire/icmp_query.ts";

// Implementation
/** How often idle flows are looked for while there are any (ms). */
const EXPIRY = 1000;
const EXPIRY_LIMIT = 1024;
const ALONE: WorkerPlace = { index: 0, count: 1 };
const PORTS = 65_536;

/**
 * NAT of IPv4 addresses and ports with endpoint-independent mapping (RFC 4787, RFC 5382, RFC 5508): an inside address
 * and port is one outside address and port, whomever it talks to.
 *
 * **Outbound**: a packet of TCP, UDP or an ICMP query from an inside source gets an outside address, and its own port
 * when that is free, else one of the same parity and privilege. An inside host has one outside address for everything.
 * What goes to an outside address turns round to the inside host behind it, with its source translated, too. ICMP
 * errors are translated with what they quote. Sources that are not inside, and IPv6, pass.
 *
 * **Inbound**: a packet for an outside address goes to the inside host that has the port, if the filter lets it.
 * Packets for other addresses pass, as in Linux, whose masquerading is no firewall; `unmatched: "drop"` drops them.
 *
 * **Options**: see {@linkcode Napt44Options}; only `outside` is needed. The filter is address-dependent unless said
 * otherwise: peers that both send reach each other, strangers do not (RFC 4787 REQ-8 leaves the choice between that and
 * transparency to all). Forwarded ports let everybody in.
 *
 * **Counters**: {@linkcode Napt44.flows} and {@linkcode Napt44.mappings}. Drops are counted as `no mapping`, `filtered`,
 * `not inside` (a packet for elsewhere, if those are dropped), `no port`, `too many flows`, `mapping conflict` (a remote
 * port that reaches one inside port through two outside ones), `protocol not translated`, `redirect`, `fragment without
 * its first`, `malformed`.
 *
 * State is made by packets from inside, and by those to forwarded ports; what comes from outside to a mapping makes
 * none, and an ICMP error keeps none alive. It takes 1.5 MiB an outside address, and up to 0.9 KiB for each of `capacity`.
 *
 * **Shares**: a host may have everything while nobody else needs it. What it opens beyond an eighth of the flows or ports
 * of a protocol is surplus. Room for a new flow comes first from flows that were opened from outside and whose sender has not
 * followed up on an answer, then from surplus ones, then from those that are not established, then from the others; among
 * equals from the one that has been idle for longest. `flowsPerHost` is a fixed limit on what an inside host opens.
 *
 * In several workers, a mapping belongs to worker `(port >>> 1) % count` by its inside port, and gets a port of which
 * the same is true; what comes to another worker is handed over.
 *
 * **Limits**: other protocols, such as GRE, ESP and SCTP, are dropped: without ports, two inside hosts could not be
 * told apart. Of later fragments that overtake their first one, 64 wait for a second, 16 of them from one source and 48 of one direction; the first
 * one must come to the same worker. What leaves in fragments gets another identification (RFC 6864 section 5.3.1); what a
 * router fragments later keeps its sender's. Addresses in payloads and in IP options are not looked for; there are no helpers for FTP, SIP and their like. Packets from outside that say that they
 * come from inside, or from an outside address, pass: a firewall keeps them out. ICMP queries from outside are dropped,
 * those to an outside address, too: nobody has it.
 *
 * @example Three outside addresses, and a web server inside
 * ```ts
 * import assert from "node:assert/strict";
 * import { Napt44 } from "@warren/tunnel/nat";
 *
 * const nat = new Napt44({
 *   outside: ["198.51.100.1", "198.51.100.8/31"],
 *   inside: "10.9.0.0/24",
 *   forwards: [{ protocol: "tcp", port: 80, to: "10.9.0.5:8080" }],
 * });
 * assert.equal(nat.flows, 0); // then: tunnel.use(nat)
 * ```
 */
export class Napt44 implements Stage {
  /** `napt44`. */
  readonly name = "napt44";

  readonly #options: CheckedNaptOptions;
  readonly #outside: Uint32Array;
  readonly #inside: readonly Prefix[];
  readonly #key = new FlowKey();
  readonly #ports = new Ports();
  readonly #fragments: Fragments;
  readonly #ids: FragmentIds;
  /** Who has the outside port of the packet at hand. */
  readonly #behind: { inside: number; insidePort: number; forward: Forward | undefined } = {
    inside: 0,
    insidePort: 0,
    forward: undefined,
  };
  #worker = ALONE;
  #tcp: NaptTable;
  #udp: NaptTable;
  #icmp: NaptTable;
  #now = 0;
  #started = false;
  #isTicking = false;
  #restored: SavedState | undefined;

  /**
   * A NAT without flows.
   *
   * @throws {SyntaxError} when an address, prefix or range of ports does not parse.
   * @throws {RangeError} when a number is out of its range, or there are more than 64 outside addresses.
   * @throws {TypeError} when there is none, an address is not IPv4, or a choice is not one of those that there are.
   */
  constructor(options: Napt44Options) {
    this.#options = checkNaptOptions(options);
    this.#outside = this.#options.outside;
    this.#inside = this.#options.inside;
    this.#fragments = new Fragments(this.#options.fragments);
    this.#ids = new FragmentIds([this.#options.random(), this.#options.random()]);
    this.#key.length = 4;
    [this.#tcp, this.#udp, this.#icmp] = this.#tables(ALONE);
  }

  /** How many flows are known: inside endpoint and remote endpoint. */
  get flows(): number {
    return this.#tcp.sessions.size + this.#udp.sessions.size + this.#icmp.sessions.size;
  }

  /** How many inside endpoints have an outside port now; those of forwarded ports do not count. */
  get mappings(): number {
    return this.#tcp.mappings + this.#udp.mappings + this.#icmp.mappings;
  }

  /** Translates the sources of packets from inside. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 6) continue;
      const ip = Ipv4.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else if (this.#isInside(ip.src) && this.#translateOutbound(packet, ip, context)) {
        this.#turn(packet, ip, context);
      }
    }
  }

  /** Translates the destinations of packets from outside. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 6) continue;
      const ip = Ipv4.of(packet);
      if (ip === undefined) {
        context.drop(packet, "malformed");
        continue;
      }
      const address = this.#addressOf(ip.dst);
      if (address >= 0) this.#translateInbound(packet, ip, address, context);
      else if (this.#options.unmatched === "drop") context.drop(packet, "not inside");
    }
  }

  /** Sends on fragments whose first one has come; forgets idle flows, and fragments that have waited for too long. */
  tick(context: StageContext): number | undefined {
    this.#begin(context);
    this.#release(Direction.Outbound, context);
    this.#release(Direction.Inbound, context);
    while (this.#fragments.findLate(this.#now) >= 0) {
      context.drop(this.#fragments.take(0), "fragment without its first");
    }
    if (this.#expire()) return 0;
    this.#isTicking = this.flows > 0 || this.#fragments.waiting > 0;
    return this.#isTicking ? Math.min(EXPIRY, this.#fragments.due(this.#now)) : undefined;
  }

  /** All flows, for {@linkcode Napt44.restore}: of this worker alone. */
  save(): unknown {
    if (this.#restored !== undefined) return this.#restored;
    const flows = (table: NaptTable) => Array.from(table.save(this.#outside, this.#now));
    return stateOf(flows(this.#tcp), flows(this.#udp), flows(this.#icmp));
  }

  /**
   * Takes over what {@linkcode Napt44.save} gave, in place of all flows that there are. Flows whose outside address or
   * port is no longer to be had are left out; their idle time goes on where it stood.
   *
   * @throws {TypeError} when it is something else.
   */
  restore(state: unknown): void {
    this.#restored = checkState(state);
    this.#started = false;
  }

  #tables(worker: WorkerPlace): [NaptTable, NaptTable, NaptTable] {
    const hosts = new Hosts(this.#options);
    const make = (protocol: number) => new NaptTable(protocol, this.#options, hosts, worker);
    return [make(Protocol.Tcp), make(Protocol.Udp), make(Protocol.Icmp)];
  }

  /** What every call starts with: the time, and at first what had to wait for it and for the worker's place. */
  #begin(context: StageContext): void {
    const { now, worker } = context;
    this.#now = now;
    if (this.#started) return void this.#expire();
    this.#started = true;
    if (this.#restored === undefined && worker.count === 1) return;
    this.#worker = worker;
    [this.#tcp, this.#udp, this.#icmp] = this.#tables(worker);
    if (this.#restored === undefined) return;
    for (const name of ["tcp", "udp", "icmp"] as const) {
      const table = { tcp: this.#tcp, udp: this.#udp, icmp: this.#icmp }[name];
      for (const flow of this.#restored[name]) {
        const address = this.#addressOf(flow[4]);
        const isOurs = address >= 0 && this.#ownerOf(flow[1]) === worker.index;
        if (isOurs) table.restore(flow, address, now);
      }
    }
    this.#restored = undefined;
    this.#watch(context);
  }

  /** Has ticks come while there are flows. */
  #watch(context: StageContext): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    context.wake();
  }

  /** Forgets some idle flows; returns whether there may be more. */
  #expire(): boolean {
    const tcp = this.#tcp.sessions.expire(this.#now);
    const udp = this.#udp.sessions.expire(this.#now);
    const icmp = this.#icmp.sessions.expire(this.#now);
    return tcp === EXPIRY_LIMIT || udp === EXPIRY_LIMIT || icmp === EXPIRY_LIMIT;
  }

  /** Translates the source of a packet; returns whether it goes on from here. */
  #translateOutbound(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    // Padding may tell of anybody.
    packet.length = ip.totalLength;
    const { protocol } = ip;
    if (ip.fragmentOffset !== 0) return this.#translateFragment(packet, ip, Direction.Outbound, context);
    const table = this.#tableOf(protocol);
    if (table === undefined) return drop(packet, "protocol not translated", context);
    const ports = this.#ports;
    if (!ports.read(ip)) return drop(packet, "malformed", context);
    if (protocol === Protocol.Icmp && !isQuery(4, ports.type) && !isReply(4, ports.type)) {
      return this.#translateErrorOutbound(packet, context);
    }
    const port = ports.src;
    const owner = this.#ownerOf(port);
    if (owner !== this.#worker.index) {
      context.handOver(packet, owner, Direction.Outbound);
      return false;
    }
    const key = this.#fill(protocol, ip.src, ip.dst, port, ports.dst);
    let session = table.sessions.find(key, this.#now);
    if (session < 0) {
      if (protocol === Protocol.Icmp && isReply(4, ports.type)) return drop(packet, "no mapping", context);
      session = table.open(key, this.#poolOf(ip.src), this.#now);
      if (session === Refusal.NoPort) return drop(packet, "no port", context);
      if (session === Refusal.TooMany) return drop(packet, "too many flows", context);
      this.#watch(context);
    }
    table.note(session, Seen.Outbound, ports.flags, this.#now);
    const address = this.#outside[table.address[session]!]!;
    if (ip.moreFragments) {
      const id = this.#nextId(address, ip);
      this.#noteFirst(ip, Direction.Outbound, address, id, context);
      ip.id = id;
    }
    ip.src = address;
    ports.setSrc(ip, table.port[session]!);
    return true;
  }

  /** Translates the destination, an outside address, of a packet; returns whether it goes on from here. */
  #translateInbound(packet: Packet, ip: Ipv4, address: number, context: StageContext): boolean {
    const { protocol } = ip;
    if (ip.fragmentOffset !== 0) return this.#translateFragment(packet, ip, Direction.Inbound, context);
    const table = this.#tableOf(protocol);
    if (table === undefined) return drop(packet, "protocol not translated", context);
    const ports = this.#ports;
    if (!ports.read(ip)) return drop(packet, "malformed", context);
    if (protocol === Protocol.Icmp && !isReply(4, ports.type)) {
      if (isQuery(4, ports.type)) return drop(packet, "no mapping", context);
      return this.#translateErrorInbound(packet, address, context);
    }
    const port = ports.dst;
    if (!this.#findInside(packet, table, address, port, context)) return false;
    const { inside, insidePort, forward } = this.#behind;
    const { src } = ip;
    const remotePort = protocol === Protocol.Icmp ? insidePort : ports.src;
    const key = this.#fill(protocol, inside, src, insidePort, remotePort);
    let session = table.sessions.find(key, this.#now);
    if (session < 0 && forward !== undefined) {
      session = table.accept(key, address, port, this.#now);
      this.#watch(context);
    }
    if (session >= 0) {
      if (table.address[session] !== address || table.port[session] !== port) {
        return drop(packet, "mapping conflict", context);
      }
      table.note(session, Seen.Inbound, ports.flags, this.#now);
    } else if (!this.#admits(table, inside, insidePort, src)) return drop(packet, "filtered", context);
    if (ip.moreFragments) this.#noteFirst(ip, Direction.Inbound, inside, ip.id, context);
    ip.dst = inside;
    ports.setDst(ip, insidePort);
    return true;
  }

  /** Finds who has an outside port, for `#behind`; returns whether it is somebody of this worker's. */
  #findInside(
    packet: Packet,
    table: NaptTable,
    address: number,
    port: number,
    context: StageContext,
  ): boolean {
    const behind = this.#behind;
    const entry = table.entry(address, port);
    const forward = entry < 0 ? table.forward(entry) : undefined;
    behind.forward = forward;
    behind.insidePort = forward === undefined
      ? entry === 0 ? port : table.insidePort[entry - 1]!
      : forward.insidePort + port - forward.firstPort;
    const owner = this.#ownerOf(behind.insidePort);
    if (owner !== this.#worker.index) {
      context.handOver(packet, owner, Direction.Inbound);
      return false;
    }
    if (entry === 0) return drop(packet, "no mapping", context);
    behind.inside = forward === undefined ? table.insideAddress[entry - 1]! : forward.inside;
    return true;
  }

  /** Turns a packet round that goes to an outside address; returns whether it does. */
  #turn(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    const address = this.#addressOf(ip.dst);
    if (address < 0) return false;
    if (this.#translateInbound(packet, ip, address, context)) context.emit(packet, Direction.Inbound);
    return true;
  }

  /** Gives a later fragment the address of its first one; one that has overtaken it waits (RFC 4787 REQ-14). */
  #translateFragment(packet: Packet, ip: Ipv4, direction: Direction, context: StageContext): boolean {
    const address = this.#fragments.find(ip, direction, this.#now);
    if (address < 0) {
      if (!this.#fragments.keep(packet, ip, direction, this.#now)) {
        return drop(packet, "fragment without its first", context);
      }
      context.hold(packet);
      this.#watch(context);
      return false;
    }
    ip.id = this.#fragments.id;
    if (direction === Direction.Outbound) ip.src = address;
    else ip.dst = address;
    return true;
  }

  /** Remembers what a first fragment gets. Those that have waited for it follow at the next tick, behind it. */
  #noteFirst(ip: Ipv4, direction: Direction, address: number, id: number, context: StageContext): void {
    this.#fragments.note(ip, direction, address, id, this.#now);
    if (this.#fragments.waiting > 0) context.wake();
  }

  /** An identification for a fragmented packet from an outside address (RFC 6864 section 5.3.1); workers have different ones. */
  #nextId(outside: number, { dst, protocol }: Ipv4): number {
    const { index, count } = this.#worker;
    return this.#ids.next(this.#ids.startOfIpv4(outside, dst, protocol)) * count + index & 0xffff;
  }

  /** Sends on fragments whose first one has gone. */
  #release(direction: Direction, context: StageContext): void {
    const fragments = this.#fragments;
    for (;;) {
      const place = fragments.findReady(direction, this.#now);
      if (place < 0) return;
      const packet = fragments.take(place);
      const later = Ipv4.of(packet)!;
      this.#translateFragment(packet, later, direction, context);
      if (direction === Direction.Outbound && this.#turn(packet, later, context)) continue;
      context.emit(packet, direction);
    }
  }

  /** RFC 5508 section 4.2: an error from inside, about a packet that came from outside. */
  #translateErrorOutbound(packet: Packet, context: StageContext): boolean {
    const icmp = Icmpv4.of(packet)!;
    const table = this.#readQuoted(packet, icmp, context);
    if (table === undefined) return false;
    const key = this.#key;
    key.reverse();
    const inside = key.words[1]!;
    const insidePort = key.srcPort;
    const owner = this.#ownerOf(insidePort);
    if (owner !== this.#worker.index) {
      context.handOver(packet, owner, Direction.Outbound);
      return false;
    }
    const session = table.sessions.find(key, this.#now);
    const place = session >= 0
      ? table.address[session]! * PORTS + table.port[session]!
      : table.placeOf(inside, insidePort);
    if (place < 0) return drop(packet, "no mapping", context);
    const address = this.#outside[place / PORTS | 0]!;
    setQuoted(icmp, IPV4_DST, address, DST_PORT, place % PORTS);
    icmp.ip.src = address;
    return true;
  }

  /** RFC 5508 section 4.1: an error from outside, about a packet that went there. */
  #translateErrorInbound(packet: Packet, address: number, context: StageContext): boolean {
    const icmp = Icmpv4.of(packet)!;
    const table = this.#readQuoted(packet, icmp, context);
    if (table === undefined) return false;
    const key = this.#key;
    if (key.words[1] !== icmp.ip.dst) return drop(packet, "no mapping", context);
    const port = key.srcPort;
    if (!this.#findInside(packet, table, address, port, context)) return false;
    const { inside, insidePort } = this.#behind;
    const remotePort = table === this.#icmp ? insidePort : key.dstPort;
    const session = table.sessions.find(
      this.#fill(table.protocol, inside, key.words[2]!, insidePort, remotePort),
      this.#now,
    );
    if (session < 0 || table.address[session] !== address || table.port[session] !== port) {
      return drop(packet, "no mapping", context);
    }
    setQuoted(icmp, IPV4_SRC, inside, SRC_PORT, insidePort);
    icmp.ip.dst = inside;
    return true;
  }

  /** Reads the key of the packet that an error quotes; returns its table, or drops the error. */
  #readQuoted(packet: Packet, icmp: Icmpv4, context: StageContext): NaptTable | undefined {
    let reason = "malformed";
    if (icmp.quotedOffset < 0) reason = "protocol not translated";
    else if (icmp.type === Icmpv4.Redirect) reason = "redirect";
    else if (this.#key.read(packet) === FlowKind.Error && this.#key.version === 4) {
      const table = this.#tableOf(this.#key.protocol);
      if (table !== undefined && (table !== this.#icmp || isQuoteOfQuery(icmp))) return table;
      reason = "protocol not translated";
    }
    this.#key.length = 4;
    context.drop(packet, reason);
    return undefined;
  }

  #admits(table: NaptTable, inside: number, port: number, remote: number): boolean {
    switch (this.#options.filtering) {
      case "endpoint-independent":
        return true;
      case "address-dependent":
        return table.knows(inside, port, remote);
      case "address-and-port-dependent":
        return false;
    }
  }

  #tableOf(protocol: number): NaptTable | undefined {
    switch (protocol) {
      case Protocol.Tcp:
        return this.#tcp;
      case Protocol.Udp:
        return this.#udp;
      case Protocol.Icmp:
        return this.#icmp;
      default:
        return undefined;
    }
  }

  #isInside(address: number): boolean {
    const inside = this.#inside;
    for (let i = 0; i < inside.length; i++) if (inside[i]!.containsIpv4(address)) return true;
    return false;
  }

  /** Which of the outside addresses it is; -1 for none. */
  #addressOf(address: number): number {
    const outside = this.#outside;
    let low = 0;
    let high = outside.length - 1;
    while (low < high) {
      const middle = low + high + 1 >> 1;
      if (outside[middle]! <= address) low = middle;
      else high = middle - 1;
    }
    return outside[low] === address ? low : -1;
  }

  /** RFC 4787 REQ-2: which outside address an inside one has, always. */
  #poolOf(inside: number): number {
    return (Math.imul(inside, 0x9e3779b1) >>> 16) % this.#outside.length;
  }

  /** Which worker knows an inside port, and the outside port that it has: parity is no part of it. */
  #ownerOf(port: number): number {
    const { count } = this.#worker;
    return count === 1 ? 0 : (port >>> 1) % count;
  }

  #fill(protocol: number, inside: number, remote: number, insidePort: number, remotePort: number): FlowKey {
    const { words } = this.#key;
    words[0] = 4 << 8 | protocol;
    words[1] = inside;
    words[2] = remote;
    words[3] = insidePort << 16 | remotePort;
    return this.#key;
  }
}

/** Whether the ICMP message that an error quotes has an identifier; its header is there. */
function isQuoteOfQuery({ packet, quotedOffset }: Icmpv4): boolean {
  const { bytes } = packet;
  const type = bytes[quotedOffset + ((bytes[quotedOffset]! & 0x0f) << 2)]!;
  return isQuery(4, type) || isReply(4, type);
}
