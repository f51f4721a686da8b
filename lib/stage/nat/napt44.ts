/**
 * NAPT44: translation of IPv4 addresses and ports.
 *
 *     outbound   10.9.0.5:5000 > 192.0.2.1:53  ─► session, mapping ─► 198.51.100.1:5000 > 192.0.2.1:53
 *     inbound    10.9.0.5:5000 < 192.0.2.1:53  ◄─ filter, session, mapping ◄─ 198.51.100.1:5000 < 192.0.2.1:53
 *     hairpin    10.9.0.5:5000 > 198.51.100.1:6000  ─► outbound ─► inbound ─► 198.51.100.1:5000 > 10.9.0.6:6000
 *
 * An ICMP error takes the path of the packet that it quotes, backwards: see `_napt_errors.ts`.
 */

import type { Prefix } from "../../wire/address.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Protocol } from "../../wire/protocol.ts";
import { handOverToOwner, NatWorker } from "../../table/worker_ports.ts";
import { Fragments } from "./_fragments.ts";
import { ipv4Of } from "./_headers.ts";
import { NaptDrop } from "./_napt_drop.ts";
import { translateErrorInbound, translateErrorOutbound } from "./_napt_errors.ts";
import { NaptFlows } from "./_napt_flows.ts";
import { type CheckedNaptOptions, checkNaptOptions, type Napt44Options } from "./_napt_options.ts";
import { checkState, type SavedState } from "./_napt_state.ts";
import { type NaptTable, NoSession, Seen } from "./_napt_table.ts";
import { Ports } from "./_port_fields.ts";
import { drop } from "../../core/drop.ts";
import { FragmentIds } from "../../split/fragment_ids.ts";
import { isQuery, isReply } from "../../wire/icmp_query.ts";

/**
 * NAPT44: many inside hosts share a few outside IPv4 addresses (RFC 4787, RFC 5382, RFC 5508).
 *
 * **Outbound**: rewrites the source of TCP, UDP and ICMP queries from `inside`; keeps the port if it is free. Hairpins.
 * **Inbound**: rewrites the destination back if the filter admits the sender; other destinations pass (`unmatched`).
 * **Options**: {@linkcode Napt44Options}. **Counters**: `flows`, `mappings`. **Drops**: {@linkcode NaptDrop}.
 * **Memory**: 1.5 MiB per outside address, up to 0.9 KiB per flow of `capacity`; a full table evicts the longest idle flow,
 * first of hosts beyond their share.
 * **Workers**: worker `(port >>> 1) % count` owns an inside port; packets that reach another worker are handed over.
 * **Limits**: no GRE, ESP or SCTP; no ALGs (FTP, SIP); at most 64 early fragments wait, for one second. Inbound ICMP
 * queries are dropped, including those to the NAT's own address. Spoofed inside sources from outside pass: add a firewall.
 *
 * @example A packet leaves with the outside address
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv4 } from "@warren/tunnel/address";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Napt44 } from "@warren/tunnel/nat";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const nat = new Napt44({ outside: "198.51.100.1", inside: "10.9.0.0/24" }); // tunnel.use(nat)
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(packet, { src: parseIpv4("10.9.0.5"), dst: parseIpv4("192.0.2.1"), protocol: 17 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * const context = { now: 0, worker: { index: 0, count: 1 }, wake() {} } as StageContext;
 * nat.outbound(batch, context);
 * const udp = Udp.of(packet)!;
 * assert.equal(`${udp.ip.srcText}:${udp.srcPort}`, "198.51.100.1:5000");
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
  readonly #worker: NatWorker<NaptFlows, SavedState>;

  /**
   * A NAT without flows.
   *
   * @throws {SyntaxError} when an address, prefix or range of ports does not parse.
   * @throws {RangeError} when a number is out of range, or there are more than 64 outside addresses.
   * @throws {TypeError} when there is none, an address is not IPv4, or `filtering` or `unmatched` is unknown.
   */
  constructor(options: Napt44Options) {
    this.#options = checkNaptOptions(options);
    this.#outside = this.#options.outside;
    this.#inside = this.#options.inside;
    this.#fragments = new Fragments(this.#options.fragments);
    this.#ids = new FragmentIds([this.#options.random(), this.#options.random()]);
    this.#key.length = 4;
    this.#worker = new NatWorker((place) => new NaptFlows(this.#options, place));
  }

  /** Flows, each between an inside and a remote endpoint. */
  get flows(): number {
    return this.#worker.flows.size;
  }

  /** Inside endpoints that have an outside port now, without those of forwarded ports. */
  get mappings(): number {
    return this.#worker.flows.mappings;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { flows: this.flows, mappings: this.mappings };
  }

  /** Translates the sources of packets from inside. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = ipv4Of(packet, context);
      if (ip !== undefined && this.#isInside(ip.src) && this.#translateOutbound(packet, ip, context)) {
        this.#hairpin(packet, ip, context);
      }
    }
  }

  /** Translates the destinations of packets from outside. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = ipv4Of(packet, context);
      if (ip === undefined) continue;
      const address = this.#addressOf(ip.dst);
      if (address >= 0) this.#translateInbound(packet, ip, address, context);
      else if (this.#options.unmatched === "drop") context.drop(packet, NaptDrop.NotInside);
    }
  }

  /** Emits fragments whose first one has arrived, drops those that have waited too long, and removes idle flows. */
  tick(context: StageContext): number | undefined {
    this.#begin(context);
    this.#release(Direction.Outbound, context);
    this.#release(Direction.Inbound, context);
    const { now } = context;
    while (this.#fragments.due(now) === 0) {
      context.drop(this.#fragments.take(0), NaptDrop.FragmentWithoutFirst);
    }
    return this.#worker.tick(this.#fragments.due(now));
  }

  /** Flows of this worker, for {@linkcode Napt44.restore}. */
  save(): unknown {
    return this.#worker.save();
  }

  /**
   * Replaces all flows by those that {@linkcode Napt44.save} returned; idle times continue. Flows whose outside address or
   * port is no longer available are left out.
   *
   * @throws {TypeError} when the state does not come from {@linkcode Napt44.save}.
   */
  restore(state: unknown): void {
    this.#worker.restore(checkState(state));
  }

  /** Starts every call; removes some idle flows. */
  #begin(context: StageContext): void {
    this.#worker.begin(context);
    this.#worker.flows.expire(context.now);
  }

  /** Translates the source of a packet; returns whether it goes on from here. */
  #translateOutbound(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    // Padding might reveal data of other hosts.
    packet.length = ip.totalLength;
    const { protocol } = ip;
    if (ip.fragmentOffset !== 0) return this.#translateFragment(packet, ip, Direction.Outbound, context);
    const { flows, now } = this.#worker;
    const table = flows.of(protocol);
    if (table === undefined) return drop(packet, NaptDrop.Protocol, context);
    const ports = this.#ports;
    if (!ports.read(ip)) return drop(packet, NaptDrop.Malformed, context);
    if (protocol === Protocol.Icmp && !isQuery(4, ports.type) && !isReply(4, ports.type)) {
      return translateErrorOutbound(packet, flows, context);
    }
    const port = ports.src;
    if (handOverToOwner(packet, port, Direction.Outbound, context)) return false;
    const key = this.#fill(protocol, ip.src, ip.dst, port, ports.dst);
    let session = table.sessions.find(key, now);
    if (session < 0) {
      if (protocol === Protocol.Icmp && isReply(4, ports.type)) {
        return drop(packet, NaptDrop.NoMapping, context);
      }
      session = table.open(key, this.#poolOf(ip.src), now);
      if (session === NoSession.NoPort) return drop(packet, NaptDrop.NoPort, context);
      if (session === NoSession.TooMany) return drop(packet, NaptDrop.TooManyFlows, context);
      this.#worker.watch(context);
    }
    table.note(session, Seen.Outbound, ports.flags, now);
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

  /** Translates the destination of a packet to an outside address; returns whether it goes on from here. */
  #translateInbound(packet: Packet, ip: Ipv4, address: number, context: StageContext): boolean {
    const { protocol } = ip;
    if (ip.fragmentOffset !== 0) return this.#translateFragment(packet, ip, Direction.Inbound, context);
    const { flows, now } = this.#worker;
    const table = flows.of(protocol);
    if (table === undefined) return drop(packet, NaptDrop.Protocol, context);
    const ports = this.#ports;
    if (!ports.read(ip)) return drop(packet, NaptDrop.Malformed, context);
    if (protocol === Protocol.Icmp && !isReply(4, ports.type)) {
      if (isQuery(4, ports.type)) return drop(packet, NaptDrop.NoMapping, context);
      return translateErrorInbound(packet, address, flows, context);
    }
    const port = ports.dst;
    if (!flows.findInside(packet, table, address, port, context)) return false;
    const { inside, insidePort, forward } = flows;
    const { src } = ip;
    const remotePort = protocol === Protocol.Icmp ? insidePort : ports.src;
    const key = this.#fill(protocol, inside, src, insidePort, remotePort);
    let session = table.sessions.find(key, now);
    if (session < 0 && forward !== undefined) {
      session = table.accept(key, address, port, now);
      this.#worker.watch(context);
    }
    if (session >= 0) {
      if (table.address[session] !== address || table.port[session] !== port) {
        return drop(packet, NaptDrop.MappingConflict, context);
      }
      table.note(session, Seen.Inbound, ports.flags, now);
    } else if (!this.#admits(table, inside, insidePort, src)) return drop(packet, NaptDrop.Filtered, context);
    if (ip.moreFragments) this.#noteFirst(ip, Direction.Inbound, inside, ip.id, context);
    ip.dst = inside;
    ports.setDst(ip, insidePort);
    return true;
  }

  /** Hairpins a packet to an outside address; returns whether it is one. */
  #hairpin(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    const address = this.#addressOf(ip.dst);
    if (address < 0) return false;
    if (this.#translateInbound(packet, ip, address, context)) context.emit(packet, Direction.Inbound);
    return true;
  }

  /** Translates a later fragment like its first one; an early one waits (RFC 4787 REQ-14). */
  #translateFragment(packet: Packet, ip: Ipv4, direction: Direction, context: StageContext): boolean {
    const address = this.#fragments.find(ip, direction, this.#worker.now);
    if (address < 0) {
      if (!this.#fragments.keep(packet, ip, direction, this.#worker.now)) {
        return drop(packet, NaptDrop.FragmentWithoutFirst, context);
      }
      context.hold(packet);
      this.#worker.watch(context);
      return false;
    }
    ip.id = this.#fragments.id;
    if (direction === Direction.Outbound) ip.src = address;
    else ip.dst = address;
    return true;
  }

  /** Records the translation of a first fragment. Early fragments follow it at the next tick. */
  #noteFirst(ip: Ipv4, direction: Direction, address: number, id: number, context: StageContext): void {
    this.#fragments.note(ip, direction, address, id, this.#worker.now);
    if (this.#fragments.waiting > 0) context.wake();
  }

  /** Returns a new identification for a fragmented packet (RFC 6864 section 5.3.1), unique across workers. */
  #nextId(outside: number, { dst, protocol }: Ipv4): number {
    const { index, count } = this.#worker.place;
    return this.#ids.next(this.#ids.startOfIpv4(outside, dst, protocol)) * count + index & 0xffff;
  }

  /** Emits early fragments whose first one has been translated. */
  #release(direction: Direction, context: StageContext): void {
    const fragments = this.#fragments;
    for (;;) {
      const place = fragments.findReady(direction, this.#worker.now);
      if (place < 0) return;
      const packet = fragments.take(place);
      const later = Ipv4.of(packet)!;
      this.#translateFragment(packet, later, direction, context);
      if (direction === Direction.Outbound && this.#hairpin(packet, later, context)) continue;
      context.emit(packet, direction);
    }
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

  #isInside(address: number): boolean {
    const inside = this.#inside;
    for (let i = 0; i < inside.length; i++) if (inside[i]!.containsIpv4(address)) return true;
    return false;
  }

  /** Index of an outside address; -1 for none. */
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

  /** Index of the outside address that an inside address always gets (RFC 4787 REQ-2). */
  #poolOf(inside: number): number {
    return (Math.imul(inside, 0x9e3779b1) >>> 16) % this.#outside.length;
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
