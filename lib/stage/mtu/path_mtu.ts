/**
 * Path MTUs, learned from the errors that pass: what is too long for its path comes back before it goes.
 *
 *     outbound ─► longer than its path? ─ no ──► noted as sent ─► onward
 *                          │ yes
 *                          └─► fragmentation needed, packet too big ─► back
 *     inbound ──► such an error, about what was sent? ─ yes ─► the path's MTU is noted ─► onward
 */

import { IPV4_DST, IPV4_MAX_LENGTH, IPV4_MIN_MTU, IPV6_DST, IPV6_MIN_MTU } from "../../wire/header_fields.ts";
import { longestLength } from "../../wire/packet_parts.ts";
import { reportedMtu } from "../../wire/reported_mtu.ts";
import { SentPackets } from "./_sent_packets.ts";
import { Shares } from "../../table/shares.ts";
import { formatAddress, parseAddress } from "../../wire/address.ts";
import type { Packet, PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

// Specification
/** RFC 1191 section 4: the code of fragmentation needed. */
const FRAGMENTATION_NEEDED = 4;

// Implementation
const PATHS = 4096;
/** RFC 1191 section 6.3, RFC 8201 section 4. */
const AGE = 600_000;
/** Linux's `min_pmtu`: what any path of today's carries. A forged error cannot make packets smaller than that. */
const MIN_BELIEVED = 552;

/** Options for {@linkcode PathMtu}. */
export interface PathMtuOptions {
  /**
   * The most that any path carries (bytes): the tunnel's own MTU, from 68. Longer packets come back from the first one
   * on, without any error having been seen. IPv6 packets of up to 1280 bytes pass in any case (RFC 8200 section 5).
   * @default {65535}
   */
  readonly mtu?: number;
  /**
   * The least that is believed of an IPv4 path (bytes), from 68: an error that tells less counts as telling this. Over
   * IPv6 it is 1280, and an error that tells less is ignored (RFC 8201 section 4). @default {552}
   */
  readonly minMtu?: number;
  /** How many destinations there is room for. @default {4096} */
  readonly paths?: number;
  /** How long a path's MTU is believed (milliseconds). @default {600000} */
  readonly age?: number;
  /** What answers what is too long. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** The key of the tables' hashes (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionNames<PathMtuOptions> = {
  mtu: "optional",
  minMtu: "optional",
  paths: "optional",
  age: "optional",
  errors: "optional",
  hashKey: "optional",
};

/** What {@linkcode PathMtu.save} gives: a path for each destination. */
export interface SavedPath {
  /** The destination. */
  readonly address: string;
  /** What its path carries (bytes). */
  readonly mtu: number;
  /** How long that has been known (milliseconds). */
  readonly age: number;
}

/**
 * Learns path MTUs by destination, and tells senders at once (RFC 1191, RFC 8201).
 *
 * **Outbound**: what is longer than its path comes back as packet too big, or as fragmentation needed when it must not be
 * divided; so does a super-packet whose segments are.
 *
 * **Inbound**: errors of these kinds are learned from and pass. One is believed when its checksum is right, it goes to the
 * sender of what it quotes, quotes a packet that left in the last 10 seconds, and tells an MTU below that packet's length
 * and below what is known. Of TCP, the quoted sequence number must be in flight: sent and not yet acknowledged (RFC 5927
 * section 4.1). A router that tells no MTU is believed to have the next lower one of the table in RFC 1191.
 *
 * **Options**: `mtu`: for all paths, 65,535. `minMtu`: the least over IPv4, 552. `paths`: 4096; a new one takes the place
 * of the oldest in the IPv6 /64 with the most. `age`: 10 minutes. `errors`: what answers.
 *
 * **Counters**: `learned`, `ignored` in errors. Reason: `longer than the path` for what could not be answered.
 *
 * **Limits**: paths are those of packets from this machine. Packets that every path carries are not noted, and flows by
 * hash in 16,384 places, so an error about one may be ignored after others were sent, and the next error is believed.
 * With several workers, an error that comes to another one than its flow is ignored. Errors pass in any case, so senders
 * learn by themselves.
 *
 * @example For a tunnel of 1420 bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { PathMtu } from "@warren/tunnel/path_mtu";
 *
 * const stage = new PathMtu({ mtu: 1420 });
 * stage.restore([{ address: "192.0.2.1", mtu: 1280, age: 0 }]);
 * assert.deepEqual(stage.save(), [{ address: "192.0.2.1", mtu: 1280, age: 0 }]);
 * ```
 */
export class PathMtu implements Stage {
  /** What statistics call it. */
  readonly name = "path mtu";
  /** How many errors told a path's MTU. */
  learned = 0;
  /** How many errors were not believed. */
  ignored = 0;

  readonly #mtu: number;
  readonly #minMtu: number;
  readonly #age: number;
  readonly #errors: IcmpErrors;
  readonly #paths: FlowTable;
  /** Paths by the network of their destination. */
  readonly #shares: Shares;
  readonly #mtus: Uint16Array;
  /** No path carries less. */
  #least: number;
  readonly #key = new FlowKey();
  readonly #sent: SentPackets;
  #now = 0;
  /** What was restored and is not known yet when. */
  #restored: readonly SavedPath[] = [];

  /**
   * Knows nothing yet.
   *
   * @throws {RangeError} when an MTU is not a whole number from 68 to 65,535, or another option is out of range.
   */
  constructor(options: PathMtuOptions = {}) {
    checkNames("keep path MTUs", options, NAMES);
    const { mtu = IPV4_MAX_LENGTH, minMtu = MIN_BELIEVED, paths = PATHS, age = AGE } = options;
    const { errors = new IcmpErrors(), hashKey } = options;
    for (const [name, value] of Object.entries({ mtu, minMtu })) {
      if (Number.isInteger(value) && value >= IPV4_MIN_MTU && value <= IPV4_MAX_LENGTH) continue;
      throw new RangeError(
        `Cannot keep path MTUs: ${name} must be an integer from ${IPV4_MIN_MTU} to ${IPV4_MAX_LENGTH}, got ${value}`,
      );
    }
    this.#mtu = mtu;
    this.#minMtu = minMtu;
    this.#least = mtu;
    this.#age = age;
    this.#errors = errors;
    this.#paths = new FlowTable({
      timeouts: [age],
      capacity: paths,
      forget: (path) => this.#shares.remove(path),
    });
    this.#sent = new SentPackets(hashKey);
    this.#shares = new Shares(paths, 1, hashKey);
    this.#mtus = new Uint16Array(paths);
  }

  /** How many destinations' paths are known. */
  get size(): number {
    return this.#paths.size;
  }

  /** Answers what is too long, and notes what goes. */
  outbound({ packets, length }: PacketBatch, context: StageContext): void {
    this.#begin(context);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.length > this.#least) {
        const mtu = this.#tooLongFor(packet);
        if (mtu > 0) {
          this.#errors.answer(packet, IcmpError.PacketTooBig, context, "longer than the path", mtu);
          continue;
        }
      }
      // No error about what every path carries is believed.
      if (packet.length > this.#minMtu && this.#key.read(packet) === FlowKind.Packet) this.#note(packet);
    }
  }

  /** Learns from errors. */
  inbound({ packets, length }: PacketBatch, context: StageContext): void {
    this.#begin(context);
    const awaitsAcks = this.#sent.awaits(context.now);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = Ip.of(packet);
      if (ip === undefined) continue;
      const { protocol } = ip;
      if (protocol === Protocol.Tcp && awaitsAcks) this.#noteAck(packet, ip);
      if (protocol !== Protocol.Icmp && protocol !== Protocol.Icmpv6) continue;
      const icmp = ip.version === 4 ? Icmpv4.of(packet) : Icmpv6.of(packet);
      if (icmp === undefined || !isTooBig(icmp)) continue;
      if (this.#learn(packet, icmp)) this.learned++;
      else this.ignored++;
    }
  }

  /** The paths that are known, as {@linkcode PathMtu.restore} takes them. */
  save(): SavedPath[] {
    if (this.#restored.length > 0) return [...this.#restored];
    const saved: SavedPath[] = [];
    for (const path of this.#paths) {
      const age = this.#now - this.#paths.seenAt(path);
      if (age >= this.#age) continue;
      this.#paths.readKey(path, this.#key);
      const family = this.#key.version === 4 ? 4 : 6;
      const bytes = new Uint8Array(family === 4 ? 4 : 16);
      const view = new DataView(bytes.buffer);
      for (let i = 0; 4 * i < bytes.length; i++) view.setUint32(4 * i, this.#key.words[1 + i]!);
      saved.push({ address: formatAddress({ family, bytes }), mtu: this.#mtus[path]!, age });
    }
    return saved;
  }

  /**
   * Takes paths over, which go on ageing from the first packet on.
   *
   * @throws {TypeError} when it is not what {@linkcode PathMtu.save} gave.
   * @throws {SyntaxError} when an address does not parse.
   */
  restore(state: unknown): void {
    if (!Array.isArray(state) || !state.every(isSavedPath)) {
      throw new TypeError("Cannot restore path MTUs: the state is not a list of address, mtu and age");
    }
    this.#restored = state.map(({ address, mtu, age }) => {
      const least = parseAddress(address).family === 4 ? IPV4_MIN_MTU : IPV6_MIN_MTU;
      if (mtu < least) throw new TypeError(`Cannot restore an mtu of ${mtu} for ${address}`);
      return { address, mtu: Math.max(mtu, least === IPV4_MIN_MTU ? this.#minMtu : least), age };
    });
  }

  #begin({ now }: StageContext): void {
    this.#now = now;
    if (this.#restored.length === 0) return;
    // From the oldest on, as they came.
    for (const { address, mtu, age } of this.#restored.toSorted((a, b) => b.age - a.age)) {
      const { family, bytes } = parseAddress(address);
      const view = new DataView(bytes.buffer);
      this.#key.words[0] = family << 8;
      this.#key.length = 1 + bytes.length / 4;
      for (let i = 0; 4 * i < bytes.length; i++) this.#key.words[1 + i] = view.getUint32(4 * i);
      this.#put(mtu, now - age);
    }
    this.#restored = [];
  }

  /** The MTU that a packet is too long for; 0 when it is not, or may be divided. */
  #tooLongFor(packet: Packet): number {
    const ip = Ip.of(packet);
    if (ip === undefined || ip.version === 4 && !ip.dontFragment) return 0;
    const length = longestLength(packet, ip);
    if (length <= this.#least) return 0;
    this.#readPath(packet, ip.start + (ip.version === 4 ? IPV4_DST : IPV6_DST), ip.version);
    const path = this.#paths.find(this.#key, this.#now);
    const mtu = path < 0 ? this.#most(ip.version) : Math.min(this.#most(ip.version), this.#mtus[path]!);
    return length > mtu ? mtu : 0;
  }

  /** Notes a packet of the flow in the key that leaves. */
  #note(packet: Packet): void {
    const ip = Ip.of(packet)!;
    const length = longestLength(packet, ip);
    if (length > (ip.version === 4 ? this.#minMtu : IPV6_MIN_MTU)) {
      this.#sent.note(this.#key, ip, length, this.#now);
    }
  }

  #noteAck(packet: Packet, ip: Ip): void {
    if (this.#key.read(packet) !== FlowKind.Packet) return;
    this.#key.reverse();
    this.#sent.acknowledge(this.#key, ip);
  }

  /** Takes from an error what its path carries; returns whether it was believed. */
  #learn(packet: Packet, icmp: Icmpv4 | Icmpv6): boolean {
    const key = this.#key;
    if (key.read(packet) !== FlowKind.Error || !icmp.checksumValid) return false;
    const { version, totalLength, srcOffset, dstOffset } = key.quoted;
    if (!isSentTo(icmp.ip, srcOffset) || !this.#sent.has(packet, key, this.#now)) return false;
    const told = version === 4 ? reportedMtu(icmp.seq, totalLength) : icmp.rest;
    if (version === 6 && told < IPV6_MIN_MTU) return false;
    const mtu = version === 4 ? Math.max(told, this.#minMtu) : told;
    if (mtu >= totalLength) return false;
    this.#readPath(packet, dstOffset, version);
    const path = this.#paths.find(key, this.#now);
    if (mtu >= (path < 0 ? this.#most(version) : this.#mtus[path]!)) return false;
    if (path >= 0) this.#paths.remove(path);
    this.#put(mtu, this.#now);
    return true;
  }

  /** What every path carries at most. */
  #most(version: 4 | 6): number {
    return version === 4 ? this.#mtu : Math.max(this.#mtu, IPV6_MIN_MTU);
  }

  /** Makes the key that of a packet's destination. */
  #readPath({ view }: Packet, dst: number, version: 4 | 6): void {
    const words = version === 4 ? 1 : 4;
    this.#key.words[0] = version << 8;
    this.#key.length = 1 + words;
    for (let i = 0; i < words; i++) this.#key.words[1 + i] = view.getUint32(dst + 4 * i);
  }

  /** Notes the MTU of the path in the key, which is not known. */
  #put(mtu: number, when: number): void {
    const { words, version } = this.#key;
    if (this.#paths.expire(this.#now) > 0 && this.#paths.size === 0) this.#least = this.#mtu;
    if (this.#paths.size === this.#paths.capacity) {
      this.#paths.remove(this.#shares.oldestOf(this.#shares.largest()));
    }
    const path = this.#paths.add(this.#key, 0, when);
    this.#shares.add(path, this.#shares.holderIn(words, 1, version));
    this.#mtus[path] = mtu;
    this.#least = Math.min(this.#least, mtu);
  }
}

/** Whether a message says that a packet is too long. */
function isTooBig(icmp: Icmpv4 | Icmpv6): boolean {
  const { type } = icmp;
  return icmp instanceof Icmpv6
    ? type === Icmpv6.PacketTooBig
    : type === Icmpv4.DestinationUnreachable && icmp.code === FRAGMENTATION_NEEDED;
}

/** Tells whether an error goes to the sender of what it quotes, whose address stands at `srcOffset` (RFC 792). */
function isSentTo({ packet: { view }, version, start }: Ip, srcOffset: number): boolean {
  const dst = start + (version === 4 ? IPV4_DST : IPV6_DST);
  for (let i = 0; i < (version === 4 ? 4 : 16); i += 4) {
    if (view.getUint32(dst + i) !== view.getUint32(srcOffset + i)) return false;
  }
  return true;
}

function isSavedPath(path: unknown): path is SavedPath {
  if (typeof path !== "object" || path === null) return false;
  const { address, mtu, age } = path as Partial<SavedPath>;
  return typeof address === "string" && Number.isInteger(mtu) && mtu! <= IPV4_MAX_LENGTH &&
    typeof age === "number" && age >= 0 && age < Infinity;
}
