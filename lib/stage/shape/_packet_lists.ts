/** FIFO lists of packets, linked by slot numbers, so that queueing allocates nothing. */

import { ENDPOINT_ROOM, type Packet } from "../../core/packet.ts";
import { wireLength } from "../../split/stage_segmenter.ts";

// Implementation
const NONE = -1;

/** Numbered lists. A packet is in at most one of them. */
export class PacketLists {
  /** Packets in all lists. */
  length = 0;
  /** Pool memory that their slots occupy (bytes). */
  memory = 0;
  readonly #first: Int32Array;
  readonly #last: Int32Array;
  readonly #bytes: Float64Array;
  /** By slot: the next slot in the list, the length on the wire and the arrival time. */
  #next = new Int32Array(0);
  #sizes = new Int32Array(0);
  #times = new Float64Array(0);
  #packets: readonly Packet[] = [];

  constructor(count: number) {
    this.#first = new Int32Array(count).fill(NONE);
    this.#last = new Int32Array(count).fill(NONE);
    this.#bytes = new Float64Array(count);
  }

  /** Returns the bytes of a list on the wire. */
  bytesOf(list: number): number {
    return this.#bytes[list]!;
  }

  /** Returns the length on the wire of a packet that is in a list, or was until it was removed. */
  sizeOf(packet: Packet): number {
    return this.#sizes[packet.slot]!;
  }

  /** Returns the arrival time of such a packet. */
  timeOf(packet: Packet): number {
    return this.#times[packet.slot]!;
  }

  push(list: number, packet: Packet, now: number): void {
    // All packets of a tunnel come from one pool.
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

  /** Removes the first packet of a list; `undefined` when it is empty. */
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
