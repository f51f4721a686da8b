/** CoDel (RFC 8289) on many queues: drops or marks packets of a queue whose delay stays above the target. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import * as field from "../../wire/header_fields.ts";
import { Ip } from "../../wire/ip.ts";
import type { PacketLists } from "./_packet_lists.ts";

// Specification
const { ECN_CONGESTION_EXPERIENCED, ECN_NOT_CAPABLE } = field;
/** RFC 8289 section 4.4: intervals without a drop after which the drop rate is reset. */
const RECENT_INTERVALS = 16;

// Implementation
/** A queue of up to this length (bytes) loses no packets. */
const MAX_PACKET_LENGTH = 1514;
const REASON = "codel";

export interface CodelOptions {
  readonly target: number;
  readonly interval: number;
  readonly ecn: boolean;
}

/** RFC 8289 section 5 with its variable names spelled out; arrays hold the state of each list. */
export class Codel {
  dropped = 0;
  marked = 0;
  readonly #lists: PacketLists;
  readonly #target: number;
  readonly #interval: number;
  readonly #ecn: boolean;
  /** Time at which a list will have been above the target for an interval; `Infinity` if it is not above. */
  readonly #tooLongAt: Float64Array;
  readonly #dropNext: Float64Array;
  readonly #count: Uint32Array;
  readonly #lastCount: Uint32Array;
  readonly #isDropping: Uint8Array;
  /** True if the packet that `#take` returned may be dropped. */
  #isTooLong = false;

  constructor(lists: PacketLists, count: number, { target, interval, ecn }: CodelOptions) {
    this.#lists = lists;
    this.#target = target;
    this.#interval = interval;
    this.#ecn = ecn;
    this.#tooLongAt = new Float64Array(count).fill(Infinity);
    this.#dropNext = new Float64Array(count);
    this.#count = new Uint32Array(count);
    this.#lastCount = new Uint32Array(count);
    this.#isDropping = new Uint8Array(count);
  }

  /** Returns the next packet of a list; `undefined` when it is empty. */
  dequeue(list: number, context: StageContext): Packet | undefined {
    const { now } = context;
    let packet = this.#take(list, now);
    if (this.#isDropping[list] === 1) {
      if (!this.#isTooLong) this.#isDropping[list] = 0;
      while (this.#isDropping[list] === 1 && now >= this.#dropNext[list]!) {
        this.#count[list]!++;
        const isMarked = this.#mark(packet!);
        if (!isMarked) {
          this.#drop(packet!, context);
          packet = this.#take(list, now);
        }
        if (!this.#isTooLong) this.#isDropping[list] = 0;
        else this.#dropNext[list] = this.#controlLaw(list, this.#dropNext[list]!);
        if (isMarked) break;
      }
    } else if (this.#isTooLong) {
      if (!this.#mark(packet!)) {
        this.#drop(packet!, context);
        packet = this.#take(list, now);
      }
      this.#isDropping[list] = 1;
      // Soon after the last dropping state, its final drop rate is a good start.
      const delta = this.#count[list]! - this.#lastCount[list]!;
      const isNear = now - this.#dropNext[list]! < RECENT_INTERVALS * this.#interval;
      this.#count[list] = delta > 1 && isNear ? delta : 1;
      this.#dropNext[list] = this.#controlLaw(list, now);
      this.#lastCount[list] = this.#count[list]!;
    }
    return packet;
  }

  /** Takes the first packet and decides whether it may be dropped. */
  #take(list: number, now: number): Packet | undefined {
    const packet = this.#lists.shift(list);
    this.#isTooLong = false;
    if (
      packet === undefined || now - this.#lists.timeOf(packet) < this.#target ||
      this.#lists.bytesOf(list) <= MAX_PACKET_LENGTH
    ) {
      this.#tooLongAt[list] = Infinity;
    } else if (this.#tooLongAt[list] === Infinity) this.#tooLongAt[list] = now + this.#interval;
    else this.#isTooLong = now >= this.#tooLongAt[list]!;
    return packet;
  }

  #controlLaw(list: number, time: number): number {
    return time + this.#interval / Math.sqrt(this.#count[list]!);
  }

  /** Marks a packet of an ECN-capable flow; returns whether it was marked. */
  #mark(packet: Packet): boolean {
    if (!this.#ecn) return false;
    const ip = Ip.of(packet);
    if (ip === undefined || ip.ecn === ECN_NOT_CAPABLE) return false;
    ip.ecn = ECN_CONGESTION_EXPERIENCED;
    this.marked++;
    return true;
  }

  #drop(packet: Packet, context: StageContext): void {
    this.dropped++;
    context.drop(packet, REASON);
  }
}
