/**
 * Flows of one protocol:
 *
 *     sessions    inside address and port, remote address and port ─► outside address and port, state
 *     mappings    inside address and port ◄─► outside address and port, as long as there are sessions
 *     index       outside address and port ─► mapping, or rule of a forwarded port
 */

import type { WorkerPlace } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { CountedKeys } from "../../table/counted_keys.ts";
import type { CheckedNaptOptions, Forward } from "./_napt_options.ts";
import { HostShares } from "../../table/host_shares.ts";
import { PortPool } from "../../table/port_pool.ts";
import { type NatPorts, takePort } from "../../table/port_taker.ts";
import { ownsPort } from "../../table/worker_ports.ts";

// Implementation
const PORTS = 65_536;
/** No mapping, contact or host. */
const NONE = -1;
/**
 * States of a flow. A surplus flow was opened by a host beyond its share. A foreign flow was opened from outside, and its
 * sender has not yet followed up on a reply: its address may be forged.
 */
const State = {
  ForeignSurplus: 0,
  Foreign: 1,
  Surplus: 2,
  SurplusEstablished: 3,
  Transitory: 4,
  Established: 5,
} as const;
/** By state: flows of a lower priority are evicted sooner. */
const EVICTION_PRIORITIES: readonly number[] = [0, 1, 2, 2, 3, 4];
/** States of flows whose port another flow may take, in that order. */
const GIVES_PORT: readonly number[] = [State.Surplus, State.SurplusEstablished, State.Transitory];
/** Directions of the packets seen of a flow, as shifts of the bits below. */
export const Seen = { Outbound: 0, Inbound: 1 } as const;
const OPENED = 1;
const FINISHED = 4;
const BOTH_OPENED = OPENED | OPENED << 1;
const BOTH_FINISHED = FINISHED | FINISHED << 1;

/** Results of {@linkcode NaptTable.open} without a session. */
export const NoSession = { NoPort: -1, TooMany: -2 } as const;

/** Flow as saved in JSON; `idle` in milliseconds. */
export type SavedFlow = [
  inside: number,
  insidePort: number,
  remote: number,
  remotePort: number,
  outside: number,
  outsidePort: number,
  seen: number,
  state: number,
  idle: number,
];

/** Number of flows that each inside address has opened, over all protocols; not counted without a limit. */
export class Hosts {
  readonly limit: number;
  readonly keys: CountedKeys | undefined;

  constructor({ flowsPerHost, capacity }: CheckedNaptOptions) {
    this.limit = flowsPerHost;
    this.keys = flowsPerHost === Infinity ? undefined : new CountedKeys(3 * capacity + 1);
  }
}

export class NaptTable {
  readonly protocol: number;
  /** Flows by the key of their outbound packets. */
  readonly sessions: FlowTable;
  /** By session: index of the outside address, and outside port. */
  readonly address: Uint8Array;
  readonly port: Uint16Array;
  /** By mapping: inside address and port. */
  readonly insideAddress: Uint32Array;
  readonly insidePort: Uint16Array;
  /** By outside address and port: 0 for none, mapping + 1, or -(forwarding rule + 1). */
  readonly index: Int32Array;

  readonly #isTcp: boolean;
  readonly #forwards: readonly Forward[];
  readonly #seen: Uint8Array;
  readonly #mapping: Int32Array;
  readonly #contact: Int32Array;
  readonly #host: Int32Array;
  readonly #mappings: CountedKeys;
  /** By mapping: its position in the index. */
  readonly #mappingAt: Uint32Array;
  readonly #contacts: CountedKeys | undefined;
  readonly #hosts: Hosts;
  readonly #shares: HostShares;
  /** By session: its entry in the shares; `NONE` for a surplus session. */
  readonly #share: Int32Array;
  readonly #pools: PortPool[];
  readonly #natPorts: NatPorts;
  readonly #key = new FlowKey();

  constructor(protocol: number, options: CheckedNaptOptions, hosts: Hosts, worker: WorkerPlace) {
    const { capacity, filtering, forwards, firstPort, lastPort, timeouts, outside } = options;
    this.protocol = protocol;
    this.#isTcp = protocol === Protocol.Tcp;
    this.#forwards = forwards.filter((forward) => forward.protocol === protocol);
    const [transitory, established] = {
      [Protocol.Tcp]: [timeouts.tcpTransitory, timeouts.tcpEstablished],
      [Protocol.Udp]: [timeouts.udp, timeouts.udp],
      [Protocol.Icmp]: [timeouts.icmp, timeouts.icmp],
    }[protocol] as [number, number];
    this.sessions = new FlowTable({
      timeouts: [transitory, transitory, transitory, established, transitory, established],
      evictionPriorities: EVICTION_PRIORITIES,
      capacity,
      forget: (session) => this.#forget(session),
    });
    this.#shares = new HostShares(Math.min(capacity, (lastPort - firstPort + 1) / worker.count), capacity);
    this.#share = new Int32Array(capacity);
    this.address = new Uint8Array(capacity);
    this.port = new Uint16Array(capacity);
    this.#seen = new Uint8Array(capacity);
    this.#mapping = new Int32Array(capacity);
    this.#contact = new Int32Array(capacity);
    this.#host = new Int32Array(capacity);
    // One more, because a new session takes its mapping and contact before it evicts another.
    this.#mappings = new CountedKeys(capacity + 1);
    this.insideAddress = new Uint32Array(capacity + 1);
    this.insidePort = new Uint16Array(capacity + 1);
    this.#mappingAt = new Uint32Array(capacity + 1);
    this.#contacts = filtering === "address-dependent" ? new CountedKeys(capacity + 1) : undefined;
    this.#hosts = hosts;
    this.index = new Int32Array(outside.length * PORTS);
    this.#pools = Array.from(outside, (_, address) => this.#createPool(address, firstPort, lastPort, worker));
    this.#natPorts = {
      flows: this.sessions,
      pools: this.#pools,
      givesPort: GIVES_PORT,
      firstWithinShare: State.Transitory,
      // A session of a forwarded port has no port to give.
      poolOf: (session) => this.#mapping[session]! < 0 ? NONE : this.address[session]!,
      random: options.random,
    };
    this.#key.length = 4;
  }

  /** Enters the forwarded ports of an outside address into the index; returns its other ports. */
  #createPool(address: number, firstPort: number, lastPort: number, worker: WorkerPlace): PortPool {
    const start = address * PORTS;
    this.#forwards.forEach((forward, i) => {
      if (forward.address >= 0 && forward.address !== address) return;
      this.index.fill(-(i + 1), start + forward.firstPort, start + forward.lastPort + 1);
    });
    return new PortPool((port) =>
      port >= firstPort && port <= lastPort && ownsPort(port, worker) && this.index[start + port] === 0
    );
  }

  /** Inside endpoints that have a mapping now. */
  get mappings(): number {
    return this.#mappings.size;
  }

  /** Entry of an outside address and port, see {@linkcode NaptTable.index}. */
  entry(address: number, port: number): number {
    return this.index[address * PORTS + port]!;
  }

  /** Forwarding rule of a negative {@linkcode NaptTable.entry}. */
  forward(entry: number): Forward {
    return this.#forwards[-entry - 1]!;
  }

  /**
   * Opens the session of an outbound packet by its key; `address` is the index of its host's outside address. Returns the
   * session, or one of {@linkcode NoSession}.
   */
  open(key: FlowKey, address: number, now: number): number {
    const inside = key.words[1]!;
    const insidePort = key.words[3]! >>> 16;
    if (this.#isTooMany(inside)) return NoSession.TooMany;
    const isSurplus = this.#shares.isUsed(this.#hostKey(inside));
    const mappingKey = this.#endpointKey(inside, insidePort);
    let mapping = this.#mappings.find(mappingKey);
    let port: number;
    if (mapping >= 0) {
      address = this.#mappingAt[mapping]! / PORTS | 0;
      port = this.#mappingAt[mapping]! % PORTS;
      this.#mappings.hold(mapping);
    } else {
      const forward = this.#forwardTo(inside, insidePort);
      if (forward !== undefined) {
        if (forward.address >= 0) address = forward.address;
        port = forward.firstPort + insidePort - forward.insidePort;
      } else {
        port = takePort(this.#natPorts, address, insidePort, isSurplus);
        if (port < 0) return NoSession.NoPort;
        mapping = this.#map(inside, insidePort, address, port);
      }
    }
    return this.#add(key, mapping, address, port, isSurplus ? State.Surplus : State.Transitory, true, now);
  }

  /** Opens the session of an inbound packet to a forwarded port, by the key of its replies. */
  accept(key: FlowKey, address: number, port: number, now: number): number {
    const isSurplus = this.#shares.isUsed(this.#remoteKey(key.words[2]!));
    return this.#add(key, NONE, address, port, isSurplus ? State.ForeignSurplus : State.Foreign, false, now);
  }

  /** Position in the index of an inside endpoint's mapping, for errors about packets without a session; -1 for none. */
  placeOf(inside: number, port: number): number {
    const mapping = this.#mappings.find(this.#endpointKey(inside, port));
    return mapping < 0 ? NONE : this.#mappingAt[mapping]!;
  }

  /** Reports whether an inside endpoint has a flow with this address; always `true` for a filter that admits any address. */
  knows(inside: number, port: number, remote: number): boolean {
    if (this.#contacts === undefined) return true;
    return this.#contacts.find(this.#contactKey(inside, port, remote)) >= 0;
  }

  /** Updates a session after a packet with these TCP flags; `way` is one of {@linkcode Seen}. */
  note(session: number, way: number, flags: number, now: number): void {
    let seen = this.#seen[session]!;
    const state = this.sessions.stateOf(session);
    let isEstablished = state === State.Established || state === State.SurplusEstablished;
    if (!this.#isTcp) {
      seen |= OPENED << way;
      isEstablished = seen === BOTH_OPENED;
    } else {
      // RFC 5382 section 5, RFC 7857 section 2: a reset closes the connection unless other packets follow it.
      if (
        (flags & (Tcp.Syn | Tcp.Ack)) === Tcp.Syn && !isEstablished && (seen & BOTH_OPENED) === BOTH_OPENED
      ) {
        seen = 0;
      }
      if ((flags & (Tcp.Syn | Tcp.Ack)) !== 0) seen |= OPENED << way;
      if ((flags & Tcp.Fin) !== 0) seen |= FINISHED << way;
      if ((flags & Tcp.Rst) !== 0 || (seen & BOTH_FINISHED) === BOTH_FINISHED) isEstablished = false;
      else if ((flags & (Tcp.Syn | Tcp.Ack)) === Tcp.Ack && (seen & BOTH_OPENED) === BOTH_OPENED) {
        isEstablished = true;
      }
    }
    this.#seen[session] = seen;
    const isForeign = state <= State.Foreign && !(isEstablished && way === Seen.Inbound);
    this.sessions.touch(session, now, isForeign ? state : this.#ownState(session, isEstablished));
  }

  /** State of a session that is not foreign. */
  #ownState(session: number, isEstablished: boolean): number {
    if (this.#share[session] === NONE) return isEstablished ? State.SurplusEstablished : State.Surplus;
    return isEstablished ? State.Established : State.Transitory;
  }

  /** Yields all flows, the longest idle of each state first. */
  *save(outside: Uint32Array, now: number): Generator<SavedFlow> {
    const key = new FlowKey();
    for (const session of this.sessions) {
      this.sessions.readKey(session, key);
      yield [
        key.words[1]!,
        key.srcPort,
        key.words[2]!,
        key.dstPort,
        outside[this.address[session]!]!,
        this.port[session]!,
        this.#seen[session]!,
        this.sessions.stateOf(session),
        now - this.sessions.seenAt(session),
      ];
    }
  }

  /** Restores a flow, unless its outside port is taken or unavailable. */
  restore(flow: SavedFlow, address: number, now: number): void {
    const [inside, insidePort, remote, remotePort, , port, seen, state, idle] = flow;
    const key = new FlowKey();
    key.length = 4;
    key.words.set([4 << 8 | this.protocol, inside, remote, insidePort << 16 | remotePort]);
    if (this.sessions.find(key, now) >= 0) return;
    let mapping = this.#mappings.find(this.#endpointKey(inside, insidePort));
    const entry = this.entry(address, port);
    const forward = mapping < 0 && entry < 0 ? this.forward(entry) : undefined;
    const isForward = forward !== undefined && forward.inside === inside &&
      forward.insidePort + port - forward.firstPort === insidePort;
    // The state does not tell which side opened a flow of a forwarded port.
    const isOpenedInside = state > State.Foreign && !isForward;
    if (isOpenedInside && this.#isTooMany(inside)) return;
    if (mapping >= 0) {
      if (this.#mappingAt[mapping] !== address * PORTS + port) return;
      this.#mappings.hold(mapping);
    } else if (!isForward) {
      if (!this.#pools[address]!.take(port)) return;
      mapping = this.#map(inside, insidePort, address, port);
    }
    const session = this.#add(key, mapping, address, port, state, isOpenedInside, now - idle);
    this.#seen[session] = seen;
  }

  #isTooMany(inside: number): boolean {
    const { keys, limit } = this.#hosts;
    if (keys === undefined) return false;
    const host = keys.find(this.#hostKey(inside));
    return host >= 0 && keys.countOf(host) >= limit;
  }

  #forwardTo(inside: number, insidePort: number): Forward | undefined {
    for (const forward of this.#forwards) {
      const port = forward.firstPort + insidePort - forward.insidePort;
      if (forward.inside === inside && port >= forward.firstPort && port <= forward.lastPort) return forward;
    }
    return undefined;
  }

  #map(inside: number, insidePort: number, address: number, port: number): number {
    const mapping = this.#mappings.add(this.#endpointKey(inside, insidePort));
    const at = address * PORTS + port;
    this.insideAddress[mapping] = inside;
    this.insidePort[mapping] = insidePort;
    this.#mappingAt[mapping] = at;
    this.index[at] = mapping + 1;
    return mapping;
  }

  #add(
    key: FlowKey,
    mapping: number,
    address: number,
    port: number,
    state: number,
    isOpenedInside: boolean,
    now: number,
  ): number {
    const inside = key.words[1]!;
    const remote = key.words[2]!;
    const contact = this.#contacts?.take(this.#contactKey(inside, key.words[3]! >>> 16, remote)) ?? NONE;
    const host = isOpenedInside ? this.#hosts.keys?.take(this.#hostKey(inside)) ?? NONE : NONE;
    const share = this.#takeShare(state, inside, remote);
    const session = this.sessions.add(key, state, now);
    this.#share[session] = share;
    this.address[session] = address;
    this.port[session] = port;
    this.#seen[session] = 0;
    this.#mapping[session] = mapping;
    this.#contact[session] = contact;
    this.#host[session] = host;
    return session;
  }

  /** Counts a session in the share of the host that opened it, unless it is surplus. */
  #takeShare(state: number, inside: number, remote: number): number {
    if (state === State.Foreign) return this.#shares.take(this.#remoteKey(remote));
    if (state < State.Transitory) return NONE;
    return this.#shares.take(this.#hostKey(inside));
  }

  #forget(session: number): void {
    const mapping = this.#mapping[session]!;
    const share = this.#share[session]!;
    if (share >= 0) this.#shares.release(share);
    if (this.#contacts !== undefined) this.#contacts.release(this.#contact[session]!);
    const host = this.#host[session]!;
    if (host >= 0) this.#hosts.keys!.release(host);
    if (mapping < 0 || !this.#mappings.release(mapping)) return;
    const at = this.#mappingAt[mapping]!;
    this.index[at] = 0;
    this.#pools[at / PORTS | 0]!.give(at % PORTS);
  }

  #endpointKey(inside: number, port: number): FlowKey {
    return this.#fill(inside, 0, port << 16);
  }

  #contactKey(inside: number, port: number, remote: number): FlowKey {
    return this.#fill(inside, remote, port << 16);
  }

  #hostKey(inside: number): FlowKey {
    return this.#fill(inside, 0, 0);
  }

  #remoteKey(remote: number): FlowKey {
    return this.#fill(0, remote, 0);
  }

  #fill(inside: number, remote: number, ports: number): FlowKey {
    const { words } = this.#key;
    words[0] = 4 << 8;
    words[1] = inside;
    words[2] = remote;
    words[3] = ports;
    return this.#key;
  }
}
