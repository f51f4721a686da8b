/**
 * A stage that learns path MTUs from ICMP errors, and answers packets that are too long for their path.
 *
 *     outbound ─► longer than the path MTU? ─ no ──► noted as sent ─► onward
 *                          │ yes
 *                          └─► fragmentation needed, packet too big ─► back to the sender
 *     inbound ──► such an error, about a packet that was sent? ─ yes ─► the path MTU is noted ─► onward
 */

import * as field from "../../wire/header_fields.ts";
import { longestLength } from "../../split/stage_segmenter.ts";
import { reportedMtu } from "../../wire/reported_mtu.ts";
import { SentPackets } from "./_sent_packets.ts";
import { Shares } from "../../table/shares.ts";
import { formatAddress, parseAddress } from "../../wire/address.ts";
import type { Packet, PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { MAX_CAPACITY } from "../../table/flow_limits.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { checkInteger, checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";

// Specification
const { IPV4_DST, IPV4_MAX_LENGTH, IPV4_MIN_MTU, IPV6_DST, IPV6_MIN_MTU } = field;
/** Code of fragmentation needed (RFC 1191 section 4). */
const FRAGMENTATION_NEEDED = 4;

// Implementation
const ATTEMPT = "keep path MTUs";
const PATHS = 4096;
/** RFC 1191 section 6.3, RFC 8201 section 4. */
const AGE = 600_000;
/** Linux's `min_pmtu`, which any current path carries: a forged error cannot make packets smaller. */
const MIN_MTU = 552;

/** Options of {@linkcode PathMtu}. */
export interface PathMtuOptions {
  /**
   * Maximum MTU of all paths (bytes), from 68: the tunnel's own MTU. Longer packets are answered even before an error has
   * been seen. IPv6 packets of up to 1280 bytes always pass (RFC 8200 section 5).
   * @default {65535}
   */
  readonly mtu?: number;
  /**
   * Minimum MTU of IPv4 paths (bytes), from 68: an error that reports less counts as reporting this. Over IPv6 it is 1280,
   * and an error that reports less is ignored (RFC 8201 section 4). @default {552}
   */
  readonly minMtu?: number;
  /** Maximum number of destinations. @default {4096} */
  readonly paths?: number;
  /** Time after which a path MTU is forgotten (milliseconds, at least 1). @default {600000} */
  readonly age?: number;
  /** Sends errors about packets longer than their path MTU. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** Key of the hash tables (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionKinds<PathMtuOptions> = {
  mtu: "number",
  minMtu: "number",
  paths: "number",
  age: "number",
  errors: IcmpErrors,
  hashKey: "numbers",
};

/** A path MTU, as {@linkcode PathMtu.save} returns it. */
export interface SavedPath {
  /** Destination address. */
  readonly address: string;
  /** Path MTU (bytes). */
  readonly mtu: number;
  /** Time since it was learned (milliseconds). */
  readonly age: number;
}

/**
 * Learns path MTUs by destination (RFC 1191, RFC 8201), and answers packets that are longer.
 *
 * **Outbound**: answers packets longer than their path MTU with packet too big (IPv6) or fragmentation needed (IPv4 with
 * Don't Fragment). The length of a super-packet is that of its segments.
 * **Inbound**: learns from such errors, and passes all packets. An error must be about a packet that was sent in the last 10
 * seconds; for TCP its sequence number must be in flight (RFC 5927 section 4.1).
 * **Options**: {@linkcode PathMtuOptions}. **Counters**: `learned`, `ignored`, `paths`.
 * **Drops**: `longer than the path MTU` when no error could be sent.
 * **Limits**: learns only the paths of packets from this machine; with several workers, only from errors that arrive at the
 * worker of their flow.
 *
 * @example Packets of 1280 and 1281 bytes on a path of 1280
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Icmpv4 } from "@warren/tunnel/icmpv4";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { PathMtu } from "@warren/tunnel/path_mtu";
 *
 * const stage = new PathMtu();
 * stage.restore([{ address: "192.0.2.1", mtu: 1280, age: 0 }]);
 * const pool = new PacketPool();
 * const batch = new PacketBatch();
 * for (const length of [1260, 1261]) {
 *   const packet = pool.from(new Uint8Array(length))!;
 *   Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 17 });
 *   batch.push(packet);
 * }
 * const mtus: number[] = [];
 * const context: Partial<StageContext> = { now: 0, emit: (error) => void mtus.push(Icmpv4.of(error)!.seq) };
 * stage.outbound(batch, context as StageContext); // the tunnel does this
 * assert.deepEqual(mtus, [1280]); // an error about the second packet
 * ```
 */
export class PathMtu implements Stage {
  /** Name in statistics: `path mtu`. */
  readonly name = "path mtu";
  /** Errors from which a path MTU was learned. */
  learned = 0;
  /** Errors that were ignored. */
  ignored = 0;

  readonly #mtu: number;
  readonly #minMtu: number;
  readonly #age: number;
  readonly #errors: IcmpErrors;
  readonly #paths: FlowTable;
  /** Paths by network of the destination. */
  readonly #shares: Shares;
  readonly #mtus: Uint16Array;
  /** Lowest MTU of all paths. */
  #lowest: number;
  readonly #key = new FlowKey();
  readonly #sent: SentPackets;
  #now = 0;
  /** Restored paths, kept until the first batch, which has the time. */
  #restored: readonly SavedPath[] = [];

  /**
   * Starts without paths.
   *
   * @throws {RangeError} when an MTU is not an integer from 68 to 65,535, or another option is out of range.
   */
  constructor(options: PathMtuOptions = {}) {
    checkOptions(ATTEMPT, options, NAMES);
    const { mtu = IPV4_MAX_LENGTH, minMtu = MIN_MTU, paths = PATHS, age = AGE } = options;
    const { errors = new IcmpErrors(), hashKey } = options;
    checkInteger(ATTEMPT, "mtu", mtu, IPV4_MIN_MTU, IPV4_MAX_LENGTH);
    checkInteger(ATTEMPT, "minMtu", minMtu, IPV4_MIN_MTU, IPV4_MAX_LENGTH);
    checkInteger(ATTEMPT, "paths", paths, 1, MAX_CAPACITY);
    checkMin(ATTEMPT, "age", age, 1);
    this.#mtu = mtu;
    this.#minMtu = minMtu;
    this.#lowest = mtu;
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

  /** Number of known path MTUs. */
  get size(): number {
    return this.#paths.size;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { learned: this.learned, ignored: this.ignored, paths: this.size };
  }

  /** Answers packets longer than their path MTU, and notes the others as sent. */
  outbound({ packets, length }: PacketBatch, context: StageContext): void {
    this.#begin(context);
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.length > this.#lowest) {
        const mtu = this.#tooLongFor(packet);
        if (mtu > 0) {
          this.#errors.answer(packet, IcmpError.PacketTooBig, context, "longer than the path MTU", mtu);
          continue;
        }
      }
      // Errors about packets that every path carries are ignored, so such packets are not noted.
      if (packet.length > this.#minMtu && this.#key.read(packet) === FlowKind.Packet) this.#note(packet);
    }
  }

  /** Learns from ICMP errors. */
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

  /** Returns the known path MTUs, for {@linkcode PathMtu.restore}. */
  save(): SavedPath[] {
    if (this.#restored.length > 0) return [...this.#restored];
    const saved: SavedPath[] = [];
    for (const path of this.#paths) {
      const age = this.#now - this.#paths.seenAt(path);
      if (age >= this.#age) continue;
      this.#paths.readKey(path, this.#key);
      saved.push({ address: formatAddress(this.#key.src), mtu: this.#mtus[path]!, age });
    }
    return saved;
  }

  /**
   * Adds saved path MTUs, which continue to age from the first packet on.
   *
   * @throws {TypeError} when `state` does not come from {@linkcode PathMtu.save}.
   * @throws {SyntaxError} when an address does not parse.
   */
  restore(state: unknown): void {
    if (!Array.isArray(state) || !state.every(isSavedPath)) {
      throw new TypeError("Cannot restore path MTUs: the state must be a list of address, mtu and age");
    }
    this.#restored = state.map(({ address, mtu, age }) => {
      const min = parseAddress(address).family === 4 ? IPV4_MIN_MTU : IPV6_MIN_MTU;
      if (mtu < min) {
        throw new TypeError(
          `Cannot restore path MTUs: mtu of ${address} must be at least ${min}, got ${mtu}`,
        );
      }
      return { address, mtu: Math.max(mtu, min === IPV4_MIN_MTU ? this.#minMtu : min), age };
    });
  }

  #begin({ now }: StageContext): void {
    this.#now = now;
    if (this.#restored.length === 0) return;
    // The oldest first, as they were learned.
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

  /** The MTU that a packet exceeds; 0 when it fits, or may be fragmented. */
  #tooLongFor(packet: Packet): number {
    const ip = Ip.of(packet);
    if (ip === undefined || ip.version === 4 && !ip.dontFragment) return 0;
    const length = longestLength(packet, ip);
    if (length <= this.#lowest) return 0;
    this.#readPath(packet, ip.start + (ip.version === 4 ? IPV4_DST : IPV6_DST), ip.version);
    const path = this.#paths.find(this.#key, this.#now);
    const max = this.#maxMtu(ip.version);
    const mtu = path < 0 ? max : Math.min(max, this.#mtus[path]!);
    return length > mtu ? mtu : 0;
  }

  /** Notes an outbound packet of the key's flow as sent. */
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

  /** Learns a path MTU from an error; returns whether the error was valid. */
  #learn(packet: Packet, icmp: Icmpv4 | Icmpv6): boolean {
    const key = this.#key;
    if (!key.readQuoted(icmp) || !icmp.checksumValid) return false;
    const { version, totalLength, dstOffset } = key.quoted;
    if (!key.quoted.isReturnedBy(icmp.ip) || !this.#sent.has(packet, key, this.#now)) return false;
    const reported = version === 4 ? reportedMtu(icmp.seq, totalLength) : icmp.rest;
    if (version === 6 && reported < IPV6_MIN_MTU) return false;
    const mtu = version === 4 ? Math.max(reported, this.#minMtu) : reported;
    if (mtu >= totalLength) return false;
    this.#readPath(packet, dstOffset, version);
    const path = this.#paths.find(key, this.#now);
    if (mtu >= (path < 0 ? this.#maxMtu(version) : this.#mtus[path]!)) return false;
    if (path >= 0) this.#paths.remove(path);
    this.#put(mtu, this.#now);
    return true;
  }

  /** Maximum MTU of all paths. */
  #maxMtu(version: 4 | 6): number {
    return version === 4 ? this.#mtu : Math.max(this.#mtu, IPV6_MIN_MTU);
  }

  /** Sets the key to a packet's destination. */
  #readPath({ view }: Packet, dst: number, version: 4 | 6): void {
    const words = version === 4 ? 1 : 4;
    this.#key.words[0] = version << 8;
    this.#key.length = 1 + words;
    for (let i = 0; i < words; i++) this.#key.words[1 + i] = view.getUint32(dst + 4 * i);
  }

  /** Adds the path of the key, which must not be known, with its MTU. */
  #put(mtu: number, when: number): void {
    const { words, version } = this.#key;
    if (this.#paths.expire(this.#now) > 0 && this.#paths.size === 0) this.#lowest = this.#mtu;
    if (this.#paths.size === this.#paths.capacity) {
      this.#paths.remove(this.#shares.oldestOf(this.#shares.largest()));
    }
    const path = this.#paths.add(this.#key, 0, when);
    this.#shares.add(path, this.#shares.holderIn(words, 1, version));
    this.#mtus[path] = mtu;
    this.#lowest = Math.min(this.#lowest, mtu);
  }
}

/** Reports whether a message is packet too big or fragmentation needed. */
function isTooBig(icmp: Icmpv4 | Icmpv6): boolean {
  const { type } = icmp;
  return icmp instanceof Icmpv6
    ? type === Icmpv6.PacketTooBig
    : type === Icmpv4.DestinationUnreachable && icmp.code === FRAGMENTATION_NEEDED;
}

function isSavedPath(path: unknown): path is SavedPath {
  if (typeof path !== "object" || path === null) return false;
  const { address, mtu, age } = path as Partial<SavedPath>;
  return typeof address === "string" && Number.isInteger(mtu) && mtu! <= IPV4_MAX_LENGTH &&
    typeof age === "number" && age >= 0 && age < Infinity;
}
