/**
 * FQ-CoDel (RFC 8290): a queue per flow, deficit round robin between them, CoDel on each.
 *
 *     packet ─► hash of its flow ─► queue ─┬─ was empty: appended to the new queues
 *                                          └─ limit reached: the longest queue loses its oldest packets
 *     out ◄── CoDel ◄── the first new queue, else the first old one
 *                       no credit left: gets a quantum and moves to the end of the old queues
 *                       empty: a new queue moves to the end of the old ones, an old one leaves
 */

import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import * as field from "../../wire/header_fields.ts";
import { Ip } from "../../wire/ip.ts";
import { checkInteger, checkMin, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { sipHash } from "../../core/sip_hash.ts";
import { Codel } from "./_codel.ts";
import { PacketLists } from "./_packet_lists.ts";
import type { Scheduler } from "./scheduler.ts";

// Specification: RFC 8290 section 5.2, and 4.1.2 for the batch
const { IPV4_SRC, IPV6_SRC } = field;
const FLOWS = 1024;
const QUANTUM = 1514;
const TARGET = 5;
const INTERVAL = 100;
const DROP_BATCH = 64;

// Specification: offset and number of words of the addresses
const IPV4_ADDRESSES = { at: IPV4_SRC, words: 2 } as const;
const IPV6_ADDRESSES = { at: IPV6_SRC, words: 8 } as const;

// Implementation
/** Half of the pool's small slots, which all tunnels share. */
const PACKETS = 1024;
const BYTES = 2 * 1024 * 1024;
const MAX_FLOWS = 65_536;
const NONE = -1;
const TWO_TO_32 = 2 ** 32;
const FULL = "queue full";
/** Queue of packets without a flow. */
const NO_FLOW = 0;
/** List that holds a queue. */
const Place = { None: 0, New: 1, Old: 2 } as const;

/** Options of {@linkcode FqCodel}. */
export interface FqCodelOptions {
  /** Number of queues, 1 to 65,536. Flows with equal hashes share one. @default {1024} */
  readonly flows?: number;
  /** Maximum packets in all queues. @default {1024} */
  readonly packets?: number;
  /** Maximum pool memory: 2 KiB per packet, 68 KiB per super-packet (bytes). @default {2097152} */
  readonly bytes?: number;
  /** Bytes that a queue may send per turn. @default {1514} */
  readonly quantum?: number;
  /** Target delay of a standing queue (milliseconds). @default {5} */
  readonly target?: number;
  /** Time above the target before the first drop: the longest usual round trip (milliseconds). @default {100} */
  readonly interval?: number;
  /** Marks ECN-capable packets instead of dropping them (RFC 3168). @default {true} */
  readonly ecn?: boolean;
  /** Key of the hash (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionKinds<FqCodelOptions> = {
  flows: "number",
  packets: "number",
  bytes: "number",
  quantum: "number",
  target: "number",
  interval: "number",
  ecn: "boolean",
  hashKey: "numbers",
};

/**
 * FQ-CoDel (RFC 8290): flows share the rate fairly, sparse flows hardly wait, and CoDel keeps queues short. CoDel drops
 * packets with the reason `codel`. At the limit, the flow with the most bytes loses its oldest packets: half of its bytes,
 * at most 64 packets, with the reason `queue full`.
 *
 * A flow is both addresses, protocol and both ports, hashed with a random key. All fragments between two addresses are
 * one flow, which keeps their order.
 *
 * @example A target of 10 ms on a link of 10 Mbit/s
 * ```ts
 * import { FqCodel, Shaper } from "@warren/tunnel/shape";
 *
 * const queue = new FqCodel({ target: 10 });
 * new Shaper({ outbound: { rateBitsPerSecond: 10e6, queue } }); // tunnel.use(shaper)
 * console.log(queue.length, queue.dropped, queue.marked);
 * ```
 */
export class FqCodel implements Scheduler {
  readonly #lists: PacketLists;
  readonly #codel: Codel;
  readonly #flows: number;
  readonly #packetLimit: number;
  readonly #byteLimit: number;
  readonly #quantum: number;
  readonly #key0: number;
  readonly #key1: number;
  readonly #key = new FlowKey();
  readonly #addresses = new Uint32Array(1 + IPV6_ADDRESSES.words);
  #overflowed = 0;
  readonly #credits: Float64Array;
  readonly #places: Uint8Array;
  /** Next queue in the list of each queue; first and last queue of each list, by {@linkcode Place}. */
  readonly #next: Int32Array;
  readonly #first = new Int32Array(3).fill(NONE);
  readonly #last = new Int32Array(3).fill(NONE);

  /**
   * Creates empty queues.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(options: FqCodelOptions = {}) {
    const attempt = "create an FqCodel";
    checkOptions(attempt, options, NAMES);
    const { flows = FLOWS, packets = PACKETS, bytes = BYTES, quantum = QUANTUM } = options;
    const { target = TARGET, interval = INTERVAL, ecn = true } = options;
    const [key0, key1] = options.hashKey ?? crypto.getRandomValues(new Uint32Array(2));
    checkInteger(attempt, "flows", flows, 1, MAX_FLOWS);
    checkMin(attempt, "packets", packets, 1);
    checkMin(attempt, "bytes", bytes, 1);
    checkMin(attempt, "quantum", quantum, 1);
    checkMin(attempt, "target", target, 0);
    if (!(interval > 0)) {
      throw new RangeError(`Cannot ${attempt}: interval must be above 0, ${gotValue(interval)}`);
    }
    this.#lists = new PacketLists(flows);
    this.#codel = new Codel(this.#lists, flows, { target, interval, ecn });
    this.#flows = flows;
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
    this.#quantum = quantum;
    this.#key0 = key0!;
    this.#key1 = key1!;
    this.#credits = new Float64Array(flows);
    this.#places = new Uint8Array(flows);
    this.#next = new Int32Array(flows);
  }

  /** Packets that wait. */
  get length(): number {
    return this.#lists.length;
  }

  /** Packets dropped, by CoDel or at the limit. */
  get dropped(): number {
    return this.#codel.dropped + this.#overflowed;
  }

  /** Packets marked instead of dropped. */
  get marked(): number {
    return this.#codel.marked;
  }

  /** Appends a packet to its flow's queue; at the limit, the flow with the most bytes loses some. */
  enqueue(packet: Packet, context: StageContext): void {
    const flow = this.#flowOf(packet);
    context.hold(packet);
    this.#lists.push(flow, packet, context.now);
    if (this.#places[flow] === Place.None) {
      this.#credits[flow] = this.#quantum;
      this.#append(Place.New, flow);
    }
    if (this.length > this.#packetLimit || this.#lists.memory > this.#byteLimit) {
      this.#dropFromLongest(context);
    }
  }

  /** Removes the packet whose turn it is. */
  dequeue(context: StageContext): Packet | undefined {
    for (;;) {
      const place = this.#first[Place.New] === NONE ? Place.Old : Place.New;
      const flow = this.#first[place]!;
      if (flow === NONE) return undefined;
      if (this.#credits[flow]! <= 0) {
        this.#credits[flow]! += this.#quantum;
        this.#shift(place);
        this.#append(Place.Old, flow);
        continue;
      }
      const packet = this.#codel.dequeue(flow, context);
      if (packet !== undefined) {
        this.#credits[flow]! -= this.#lists.sizeOf(packet);
        return packet;
      }
      this.#shift(place);
      // RFC 8290 section 4.2: otherwise a flow that sends whenever its queue is empty would always be new.
      if (place === Place.New) this.#append(Place.Old, flow);
    }
  }

  #flowOf(packet: Packet): number {
    const key = this.#key;
    const ip = Ip.of(packet);
    if (ip === undefined) return NO_FLOW;
    if (ip.isFragment || key.read(packet) === FlowKind.None) return this.#flowOfAddresses(packet, ip);
    return this.#reduce(sipHash(key.words, key.length, this.#key0, this.#key1));
  }

  #flowOfAddresses({ view }: Packet, { version, protocol, start }: Ip): number {
    const key = this.#addresses;
    const { at, words } = version === 4 ? IPV4_ADDRESSES : IPV6_ADDRESSES;
    key[0] = version << 8 | protocol;
    for (let i = 0; i < words; i++) key[1 + i] = view.getUint32(start + at + 4 * i);
    return this.#reduce(sipHash(key, 1 + words, this.#key0, this.#key1));
  }

  /** Maps a hash to a queue's number without a division. */
  #reduce(hash: number): number {
    return Math.floor((hash >>> 0) * this.#flows / TWO_TO_32);
  }

  /** Drops the oldest packets of the flow with the most bytes. */
  #dropFromLongest(context: StageContext): void {
    const lists = this.#lists;
    let fattest = 0;
    for (let flow = 1; flow < this.#flows; flow++) {
      if (lists.bytesOf(flow) > lists.bytesOf(fattest)) fattest = flow;
    }
    const enough = lists.bytesOf(fattest) / 2;
    for (let count = 0; count < DROP_BATCH && lists.bytesOf(fattest) > enough; count++) {
      this.#overflowed++;
      context.drop(lists.shift(fattest)!, FULL);
    }
  }

  #append(place: number, flow: number): void {
    this.#places[flow] = place;
    this.#next[flow] = NONE;
    const last = this.#last[place]!;
    if (last === NONE) this.#first[place] = flow;
    else this.#next[last] = flow;
    this.#last[place] = flow;
  }

  #shift(place: number): void {
    const flow = this.#first[place]!;
    this.#places[flow] = Place.None;
    this.#first[place] = this.#next[flow]!;
    if (this.#first[place] === NONE) this.#last[place] = NONE;
  }
}
