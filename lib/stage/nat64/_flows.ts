/**
 * State of {@linkcode Nat64}: sessions, and the bindings that they hold (RFC 6146 section 3.1).
 *
 *     session   inside address and port, remote address and port  ─► binding, TCP state
 *     binding   inside address and port                           ◄─► outside address and port
 *     contact   inside address and port, remote address            (for the filter)
 */

import { formatIpv6, parseIpv6 } from "../../wire/address.ts";
import type { WorkerPlace } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { MAX_EXPIRED } from "../../table/flow_limits.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { CountedKeys } from "../../table/counted_keys.ts";
import type { FragmentIds } from "../../split/fragment_ids.ts";
import { HostShares } from "../../table/host_shares.ts";
import { PortPool } from "../../table/port_pool.ts";
import { type NatPorts, takePort } from "../../table/port_taker.ts";
import type { CheckedNat64Options } from "./_nat64_options.ts";
import { ownsPort, type PortFlows } from "../../table/worker_ports.ts";

// Implementation
const PORTS = 65_536;
const KEY_WORDS = 7;
const PROTOCOLS: readonly number[] = [Protocol.Tcp, Protocol.Udp, Protocol.Icmpv6];
/**
 * States of a session. A surplus session was opened beyond the share of its host or network. A foreign one was opened
 * from outside, and its sender has not yet followed up on a reply: its address may be forged.
 */
const State = {
  ForeignSurplus: 0,
  Foreign: 1,
  SurplusTcp: 2,
  SurplusIcmp: 3,
  SurplusUdp: 4,
  SurplusEstablished: 5,
  Tcp: 6,
  Icmp: 7,
  Udp: 8,
  Established: 9,
} as const;
/** Difference between a session's state and its surplus counterpart. */
const SURPLUS = State.SurplusTcp - State.Tcp;
/** By state: sessions of a lower priority are evicted sooner. */
const EVICTION_PRIORITIES: readonly number[] = [0, 1, 2, 2, 2, 2, 3, 3, 3, 4];
/** States of sessions whose port a new session may take, in that order. */
const GIVES_PORT: readonly number[] = [
  State.ForeignSurplus,
  State.Foreign,
  State.SurplusTcp,
  State.SurplusIcmp,
  State.SurplusUdp,
  State.SurplusEstablished,
  State.Tcp,
  State.Icmp,
  State.Udp,
];
/** Share of an inside /64, as a multiple of a host's share. */
const NETWORK = 4;
/** No session, binding, contact or share. */
const NONE = -1;
// Specification: RFC 6146 section 4 (milliseconds)
const TCP_TRANSITORY = 240_000;
const ICMP_TIMEOUT = 60_000;
const UDP_TIMEOUT = 300_000;
const TCP_ESTABLISHED = 7_440_000;
/** Timeout of foreign sessions: TCP_TRANS, which is above UDP_MIN. */
const FOREIGN_TIMEOUT = 240_000;
const TIMEOUTS: readonly number[] = [
  ...[FOREIGN_TIMEOUT, FOREIGN_TIMEOUT],
  ...[TCP_TRANSITORY, ICMP_TIMEOUT, UDP_TIMEOUT, TCP_ESTABLISHED],
  ...[TCP_TRANSITORY, ICMP_TIMEOUT, UDP_TIMEOUT, TCP_ESTABLISHED],
];
/**
 * Flags of events in a TCP session (RFC 6146 section 3.5.2.2); 0 when established. Other protocols use the first two only.
 */
const V6_INIT = 1;
const V4_INIT = 2;
const V6_FIN = 4;
const V4_FIN = 8;
const RESET = 16;
const INIT = V6_INIT | V4_INIT;
const CLOSED = V6_FIN | V4_FIN;

/** Maximum of each value of a saved session; its address is not a number. */
const MAX_VALUES = [
  ...[0xff, 0, 0xffff, 0xffffffff, 0xffff, 0xffffffff, 0xffff, 0x1f],
  ...[State.Established, Infinity],
];

/** Session as saved in JSON; `idle` in milliseconds. */
export type SavedSession = [
  protocol: number,
  inside: string,
  insidePort: number,
  remote: number,
  remotePort: number,
  outside: number,
  outsidePort: number,
  tcp: number,
  state: number,
  idle: number,
];

export class Flows implements PortFlows<readonly SavedSession[]> {
  readonly sessions: FlowTable;
  readonly outside: Uint32Array;
  readonly #bindings: CountedKeys;
  readonly #contacts: CountedKeys;
  readonly #worker: WorkerPlace;
  readonly #ids: FragmentIds;
  /** Shares of inside and remote hosts, and of inside networks. */
  readonly #hosts: HostShares;
  readonly #networks: HostShares;
  /** By session: its entries in the shares; `NONE` for a surplus session. */
  readonly #hostOf: Int32Array;
  readonly #networkOf: Int32Array;
  /** By session. */
  readonly #bindingOf: Int32Array;
  readonly #contactOf: Int32Array;
  readonly #idStart: Int32Array;
  readonly #tcp: Uint8Array;
  /** By binding: inside address and port, and position in the index. */
  readonly #inside: Uint32Array;
  readonly #insidePort: Uint16Array;
  readonly #place: Uint32Array;
  /** By protocol, outside address and port: 0 for none, or binding + 1. */
  readonly #index: Int32Array;
  /** Free ports by protocol and outside address (RFC 6146 section 3.5.1.1). */
  readonly #ports: readonly PortPool[];
  readonly #natPorts: NatPorts;
  readonly #key = new FlowKey();

  constructor(options: CheckedNat64Options, ids: FragmentIds, worker: WorkerPlace) {
    const { outside, capacity, random } = options;
    this.outside = outside;
    this.#worker = worker;
    this.#ids = ids;
    this.#idStart = new Int32Array(capacity);
    const room = Math.min(capacity, PORTS / worker.count);
    this.#hosts = new HostShares(room, capacity);
    this.#networks = new HostShares(room, capacity, NETWORK);
    this.#hostOf = new Int32Array(capacity);
    this.#networkOf = new Int32Array(capacity);
    this.sessions = new FlowTable({
      timeouts: TIMEOUTS,
      evictionPriorities: EVICTION_PRIORITIES,
      capacity,
      forget: (session) => this.#forget(session),
    });
    // One more, because a new session takes its binding and contact before it evicts another.
    this.#bindings = new CountedKeys(capacity + 1);
    this.#contacts = new CountedKeys(capacity + 1);
    this.#bindingOf = new Int32Array(capacity);
    this.#contactOf = new Int32Array(capacity);
    this.#tcp = new Uint8Array(capacity);
    this.#inside = new Uint32Array(4 * (capacity + 1));
    this.#insidePort = new Uint16Array(capacity + 1);
    this.#place = new Uint32Array(capacity + 1);
    this.#index = new Int32Array(PROTOCOLS.length * outside.length * PORTS);
    this.#ports = PROTOCOLS.flatMap((protocol) =>
      Array.from(
        outside,
        () => new PortPool((port) => (port > 0 || protocol === Protocol.Icmpv6) && ownsPort(port, worker)),
      )
    );
    this.#natPorts = {
      flows: this.sessions,
      pools: this.#ports,
      givesPort: GIVES_PORT,
      firstWithinShare: State.Tcp,
      poolOf: (session) => this.#place[this.#bindingOf[session]!]! >>> 16,
      random,
    };
  }

  get size(): number {
    return this.sessions.size;
  }

  /** Inside endpoints that have an outside endpoint. */
  get bindings(): number {
    return this.#bindings.size;
  }

  /** Index of an outside address; -1 for none. */
  indexOf(address: number): number {
    // Faster than `Uint32Array.indexOf` for a few addresses.
    for (let i = 0; i < this.outside.length; i++) if (this.outside[i] === address) return i;
    return -1;
  }

  /** Binding of an outside endpoint; -1 for none. */
  bindingAt(protocol: number, outside: number, port: number): number {
    return this.#index[this.#placeOf(protocol, outside) + port]! - 1;
  }

  insidePortOf(binding: number): number {
    return this.#insidePort[binding]!;
  }

  /** Copies the inside address of a binding to words 1 to 4 of a key. */
  readInside(binding: number, words: Uint32Array): void {
    for (let i = 0; i < 4; i++) words[1 + i] = this.#inside[4 * binding + i]!;
  }

  /** Index of a session's outside address. */
  outsideOf(session: number): number {
    return (this.#place[this.#bindingOf[session]!]! >>> 16) % this.outside.length;
  }

  outsidePortOf(session: number): number {
    return this.#place[this.#bindingOf[session]!]! & 0xffff;
  }

  /** Start of the IPv4 identifications of a session's packets, see {@linkcode FragmentIds.next}. */
  idStartOf(session: number): number {
    return this.#idStart[session]!;
  }

  /** Reports whether the inside endpoint of a key has a session with the key's remote address. */
  knows(key: FlowKey): boolean {
    return this.#contacts.find(this.#part(key, key.words[5]!)) >= 0;
  }

  /** Opens a session; `outside` is the index of its host's outside address. Returns -1 when there is no port. */
  open(key: FlowKey, outside: number, fromInside: boolean, now: number): number {
    const { protocol, srcPort } = key;
    const place = this.#placeOf(protocol, outside);
    const isSurplus = this.#isSurplus(key, fromInside);
    let port = 0;
    if (this.#bindings.find(this.#part(key, 0)) < 0) {
      port = takePort(this.#natPorts, place >>> 16, srcPort, isSurplus);
      if (port < 0) return NONE;
    }
    const state = fromInside
      ? stateOf(protocol) + (isSurplus ? SURPLUS : 0)
      : isSurplus
      ? State.ForeignSurplus
      : State.Foreign;
    return this.#add(key, place + port, fromInside ? V6_INIT : V4_INIT, state, now);
  }

  /** Reports whether the host that opens this session, or its network, has used up its share. */
  #isSurplus(key: FlowKey, fromInside: boolean): boolean {
    if (!fromInside) return this.#hosts.isUsed(this.#remoteOf(key));
    return this.#hosts.isUsed(this.#insideOf(key)) || this.#networks.isUsed(this.#networkKey(key));
  }

  /** Updates a session after a packet with these TCP flags. */
  note(session: number, protocol: number, fromInside: boolean, flags: number, now: number): void {
    if (protocol !== Protocol.Tcp) {
      if (fromInside) this.#tcp[session]! &= ~V4_INIT;
      return this.#touch(session, fromInside, stateOf(protocol), now);
    }
    const seen = this.#tcp[session]!;
    if ((seen & CLOSED) === CLOSED) {
      // A new connection on the same ports. The RFC would let it expire with the old one's timer.
      if ((flags & Tcp.Syn) === 0) return;
      this.#tcp[session] = fromInside ? V6_INIT : V4_INIT;
      return this.sessions.touch(session, now);
    }
    if ((seen & INIT) !== 0) {
      if ((flags & Tcp.Syn) === 0) return;
      if ((seen === V6_INIT) === fromInside) return this.sessions.touch(session, now);
      this.#tcp[session] = 0;
      return this.#touch(session, fromInside, State.Established, now);
    }
    if ((flags & Tcp.Rst) !== 0) {
      if ((seen & RESET) !== 0) return;
      this.#tcp[session] = seen | RESET;
      return this.#touch(session, fromInside, State.Tcp, now);
    }
    let next = seen & ~RESET;
    if ((flags & Tcp.Fin) !== 0) next |= fromInside ? V6_FIN : V4_FIN;
    this.#tcp[session] = next;
    const state = (next & CLOSED) === CLOSED ? State.Tcp : State.Established;
    this.#touch(session, fromInside, state, now);
  }

  /** Restarts the idle time of a session; it stays foreign until its sender follows up on a reply. */
  #touch(session: number, fromInside: boolean, state: number, now: number): void {
    const before = this.sessions.stateOf(session);
    const isForeign = before <= State.Foreign &&
      (fromInside || (this.#tcp[session]! & (V4_INIT | RESET)) !== 0);
    const own = this.#hostOf[session] === NONE ? state + SURPLUS : state;
    this.sessions.touch(session, now, isForeign ? before : own);
  }

  expire(now: number): boolean {
    return this.sessions.expire(now) === MAX_EXPIRED;
  }

  /** Returns all sessions, the longest idle of each state first. */
  save(now: number): SavedSession[] {
    const key = new FlowKey();
    return Array.from(this.sessions, (session) => {
      this.sessions.readKey(session, key);
      return [
        key.protocol,
        formatIpv6(key.src.bytes),
        key.srcPort,
        key.words[5]!,
        key.dstPort,
        this.outside[this.outsideOf(session)]!,
        this.outsidePortOf(session),
        this.#tcp[session]!,
        this.sessions.stateOf(session),
        now - this.sessions.seenAt(session),
      ];
    });
  }

  restore(saved: readonly SavedSession[], now: number): void {
    for (const session of saved) if (ownsPort(session[2], this.#worker)) this.#restore(session, now);
  }

  /** Restores a session, unless its outside endpoint is taken or unknown. */
  #restore(saved: SavedSession, now: number): void {
    const [protocol, inside, insidePort, remote, remotePort, address, port, tcp, state, idle] = saved;
    const outside = this.indexOf(address);
    if (outside < 0) return;
    const key = new FlowKey();
    const bytes = new DataView(parseIpv6(inside).buffer);
    fillKey(key, protocol, remote, insidePort, remotePort);
    for (let i = 0; i < 4; i++) key.words[1 + i] = bytes.getUint32(4 * i);
    if (this.sessions.find(key, now) >= 0) return;
    const place = this.#placeOf(protocol, outside) + port;
    const binding = this.#bindings.find(this.#part(key, 0));
    const isOurs = binding < 0 ? this.#ports[place >>> 16]!.take(port) : this.#place[binding] === place;
    if (isOurs) this.#add(key, place, tcp, state, now - idle);
  }

  #add(key: FlowKey, place: number, tcp: number, state: number, now: number): number {
    const isNew = this.#bindings.find(this.#part(key, 0)) < 0;
    const binding = this.#bindings.take(this.#part(key, 0));
    if (isNew) {
      for (let i = 0; i < 4; i++) this.#inside[4 * binding + i] = key.words[1 + i]!;
      this.#insidePort[binding] = key.srcPort;
      this.#place[binding] = place;
      this.#index[place] = binding + 1;
    }
    const contact = this.#contacts.take(this.#part(key, key.words[5]!));
    const isForeign = state === State.Foreign;
    const isInside = state >= State.Tcp;
    const host = isForeign || isInside
      ? this.#hosts.take(isForeign ? this.#remoteOf(key) : this.#insideOf(key))
      : NONE;
    const network = isInside ? this.#networks.take(this.#networkKey(key)) : NONE;
    const session = this.sessions.add(key, state, now);
    this.#hostOf[session] = host;
    this.#networkOf[session] = network;
    this.#bindingOf[session] = binding;
    const outside = this.outside[this.outsideOf(session)]!;
    this.#idStart[session] = this.#ids.startOfIpv4(outside, key.words[5]!, key.protocol);
    this.#contactOf[session] = contact;
    this.#tcp[session] = tcp;
    return session;
  }

  #forget(session: number): void {
    this.#contacts.release(this.#contactOf[session]!);
    const host = this.#hostOf[session]!;
    const network = this.#networkOf[session]!;
    if (host >= 0) this.#hosts.release(host);
    if (network >= 0) this.#networks.release(network);
    const binding = this.#bindingOf[session]!;
    if (!this.#bindings.release(binding)) return;
    const place = this.#place[binding]!;
    this.#index[place] = 0;
    this.#ports[place >>> 16]!.give(place & 0xffff);
  }

  #placeOf(protocol: number, outside: number): number {
    const number = protocol === Protocol.Tcp ? 0 : protocol === Protocol.Udp ? 1 : 2;
    return number * this.outside.length + outside << 16;
  }

  /** Key that sessions share: without the remote port, and with this remote address. */
  #part({ words, length }: FlowKey, remote: number): FlowKey {
    const key = this.#key;
    key.length = length;
    for (let i = 0; i < 5; i++) key.words[i] = words[i]!;
    key.words[5] = remote;
    key.words[6] = words[6]! & 0xffff0000;
    return key;
  }

  /** Key of a session's inside host. */
  #insideOf(session: FlowKey): FlowKey {
    const key = this.#part(session, 0);
    key.words[0] = key.words[6] = 0;
    return key;
  }

  /** Key of the /64 of a session's inside host. */
  #networkKey(session: FlowKey): FlowKey {
    const key = this.#insideOf(session);
    key.words[3] = key.words[4] = 0;
    return key;
  }

  /** Key of a session's remote host. */
  #remoteOf(session: FlowKey): FlowKey {
    const key = this.#networkKey(session);
    key.words[1] = key.words[2] = 0;
    key.words[5] = session.words[5]!;
    return key;
  }
}

/**
 * Fills in the key of a session, except the inside address:
 *
 *     version, protocol │ inside address (4 words) │ remote address │ ports
 */
export function fillKey(
  key: FlowKey,
  protocol: number,
  remote: number,
  port: number,
  remotePort: number,
): FlowKey {
  const { words } = key;
  key.length = KEY_WORDS;
  words[0] = 6 << 8 | protocol;
  words[5] = remote;
  words[6] = port << 16 | remotePort;
  return key;
}

/** State of a session that is not established and within its host's share. */
function stateOf(protocol: number): number {
  return protocol === Protocol.Tcp ? State.Tcp : protocol === Protocol.Udp ? State.Udp : State.Icmp;
}

/** Reports whether a value is a session of {@linkcode Flows.save}. */
export function isSaved(value: unknown): value is SavedSession {
  if (!Array.isArray(value) || value.length !== 10 || typeof value[1] !== "string") return false;
  const numbersFit = value.every((number, i) =>
    i === 1 ||
    typeof number === "number" && number >= 0 && number <= MAX_VALUES[i]! &&
      (i === 9 || Number.isInteger(number))
  );
  if (!numbersFit || ![Protocol.Tcp, Protocol.Udp, Protocol.Icmpv6].includes(value[0])) return false;
  try {
    parseIpv6(value[1]);
    return true;
  } catch {
    return false;
  }
}
