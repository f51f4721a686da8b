/**
 * A stage that holds the fragments of a datagram until all have arrived, and passes on one packet.
 *
 *     batch ─► fragment? ─ no ─────────────────────────────────────────────────────► onward
 *                  │ yes
 *                  └─► fits the others? ─ yes ─► held ─► nothing missing? ─ yes ─► joined ─► onward
 *                              │ no                             │ timeout
 *                              └─► datagram refused             └─► dropped, time exceeded about the first
 */

import * as field from "../../wire/header_fields.ts";
import { type Fault, FAULTS } from "./_fragment_faults.ts";
import { Fit, type Fragment, FragmentLists } from "../../split/fragment_lists.ts";
import { copyMetadata } from "../../core/copy_packet.ts";
import { nextHeaderField } from "../../wire/ipv6_extensions.ts";
import { Shares } from "../../table/shares.ts";
import { sipHash } from "../../core/sip_hash.ts";
import { checksum, sum } from "../../core/checksum.ts";
import type { Direction, Packet, PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey } from "../../table/flow_key.ts";
import { MAX_CAPACITY } from "../../table/flow_limits.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { checkInteger, checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";

// Specification
const {
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
  MIN_HEADERS,
} = field;
/** RFC 1122 section 3.3.2, RFC 8200 section 4.5. */
const TIMEOUT = 60_000;

// Implementation
const ATTEMPT = "reassemble";
const DATAGRAMS = 128;
const FRAGMENTS = 512;
const FRAGMENTS_PER_DATAGRAM = 64;
const BYTES = 1024 * 1024;
/** States of datagrams; the lower is evicted first. */
const REFUSED = 0;
const OPEN = 1;
const TIMED_OUT = "reassembly timeout";
/** Time for which other sources cannot evict a datagram (milliseconds). */
const PROTECTED_FOR = 5000;

/** Options of {@linkcode Reassemble}. */
export interface ReassembleOptions {
  /** Maximum number of incomplete datagrams. @default {128} */
  readonly datagrams?: number;
  /** Maximum number of fragments held, of all datagrams. @default {512} */
  readonly fragments?: number;
  /** Maximum number of fragments of one datagram. @default {64} */
  readonly fragmentsPerDatagram?: number;
  /** Maximum number of bytes held. @default {1048576} */
  readonly bytes?: number;
  /** Time within which all fragments must arrive, from the arrival of the first (milliseconds). @default {60000} */
  readonly timeout?: number;
  /** Sends errors about timeouts and faulty fragments. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** Key of the hash tables (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionKinds<ReassembleOptions> = {
  datagrams: "number",
  fragments: "number",
  fragmentsPerDatagram: "number",
  bytes: "number",
  timeout: "number",
  errors: IcmpErrors,
  hashKey: "numbers",
};

/**
 * Reassembles fragments, so that the stages behind see whole packets (RFC 791 section 3.2, RFC 8200 section 4.5).
 *
 * **Outbound** and **inbound**: holds fragments until none is missing, then passes on the packet in place of the last one.
 * Removes the Fragment header of whole IPv6 packets (RFC 6946). Passes all other packets.
 * **Options**: {@linkcode ReassembleOptions}. **Counters**: `reassembled`, `refused`, `timedOut`.
 * **Drops**: `reassembled` for all but one fragment of a packet, `reassembly timeout`, `reassembly overflow`,
 * `overlapping fragments` (RFC 5722), `tiny fragment` (RFC 1858, RFC 3128, RFC 7112) and others, see the README.
 * **Memory**: up to the option `bytes`; when full, the source that holds most makes room.
 * **Limits**: `save` has no state: fragments are not kept over a restart.
 *
 * @example Two fragments in, one packet out
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Reassemble } from "@warren/tunnel/reassemble";
 *
 * const stage = new Reassemble();
 * const pool = new PacketPool();
 * const lengths: number[] = [];
 * const context: Partial<StageContext> = {
 *   now: 0,
 *   worker: { index: 0, count: 1 },
 *   wake() {},
 *   hold() {},
 *   drop() {},
 *   emit: (packet) => void lengths.push(packet.length),
 * };
 * for (const [fragmentOffset, moreFragments] of [[0, true], [800, false]] as const) {
 *   const packet = pool.from(new Uint8Array(800))!;
 *   Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 253, id: 7 });
 *   Object.assign(Ipv4.of(packet)!, { fragmentOffset, moreFragments, dontFragment: false });
 *   const batch = new PacketBatch();
 *   batch.push(packet);
 *   stage.inbound(batch, context as StageContext); // the tunnel does this
 * }
 * assert.deepEqual(lengths, [1620]);
 * ```
 */
export class Reassemble implements Stage {
  /** Name in statistics: `reassemble`. */
  readonly name = "reassemble";
  /** Datagrams that were reassembled. */
  reassembled = 0;
  /** Datagrams that were refused, with all fragments that follow. */
  refused = 0;
  /** Datagrams that were incomplete when their time was up. */
  timedOut = 0;

  readonly #perDatagram: number;
  readonly #bytes: number;
  readonly #errors: IcmpErrors;
  readonly #datagrams: FlowTable;
  readonly #lists: FragmentLists;
  /** Datagrams that are not refused, by source. */
  readonly #shares: Shares;
  /** Fragments and bytes held, by source. */
  readonly #fragmentsOf: Int32Array;
  readonly #bytesOf: Int32Array;
  readonly #directions: Uint8Array;
  /** ECN codepoints of a datagram's fragments, a bit each. */
  readonly #ecns: Uint8Array;
  readonly #key = new FlowKey();
  readonly #otherKey = new FlowKey();
  readonly #fragment: Fragment = { start: 0, end: 0, more: false, payload: 0 };
  #context: StageContext | undefined;
  /** Drop reason for the fragments of a datagram that is removed. */
  #reason = TIMED_OUT;

  /**
   * Starts without fragments.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(options: ReassembleOptions = {}) {
    checkOptions(ATTEMPT, options, NAMES);
    const { datagrams = DATAGRAMS, fragments = FRAGMENTS, bytes = BYTES, timeout = TIMEOUT } = options;
    const { fragmentsPerDatagram = FRAGMENTS_PER_DATAGRAM, errors = new IcmpErrors(), hashKey } = options;
    checkInteger(ATTEMPT, "datagrams", datagrams, 1, MAX_CAPACITY);
    for (const [name, value] of Object.entries({ fragments, fragmentsPerDatagram, bytes })) {
      checkInteger(ATTEMPT, name, value, 1, 0x7fffffff);
    }
    checkMin(ATTEMPT, "timeout", timeout, 1);
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
    this.#ecns = new Uint8Array(datagrams);
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { reassembled: this.reassembled, refused: this.refused, timedOut: this.timedOut };
  }

  /** Reassembles packets from this machine. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context);
  }

  /** Reassembles packets to this machine. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context);
  }

  /** Removes datagrams whose time is up. */
  tick(context: StageContext): number {
    this.#context = context;
    this.#reason = TIMED_OUT;
    this.#datagrams.expire(context.now);
    return this.#datagrams.due(context.now);
  }

  #pass({ packets, length }: PacketBatch, context: StageContext): void {
    this.#context = context;
    let whole = 0;
    while (whole < length && !isFragment(packets[whole]!)) whole++;
    if (whole === length) return;
    // Emitted packets go ahead of those left in the batch: to keep the order, all are emitted.
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (i < whole || !isFragment(packet)) context.emit(packet, context.direction);
      else this.#collect(packet, context);
    }
  }

  #collect(packet: Packet, context: StageContext): void {
    // A fragment cannot be a super-packet, nor have a partial checksum.
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
    const rejected = this.#add(datagram, packet, ip, context);
    if (rejected !== undefined) {
      this.#refuse(datagram, rejected.reason, context);
      return this.#report(packet, ip, rejected, context);
    }
    const total = this.#lists.whole(datagram);
    if (total < 0) return;
    const failure = this.#join(datagram, total, context);
    if (failure !== undefined) this.#refuse(datagram, failure, context);
  }

  /** Drops a faulty fragment, or answers it with the ICMPv6 error about its fault. */
  #report(packet: Packet, ip: Ip, fault: Fault, context: StageContext): void {
    const { reason, error, field = 0, isInFragmentHeader = false } = fault;
    if (error === undefined || ip.version === 4) return context.drop(packet, reason);
    const pointer = isInFragmentHeader ? ip.fragmentHeader - ip.start + field : field;
    this.#errors.answer(packet, error, context, reason, pointer);
  }

  /** Reads the key of a fragment's datagram (RFC 791 section 3.2, RFC 8200 section 4.5). */
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

  /** Hands a packet over to the worker of its datagram, unless it is this one. */
  #handsOver(packet: Packet, context: StageContext): boolean {
    const { index, count } = context.worker;
    if (count === 1) return false;
    // All workers must agree, so the hash has no secret key.
    const owner = (sipHash(this.#key.words, this.#key.length, 0, 0) >>> 0) % count;
    if (owner === index) return false;
    context.handOver(packet, owner);
    return true;
  }

  /** Reads the position of a fragment; returns a fault that shows without the other fragments. */
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

  /** Finds or adds the datagram of a fragment. */
  #find(ip: Ip, context: StageContext): number {
    const { now } = context;
    this.#reason = TIMED_OUT;
    const known = this.#datagrams.find(this.#key, now);
    if (known >= 0) return known;
    if (this.#datagrams.size === 0) context.wake();
    this.#reason = FAULTS.Overflow.reason;
    if (this.#datagrams.size === this.#datagrams.capacity) {
      const refused = this.#datagrams.oldestIn(REFUSED);
      this.#datagrams.remove(refused >= 0 ? refused : this.#victim(this.#shares.largest(), -1, now));
    }
    const datagram = this.#datagrams.add(this.#key, OPEN, now);
    this.#shares.add(datagram, this.#shares.holderIn(this.#key.words, 1, ip.version));
    this.#directions[datagram] = context.direction;
    this.#ecns[datagram] = 0;
    return datagram;
  }

  /** Holds a fragment unless it is a duplicate; returns the fault for which its datagram is refused. */
  #add(datagram: number, packet: Packet, ip: Ip, context: StageContext): Fault | undefined {
    const { start, more } = this.#fragment;
    if (start === 0 && more && ip.payloadLength < minHeader(ip)) return FAULTS.Tiny;
    if (start === 8 && ip.protocol === Protocol.Tcp) return FAULTS.TcpOverwrite;
    if (this.#lists.count(datagram) === this.#perDatagram) return FAULTS.TooMany;
    while (this.#lists.full || this.#lists.bytes + packet.length > this.#bytes) {
      const counts = this.#lists.full ? this.#fragmentsOf : this.#bytesOf;
      const other = this.#victim(this.#shares.largest(0, counts), datagram, context.now);
      if (other < 0) return FAULTS.Overflow;
      this.#reason = FAULTS.Overflow.reason;
      this.#datagrams.remove(other);
    }
    const ecn = 1 << ip.ecn;
    switch (this.#lists.add(datagram, packet, this.#fragment)) {
      case Fit.Duplicate:
        context.drop(packet, "duplicate fragment");
        return undefined;
      case Fit.Overlaps:
        return FAULTS.Overlap;
      case Fit.Disagrees:
        return FAULTS.EndMismatch;
      case Fit.Fits: {
        const holder = this.#shares.holderAt(datagram);
        this.#fragmentsOf[holder]!++;
        this.#bytesOf[holder]! += packet.length;
        this.#ecns[datagram]! |= ecn;
        context.hold(packet);
        return undefined;
      }
    }
  }

  /** The datagram of this holder to evict for a fragment of datagram `but`, whose key is `#key`; -1 if it has no other. */
  #victim(holder: number, but: number, now: number): number {
    if (holder < 0) return -1;
    const oldest = this.#shares.oldestOf(holder);
    const isOld = now - this.#datagrams.seenAt(oldest) >= PROTECTED_FOR;
    if (oldest !== but && (isOld || this.#isOfSameSource(oldest))) return oldest;
    const newest = this.#shares.newestOf(holder);
    return newest === but ? this.#shares.before(newest) : newest;
  }

  /** Reports whether a datagram is from the same source (IPv4 address, IPv6 /64) as the one in the key. */
  #isOfSameSource(datagram: number): boolean {
    this.#datagrams.readKey(datagram, this.#otherKey);
    const { words: one } = this.#key;
    const { words: other, length } = this.#otherKey;
    return length === this.#key.length && one[1] === other[1] && (length === 4 || one[2] === other[2]);
  }

  /** Takes the first fragment off a datagram's list: see {@linkcode FragmentLists.shift}. */
  #shift(datagram: number, whole?: Packet, payload?: number): Packet | undefined {
    const packet = this.#lists.shift(datagram, whole, payload);
    const holder = this.#shares.holderAt(datagram);
    if (packet !== undefined && holder >= 0) {
      this.#fragmentsOf[holder]!--;
      this.#bytesOf[holder]! -= packet.length;
    }
    return packet;
  }

  /** Drops the held fragments of a datagram, and those that follow. */
  #refuse(datagram: number, reason: string, context: StageContext): void {
    this.refused++;
    for (let held; (held = this.#shift(datagram)) !== undefined;) context.drop(held, reason);
    this.#shares.remove(datagram);
    this.#datagrams.touch(datagram, context.now, REFUSED);
  }

  /** Drops the fragments of a datagram that is removed; after a timeout, answers the first one with time exceeded. */
  #forget(datagram: number): void {
    const context = this.#context!;
    const isLate = this.#reason === TIMED_OUT && this.#lists.count(datagram) > 0;
    if (isLate) this.timedOut++;
    const beginning = isLate ? this.#lists.beginning(datagram) : undefined;
    for (let held; (held = this.#shift(datagram)) !== undefined;) {
      if (held !== beginning) context.drop(held, this.#reason);
      else {
        const direction = this.#directions[datagram] as Direction;
        this.#errors.answer(held, IcmpError.ReassemblyTimeExceeded, context, TIMED_OUT, 0, direction);
      }
    }
    this.#shares.remove(datagram);
  }

  /** Joins a datagram's fragments in the slot of the first, or a larger one; returns the reason when it cannot. */
  #join(datagram: number, total: number, context: StageContext): string | undefined {
    const ecns = this.#ecns[datagram]!;
    // RFC 3168 section 5.3
    if ((ecns & 1 << ECN_CONGESTION_EXPERIENCED) !== 0 && (ecns & 1 << ECN_NOT_CAPABLE) !== 0) {
      return "fragments disagree on ecn";
    }
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
    if (ip.version === 6) ip.packet.bytes[nextHeaderField(ip.packet.bytes, start, at)] = ip.packet.bytes[at]!;
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
    const joined = (ecns & 1 << ECN_CONGESTION_EXPERIENCED) !== 0 ? Ip.of(whole) : undefined;
    if (joined !== undefined) joined.ecn = ECN_CONGESTION_EXPERIENCED;
    this.reassembled++;
    this.#datagrams.remove(datagram);
    context.emit(whole, context.direction);
    return undefined;
  }
}

/** Minimum length of the upper-layer header of a first fragment (bytes). */
function minHeader({ version, protocol }: Ip): number {
  return protocol === (version === 4 ? Protocol.Icmp : Protocol.Icmpv6)
    ? ICMP_HEADER
    : MIN_HEADERS[protocol]!;
}

/** Reports whether a packet must be joined with others. Removes the Fragment headers of a whole packet. */
function isFragment(packet: Packet): boolean {
  const ip = Ip.of(packet);
  if (ip === undefined) return false;
  if (ip.isFragment) return true;
  if (ip.version === 6 && ip.fragmentHeader >= 0) stripAtomicHeaders(packet);
  return false;
}

/** Removes the headers of atomic fragments: packets with a Fragment header that are whole (RFC 6946 section 4). */
function stripAtomicHeaders(packet: Packet): void {
  for (let ip = Ipv6.of(packet); ip !== undefined && ip.fragmentHeader >= 0; ip = Ipv6.of(packet)) {
    stripFragmentHeader(ip);
  }
}

function stripFragmentHeader(ip: Ipv6): void {
  const at = ip.fragmentHeader;
  const { packet, packet: { bytes, view }, start } = ip;
  bytes[nextHeaderField(bytes, start, at)] = bytes[at]!;
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
