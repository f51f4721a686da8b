/**
 * Reassembly: the fragments of a datagram wait for each other, and leave as one packet.
 *
 *     batch ─► fragment? ─ no ─────────────────────────────────────────────────────► onward
 *                  │ yes
 *                  └─► fits the others? ─ yes ─► held ─► nothing missing? ─ yes ─► joined ─► onward
 *                              │ no                             │ time is over
 *                              └─► the datagram is refused      └─► dropped, and the first one answered
 */

import {
  ECN_CONGESTION_EXPERIENCED,
  ECN_NOT_CAPABLE,
  FRAGMENT_HEADER,
  FRAGMENT_ID,
  ICMP_HEADER,
  IPV4_CHECKSUM,
  IPV4_DST,
  IPV4_FLAGS,
  IPV4_MAX_LENGTH,
  IPV4_SRC,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SRC,
} from "../../wire/header_fields.ts";
import { type Fault, FAULTS } from "./_fragment_faults.ts";
import { Fit, type Fragment, FragmentLists } from "../../split/fragment_lists.ts";
import { copyMetadata } from "../../core/copy_packet.ts";
import { nextHeaderField } from "../../wire/packet_parts.ts";
import { Shares } from "../../table/shares.ts";
import { sipHash } from "../../core/sip_hash.ts";
import { checksum, sum } from "../../core/checksum.ts";
import type { Direction, Packet, PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey, MIN_HEADERS } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

// Specification
/** RFC 1122 section 3.3.2, RFC 8200 section 4.5. */
const TIMEOUT = 60_000;
/** RFC 3168 section 5, as a bit of each of the four marks: not capable, and congestion met. */
const NOT_CAPABLE = 1 << ECN_NOT_CAPABLE;
const CONGESTION = 1 << ECN_CONGESTION_EXPERIENCED;

// Implementation
const DATAGRAMS = 128;
const FRAGMENTS = 512;
const FRAGMENTS_PER_DATAGRAM = 64;
const BYTES = 1024 * 1024;
/** What a datagram is; the lower makes room first. */
const REFUSED = 0;
const OPEN = 1;
const TIMED_OUT = "reassembly timeout";
/** Time for which other sources cannot evict a datagram (milliseconds). */
const PROTECTED_FOR = 5000;

/** Options for {@linkcode Reassemble}. */
export interface ReassembleOptions {
  /** How many datagrams may wait for fragments. @default {128} */
  readonly datagrams?: number;
  /** How many fragments may be held, of all datagrams. @default {512} */
  readonly fragments?: number;
  /** How many fragments one datagram may have. @default {64} */
  readonly fragmentsPerDatagram?: number;
  /** How many bytes may be held. @default {1048576} */
  readonly bytes?: number;
  /** How long a datagram waits for its fragments, from the first that came (milliseconds). @default {60000} */
  readonly timeout?: number;
  /** Answers when that time is over, and to faulty fragments. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** The key of the tables' hashes (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionNames<ReassembleOptions> = {
  datagrams: "optional",
  fragments: "optional",
  fragmentsPerDatagram: "optional",
  bytes: "optional",
  timeout: "optional",
  errors: "optional",
  hashKey: "optional",
};

/**
 * Joins fragments, so that all stages behind it see whole packets (RFC 791 section 3.2, RFC 8200 section 4.5). A packet
 * leaves in the place of its last fragment to come.
 *
 * **Outbound** and **inbound**: fragments are held until none is missing, each direction for itself. An IPv6 packet
 * that is whole loses its Fragment header (RFC 6946). All else passes as it is.
 *
 * A datagram is refused, with all that still comes of it, when fragments overlap (RFC 5722, for IPv4, too), disagree on
 * its end, are more than allowed, or hide the transport header (RFC 1858, RFC 3128, RFC 7112). The same fragment twice counts once.
 *
 * **Options**: `datagrams`: 128. `fragments`: 512, and 64 for `fragmentsPerDatagram`. `bytes`: 1 MiB. When one is used
 * up, the source (an IPv4 address, an IPv6 /64) that holds the most of it makes room: by its oldest datagram for one of
 * its own; for others by its newest, or by one that has waited for more than 5 s. `timeout`: 60 s. `errors`: what answers.
 *
 * **Errors**: time exceeded about a first fragment whose others did not come. Over IPv6 (RFC 8200 section 4.5), parameter
 * problem about a fragment that ends beyond 65,535 bytes, or of a length that is no multiple of 8 with more to come, and
 * about a first one without all headers.
 *
 * **Counters**: `reassembled`, `refused`, `timedOut`, in datagrams. Fragments that were joined are dropped as
 * `reassembled`, all but one. Other reasons: `reassembly timeout`, `reassembly overflow`, `overlapping fragments`,
 * `fragments disagree`, `too many fragments`, `tiny fragment`, `refused datagram`, `duplicate fragment`, `empty
 * fragment`, `fragment of odd length`, `too long when whole`, `fragment marks disagree`, `no room to reassemble`,
 * `wrong header checksum`, `offloaded fragment`.
 *
 * **Limits**: `save` has nothing: fragments are not kept over a restart, and their senders send again. A first fragment
 * whose extension headers are cut off is malformed, and passes as all that is. With several workers, each datagram has one, by its addresses and number, to
 * which the others hand its fragments over.
 *
 * @example In front of a stage that looks at ports
 * ```ts
 * import assert from "node:assert/strict";
 * import { Reassemble } from "@warren/tunnel/reassemble";
 *
 * const stage = new Reassemble({ datagrams: 32, fragments: 128 });
 * assert.equal(stage.reassembled, 0);
 * ```
 */
export class Reassemble implements Stage {
  /** What statistics call it. */
  readonly name = "reassemble";
  /** How many datagrams were joined. */
  reassembled = 0;
  /** How many were refused. */
  refused = 0;
  /** How many did not come whole in time. */
  timedOut = 0;

  readonly #perDatagram: number;
  readonly #bytes: number;
  readonly #errors: IcmpErrors;
  readonly #datagrams: FlowTable;
  readonly #lists: FragmentLists;
  /** Datagrams by their source, which are not refused. */
  readonly #shares: Shares;
  /** By source: how many fragments and bytes are held. */
  readonly #fragmentsOf: Int32Array;
  readonly #bytesOf: Int32Array;
  readonly #directions: Uint8Array;
  /** The congestion marks that a datagram's fragments had. */
  readonly #marks: Uint8Array;
  readonly #key = new FlowKey();
  readonly #otherKey = new FlowKey();
  readonly #fragment: Fragment = { start: 0, end: 0, more: false, payload: 0 };
  #context: StageContext | undefined;
  /** Why a datagram is forgotten. */
  #why = TIMED_OUT;

  /**
   * Holds nothing yet.
   *
   * @throws {RangeError} when an option is not a whole number from 1 on, or too large a number.
   */
  constructor(options: ReassembleOptions = {}) {
    checkNames("reassemble", options, NAMES);
    const { datagrams = DATAGRAMS, fragments = FRAGMENTS, bytes = BYTES, timeout = TIMEOUT } = options;
    const { fragmentsPerDatagram = FRAGMENTS_PER_DATAGRAM, errors = new IcmpErrors(), hashKey } = options;
    for (const [name, value] of Object.entries({ datagrams, fragments, fragmentsPerDatagram, bytes })) {
      if (Number.isInteger(value) && value >= 1 && value <= 0x7fffffff) continue;
      throw new RangeError(`Cannot reassemble with ${value} for ${name}: it is a whole number from 1 on`);
    }
    this.#perDatagram = fragmentsPerDatagram;
    this.#bytes = bytes;
    this.#errors = errors;
    this.#datagrams = new FlowTable({
      timeouts: [timeout, timeout],
      capacity: datagrams,
      forget: (datagram) => this.#forget(datagram),
      ...hashKey && { hashKey },
    });
    this.#lists = new FragmentLists(datagrams, fragments);
    this.#shares = new Shares(datagrams, 1, hashKey);
    this.#fragmentsOf = new Int32Array(this.#shares.holders);
    this.#bytesOf = new Int32Array(this.#shares.holders);
    this.#directions = new Uint8Array(datagrams);
    this.#marks = new Uint8Array(datagrams);
  }

  /** Joins what this machine sends. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context);
  }

  /** Joins what comes to this machine. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context);
  }

  /** Ends the datagrams whose time is over. */
  tick(context: StageContext): number {
    this.#context = context;
    this.#why = TIMED_OUT;
    this.#datagrams.expire(context.now);
    return this.#datagrams.due(context.now);
  }

  #pass({ packets, length }: PacketBatch, context: StageContext): void {
    this.#context = context;
    let whole = 0;
    while (whole < length && !isFragment(packets[whole]!)) whole++;
    if (whole === length) return;
    // What is emitted goes ahead of what is left in the batch, so all that passes is, in its order.
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (i < whole || !isFragment(packet)) context.emit(packet, context.direction);
      else this.#collect(packet, context);
    }
  }

  #collect(packet: Packet, context: StageContext): void {
    // What has a sum to be finished was not divided by anyone who knows how.
    if (packet.segmentSize !== 0 || packet.checksumStart !== 0) {
      return context.drop(packet, "offloaded fragment");
    }
    const ip = Ip.of(packet)!;
    this.#readKey(ip, context.direction);
    if (this.#handsOver(packet, context)) return;
    const fault = this.#readFragment(ip);
    if (fault !== undefined) return this.#report(packet, ip, fault, context);
    const datagram = this.#find(ip, context);
    if (this.#datagrams.stateOf(datagram) === REFUSED) return context.drop(packet, "refused datagram");
    const refusal = this.#add(datagram, packet, ip, context);
    if (refusal !== undefined) {
      this.#refuse(datagram, refusal.reason, context);
      return this.#report(packet, ip, refusal, context);
    }
    const total = this.#lists.whole(datagram);
    if (total < 0) return;
    const failure = this.#join(datagram, total, context);
    if (failure !== undefined) this.#refuse(datagram, failure, context);
  }

  /** Drops a fragment that is wrong, or sends it back as the error about it. */
  #report(packet: Packet, ip: Ip, fault: Fault, context: StageContext): void {
    const { reason, error, field = 0, isInFragmentHeader = false } = fault;
    if (error === undefined || ip.version === 4) return context.drop(packet, reason);
    const pointer = isInFragmentHeader ? ip.fragmentHeader - ip.start + field : field;
    this.#errors.answer(packet, error, context, reason, pointer);
  }

  /** Fills in what a fragment's datagram is known by (RFC 791 section 3.2, RFC 8200 section 4.5). */
  #readKey(ip: Ip, direction: Direction): void {
    const { packet: { view }, start } = ip;
    const { words } = this.#key;
    words[0] = ip.version << 8 | direction << 16;
    if (ip.version === 4) {
      this.#key.length = 4;
      words[0] |= ip.protocol;
      words[1] = view.getUint32(start + IPV4_SRC);
      words[2] = view.getUint32(start + IPV4_DST);
      words[3] = ip.id;
    } else {
      this.#key.length = 10;
      for (let i = 0; i < 8; i++) words[1 + i] = view.getUint32(start + IPV6_SRC + 4 * i);
      words[9] = view.getUint32(ip.fragmentHeader + FRAGMENT_ID);
    }
  }

  /** Gives a packet to the worker that collects its datagram, if that is another one. */
  #handsOver(packet: Packet, context: StageContext): boolean {
    const { index, count } = context.worker;
    if (count === 1) return false;
    // All workers have to agree, so there is no secret in it.
    const owner = (sipHash(this.#key.words, this.#key.length, 0, 0) >>> 0) % count;
    if (owner === index) return false;
    context.handOver(packet, owner);
    return true;
  }

  /** Fills in where a fragment belongs; returns what is wrong with it alone. */
  #readFragment(ip: Ip): Fault | undefined {
    const { packet, start } = ip;
    const isIpv4 = ip.version === 4;
    if (isIpv4 && sum(packet.bytes, start, ip.headerLength) !== 0xffff) return FAULTS.Checksum;
    const payload = isIpv4 ? ip.payloadOffset : ip.fragmentHeader + FRAGMENT_HEADER;
    const length = start + ip.totalLength - payload;
    const fragment = this.#fragment;
    fragment.payload = payload;
    fragment.start = ip.fragmentOffset;
    fragment.end = fragment.start + length;
    fragment.more = ip.moreFragments;
    if (length === 0) return FAULTS.Empty;
    if (fragment.more && length % 8 !== 0) return FAULTS.OddLength;
    const header = isIpv4 ? ip.headerLength : payload - FRAGMENT_HEADER - start - IPV6_HEADER;
    return header + fragment.end > IPV4_MAX_LENGTH ? FAULTS.TooLong : undefined;
  }

  /** The fragment's datagram; a new one, when it is the first that comes of it. */
  #find(ip: Ip, context: StageContext): number {
    const { now } = context;
    this.#why = TIMED_OUT;
    const known = this.#datagrams.find(this.#key, now);
    if (known >= 0) return known;
    if (this.#datagrams.size === 0) context.wake();
    this.#why = FAULTS.Overflow.reason;
    if (this.#datagrams.size === this.#datagrams.capacity) {
      const refused = this.#datagrams.oldestIn(REFUSED);
      this.#datagrams.remove(refused >= 0 ? refused : this.#victim(this.#shares.largest(), -1, now));
    }
    const datagram = this.#datagrams.add(this.#key, OPEN, now);
    this.#shares.add(datagram, this.#shares.holderIn(this.#key.words, 1, ip.version));
    this.#directions[datagram] = context.direction;
    this.#marks[datagram] = 0;
    return datagram;
  }

  /** Adds a fragment to its datagram and holds it, unless it is a duplicate; returns why the datagram is refused. */
  #add(datagram: number, packet: Packet, ip: Ip, context: StageContext): Fault | undefined {
    const { start, more } = this.#fragment;
    if (start === 0 && more && ip.payloadLength < minHeader(ip)) return FAULTS.Tiny;
    if (start === 8 && ip.protocol === Protocol.Tcp) return FAULTS.Rewriting;
    if (this.#lists.count(datagram) === this.#perDatagram) return FAULTS.TooMany;
    while (this.#lists.full || this.#lists.bytes + packet.length > this.#bytes) {
      const counts = this.#lists.full ? this.#fragmentsOf : this.#bytesOf;
      const other = this.#victim(this.#shares.largest(0, counts), datagram, context.now);
      if (other < 0) return FAULTS.Overflow;
      this.#why = FAULTS.Overflow.reason;
      this.#datagrams.remove(other);
    }
    const mark = 1 << ip.ecn;
    switch (this.#lists.add(datagram, packet, this.#fragment)) {
      case Fit.Duplicate:
        context.drop(packet, "duplicate fragment");
        return undefined;
      case Fit.Overlaps:
        return FAULTS.Overlap;
      case Fit.Disagrees:
        return FAULTS.Disagreement;
      case Fit.Fits: {
        const holder = this.#shares.holderAt(datagram);
        this.#fragmentsOf[holder]!++;
        this.#bytesOf[holder]! += packet.length;
        this.#marks[datagram]! |= mark;
        context.hold(packet);
        return undefined;
      }
    }
  }

  /** A datagram of this holder that makes room for a fragment of the one in the key, `but`; -1 when there is no other. */
  #victim(holder: number, but: number, now: number): number {
    if (holder < 0) return -1;
    const oldest = this.#shares.oldestOf(holder);
    const isOld = now - this.#datagrams.seenAt(oldest) >= PROTECTED_FOR;
    if (oldest !== but && (isOld || this.#isOfSameSource(oldest))) return oldest;
    const newest = this.#shares.newestOf(holder);
    return newest === but ? this.#shares.before(newest) : newest;
  }

  /** Tells whether a datagram comes from the network of the one in the key. */
  #isOfSameSource(datagram: number): boolean {
    this.#datagrams.readKey(datagram, this.#otherKey);
    const { words: one } = this.#key;
    const { words: other, length } = this.#otherKey;
    return length === this.#key.length && one[1] === other[1] && (length === 4 || one[2] === other[2]);
  }

  /** Takes the first fragment off a datagram's list, as {@linkcode FragmentLists.shift} does. */
  #shift(datagram: number, whole?: Packet, payload?: number): Packet | undefined {
    const packet = this.#lists.shift(datagram, whole, payload);
    const holder = this.#shares.holderAt(datagram);
    if (packet !== undefined && holder >= 0) {
      this.#fragmentsOf[holder]!--;
      this.#bytesOf[holder]! -= packet.length;
    }
    return packet;
  }

  /** Drops all that is held of a datagram, and what still comes. */
  #refuse(datagram: number, reason: string, context: StageContext): void {
    this.refused++;
    for (let held; (held = this.#shift(datagram)) !== undefined;) context.drop(held, reason);
    this.#shares.remove(datagram);
    this.#datagrams.touch(datagram, context.now, REFUSED);
  }

  /** Drops what there is of a datagram that is forgotten, and answers it when its time is over. */
  #forget(datagram: number): void {
    const context = this.#context!;
    const isLate = this.#why === TIMED_OUT && this.#lists.count(datagram) > 0;
    if (isLate) this.timedOut++;
    const beginning = isLate ? this.#lists.beginning(datagram) : undefined;
    for (let held; (held = this.#shift(datagram)) !== undefined;) {
      if (held !== beginning) context.drop(held, this.#why);
      else {
        const direction = this.#directions[datagram] as Direction;
        this.#errors.answer(held, IcmpError.ReassemblyTimeExceeded, context, TIMED_OUT, 0, direction);
      }
    }
    this.#shares.remove(datagram);
  }

  /** Makes one packet of a datagram's fragments, in the first one's slot or a larger one; returns why it cannot. */
  #join(datagram: number, total: number, context: StageContext): string | undefined {
    const marks = this.#marks[datagram]!;
    // RFC 3168 section 5.3
    if ((marks & CONGESTION) !== 0 && (marks & NOT_CAPABLE) !== 0) return "fragment marks disagree";
    const first = this.#lists.beginning(datagram)!;
    const ip = Ip.of(first)!;
    const { start } = ip;
    const at = ip.version === 4 ? ip.payloadOffset : ip.fragmentHeader;
    const headerLength = at - start;
    if (headerLength + total - (ip.version === 4 ? 0 : IPV6_HEADER) > IPV4_MAX_LENGTH) {
      return FAULTS.TooLong.reason;
    }
    const payload = ip.version === 4 ? at : at + FRAGMENT_HEADER;
    let whole = first;
    if (payload + total > first.slotEnd) {
      const larger = context.take(headerLength + total);
      if (larger === undefined) return "no room to reassemble";
      copyMetadata(larger, first);
      whole = larger;
    } else if (ip.version === 6) whole.offset += FRAGMENT_HEADER;
    if (ip.version === 6) ip.packet.bytes[nextHeaderField(ip, at)] = ip.packet.bytes[at]!;
    whole.bytes.copyWithin(whole.offset, start, at);
    for (let held; (held = this.#shift(datagram, whole, whole.offset + headerLength)) !== undefined;) {
      if (held !== whole) context.drop(held, "reassembled");
    }
    whole.length = headerLength + total;
    if (ip.version === 4) finishIpv4(whole, headerLength);
    else {
      whole.view.setUint16(whole.offset + IPV6_PAYLOAD_LENGTH, whole.length - IPV6_HEADER);
      stripAtomicHeaders(whole);
    }
    const joined = (marks & CONGESTION) !== 0 ? Ip.of(whole) : undefined;
    if (joined !== undefined) joined.ecn = ECN_CONGESTION_EXPERIENCED;
    this.reassembled++;
    this.#datagrams.remove(datagram);
    context.emit(whole, context.direction);
    return undefined;
  }
}

/** The shortest header of what a first fragment carries (bytes). */
function minHeader({ version, protocol }: Ip): number {
  return protocol === (version === 4 ? Protocol.Icmp : Protocol.Icmpv6)
    ? ICMP_HEADER
    : MIN_HEADERS[protocol]!;
}

/** Whether it is to be joined with others. A packet that is whole loses its Fragment header on the way. */
function isFragment(packet: Packet): boolean {
  const ip = Ip.of(packet);
  if (ip === undefined) return false;
  if (ip.isFragment) return true;
  if (ip.version === 6 && ip.fragmentHeader >= 0) stripAtomicHeaders(packet);
  return false;
}

/** RFC 6946 section 4: a fragment that is all there is has nothing to do with others of its number. */
function stripAtomicHeaders(packet: Packet): void {
  for (let ip = Ipv6.of(packet); ip !== undefined && ip.fragmentHeader >= 0; ip = Ipv6.of(packet)) {
    stripFragmentHeader(ip);
  }
}

function stripFragmentHeader(ip: Ipv6): void {
  const at = ip.fragmentHeader;
  const { packet, packet: { bytes, view }, start } = ip;
  bytes[nextHeaderField(ip, at)] = bytes[at]!;
  view.setUint16(start + IPV6_PAYLOAD_LENGTH, ip.totalLength - IPV6_HEADER - FRAGMENT_HEADER);
  bytes.copyWithin(start + FRAGMENT_HEADER, start, at);
  packet.strip(FRAGMENT_HEADER);
}

function finishIpv4({ bytes, view, offset, length }: Packet, headerLength: number): void {
  view.setUint16(offset + IPV4_TOTAL_LENGTH, length);
  view.setUint16(offset + IPV4_FLAGS, 0);
  view.setUint16(offset + IPV4_CHECKSUM, 0);
  view.setUint16(offset + IPV4_CHECKSUM, checksum(bytes, offset, headerLength));
}
