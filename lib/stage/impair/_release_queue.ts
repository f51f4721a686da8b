/** Packets that wait for a time of their own: a heap of the slots' numbers, in memory that is taken once. */

import type { Packet } from "../../core/packet.ts";

/** Packets by the time at which they are due; of those due together, the one that came first. */
export class ReleaseQueue {
  /** How many packets wait. */
  length = 0;
  #heap = new Int32Array(0);
  /** By slot: when the packet is due, and which of all it was. */
  #times = new Float64Array(0);
  #numbers = new Float64Array(0);
  #packets: readonly Packet[] = [];
  #count = 0;

  /** When the first packet is due; `Infinity`: none waits. */
  get due(): number {
    return this.length === 0 ? Infinity : this.#times[this.#heap[0]!]!;
  }

  /** Adds a packet. */
  push(packet: Packet, time: number): void {
    // A tunnel's packets are all of one pool.
    if (this.#packets.length === 0) this.#adopt(packet.pool.packets);
    const { slot } = packet;
    this.#times[slot] = time;
    this.#numbers[slot] = this.#count++;
    const heap = this.#heap;
    let place = this.length++;
    while (place > 0) {
      const above = place - 1 >> 1;
      if (!this.#isBefore(slot, heap[above]!)) break;
      heap[place] = heap[above]!;
      place = above;
    }
    heap[place] = slot;
  }

  /** Takes the packet that is due first. There must be one. */
  shift(): Packet {
    const heap = this.#heap;
    const first = heap[0]!;
    const slot = heap[--this.length]!;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      if (below >= this.length) break;
      if (below + 1 < this.length && this.#isBefore(heap[below + 1]!, heap[below]!)) below++;
      if (!this.#isBefore(heap[below]!, slot)) break;
      heap[place] = heap[below]!;
      place = below;
    }
    heap[place] = slot;
    return this.#packets[first]!;
  }

  #isBefore(slot: number, other: number): boolean {
    const times = this.#times;
    if (times[slot] !== times[other]) return times[slot]! < times[other]!;
    return this.#numbers[slot]! < this.#numbers[other]!;
  }

  #adopt(packets: readonly Packet[]): void {
    this.#packets = packets;
    this.#heap = new Int32Array(packets.length);
    this.#times = new Float64Array(packets.length);
    this.#numbers = new Float64Array(packets.length);
  }
}
