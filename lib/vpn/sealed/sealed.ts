/**
 * The sealed protocol: packets encrypted with pre-shared keys, without a handshake.
 *
 *     packet ──► peer of its destination ──► rate, quota ──► session ──► seal ──► datagram to the peer's outer address
 *     packet ◄── rate, quota ◄── peer of its source? ◄── open ◄── replayed? ◄── session of the key id ◄── datagram
 */

import { checkMin, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { copyMetadata } from "../../core/copy_packet.ts";
import { OUT_OF_SLOT, type Packet } from "../../core/packet.ts";
import { Direction, type PacketBatch, type StageContext } from "../../core/mod.ts";
import { Segmenter } from "../../split/segmenter.ts";
import { wireLength } from "../../split/stage_segmenter.ts";
import { type AeadName, type Cryptography, TAG_LENGTH } from "../aead.ts";
import { type Peer, PEER_OPTIONS, PeerDrop, type PeerOptions, Peers } from "../peers.ts";
import type { VpnProtocol } from "../protocol.ts";
import { Attempts } from "./_attempts.ts";
import * as field from "./_datagram.ts";
import { PreSharedKey, readKey, type SealedRole } from "./_pre_shared_key.ts";
import { type ReceivingSession, RestoredSession, type SavedSession, timeOf } from "./_sessions.ts";
import { SealedPeer } from "./_sealed_peer.ts";

export type { SealedRole } from "./_pre_shared_key.ts";

// Specification
const { COUNTER, COUNTER_HIGH_LIMIT, HEADER, OVERHEAD, SESSION } = field;
const TWO_TO_32 = 2 ** 32;

// Implementation
const KEEPALIVE = 25_000;
const MAX_CLOCK_ERROR = 120_000;
/** Time in which the successors of a session follow it, whatever the clock says: 1000 sessions, 1 ms each. */
const MAX_SUCCESSION = 1000;
/** A session may be this old before its sender replaces it. */
const MIN_CLOCK_ERROR = 20_000;
/** Half the first interval of keepalives to a peer that has not answered yet; each interval is twice the one before. */
const FIRST_RETRY = 500;
/** Minimum time between two passes over all peers. */
const MIN_WAIT = 250;
/** Attempts with unknown sessions, of all peers together. */
const ATTEMPTS_PER_SECOND = 1000;
const ATTEMPTS_BURST = 500;
const ATTEMPT = "seal packets";
const FORMAT = "sealed 1";
const ALL_ADDRESSES = ["0.0.0.0/0", "::/0"];

/** Drop reasons of {@linkcode Sealed}, besides {@linkcode PeerDrop}. */
export const SealedDrop = {
  /** Shorter than a header and a tag, or with an impossible counter. */
  Malformed: "malformed datagram",
  /** No peer has this key id. */
  UnknownKey: "unknown key",
  /** The tag is wrong: forged, damaged, or of another key, role or algorithm. */
  NotAuthentic: "not authentic",
  /** Received before, or more than 8192 datagrams late. */
  Replayed: "replayed",
  /** Of a session that is older than the peer's newest, or as old. */
  OldSession: "old session",
  /** Of a new session whose time is too far from this machine's clock. */
  ClocksDiffer: "clocks differ",
  /** Of a new session, while too many others are being tried. */
  TooManySessions: "too many unknown sessions",
  /** The peer's outer address is not known yet. */
  NoEndpoint: "no endpoint",
  /** The packet's slot has no room for the header or the tag. */
  NoRoom: "no room for the header",
  /** The session's counters are used up. */
  Exhausted: "counters used up",
  /** The pool has no slot for a segment of a super-packet. */
  PoolEmpty: "pool empty",
} as const;
/** One of {@linkcode SealedDrop}'s values. */
export type SealedDrop = typeof SealedDrop[keyof typeof SealedDrop];

/** Options of one peer of {@linkcode Sealed}. */
export interface SealedPeerOptions extends PeerOptions {
  /**
   * Pre-shared key: 32 random bytes, as an array, 64 hexadecimal digits, or base64.
   * @default {derived from the protocol's `key` and the peer's name}
   */
  readonly key?: Uint8Array | string;
}

/** Options of {@linkcode Sealed}. */
export interface SealedOptions {
  /** Side of the connection: one side connects, the other listens. */
  readonly role: SealedRole;
  /**
   * Pre-shared key: 32 random bytes, as an array, 64 hexadecimal digits, or base64. Without `peers`, that of the only
   * peer; with `peers`, the key from which those of peers without a `key` are derived.
   */
  readonly key?: Uint8Array | string;
  /** Name of this machine among the peers of the other side, which derives this machine's key from it. @default {none} */
  readonly name?: string;
  /** Peers. @default {one peer named "peer", for all addresses} */
  readonly peers?: readonly SealedPeerOptions[];
  /** Algorithm, the same on both sides. @default {"chacha20-poly1305"} */
  readonly aead?: AeadName;
  /**
   * Interval of keepalives when nothing else is sent (milliseconds); 0 for none.
   * @default {25000 for "connect", 0 for "listen"}
   */
  readonly keepalive?: number;
  /** Maximum difference between a new session's time and this machine's clock (milliseconds). @default {120000} */
  readonly maxClockError?: number;
}

const NAMES_OF_PEER: OptionKinds<SealedPeerOptions> = { ...PEER_OPTIONS, key: "any" };
const NAMES: OptionKinds<SealedOptions> = {
  role: ["connect", "listen"],
  key: "any",
  name: "text",
  peers: "list",
  aead: ["chacha20-poly1305", "aes-256-gcm", "aes-128-gcm"],
  keepalive: "number",
  maxClockError: "number",
};

/**
 * Encrypts packets to peers with pre-shared keys, without a handshake. [Datagram, keys, guarantees](./README.md).
 *
 * **Outbound**: finds the peer by `packet.to` or the destination, seals the packet, and sets the peer's outer address. A
 * super-packet is segmented on the way.
 * **Inbound**: opens datagrams, refuses replays and sources that are not the peer's, and sets `packet.from`.
 * **Options**: {@linkcode SealedOptions}. **Counters**: `peers`, `sessions`, `keepalivesOut`, `keepalivesIn`, `roamed`.
 * **Drops**: {@linkcode SealedDrop}, {@linkcode PeerDrop}, those of `Segmenter`.
 * **Limits**: no forward secrecy, no hidden identities; clocks must agree within two minutes; after a restart without a
 * saved state, datagrams of the last two minutes can be replayed once.
 *
 * @example A packet becomes a datagram, and a packet again
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { openCryptography } from "@warren/tunnel/cryptography";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Sealed } from "@warren/tunnel/vpn";
 *
 * const cryptography = await openCryptography("node");
 * const key = "NUTMQBP9KbXuYWy9Hzt3Bwp5ZsbYcQ2w4xlF/fSMC7w=";
 * const client = new Sealed(cryptography, Date.now, { role: "connect", key, name: "laptop" });
 * const peers = [{ name: "laptop", allowed: ["10.9.0.2"] }];
 * const server = new Sealed(cryptography, Date.now, { role: "listen", key, peers });
 *
 * const packet = new PacketPool().from(Uint8Array.of(1, 2, 3))!;
 * Ipv4.encode(packet, { src: 0x0a090002, dst: 0x0a090001, protocol: 253 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * const context = { now: 0, take() {}, emit() {} } as unknown as StageContext;
 * client.outbound(batch, context); // the tunnel does this
 * assert.equal(packet.length, 23 + 40);
 * server.inbound(batch, context);
 * assert.equal(server.peers.byNumber(packet.from)!.name, "laptop");
 * assert.deepEqual([...packet.data.subarray(20)], [1, 2, 3]);
 * ```
 */
export class Sealed implements VpnProtocol {
  readonly name = "sealed";
  readonly overhead: number = OVERHEAD;
  /** Peers, to be read; {@linkcode Sealed.add} and {@linkcode Sealed.remove} change them. */
  readonly peers: Pick<Peers, "byName" | "byNumber" | "size" | typeof Symbol.iterator>;

  readonly #cryptography: Cryptography;
  readonly #wallClock: () => number;
  readonly #role: SealedRole;
  readonly #aead: AeadName;
  readonly #keepalive: number;
  readonly #maxClockError: number;
  /** Common key of peers without their own. */
  readonly #key: Uint8Array | undefined;
  readonly #peers = new Peers<SealedPeer>();
  readonly #byKeyId = new Map<number, SealedPeer>();
  readonly #attempts = new Attempts(ATTEMPTS_PER_SECOND, ATTEMPTS_BURST);
  readonly #segmenter = new Segmenter();
  readonly #random = (bytes: Uint8Array) => this.#cryptography.random(bytes);
  #context: StageContext | undefined;
  #sessions = 0;
  #keepalivesOut = 0;
  #keepalivesIn = 0;
  /** Changes of outer addresses, of removed peers as well. */
  #roamed = 0;

  /**
   * Creates the protocol of one side.
   *
   * @param wallClock Returns milliseconds since 1970, as `Date.now` does.
   * @throws {TypeError} when an option is missing, unknown, or of the wrong type, a key is not 32 random bytes, or two
   * peers have the same name, prefix or key.
   * @throws {RangeError} when an option is out of range.
   * @throws {SyntaxError} when a prefix does not parse.
   */
  constructor(cryptography: Cryptography, wallClock: () => number, options: SealedOptions) {
    checkOptions(ATTEMPT, options, NAMES, ["role"]);
    const { role, key, name, peers, aead = "chacha20-poly1305", maxClockError = MAX_CLOCK_ERROR } = options;
    const { keepalive = role === "connect" ? KEEPALIVE : 0 } = options;
    checkMin(ATTEMPT, "keepalive", keepalive, 0);
    checkMin(ATTEMPT, "maxClockError", maxClockError, MIN_CLOCK_ERROR);
    if (key === undefined && peers === undefined) throw new TypeError(`Cannot ${ATTEMPT}: key is missing`);
    if (name !== undefined && peers !== undefined) {
      throw new TypeError(
        `Cannot ${ATTEMPT}: name and peers exclude each other: name belongs to the other side`,
      );
    }
    this.#cryptography = cryptography;
    this.#wallClock = wallClock;
    this.#role = role;
    this.#aead = aead;
    this.#keepalive = keepalive;
    this.#maxClockError = maxClockError;
    this.peers = this.#peers;
    const common = key === undefined ? undefined : readKey(ATTEMPT, "key", key);
    if (peers !== undefined) {
      this.#key = common;
      for (const peer of peers) this.add(peer);
    } else {
      const own = name === undefined ? common! : PreSharedKey.ofName(cryptography, common!, name);
      this.add({ name: "peer", allowed: ALL_ADDRESSES, key: own });
      common!.fill(0);
      own.fill(0);
    }
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    let roamed = this.#roamed;
    for (const peer of this.#peers) roamed += peer.roamed;
    return {
      peers: this.#peers.size,
      sessions: this.#sessions,
      keepalivesOut: this.#keepalivesOut,
      keepalivesIn: this.#keepalivesIn,
      roamed,
    };
  }

  /**
   * Adds a peer, while packets flow or before, and returns it.
   *
   * @throws {TypeError} when an option is missing, unknown or of the wrong type, or the peer has the name, a prefix or the
   * key of another.
   * @throws {RangeError} when an option is out of range.
   * @throws {SyntaxError} when a prefix does not parse.
   */
  add(options: SealedPeerOptions): Peer {
    checkOptions("add a peer", options, NAMES_OF_PEER, ["name", "allowed"]);
    const { key, ...rest } = options;
    const psk = new PreSharedKey(this.#cryptography, this.#aead, this.#role, this.#keyOf(rest.name, key));
    try {
      const twin = this.#byKeyId.get(psk.id);
      if (twin !== undefined) {
        const what = twin.psk.equals(psk) ? "its key" : "a key with the same id";
        throw new TypeError(
          `Cannot add peer "${rest.name}": peer "${twin.name}" has ${what}: use another key`,
        );
      }
      const peer = this.#peers.add(new SealedPeer(rest, psk, FIRST_RETRY));
      this.#byKeyId.set(psk.id, peer);
      this.#context?.wake();
      return peer;
    } catch (error) {
      psk.close();
      throw error;
    }
  }

  /** Removes a peer and its keys; returns `false` if there is none of this name. */
  remove(name: string): boolean {
    const peer = this.#peers.remove(name);
    if (peer === undefined) return false;
    this.#byKeyId.delete(peer.psk.id);
    this.#roamed += peer.roamed;
    peer.close();
    return true;
  }

  outbound({ packets, length }: PacketBatch, context: StageContext): void {
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const reason = this.#send(packet, context);
      if (reason !== undefined) context.drop(packet, reason);
    }
  }

  inbound({ packets, length }: PacketBatch, context: StageContext): void {
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const reason = this.#receive(packet, context);
      if (reason !== undefined) context.drop(packet, reason);
    }
  }

  /** Sends keepalives. */
  tick(context: StageContext): number | undefined {
    this.#context = context;
    if (this.#keepalive === 0) return undefined;
    const { now } = context;
    let wait = this.#keepalive;
    for (const peer of this.#peers) {
      if (!this.#isReachable(peer)) continue;
      if (peer.lastSent + this.#interval(peer) <= now) {
        peer.retry *= 2;
        peer.lastSent = now;
        this.#sendKeepalive(peer, context);
      }
      wait = Math.min(wait, peer.lastSent + this.#interval(peer) - now);
    }
    return Math.max(MIN_WAIT, wait);
  }

  /**
   * Returns outer addresses, counters, and the newest session received of each peer, as JSON values. It holds no key, and
   * no session of this side, which would repeat nonces.
   */
  save(): unknown {
    const peers = Array.from(this.#peers, (peer): SavedPeer => ({
      name: peer.name,
      endpoint: peer.endpoint?.toHex(),
      received: peer.current?.save() ?? peer.restored?.saved,
      traffic: [peer.packetsOut, peer.bytesOut, peer.packetsIn, peer.bytesIn],
    }));
    return { format: FORMAT, peers };
  }

  /**
   * Continues with a state of {@linkcode Sealed.save}, for the peers that it names and that exist.
   *
   * @throws {TypeError} when `state` does not come from a `Sealed`; nothing is changed then.
   */
  restore(state: unknown): void {
    const { format, peers } = (state ?? {}) as { format?: unknown; peers?: unknown };
    if (format !== FORMAT || !Array.isArray(peers) || !peers.every(isSavedPeer)) {
      throw new TypeError(`Cannot restore peers: state must be a result of save(), ${gotValue(state)}`);
    }
    for (const { name, endpoint, received, traffic } of peers as readonly SavedPeer[]) {
      const peer = this.#peers.byName(name);
      if (peer === undefined) continue;
      // The connecting side's options say where it sends, and may have changed.
      if (endpoint !== undefined && this.#role === "listen") peer.setEndpoint(Uint8Array.fromHex(endpoint));
      [peer.packetsOut, peer.bytesOut, peer.packetsIn, peer.bytesIn] = traffic;
      if (received === undefined) continue;
      const session = new RestoredSession(received);
      // An older state must not bring back sessions that are closed.
      if (session.time <= peer.newestTime) continue;
      peer.restored = session;
      peer.newestTime = session.time;
    }
  }

  /** Zeroes all keys. */
  close(): void {
    for (const { name } of [...this.#peers]) this.remove(name);
    this.#key?.fill(0);
    this.#context = undefined;
  }

  #keyOf(name: string, key: unknown): Uint8Array {
    if (key !== undefined) return readKey(`add peer "${name}"`, "key", key);
    if (this.#key !== undefined) return PreSharedKey.ofName(this.#cryptography, this.#key, name);
    throw new TypeError(`Cannot add peer "${name}": key is missing: give it a key, or one to all peers`);
  }

  #interval({ lastReceived, retry }: SealedPeer): number {
    return lastReceived === -Infinity ? Math.min(this.#keepalive, retry) : this.#keepalive;
  }

  /** A side that connects sends before it has heard from its peer, to the peer of the end below. */
  #isReachable(peer: SealedPeer): boolean {
    return this.#role === "connect" || peer.hasEndpoint || peer.lastReceived > -Infinity;
  }

  /** Sends a packet; returns the reason to drop it. */
  #send(packet: Packet, context: StageContext): string | undefined {
    if (!packet.isInSlot) return OUT_OF_SLOT;
    const peer = this.#peers.of(packet);
    if (peer === undefined) return PeerDrop.NoPeer;
    if (!this.#isReachable(peer)) return SealedDrop.NoEndpoint;
    const isSuper = packet.segmentSize !== 0;
    const bytes = isSuper ? wireLength(packet) : packet.length;
    const refusal = peer.charge(bytes, Direction.Outbound, context.now);
    if (refusal !== undefined) return refusal;
    if (isSuper) return this.#sendSegments(packet, peer, context);
    packet.finish();
    if (packet.tailroom < TAG_LENGTH) {
      if (packet.headroom < OVERHEAD) return SealedDrop.NoRoom;
      const at = packet.offset - TAG_LENGTH;
      packet.bytes.copyWithin(at, packet.offset, packet.offset + packet.length);
      packet.offset = at;
    }
    if (packet.headroom < HEADER) return SealedDrop.NoRoom;
    if (!this.#seal(packet.offset, packet.length, packet, packet.offset - HEADER, peer, context.now)) {
      return SealedDrop.Exhausted;
    }
    // Emitted as well, since segments of super-packets would overtake it.
    context.emit(packet, Direction.Outbound);
    return undefined;
  }

  /** Encrypts each segment from the super-packet to a slot of its own: one pass over the payload, besides its checksum. */
  #sendSegments(packet: Packet, peer: SealedPeer, context: StageContext): string | undefined {
    const segmenter = this.#segmenter;
    const reason = segmenter.start(packet);
    if (reason !== undefined) return reason;
    while (segmenter.remaining > 0) {
      const length = segmenter.nextLength;
      const datagram = context.take(length + OVERHEAD);
      if (datagram === undefined) return SealedDrop.PoolEmpty;
      copyMetadata(datagram, packet);
      if (!this.#seal(segmenter.nextInPlace(), length, datagram, datagram.offset, peer, context.now)) {
        context.drop(datagram, SealedDrop.Exhausted);
        return SealedDrop.Exhausted;
      }
      context.emit(datagram, Direction.Outbound);
    }
    context.done(packet);
    return undefined;
  }

  #sendKeepalive(peer: SealedPeer, context: StageContext): void {
    const packet = context.take(OVERHEAD);
    if (packet === undefined) return;
    if (!this.#seal(packet.offset + HEADER, 0, packet, packet.offset, peer, context.now)) {
      return context.drop(packet, SealedDrop.Exhausted);
    }
    this.#keepalivesOut++;
    context.emit(packet, Direction.Outbound);
  }

  /** Seals bytes of the packet memory into a datagram that starts at `at` in its slot. */
  #seal(
    from: number,
    length: number,
    datagram: Packet,
    at: number,
    peer: SealedPeer,
    now: number,
  ): boolean {
    const { bytes, view } = datagram;
    const session = peer.needsSession(now)
      ? peer.startSending(this.#wallClock(), this.#maxClockError, now, bytes, this.#random)
      : peer.sending!;
    const { key } = session;
    const { counter } = key;
    view.setInt32(at, peer.psk.id);
    view.setInt32(at + SESSION, session.word0);
    view.setInt32(at + SESSION + 4, session.word1);
    view.setInt32(at + SESSION + 8, session.word2);
    view.setUint32(at + COUNTER, counter / TWO_TO_32);
    view.setUint32(at + COUNTER + 4, counter);
    if (!key.seal(from, length, at + HEADER, at, HEADER)) return false;
    datagram.offset = at;
    datagram.length = length + OVERHEAD;
    peer.address(datagram);
    peer.lastSent = now;
    return true;
  }

  /** Receives a datagram; returns the reason to drop it. */
  #receive(packet: Packet, context: StageContext): string | undefined {
    const { view, offset, length } = packet;
    if (!packet.isInSlot || length < OVERHEAD) return SealedDrop.Malformed;
    const peer = this.#byKeyId.get(view.getInt32(offset));
    if (peer === undefined) return SealedDrop.UnknownKey;
    const high = view.getUint32(offset + COUNTER);
    if (high >= COUNTER_HIGH_LIMIT) return SealedDrop.Malformed;
    const counter = high * TWO_TO_32 + view.getUint32(offset + COUNTER + 4);
    const word0 = view.getInt32(offset + SESSION);
    const word1 = view.getInt32(offset + SESSION + 4);
    const word2 = view.getInt32(offset + SESSION + 8);
    let session = peer.current;
    if (session === undefined || !session.is(word0, word1, word2)) {
      session = peer.previous;
      if (session === undefined || !session.is(word0, word1, word2)) {
        return this.#receiveFirst(packet, counter, word0, word1, word2, peer, context);
      }
    }
    if (!session.window.admits(counter)) return SealedDrop.Replayed;
    if (!open(packet, counter, session)) return SealedDrop.NotAuthentic;
    return this.#deliver(packet, counter, session, peer, context);
  }

  /** Receives a datagram of a session that is not known, which is accepted if it is authentic and later than all before. */
  #receiveFirst(
    packet: Packet,
    counter: number,
    word0: number,
    word1: number,
    word2: number,
    peer: SealedPeer,
    context: StageContext,
  ): string | undefined {
    const { restored } = peer;
    const lastCounter = restored?.is(word0, word1, word2) ? restored.saved.counter : undefined;
    if (lastCounter === undefined) {
      const time = timeOf(word0, word1);
      if (time <= peer.newestTime) return SealedDrop.OldSession;
      const wall = this.#wallClock();
      // If both clocks were set back, the peer goes on from its newest session, 1 ms later for each.
      const latest = Math.max(wall + this.#maxClockError, peer.newestTime + MAX_SUCCESSION);
      if (!(time >= wall - this.#maxClockError && time <= latest)) return SealedDrop.ClocksDiffer;
    } else if (counter <= lastCounter) return SealedDrop.Replayed;
    // A derivation costs as much as opening ten datagrams, and anyone who has seen a key id can cause it.
    const { now } = context;
    if (!peer.attempts.take(now) || !this.#attempts.take(now)) return SealedDrop.TooManySessions;
    const session = peer.candidate(word0, word1, word2, packet.bytes);
    if (!open(packet, counter, session)) {
      session.key[Symbol.dispose]();
      return SealedDrop.NotAuthentic;
    }
    if (lastCounter !== undefined) session.window.reset(lastCounter);
    peer.accept(session, now);
    this.#sessions++;
    const reason = this.#deliver(packet, counter, session, peer, context);
    // Shows the peer that it was heard and, if this side has restarted, this side's session.
    this.#sendKeepalive(peer, context);
    return reason;
  }

  /** Takes an authentic datagram. */
  #deliver(
    packet: Packet,
    counter: number,
    session: ReceivingSession,
    peer: SealedPeer,
    context: StageContext,
  ): string | undefined {
    const { now } = context;
    const { window } = session;
    // The side that connects sends where it was told to: its peer's answers might come from elsewhere.
    if (this.#role === "listen" && session === peer.current && counter > window.newest) peer.follow(packet);
    window.add(counter);
    peer.lastReceived = now;
    packet.offset += HEADER;
    packet.length -= OVERHEAD;
    packet.segmentSize = 0;
    packet.checksumStart = 0;
    packet.checksumOffset = 0;
    packet.from = peer.number;
    packet.to = 0;
    if (packet.length === 0) {
      this.#keepalivesIn++;
      context.done(packet);
      return undefined;
    }
    if (!this.#peers.admits(packet, peer)) return PeerDrop.SpoofedSource;
    return peer.charge(packet.length, Direction.Inbound, now);
  }
}

/** Opens a datagram in place; returns whether it is authentic. */
function open({ offset, length }: Packet, counter: number, { key }: ReceivingSession): boolean {
  return key.open(counter, offset + HEADER, length - HEADER, offset + HEADER, offset, HEADER);
}

/** One peer in a saved state. */
interface SavedPeer {
  readonly name: string;
  readonly endpoint: string | undefined;
  readonly received: SavedSession | undefined;
  /** Packets and bytes out, packets and bytes in. */
  readonly traffic: readonly [number, number, number, number];
}

function isSavedPeer(value: unknown): boolean {
  const { name, endpoint, received, traffic } = (value ?? {}) as Partial<SavedPeer>;
  return typeof name === "string" && (endpoint === undefined || isHex(endpoint, 96)) &&
    (received === undefined ||
      received !== null && isHex(received.session, 24) && isCount(received.counter)) &&
    Array.isArray(traffic) && traffic.length === 4 && traffic.every(isCount);
}

function isHex(value: unknown, length: number): boolean {
  return typeof value === "string" && value.length === length && /^[0-9a-f]*$/.test(value);
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && value as number >= 0;
}
