/** Packets ordered by release time: a binary heap of slot numbers, allocated once. */

import type { Packet } from "../../core/packet.ts";

/** Packets by release time; those with the same time leave in arrival order. */
export class ReleaseQueue {
  length = 0;
  #heap = new Int32Array(0);
  /** By slot: release time and arrival number. */
  #times = new Float64Array(0);
  #numbers = new Float64Array(0);
  #packets: readonly Packet[] = [];
  #count = 0;

  /** Time at which the first packet is due; `Infinity` when the queue is empty. */
  get due(): number {
    return this.length === 0 ? Infinity : this.#times[this.#heap[0]!]!;
  }

  push(packet: Packet, time: number): void {
    // All packets of a tunnel come from one pool.
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

  /** Removes the packet that is due first. The queue must not be empty. */
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
