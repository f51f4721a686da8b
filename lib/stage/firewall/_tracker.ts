/**
 * Finds the flow of a packet, and its state. A flow's key is that of its outbound packets, so that both directions
 * find it.
 *
 *     packet ─► key ─┬─ a flow's packet ──► its flow ─► state of its protocol ─► New, Established or Invalid
 *                    ├─ an ICMP error ────► the quoted packet's flow ─────────► Related or Invalid
 *                    └─ a later fragment ─► its first fragment ───────────────► Fragment or Orphan
 */

import * as field from "../../wire/header_fields.ts";
import { FirstFragments } from "../../table/first_fragments.ts";
import { isQuery, isReply } from "../../wire/icmp_query.ts";
import { Shares } from "../../table/shares.ts";
import { Direction, opposite, type Packet } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { Segment, TcpTracker } from "./_tcp_tracker.ts";
import { FlowState, isUnanswered, PRIORITIES, TIMEOUTS } from "./flow_state.ts";

// Specification: RFC 791 section 2.3, RFC 8200 section 4.5
const {
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  IPV4_DST,
  IPV4_ID,
  IPV4_MAX_LENGTH,
  IPV4_SRC,
  IPV6_DST,
  IPV6_SRC,
  TCP_SEQ,
} = field;
const FRAGMENT_TIMEOUT = 30_000;
/** Age from which an answered UDP flow is a stream (milliseconds): Linux's nf_conntrack_proto_udp. */
const STREAM_AGE = 2000;

// Implementation
const FRAGMENTS = 1024;
/** Added, in the flow table, to the states of flows opened inbound; there are 16 states. */
const OPENED_INBOUND = 16;
/** Bit in the first word of a fragment's key: the packet is inbound. */
const INBOUND_FRAGMENT = 1 << 16;
/** Bits in place of an ICMP key's second port: the kind of query, and the side of its client. */
const TIMESTAMP = 2;
const CLIENT_OUTSIDE = 1;

/** Kinds of packets. The first four are the values of a rule's `state`. */
export const Finding = {
  New: 0,
  Established: 1,
  Related: 2,
  Invalid: 3,
  Fragment: 4,
  Orphan: 5,
  Malformed: 6,
} as const;
/** One of {@linkcode Finding}'s values. */
export type Finding = typeof Finding[keyof typeof Finding];

/** A flow, as values that JSON can hold. */
export interface SavedFlow {
  /** Words of the key. */
  readonly key: number[];
  /** State. */
  readonly state: FlowState;
  /** Direction of the first packet. */
  readonly opener: Direction;
  /** Index in {@linkcode SavedFirewall.labels} of the rule or default that allowed the flow. */
  readonly allowedBy: number;
  /** Time since the last packet (milliseconds). */
  readonly idle: number;
  /** Time since the first packet (milliseconds). */
  readonly age: number;
  /** Sequence numbers and windows of both sides, for TCP only. */
  readonly tcp?: number[];
}

/** The flows of a firewall. */
export class Tracker {
  readonly flows: FlowTable;
  /** First fragments that were allowed. */
  readonly fragments: FirstFragments;
  /** Flow that the last packet belongs to, or is an error about; -1 for none. */
  flow = -1;
  /** True when the last packet can have a flow. */
  isTracked = false;
  /** Reason why the last packet is invalid. */
  why = "";
  /** Flows evicted from a full table. */
  evicted = 0;
  /** Index of the rule or default that allowed the flow, by flow. */
  readonly allowedBy: Int32Array;

  readonly #key = new FlowKey();
  readonly #fragmentKey = new FlowKey();
  readonly #tcp: TcpTracker;
  readonly #openers: Uint8Array;
  readonly #opened: Float64Array;
  readonly #midStream: boolean;
  /** Unanswered flows by source of the first packet, separately for each direction. */
  readonly #newFlows: Shares;
  // The last packet.
  #next: FlowState = FlowState.OtherUnreplied;
  #isTcp = false;
  #isIgnored = false;
  #startsFragments = false;
  /** Payload length of the current fragment (bytes). */
  #firstEnd = 0;
  /** Payload length by first fragment (bytes). */
  readonly #firstEnds = new Uint16Array(FRAGMENTS);

  constructor(capacity: number, midStream: boolean, hashKey: readonly [number, number] | undefined) {
    this.flows = new FlowTable({
      timeouts: [...TIMEOUTS, ...TIMEOUTS],
      evictionPriorities: [...PRIORITIES.outbound, ...PRIORITIES.inbound],
      capacity,
      forget: (flow) => this.#newFlows.remove(flow),
      ...hashKey && { hashKey },
    });
    this.fragments = new FirstFragments(FRAGMENTS, FRAGMENT_TIMEOUT, hashKey);
    this.#newFlows = new Shares(capacity, 2, hashKey);
    this.allowedBy = new Int32Array(capacity);
    this.#tcp = new TcpTracker(capacity);
    this.#openers = new Uint8Array(capacity);
    this.#opened = new Float64Array(capacity);
    this.#midStream = midStream;
  }

  /** Classifies a packet. Changes no flow. */
  classify(packet: Packet, direction: Direction, now: number): Finding {
    this.flow = -1;
    this.isTracked = false;
    this.#isTcp = false;
    this.#isIgnored = false;
    this.#startsFragments = false;
    const ip = Ip.of(packet);
    if (ip === undefined) return Finding.Malformed;
    const key = this.#key;
    const kind = key.read(packet, ip);
    if (kind === FlowKind.None) return this.#classifyWithoutPorts(packet, ip, direction, now);
    if (kind === FlowKind.Error) return this.#classifyError(packet, ip, direction, now);
    this.#startsFragments = ip.isFragment;
    if (direction === Direction.Inbound) key.reverse();
    const { protocol } = key;
    if (protocol === Protocol.Tcp) return this.#classifyTcp(packet, ip, direction, now);
    if (protocol === (ip.version === 4 ? Protocol.Icmp : Protocol.Icmpv6)) {
      return this.#classifyIcmp(packet, ip, direction, now);
    }
    this.isTracked = true;
    const isUdp = protocol === Protocol.Udp || protocol === Protocol.UdpLite;
    const flow = this.flow = this.flows.peek(key, now);
    if (flow < 0) {
      this.#next = isUdp ? FlowState.UdpUnreplied : FlowState.OtherUnreplied;
      return Finding.New;
    }
    const state = this.#next = this.stateOf(flow);
    const isReply = direction !== this.#openers[flow];
    if (!isUdp) {
      if (isReply) this.#next = FlowState.OtherReplied;
    } else if (state === FlowState.UdpUnreplied) {
      if (isReply) this.#next = FlowState.UdpReplied;
    } else if (now - this.#opened[flow]! > STREAM_AGE) this.#next = FlowState.UdpStream;
    return Finding.Established;
  }

  /** Records that the packet classified last is allowed; `allowedBy` is for a new flow. */
  commit(packet: Packet, finding: Finding, direction: Direction, now: number, allowedBy: number): void {
    if (this.#startsFragments) this.#noteFirst(packet, direction, now);
    if (finding === Finding.Established) {
      if (this.#isIgnored) {
        if (this.#isTcp) this.#tcp.ignore(this.flow, direction);
        return;
      }
      if (this.#isTcp) this.#tcp.commit(packet, this.flow, direction);
      const next = this.#next + OPENED_INBOUND * this.#openers[this.flow]!;
      if (next !== this.flows.stateOf(this.flow) && !isUnanswered(this.#next)) {
        this.#newFlows.remove(this.flow);
      }
      this.flows.touch(this.flow, now, next);
    } else if (finding === Finding.New && this.isTracked) {
      if (this.flow >= 0) this.flows.remove(this.flow);
      if (this.flows.size === this.flows.capacity) this.#makeRoom(now);
      const flow = this.flow = this.#add(this.#next, direction, now);
      this.#opened[flow] = now;
      this.allowedBy[flow] = allowedBy;
      if (this.#isTcp) this.#tcp.open(packet, flow, direction);
    }
  }

  /** Records that the packet classified last and its further fragments are not allowed. */
  refuse(packet: Packet, direction: Direction, now: number): void {
    if (!this.#startsFragments || !this.#readFragment(packet, direction)) return;
    const known = this.fragments.find(this.#fragmentKey, now);
    if (known >= 0) this.fragments.remove(known);
  }

  /**
   * Chooses the worker of the packet classified last: the same one for all packets between two addresses, in both
   * directions, and for errors about them.
   */
  owner(count: number): number {
    const { words, length } = this.#key;
    let hash = 0;
    for (let i = 1; i < length - 1; i++) hash ^= words[i]!;
    hash = Math.imul(hash ^ hash >>> 16, 0x45d9f3b);
    return ((hash ^ hash >>> 15) >>> 0) % count;
  }

  stateOf(flow: number): FlowState {
    return (this.flows.stateOf(flow) & OPENED_INBOUND - 1) as FlowState;
  }

  /** Returns the direction of a flow's first packet. */
  openerOf(flow: number): Direction {
    return this.#openers[flow] as Direction;
  }

  /** Returns a flow's key, that of its outbound packets; valid until the next call. */
  keyOf(flow: number): FlowKey {
    this.flows.readKey(flow, this.#key);
    return this.#key;
  }

  /** Returns a flow as values that JSON can hold. */
  save(flow: number, now: number): SavedFlow {
    const key = this.keyOf(flow);
    return {
      key: Array.from(key.words.subarray(0, key.length)),
      state: this.stateOf(flow),
      opener: this.openerOf(flow),
      allowedBy: this.allowedBy[flow]!,
      idle: now - this.flows.seenAt(flow),
      age: now - this.#opened[flow]!,
      ...key.protocol === Protocol.Tcp && { tcp: this.#tcp.save(flow) },
    };
  }

  /** Adds a flow that {@linkcode Tracker.save} returned, unless it is known already. */
  restore({ key, state, opener, allowedBy, idle, age, tcp }: SavedFlow, now: number): void {
    this.#key.length = key.length;
    this.#key.words.set(key);
    if (this.flows.find(this.#key, now) >= 0) return;
    const flow = this.#add(state, opener, now - idle);
    this.#opened[flow] = now - age;
    this.allowedBy[flow] = allowedBy;
    if (tcp !== undefined) this.#tcp.restore(flow, tcp);
  }

  /** Makes room in a full table: removes an expired flow of the same key, else evicts one of the lowest priority. */
  #makeRoom(now: number): void {
    this.flows.find(this.#key, now);
    if (this.flows.size < this.flows.capacity) return;
    this.evicted++;
    let { victim } = this.flows;
    if (isUnanswered(this.stateOf(victim))) {
      // From the source with most of them: neither an attacker nor a scanning inside host fills the table.
      const opener = this.#newFlows.largest(this.#openers[victim]);
      if (opener >= 0) victim = this.#newFlows.oldestOf(opener);
    }
    this.flows.remove(victim);
  }

  /** Adds a flow with the current key. */
  #add(state: FlowState, opener: Direction, seen: number): number {
    const { words, version, length } = this.#key;
    const flow = this.flows.add(this.#key, state + OPENED_INBOUND * opener, seen);
    this.#openers[flow] = opener;
    if (isUnanswered(state)) {
      const address = opener === Direction.Outbound ? 1 : length >> 1;
      this.#newFlows.add(flow, this.#newFlows.holderIn(words, address, version, opener));
    }
    return flow;
  }

  #noteFirst(packet: Packet, direction: Direction, now: number): void {
    if (!this.#readFragment(packet, direction)) return;
    const known = this.fragments.find(this.#fragmentKey, now);
    const first = known < 0 ? this.fragments.note(this.#fragmentKey, now) : known;
    this.fragments.touch(first, now);
    this.#firstEnds[first] = known < 0 ? this.#firstEnd : Math.max(this.#firstEnd, this.#firstEnds[first]!);
  }

  #classifyTcp(packet: Packet, ip: Ip, direction: Direction, now: number): Finding {
    this.#isTcp = true;
    const flow = this.flow = this.flows.peek(this.#key, now);
    if (!this.#tcp.read(packet, ip.payloadOffset, ip.payloadLength, !ip.isFragment)) {
      this.why = "its TCP header is invalid";
      return Finding.Invalid;
    }
    if (flow >= 0) {
      const state = this.stateOf(flow);
      const segment = this.#tcp.judge(flow, direction, this.#openers[flow]!, state);
      this.#next = this.#tcp.next;
      this.#isIgnored = segment === Segment.Ignored;
      this.isTracked = true;
      if (segment === Segment.Invalid) {
        this.why = "it is outside its connection's window, or invalid in its state";
        return Finding.Invalid;
      }
      if (segment !== Segment.Opens) return Finding.Established;
    }
    if (!this.#tcp.opens(this.#midStream)) {
      this.why = "it neither opens nor belongs to a connection";
      return Finding.Invalid;
    }
    this.isTracked = true;
    this.#next = this.#tcp.next;
    return Finding.New;
  }

  #classifyIcmp(packet: Packet, ip: Ip, direction: Direction, now: number): Finding {
    const type = packet.bytes[ip.payloadOffset]!;
    const isClient = isQuery(ip.version, type);
    // Messages other than queries and replies have no flow: rules decide about each.
    if (!isClient && !isReply(ip.version, type)) return Finding.New;
    this.isTracked = true;
    const client = isClient === (direction === Direction.Outbound) ? Direction.Outbound : Direction.Inbound;
    const flow = this.flow = this.#findIcmp(ip.version, type, client, now);
    if (flow >= 0) {
      const wasAnswered = this.stateOf(flow) === FlowState.IcmpReplied;
      this.#next = wasAnswered || !isClient ? FlowState.IcmpReplied : FlowState.IcmpUnreplied;
      return Finding.Established;
    }
    this.#next = FlowState.IcmpUnreplied;
    if (isClient) return Finding.New;
    this.isTracked = false;
    this.why = "it replies to no known query";
    return Finding.Invalid;
  }

  #findIcmp(version: number, type: number, client: Direction, now: number): number {
    const isTimestamp = version === 4 &&
      (type === Icmpv4.TimestampRequest || type === Icmpv4.TimestampReply);
    this.#key.dstPort = (isTimestamp ? TIMESTAMP : 0) | (client === Direction.Inbound ? CLIENT_OUTSIDE : 0);
    return this.flows.peek(this.#key, now);
  }

  /** Classifies an ICMP error, which goes in the opposite direction of the packet that it quotes. */
  #classifyError(packet: Packet, ip: Ip, direction: Direction, now: number): Finding {
    const { bytes, view } = packet;
    const { version } = ip;
    const type = bytes[ip.payloadOffset]!;
    // Rules decide about each: hosts may ignore them (RFC 1122, RFC 6633), and redirects change routes.
    if (version === 4 && (type === Icmpv4.Redirect || type === Icmpv4.SourceQuench)) return Finding.New;
    this.why = "it is an error about an unknown flow";
    const key = this.#key;
    if (direction === Direction.Outbound) key.reverse();
    const { protocol, quoted } = key;
    const { icmpType } = quoted;
    const quotedDirection = opposite(direction);
    if (!quoted.isReturnedBy(ip)) {
      this.why = "it is an error about another host's packet";
      return Finding.Invalid;
    }
    let flow: number;
    if (icmpType >= 0) {
      const isClient = isQuery(version, icmpType);
      if (!isClient && !isReply(version, icmpType)) return Finding.Invalid;
      flow = this.#findIcmp(version, icmpType, isClient ? quotedDirection : direction, now);
    } else flow = this.flows.peek(key, now);
    if (flow < 0) return Finding.Invalid;
    if (this.stateOf(flow) <= FlowState.IcmpUnreplied && quotedDirection !== this.#openers[flow]) {
      this.why = "it is an error about a packet from a side that has sent none";
      return Finding.Invalid;
    }
    // RFC 5927 section 4.1: an off-path attacker does not know the sequence numbers.
    const seq = protocol === Protocol.Tcp ? view.getUint32(quoted.upperOffset + TCP_SEQ) : 0;
    if (protocol === Protocol.Tcp && !this.#tcp.hasInFlight(flow, quotedDirection, seq)) {
      this.why = "it is an error about a segment that is not in flight";
      return Finding.Invalid;
    }
    this.flow = flow;
    return Finding.Related;
  }

  /** Classifies packets without ports: later fragments, errors with a truncated quote, and truncated headers. */
  #classifyWithoutPorts(packet: Packet, ip: Ip, direction: Direction, now: number): Finding {
    if (ip.fragmentOffset === 0) {
      const isIcmp = ip.protocol === (ip.version === 4 ? Protocol.Icmp : Protocol.Icmpv6);
      if (!isIcmp || packet.malformed) return Finding.Malformed;
      // Without quoted addresses, the packet belongs to the first worker.
      this.#key.length = 0;
      this.why = "it is an error that does not quote its packet";
      return Finding.Invalid;
    }
    if (!this.#readFragment(packet, direction)) return Finding.Malformed;
    if (ip.fragmentOffset + this.#firstEnd > IPV4_MAX_LENGTH) return Finding.Malformed;
    this.#key.length = this.#fragmentKey.length;
    this.#key.words.set(this.#fragmentKey.words);
    const first = this.fragments.peek(this.#fragmentKey, now);
    if (first < 0) return Finding.Orphan;
    // RFC 5722, RFC 1858 section 4.2: a later fragment must not overwrite the first one, which the rules have checked.
    return ip.fragmentOffset < this.#firstEnds[first]! ? Finding.Malformed : Finding.Fragment;
  }

  /** Reads the key that the fragments of a packet share (RFC 791 section 2.3, RFC 8200 section 4.5). */
  #readFragment(packet: Packet, direction: Direction): boolean {
    const { view } = packet;
    const ip = Ip.of(packet);
    if (ip === undefined) return false;
    const key = this.#fragmentKey;
    const { words } = key;
    const inbound = direction === Direction.Inbound ? INBOUND_FRAGMENT : 0;
    if (ip.version === 4) {
      this.#firstEnd = ip.payloadLength;
      key.length = 4;
      words[0] = inbound | 4 << 8 | ip.protocol;
      words[1] = view.getUint32(ip.start + IPV4_SRC);
      words[2] = view.getUint32(ip.start + IPV4_DST);
      words[3] = view.getUint16(ip.start + IPV4_ID);
      return true;
    }
    const header = ip.fragmentHeader;
    if (header < 0) return false;
    this.#firstEnd = ip.payloadOffset + ip.payloadLength - header - FRAGMENT_HEADER;
    key.length = 10;
    // Without the protocol: in the first fragment, other headers may precede the upper layer.
    words[0] = inbound | 6 << 8;
    for (let i = 0; i < 4; i++) {
      words[1 + i] = view.getUint32(ip.start + IPV6_SRC + 4 * i);
      words[5 + i] = view.getUint32(ip.start + IPV6_DST + 4 * i);
    }
    words[9] = view.getUint32(header + FRAGMENT_ID);
    return true;
  }
}
