/**
 * Path MTUs, learned from the errors that pass: what is too long for its path comes back before it goes.
 *
 *     outbound ─► longer than its path? ─ no ──► noted as sent ─► onward
 *                          │ yes
 *                          └─► fragmentation needed, packet too big ─► back
 *     inbound ──► such an error, about what was sent? ─ yes ─► the path's MTU is noted ─► onward
 */

import { IPV4_HEADER, IPV4_LONGEST, IPV4_TOTAL_LENGTH, IPV6_HEADER } from "./_header_fields.ts";
import { longestLength } from "./_packet_parts.ts";
import { sipHash } from "./_sip_hash.ts";
import { formatAddress, parseAddress } from "./address.ts";
import type { Packet, PacketBatch, Stage, StageContext } from "./core/mod.ts";
import { FlowKey, FlowKind } from "./flow_key.ts";
import { FlowTable } from "./flow_table.ts";
import { IcmpError, IcmpErrors } from "./icmp_error.ts";
import { Icmpv4 } from "./icmpv4.ts";
import { Icmpv6 } from "./icmpv6.ts";
import { Ip } from "./ip.ts";
import { checkNames, type OptionNames } from "./options.ts";

// Specification
/** RFC 1191 section 3, RFC 8201 section 4: no path carries less. */
const IPV4_LEAST = 68;
const IPV6_LEAST = 1280;
/** RFC 1191 section 4: the code of fragmentation needed. */
const FRAGMENTATION_NEEDED = 4;
/** RFC 1191 section 7.1: MTUs that there are, for routers that do not tell theirs. */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, IPV4_LEAST];
const IPV6_PAYLOAD_LENGTH = 4;

// Implementation
const PATHS = 4096;
/** RFC 1191 section 6.3, RFC 8201 section 4. */
const AGE = 600_000;
/** How many flows are noted as sent; a later one may take an earlier one's place. */
const SENT = 16_384;

/** Options for {@linkcode PathMtu}. */
export interface PathMtuOptions {
  /** What every path carries at most (bytes): the tunnel's own MTU. @default {65535} */
  readonly mtu?: number;
  /** How many destinations there is room for. @default {4096} */
  readonly paths?: number;
  /** How long a path's MTU is believed (milliseconds). @default {600000} */
  readonly age?: number;
  /** What answers what is too long. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

const NAMES: OptionNames<PathMtuOptions> = {
  mtu: "optional",
  paths: "optional",
  age: "optional",
  errors: "optional",
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
 * **Inbound**: errors of these kinds are learned from and pass. One is believed when its checksum is right and it is about
 * a flow that was sent, about a packet that is longer than the MTU which it tells, and when that is less than what
 * is known. A router that tells none is believed to have the next lower one of the table in RFC 1191. Over IPv4, less
 * than 68 counts as 68; over IPv6, less than 1280 as a lie.
 *
 * **Options**: `mtu`: for all paths, 65,535. `paths`: 4096; a new one takes the place of the oldest. `age`: 10 minutes.
 * `errors`: what answers.
 *
 * **Counters**: `learned`, `ignored` in errors. Reason: `longer than the path` for what could not be answered.
 *
 * **Limits**: paths are those of packets from this machine. Flows are noted by hash in 16,384 places, so an error about one
 * may be ignored after others were sent, and the next error is believed. With several workers, an error that comes to another one than its flow is ignored. Errors pass in
 * any case, so senders learn by themselves.
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
  readonly #age: number;
  readonly #errors: IcmpErrors;
  readonly #paths: FlowTable;
  readonly #mtus: Uint16Array;
  /** No path carries less. */
  #least: number;
  readonly #key = new FlowKey();
  /** Hashes of the flows that were sent. */
  readonly #sent = new Int32Array(SENT);
  readonly #hashKey = crypto.getRandomValues(new Uint32Array(2));
  #now = 0;
  /** What was restored and is not known yet when. */
  #restored: readonly SavedPath[] = [];

  /**
   * Knows nothing yet.
   *
   * @throws {RangeError} when the MTU is not a whole number from 68 to 65,535, or another option is out of range.
   */
  constructor(options: PathMtuOptions = {}) {
    checkNames("keep path MTUs", options, NAMES);
    const { mtu = IPV4_LONGEST, paths = PATHS, age = AGE, errors = new IcmpErrors() } = options;
    if (!(Number.isInteger(mtu) && mtu >= IPV4_LEAST && mtu <= IPV4_LONGEST)) {
      throw new RangeError(`Cannot keep to an mtu of ${mtu}: it is a whole number from 68 to 65535`);
    }
    this.#mtu = mtu;
    this.#least = mtu;
    this.#age = age;
    this.#errors = errors;
    this.#paths = new FlowTable({ timeouts: [age], capacity: paths });
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
      if (packet.length > IPV4_LEAST && this.#key.read(packet) === FlowKind.Packet) this.#note();
    }
  }

  /** Learns from errors. */
  inbound({ packets, length }: PacketBatch, context: StageContext): void {
    this.#begin(context);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const icmp = Icmpv4.of(packet) ?? Icmpv6.of(packet);
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
      const least = parseAddress(address).family === 4 ? IPV4_LEAST : IPV6_LEAST;
      if (mtu < least) throw new TypeError(`Cannot restore an mtu of ${mtu} for ${address}`);
      return { address, mtu, age };
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
    this.#readPath(packet, ip.start, ip.version);
    const path = this.#paths.find(this.#key, this.#now);
    const mtu = path < 0 ? this.#most(ip.version) : Math.min(this.#most(ip.version), this.#mtus[path]!);
    return length > mtu ? mtu : 0;
  }

  /** Notes that the flow in the key was sent. */
  #note(): void {
    const hash = this.#hash();
    this.#sent[hash & SENT - 1] = hash;
  }

  #hash(): number {
    return sipHash(this.#key.words, this.#key.length, this.#hashKey[0]!, this.#hashKey[1]!);
  }

  /** Takes from an error what its path carries; returns whether it was believed. */
  #learn(packet: Packet, icmp: Icmpv4 | Icmpv6): boolean {
    if (this.#key.read(packet) !== FlowKind.Error || !icmp.checksumValid) return false;
    const hash = this.#hash();
    if (this.#sent[hash & SENT - 1] !== hash) return false;
    const { version } = icmp.ip;
    const { quotedOffset } = icmp;
    if (packet.bytes[quotedOffset]! >> 4 !== version) return false;
    const length = version === 4
      ? packet.view.getUint16(quotedOffset + IPV4_TOTAL_LENGTH)
      : IPV6_HEADER + packet.view.getUint16(quotedOffset + IPV6_PAYLOAD_LENGTH);
    const mtu = version === 4 ? mtuOf(icmp.seq, length) : icmp.rest;
    if (mtu >= length || mtu < (version === 4 ? IPV4_LEAST : IPV6_LEAST)) return false;
    this.#readPath(packet, quotedOffset, version);
    const path = this.#paths.find(this.#key, this.#now);
    if (mtu >= (path < 0 ? this.#most(version) : this.#mtus[path]!)) return false;
    if (path >= 0) this.#paths.remove(path);
    this.#put(mtu, this.#now);
    return true;
  }

  /** What every path carries at most. */
  #most(version: 4 | 6): number {
    return version === 4 ? this.#mtu : Math.max(this.#mtu, IPV6_LEAST);
  }

  /** Makes the key that of a packet's destination. */
  #readPath({ view }: Packet, start: number, version: 4 | 6): void {
    const words = version === 4 ? 1 : 4;
    const dst = start + (version === 4 ? IPV4_HEADER - 4 : IPV6_HEADER - 16);
    this.#key.words[0] = version << 8;
    this.#key.length = 1 + words;
    for (let i = 0; i < words; i++) this.#key.words[1 + i] = view.getUint32(dst + 4 * i);
  }

  /** Notes the MTU of the path in the key, which is not known. */
  #put(mtu: number, when: number): void {
    if (this.#paths.expire(this.#now) > 0 && this.#paths.size === 0) this.#least = this.#mtu;
    this.#mtus[this.#paths.add(this.#key, 0, when)] = mtu;
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

/** What a router has said, or by its silence (RFC 1191 section 5) about a packet of this length (bytes). */
function mtuOf(told: number, length: number): number {
  if (told > 0) return Math.max(told, IPV4_LEAST);
  for (const plateau of PLATEAUS) if (plateau < length) return plateau;
  return IPV4_LEAST;
}

function isSavedPath(path: unknown): path is SavedPath {
  if (typeof path !== "object" || path === null) return false;
  const { address, mtu, age } = path as Partial<SavedPath>;
  return typeof address === "string" && Number.isInteger(mtu) && mtu! <= IPV4_LONGEST &&
    typeof age === "number" && age >= 0 && age < Infinity;
}
