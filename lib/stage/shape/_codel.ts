/** CoDel (RFC 8289) on each of many lists: drops or marks a packet when a list has been too long for too long. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import { ECN_CONGESTION_EXPERIENCED, ECN_NOT_CAPABLE } from "../../wire/header_fields.ts";
import { Ip } from "../../wire/ip.ts";
import type { PacketLists } from "./_packet_lists.ts";

// Specification: RFC 8289 section 4.4: after so many intervals without drops, the next ones begin slowly again
const FORGOTTEN = 16;

// Implementation
/** A list that is no longer than a packet is never too long: of that many bytes. */
const MAX_PACKET_LENGTH = 1514;
const REASON = "codel";

/** Options of CoDel. */
export interface CodelOptions {
  readonly target: number;
  readonly interval: number;
  readonly ecn: boolean;
}

/** RFC 8289 section 5, with its names in words; what it keeps of a queue stands in arrays, by the list's number. */
export class Codel {
  /** How many packets were dropped. */
  dropped = 0;
  /** How many packets were marked. */
  marked = 0;
  readonly #lists: PacketLists;
  readonly #target: number;
  readonly #interval: number;
  readonly #ecn: boolean;
  /** When a list will have been too long for an interval; `Infinity`: it is not too long. */
  readonly #tooLongAt: Float64Array;
  readonly #dropNext: Float64Array;
  readonly #count: Uint32Array;
  readonly #lastCount: Uint32Array;
  readonly #isDropping: Uint8Array;
  /** Whether the packet that `#take` gave may be dropped. */
  #isTooLong = false;

  /** On these lists, of which there are so many. */
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

  /** The packet of a list that goes next; `undefined`: it is empty. */
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
      // Near the last time, the rate that controlled the queue then is the one to start with.
      const delta = this.#count[list]! - this.#lastCount[list]!;
      const isNear = now - this.#dropNext[list]! < FORGOTTEN * this.#interval;
      this.#count[list] = delta > 1 && isNear ? delta : 1;
      this.#dropNext[list] = this.#controlLaw(list, now);
      this.#lastCount[list] = this.#count[list]!;
    }
    return packet;
  }

  /** The first packet, and whether it may be dropped. */
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

  /** Marks a packet of a flow that knows what it means; returns whether it does. */
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
