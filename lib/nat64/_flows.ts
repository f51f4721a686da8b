/**
 * What {@linkcode Nat64} knows: sessions, and the bindings that they hold (RFC 6146 section 3.1).
 *
 *     session   inside address and port, remote address and port  ─► binding, TCP state
 *     binding   inside address and port                           ◄─► outside address and port
 *     contact   inside address and port, remote address            (for the filter)
 */

import { formatIpv6, parseIpv6 } from "../address.ts";
import type { WorkerPlace } from "../core/mod.ts";
import { FlowKey } from "../flow_key.ts";
import { FlowTable } from "../flow_table.ts";
import { Protocol } from "../protocol.ts";
import { Tcp } from "../tcp.ts";
import { CountedKeys } from "../_counted_keys.ts";
import { PortPool } from "../_port_pool.ts";

// Implementation
const PORTS = 65_536;
const PROTOCOLS: readonly number[] = [Protocol.Tcp, Protocol.Udp, Protocol.Icmpv6];
/** The states of the table. */
const TRANSITORY = 0;
const ICMP = 1;
const UDP = 2;
const ESTABLISHED = 3;
const FOREIGN = 4; // opened from outside, and not yet answered
/** What a session is worth, by its state: no flood of one kind drives out what is younger, none from outside others. */
const WORTH: readonly number[] = [1, 1, 1, 2, 0];
/** What a TCP session has seen (RFC 6146 section 3.5.2.2); 0: it is established. */
const V6_INIT = 1;
const V4_INIT = 2;
const V6_FIN = 4;
const V4_FIN = 8;
const RESET = 16;
const INIT = V6_INIT | V4_INIT;
const CLOSED = V6_FIN | V4_FIN;

/** A session as JSON has it; `idle` in milliseconds. */
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

/** What it needs of the stage's options. */
export interface FlowsOptions {
  readonly outside: Uint32Array;
  readonly capacity: number;
  readonly timeouts: readonly number[];
  readonly random: () => number;
}

/** Sessions and bindings of all protocols. */
export class Flows {
  readonly sessions: FlowTable;
  readonly #bindings: CountedKeys;
  readonly #contacts: CountedKeys;
  readonly #outside: Uint32Array;
  readonly #random: () => number;
  /** By session. */
  readonly #bindingOf: Int32Array;
  readonly #contactOf: Int32Array;
  readonly #tcp: Uint8Array;
  /** By binding: who has it, and where it stands in the index. */
  readonly #inside: Uint32Array;
  readonly #insidePort: Uint16Array;
  readonly #place: Uint32Array;
  /** By protocol, outside address and port: a binding's number and 1. */
  readonly #index: Int32Array;
  /** By protocol and outside address (RFC 6146 section 3.5.1.1). */
  readonly #ports: readonly PortPool[];
  readonly #key = new FlowKey();

  constructor({ outside, capacity, timeouts, random }: FlowsOptions, worker: WorkerPlace) {
    this.#outside = outside;
    this.#random = random;
    this.sessions = new FlowTable({
      timeouts,
      worth: WORTH,
      capacity,
      forget: (session) => this.#forget(session),
    });
    // A session takes what it shares with others before another one makes room for it.
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
        () =>
          new PortPool((port) =>
            (port > 0 || protocol === Protocol.Icmpv6) && (port >>> 1) % worker.count === worker.index
          ),
      )
    );
  }

  /** How many inside endpoints have an outside one. */
  get bindings(): number {
    return this.#bindings.size;
  }

  /** The binding of an outside endpoint; -1 for none. */
  bindingAt(protocol: number, outside: number, port: number): number {
    return this.#index[this.#placeOf(protocol, outside) + port]! - 1;
  }

  /** The inside port of a binding. */
  insidePortOf(binding: number): number {
    return this.#insidePort[binding]!;
  }

  /** Fills in the inside address of a binding: words 1 to 4 of a key. */
  readInside(binding: number, words: Uint32Array): void {
    for (let i = 0; i < 4; i++) words[1 + i] = this.#inside[4 * binding + i]!;
  }

  /** Which outside address a session has, by its number. */
  outsideOf(session: number): number {
    return (this.#place[this.#bindingOf[session]!]! / PORTS | 0) % this.#outside.length;
  }

  /** Which outside port it has. */
  outsidePortOf(session: number): number {
    return this.#place[this.#bindingOf[session]!]! % PORTS;
  }

  /** Whether an inside endpoint has a session with this address: by the key of such a session. */
  knows(key: FlowKey): boolean {
    return this.#contacts.find(this.#part(key, key.words[5]!)) >= 0;
  }

  /** Opens a session; `outside` is the number of the address that its host has. -1 when there is no port. */
  open(key: FlowKey, outside: number, fromInside: boolean, now: number): number {
    const { protocol, srcPort } = key;
    const place = this.#placeOf(protocol, outside);
    let port = 0;
    if (this.#bindings.find(this.#part(key, 0)) < 0) {
      const ports = this.#ports[place / PORTS]!;
      port = ports.take(srcPort) ? srcPort : ports.takeLike(srcPort, this.#random());
      if (port < 0) return -1;
    }
    const state = fromInside ? stateOf(protocol) : FOREIGN;
    return this.#add(key, place + port, fromInside ? V6_INIT : V4_INIT, state, now);
  }

  /** Says that a packet of a session passed, with these TCP flags. */
  note(session: number, protocol: number, fromInside: boolean, flags: number, now: number): void {
    if (protocol !== Protocol.Tcp) {
      const isForeign = !fromInside && this.sessions.stateOf(session) === FOREIGN;
      return this.sessions.touch(session, now, isForeign ? FOREIGN : stateOf(protocol));
    }
    const seen = this.#tcp[session]!;
    if ((seen & CLOSED) === CLOSED) {
      // A new connection of the same ports, which the RFC would let die of the old one's timer.
      if ((flags & Tcp.Syn) === 0) return;
      this.#tcp[session] = fromInside ? V6_INIT : V4_INIT;
      return this.sessions.touch(session, now);
    }
    if ((seen & INIT) !== 0) {
      if ((flags & Tcp.Syn) === 0) return;
      if ((seen === V6_INIT) === fromInside) return this.sessions.touch(session, now);
      this.#tcp[session] = 0;
      return this.sessions.touch(session, now, ESTABLISHED);
    }
    if ((flags & Tcp.Rst) !== 0) {
      if ((seen & RESET) !== 0) return;
      this.#tcp[session] = seen | RESET;
      return this.sessions.touch(session, now, TRANSITORY);
    }
    let next = seen & ~RESET;
    if ((flags & Tcp.Fin) !== 0) next |= fromInside ? V6_FIN : V4_FIN;
    this.#tcp[session] = next;
    this.sessions.touch(session, now, (next & CLOSED) === CLOSED ? TRANSITORY : ESTABLISHED);
  }

  /** All sessions, the longest idle of each state first. */
  *save(now: number): Generator<SavedSession> {
    const key = new FlowKey();
    for (const session of this.sessions) {
      this.sessions.readKey(session, key);
      yield [
        key.protocol,
        formatIpv6(key.src.bytes),
        key.srcPort,
        key.words[5]!,
        key.dstPort,
        this.#outside[this.outsideOf(session)]!,
        this.outsidePortOf(session),
        this.#tcp[session]!,
        this.sessions.stateOf(session),
        now - this.sessions.seenAt(session),
      ];
    }
  }

  /** Takes a session over, unless its outside endpoint is another one's. */
  restore(saved: SavedSession, now: number): void {
    const [protocol, inside, insidePort, remote, remotePort, address, port, tcp, state, idle] = saved;
    const outside = this.#outside.indexOf(address);
    if (outside < 0) return;
    const key = new FlowKey();
    const bytes = new DataView(parseIpv6(inside).buffer);
    key.length = key.words.length;
    key.words.set([6 << 8 | protocol, 0, 0, 0, 0, remote, 0, 0, 0, insidePort << 16 | remotePort]);
    for (let i = 0; i < 4; i++) key.words[1 + i] = bytes.getUint32(4 * i);
    if (this.sessions.find(key, now) >= 0) return;
    const place = this.#placeOf(protocol, outside) + port;
    const binding = this.#bindings.find(this.#part(key, 0));
    const isOurs = binding < 0 ? this.#ports[place / PORTS | 0]!.take(port) : this.#place[binding] === place;
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
    const session = this.sessions.add(key, state, now);
    this.#bindingOf[session] = binding;
    this.#contactOf[session] = contact;
    this.#tcp[session] = tcp;
    return session;
  }

  #forget(session: number): void {
    this.#contacts.release(this.#contactOf[session]!);
    const binding = this.#bindingOf[session]!;
    if (!this.#bindings.release(binding)) return;
    const place = this.#place[binding]!;
    this.#index[place] = 0;
    this.#ports[place / PORTS | 0]!.give(place % PORTS);
  }

  #placeOf(protocol: number, outside: number): number {
    const number = PROTOCOLS.indexOf(protocol);
    return (number * this.#outside.length + outside) * PORTS;
  }

  /** The key of what sessions share: without the remote port, and with this remote address. */
  #part({ words, length }: FlowKey, remote: number): FlowKey {
    const key = this.#key;
    key.length = length;
    for (let i = 0; i < 5; i++) key.words[i] = words[i]!;
    key.words[5] = remote;
    key.words[9] = words[9]! & 0xffff0000;
    return key;
  }
}

/** The state of a session that an inside host has opened or answered. */
function stateOf(protocol: number): number {
  return protocol === Protocol.Tcp ? TRANSITORY : protocol === Protocol.Udp ? UDP : ICMP;
}

/** Whether a value is what {@linkcode Flows.save} gave. */
export function isSaved(value: unknown): value is SavedSession {
  if (!Array.isArray(value) || value.length !== 10 || typeof value[1] !== "string") return false;
  const most = [0xff, 0, 0xffff, 0xffffffff, 0xffff, 0xffffffff, 0xffff, 0x1f, WORTH.length - 1, Infinity];
  const numbersFit = value.every((number, i) =>
    i === 1 ||
    typeof number === "number" && number >= 0 && number <= most[i]! && (i === 9 || Number.isInteger(number))
  );
  if (!numbersFit || ![Protocol.Tcp, Protocol.Udp, Protocol.Icmpv6].includes(value[0])) return false;
  try {
    parseIpv6(value[1]);
    return true;
  } catch {
    return false;
  }
}
