/** Packets that wait in lists, first in, first out: linked by the numbers of their slots, so that nothing is allocated. */

import { ENDPOINT_ROOM, type Packet } from "../../core/packet.ts";
import { wireLength } from "../../split/stage_segmenter.ts";

// Implementation
const NONE = -1;

/** Lists by their numbers. A packet is in one of them at most. */
export class PacketLists {
  /** How many packets are in all lists. */
  length = 0;
  /** How many bytes of the pool their slots are. */
  memory = 0;
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #bytes: Float64Array;
  /** By slot: who is behind it, how long it is on the wire, and since when it waits. */
  #next = new Int32Array(0);
  #sizes = new Int32Array(0);
  #times = new Float64Array(0);
  #packets: readonly Packet[] = [];

  /** So many lists, all empty. */
  constructor(count: number) {
    this.#first = new Int32Array(count).fill(NONE);
    this.#last = new Int32Array(count).fill(NONE);
    this.#bytes = new Float64Array(count);
  }

  /** How many bytes of the wire a list has. */
  bytesOf(list: number): number {
    return this.#bytes[list]!;
  }

  /** Whether a list has no packet. */
  isEmpty(list: number): boolean {
    return this.#first[list] === NONE;
  }

  /** How long a packet is on the wire, which is or was last in a list. */
  sizeOf(packet: Packet): number {
    return this.#sizes[packet.slot]!;
  }

  /** Since when it waits, or did. */
  timeOf(packet: Packet): number {
    return this.#times[packet.slot]!;
  }

  /** Appends a packet. */
  push(list: number, packet: Packet, now: number): void {
    // A tunnel's packets are all of one pool.
    if (this.#packets.length === 0) this.#adopt(packet.pool.packets);
    const { slot } = packet;
    const size = wireLength(packet);
    this.#next[slot] = NONE;
    this.#sizes[slot] = size;
    this.#times[slot] = now;
    const last = this.#last[list]!;
    if (last === NONE) this.#first[list] = slot;
    else this.#next[last] = slot;
    this.#last[list] = slot;
    this.#bytes[list]! += size;
    this.length++;
    this.memory += packet.slotEnd - packet.slotStart + ENDPOINT_ROOM;
  }

  /** Takes the first packet of a list; `undefined` when it is empty. */
  shift(list: number): Packet | undefined {
    const slot = this.#first[list]!;
    if (slot === NONE) return undefined;
    const next = this.#next[slot]!;
    this.#first[list] = next;
    if (next === NONE) this.#last[list] = NONE;
    this.#bytes[list]! -= this.#sizes[slot]!;
    const packet = this.#packets[slot]!;
    this.length--;
    this.memory -= packet.slotEnd - packet.slotStart + ENDPOINT_ROOM;
    return packet;
  }

  #adopt(packets: readonly Packet[]): void {
    this.#packets = packets;
    this.#next = new Int32Array(packets.length);
    this.#sizes = new Int32Array(packets.length);
    this.#times = new Float64Array(packets.length);
  }
}
