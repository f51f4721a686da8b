/** Peers of a VPN end: the remote machines that it serves, with their inner prefixes, outer addresses, counters and limits. */

import * as field from "../wire/header_fields.ts";
import { formatCidr, parsePrefix, type Prefix } from "../wire/address.ts";
import { checkMin, checkOptions, gotValue, type OptionKinds } from "../core/options.ts";
import { copyBytes } from "../core/copy_packet.ts";
import { ENDPOINT_LENGTH, type Packet } from "../core/packet.ts";
import { Direction } from "../core/stage.ts";
import { TokenBucket } from "../core/token_bucket.ts";
import { Ip } from "../wire/ip.ts";
import { RouteTable } from "../table/route_table.ts";

// Specification
const { IPV6_DST, IPV6_SRC } = field;

// Implementation
/** Burst of a rate limit: 100 ms of the rate, at least one super-packet, so that TCP is not held far below the rate. */
const BURST_SECONDS = 0.1;
const MIN_BURST = 65_536;
const BITS_PER_BYTE = 8;
const MAX_NAME_LENGTH = 100;

/** Drop reasons that depend on the peer of a packet. */
export const PeerDrop = {
  /** No peer has the packet's destination, or the number in `packet.to`. */
  NoPeer: "no peer",
  /** The inner source address belongs to another peer or to none, or the inner header is malformed. */
  SpoofedSource: "spoofed source",
  /** The peer is above its rate. */
  RateLimit: "peer over its rate",
  /** The peer has used up its quota. */
  Quota: "peer over its quota",
} as const;
/** One of {@linkcode PeerDrop}'s values. */
export type PeerDrop = typeof PeerDrop[keyof typeof PeerDrop];

/** Options of a {@linkcode Peer}. */
export interface PeerOptions {
  /** Name for rules, statistics and errors: up to 100 characters, unique among the peers. */
  readonly name: string;
  /** Inner prefixes or addresses: packets to them go to this peer, and it may send from them only. */
  readonly allowed: readonly string[];
  /** Outer address, the 48 bytes of `Packet.endpoint`. @default {that of the first authentic datagram} */
  readonly endpoint?: Uint8Array;
  /** Maximum rate in each direction (bits per second), of inner packets. @default {Infinity} */
  readonly rateBitsPerSecond?: number;
  /** Maximum bytes of inner packets, in both directions together. @default {Infinity} */
  readonly quota?: number;
}

/** Kinds of the options of a {@linkcode Peer}. */
export const PEER_OPTIONS: OptionKinds<PeerOptions> = {
  name: "text",
  allowed: "list",
  endpoint: Uint8Array,
  rateBitsPerSecond: "number",
  quota: "number",
};

/**
 * One remote machine. A protocol extends it with keys and sessions.
 *
 * **Fields that can be set**: `rateBitsPerSecond`, the maximum rate in each direction (above 0), and `quota`, the maximum
 * bytes in both directions together (at least 0).
 */
export class Peer {
  /** Name for rules, statistics and errors. */
  readonly name: string;
  /** Inner prefixes. */
  readonly prefixes: readonly Prefix[];
  /** Value of `packet.from` and `packet.to` for this peer, from 1; never used again. 0 until it is added. */
  number = 0;
  /** Packets to the peer. A super-packet counts as one. */
  packetsOut = 0;
  /** Bytes of those packets. */
  bytesOut = 0;
  /** Authentic packets from the peer, without those that were dropped. */
  packetsIn = 0;
  /** Bytes of those packets. */
  bytesIn = 0;
  /** Time of the last authentic datagram (monotonic milliseconds); `-Infinity` before the first. */
  lastReceived: number = -Infinity;
  /** Number of times that the outer address has changed. */
  roamed = 0;

  readonly #endpoint = new Uint8Array(ENDPOINT_LENGTH);
  readonly #endpointView = new DataView(this.#endpoint.buffer);
  #hasEndpoint = false;
  #quota = Infinity;
  #rate = Infinity;
  /** Token buckets by direction. */
  #buckets: readonly TokenBucket[] | undefined;

  /**
   * Creates a peer that belongs to no table yet.
   *
   * @throws {TypeError} when an option is missing, unknown or of the wrong type.
   * @throws {SyntaxError} when a prefix does not parse.
   * @throws {RangeError} when a limit is out of range, or the name or the endpoint has a wrong length.
   */
  constructor(options: PeerOptions) {
    const { name, allowed, endpoint, rateBitsPerSecond = Infinity, quota = Infinity } = options;
    const attempt = `add peer ${JSON.stringify(name)}`;
    checkOptions(attempt, { name, allowed, endpoint, rateBitsPerSecond, quota }, PEER_OPTIONS, [
      "name",
      "allowed",
    ]);
    if (name.length === 0 || name.length > MAX_NAME_LENGTH) {
      const rule = `name must have 1 to ${MAX_NAME_LENGTH} characters`;
      throw new RangeError(`Cannot add a peer: ${rule}, ${gotValue(name.length)}`);
    }
    this.name = name;
    this.prefixes = allowed.map(parsePrefix);
    this.rateBitsPerSecond = rateBitsPerSecond;
    this.quota = quota;
    if (endpoint === undefined) return;
    if (endpoint.length !== ENDPOINT_LENGTH) {
      const rule = `endpoint must have ${ENDPOINT_LENGTH} bytes`;
      throw new RangeError(`Cannot ${attempt}: ${rule}, ${gotValue(endpoint.length)}`);
    }
    this.#endpoint.set(endpoint);
    this.#hasEndpoint = true;
  }

  /** A copy of the outer address; `undefined` while it is unknown. */
  get endpoint(): Uint8Array | undefined {
    return this.#hasEndpoint ? this.#endpoint.slice() : undefined;
  }

  /** True if the outer address is known. */
  get hasEndpoint(): boolean {
    return this.#hasEndpoint;
  }

  /** Maximum rate in each direction (bits per second). It may be changed, and throws `RangeError` unless above 0. */
  get rateBitsPerSecond(): number {
    return this.#rate;
  }

  set rateBitsPerSecond(rateBitsPerSecond: number) {
    const burst = Math.max(MIN_BURST, rateBitsPerSecond / BITS_PER_BYTE * BURST_SECONDS);
    this.#buckets = rateBitsPerSecond === Infinity
      ? undefined
      : [new TokenBucket({ rateBitsPerSecond, burst }), new TokenBucket({ rateBitsPerSecond, burst })];
    this.#rate = rateBitsPerSecond;
  }

  /** Maximum bytes in both directions together. It may be changed, and throws `RangeError` when below 0. */
  get quota(): number {
    return this.#quota;
  }

  set quota(quota: number) {
    checkMin(`limit peer "${this.name}"`, "quota", quota, 0);
    this.#quota = quota;
  }

  /** Counts a packet, or returns the reason to drop it: the rate limit or the quota. */
  charge(bytes: number, direction: Direction, now: number): PeerDrop | undefined {
    if (this.bytesIn + this.bytesOut + bytes > this.#quota) return PeerDrop.Quota;
    if (this.#buckets !== undefined) {
      const bucket = this.#buckets[direction]!;
      if (bucket.wait(now) > 0) return PeerDrop.RateLimit;
      bucket.spend(bytes);
    }
    if (direction === Direction.Outbound) {
      this.packetsOut++;
      this.bytesOut += bytes;
    } else {
      this.packetsIn++;
      this.bytesIn += bytes;
    }
    return undefined;
  }

  /** Addresses a datagram to the peer; without a known endpoint, to the peer of the end below. */
  address(packet: Packet): void {
    packet.hasEndpoint = this.#hasEndpoint;
    if (this.#hasEndpoint) copyBytes(this.#endpointView, 0, ENDPOINT_LENGTH, packet.view, packet.slotEnd);
  }

  /**
   * Takes the outer address of a datagram as the peer's. For protocols, which call it only for an authentic datagram that
   * is newer than all before: a replayed or delayed one must not divert the peer's packets.
   */
  follow(packet: Packet): void {
    if (!packet.hasEndpoint) return;
    const { view, slotEnd } = packet;
    const known = this.#endpointView;
    let isSame = this.#hasEndpoint;
    for (let i = 0; isSame && i < ENDPOINT_LENGTH; i += 4) {
      isSame = view.getInt32(slotEnd + i) === known.getInt32(i);
    }
    if (isSame) return;
    if (this.#hasEndpoint) this.roamed++;
    copyBytes(view, slotEnd, ENDPOINT_LENGTH, known, 0);
    this.#hasEndpoint = true;
  }

  /** Sets or forgets the outer address. For protocols. */
  setEndpoint(endpoint: Uint8Array | undefined): void {
    if (endpoint !== undefined) this.#endpoint.set(endpoint);
    this.#hasEndpoint = endpoint !== undefined;
  }
}

/**
 * Peers by name, by number and by inner address. Peers may be added and removed while packets flow. Lookups allocate
 * nothing. A number is never used again, so a packet that waits for a removed peer does not reach another one.
 *
 * @example The peer of a packet, by the longest prefix
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Peer, Peers } from "@warren/tunnel/vpn";
 *
 * const peers = new Peers();
 * const office = peers.add(new Peer({ name: "office", allowed: ["10.9.0.0/16"] }));
 * const laptop = peers.add(new Peer({ name: "laptop", allowed: ["10.9.0.2"] }));
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a090002, protocol: 17 });
 * assert.equal(peers.of(packet), laptop);
 * assert(peers.admits(packet, office)); // 10.9.0.1 is the office's
 * peers.remove("laptop");
 * assert.equal(peers.of(packet), office);
 * ```
 */
export class Peers<OnePeer extends Peer = Peer> {
  readonly #byName = new Map<string, OnePeer>();
  readonly #byNumber = new Map<number, OnePeer>();
  readonly #routes = new RouteTable<OnePeer>();
  #last = 0;

  /** Number of peers. */
  get size(): number {
    return this.#byName.size;
  }

  /** Memory of the prefixes (bytes), without the peers. */
  get byteLength(): number {
    return this.#routes.byteLength;
  }

  /**
   * Adds a peer, and returns it.
   *
   * @throws {TypeError} when its name or one of its prefixes belongs to another peer, or it has been added before.
   */
  add(peer: OnePeer): OnePeer {
    const { name, prefixes } = peer;
    const attempt = `Cannot add peer "${name}"`;
    if (peer.number !== 0) throw new TypeError(`${attempt}: it has been added before: create another`);
    if (this.#byName.has(name)) throw new TypeError(`${attempt}: there is a peer of this name`);
    for (const prefix of prefixes) {
      const owner = this.#routes.get(prefix);
      if (owner === undefined) continue;
      throw new TypeError(`${attempt}: ${formatCidr(prefix)} belongs to peer "${owner.name}"`);
    }
    for (const prefix of prefixes) this.#routes.set(prefix, peer);
    peer.number = ++this.#last;
    this.#byName.set(name, peer);
    this.#byNumber.set(peer.number, peer);
    return peer;
  }

  /** Removes a peer by its name, and returns it; `undefined` if there is none. */
  remove(name: string): OnePeer | undefined {
    const peer = this.#byName.get(name);
    if (peer === undefined) return undefined;
    for (const prefix of peer.prefixes) this.#routes.delete(prefix);
    this.#byName.delete(name);
    this.#byNumber.delete(peer.number);
    return peer;
  }

  /** Returns the peer of this name. */
  byName(name: string): OnePeer | undefined {
    return this.#byName.get(name);
  }

  /** Returns the peer of this number. */
  byNumber(number: number): OnePeer | undefined {
    return this.#byNumber.get(number);
  }

  /**
   * Returns the peer that an outbound packet goes to: the one in `packet.to` if that is not 0, else the one with the
   * longest prefix of its destination.
   */
  of(packet: Packet): OnePeer | undefined {
    if (packet.to !== 0) return this.#byNumber.get(packet.to);
    const ip = Ip.of(packet);
    if (ip === undefined) return undefined;
    return ip.version === 4
      ? this.#routes.findIpv4(ip.dst)
      : this.#routes.findIpv6(packet.bytes, ip.start + IPV6_DST);
  }

  /** Reports whether an inbound packet may come from this peer: it has the longest prefix of the source. */
  admits(packet: Packet, peer: OnePeer): boolean {
    const ip = Ip.of(packet);
    if (ip === undefined) return false;
    const owner = ip.version === 4
      ? this.#routes.findIpv4(ip.src)
      : this.#routes.findIpv6(packet.bytes, ip.start + IPV6_SRC);
    return owner === peer;
  }

  /** Iterates over the peers in the order in which they were added. */
  [Symbol.iterator](): Iterator<OnePeer, void, void> {
    return this.#byName.values();
  }
}
