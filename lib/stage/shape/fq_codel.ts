/**
 * FQ-CoDel (RFC 8290): a queue for each flow, whose turns are fair in bytes, and CoDel on each of the queues.
 *
 *     packet ─► hash of its flow ─► that queue ─┬─ it was empty: to the end of the new ones
 *                                               └─ too many packets wait: the fattest queue loses its oldest ones
 *     turn ◄── CoDel ◄── the first new queue, or else the first old one
 *                        no credit left: more credit, and to the end of the old ones
 *                        empty: a new one to the end of the old ones, an old one out
 */

import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import { IPV4_SRC, IPV6_SRC } from "../../wire/header_fields.ts";
import { Ip } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { sipHash } from "../../core/sip_hash.ts";
import { Codel } from "./_codel.ts";
import { PacketLists } from "./_packet_lists.ts";
import type { Scheduler } from "./scheduler.ts";

// Specification: RFC 8290 section 5.2, and 4.1.2 for the batch
const FLOWS = 1024;
const QUANTUM = 1514;
const TARGET = 5;
const INTERVAL = 100;
const DROP_BATCH = 64;

// Specification: offsets of addresses, and their words
const IPV4_ADDRESSES = { at: IPV4_SRC, words: 2 } as const;
const IPV6_ADDRESSES = { at: IPV6_SRC, words: 8 } as const;

// Implementation
/** All of a pool's small slots serve both directions of every tunnel: half of them are enough here. */
const PACKETS = 1024;
const BYTES = 2 * 1024 * 1024;
const MAX_FLOWS = 65_536;
const NONE = -1;
const TWO_TO_32 = 2 ** 32;
const FULL = "queue full";
/** Where packets without a flow wait. */
const NO_FLOW = 0;
/** In which of the lists of queues a queue is. */
const Place = { None: 0, New: 1, Old: 2 } as const;

/** Options for {@linkcode FqCodel}. */
export interface FqCodelOptions {
  /** How many queues there are, 1 to 65,536. Flows whose hashes meet share one. @default {1024} */
  readonly flows?: number;
  /** How many packets may wait in all queues. @default {1024} */
  readonly packets?: number;
  /** How many bytes of the pool's slots they may take: 2 KiB each, 68 KiB for super-packets. @default {2097152} */
  readonly bytes?: number;
  /** How many bytes a queue may send in its turn. @default {1514} */
  readonly quantum?: number;
  /** How long packets may wait, as a standing queue (milliseconds). @default {5} */
  readonly target?: number;
  /** For how long they may wait longer, at first: the longest usual round trip (milliseconds). @default {100} */
  readonly interval?: number;
  /** Whether packets that allow it are marked instead of dropped (RFC 3168). @default {true} */
  readonly ecn?: boolean;
  /** The key of the hash (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

const NAMES: OptionNames<FqCodelOptions> = {
  flows: "number",
  packets: "number",
  bytes: "number",
  quantum: "number",
  target: "number",
  interval: "number",
  ecn: "boolean",
  hashKey: "list",
};

/**
 * FQ-CoDel: flows share the rate fairly, one that sends little waits for nobody, and one that sends too much is told
 * so early. What CoDel takes out is dropped as `codel`, what finds no room as `queue full`: up to 64 of the oldest
 * packets of the flow that has most bytes waiting, until half of these are gone.
 *
 * Flows are told by both addresses, the protocol and both ports, and hashed by a random key. Fragments have no
 * ports: all fragments between two addresses are one flow, so that they keep their order.
 *
 * @example Both flows get their turn
 * ```ts
 * import { FqCodel, Shaper } from "@warren/tunnel/shape";
 *
 * const queue = new FqCodel({ target: 10 });
 * new Shaper({ outbound: { rateBitsPerSecond: 10e6, queue } });
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
  /** The queue behind each one, in the list where it is; and both lists' ends, by {@linkcode Place}. */
  readonly #next: Int32Array;
  readonly #first = new Int32Array(3).fill(NONE);
  readonly #last = new Int32Array(3).fill(NONE);

  /**
   * Empty queues.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  constructor(options: FqCodelOptions = {}) {
    checkNames("make an FqCodel", options, NAMES);
    const { flows = FLOWS, packets = PACKETS, bytes = BYTES, quantum = QUANTUM } = options;
    const { target = TARGET, interval = INTERVAL, ecn = true } = options;
    const [key0, key1] = options.hashKey ?? crypto.getRandomValues(new Uint32Array(2));
    if (!Number.isInteger(flows) || flows < 1 || flows > MAX_FLOWS) {
      throw new RangeError(`Cannot make ${flows} queues: 1 to ${MAX_FLOWS} are possible`);
    }
    if (!(packets >= 1) || !(bytes >= 1)) {
      throw new RangeError(`Cannot bound a queue at ${packets} packets and ${bytes} bytes`);
    }
    if (!(quantum >= 1 && target >= 0 && interval > 0)) {
      throw new RangeError(
        `Cannot take turns of ${quantum} bytes, a target of ${target} and an interval of ${interval} ms`,
      );
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

  /** How many packets wait. */
  get length(): number {
    return this.#lists.length;
  }

  /** How many packets were dropped, by CoDel or since there was no room. */
  get dropped(): number {
    return this.#codel.dropped + this.#overflowed;
  }

  /** How many packets were marked instead. */
  get marked(): number {
    return this.#codel.marked;
  }

  /** Appends a packet to its flow's queue; when there are too many, the fattest flow loses some. */
  enqueue(packet: Packet, context: StageContext): void {
    const flow = this.#flowOf(packet);
    context.hold(packet);
    this.#lists.push(flow, packet, context.now);
    if (this.#places[flow] === Place.None) {
      this.#credits[flow] = this.#quantum;
      this.#append(Place.New, flow);
    }
    if (this.length > this.#packetLimit || this.#lists.memory > this.#byteLimit) this.#lighten(context);
  }

  /** The packet whose turn it is. */
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
      // RFC 8290 section 4.2: a flow that sends whenever its queue is empty would else always be new.
      if (place === Place.New) this.#append(Place.Old, flow);
    }
  }

  /** Which queue a packet goes to. */
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

  /** A hash as a queue's number, without a division. */
  #reduce(hash: number): number {
    return Math.floor((hash >>> 0) * this.#flows / TWO_TO_32);
  }

  /** Takes the oldest packets of the flow with most bytes. */
  #lighten(context: StageContext): void {
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
