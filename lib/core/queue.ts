/** Packets that wait for their turn: bounded, first in, first out, in a ring. */

import { fixedError, type Packet } from "./packet.ts";

/** Options for {@linkcode PacketQueue}. */
export interface PacketQueueOptions {
  /** How many packets fill it. */
  packets: number;
  /** How many bytes fill it. @default {Infinity} */
  bytes?: number;
}

/** A queue of handles: what ends keep between two breaths. */
export class PacketQueue {
  readonly #ring: (Packet | undefined)[];
  readonly #byteLimit: number;
  #first = 0;
  #length = 0;
  #bytes = 0;

  /**
   * An empty queue.
   *
   * @throws {RangeError} when a bound is not at least 1.
   */
  constructor({ packets, bytes = Infinity }: PacketQueueOptions) {
    if (!Number.isInteger(packets) || packets < 1 || !(bytes >= 1)) {
      throw new RangeError(`Cannot bound a queue at ${packets} packets and ${bytes} bytes`);
    }
    this.#ring = new Array(packets).fill(undefined);
    this.#byteLimit = bytes;
  }

  /** How many packets are in it. */
  get length(): number {
    return this.#length;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether it takes no more. */
  get full(): boolean {
    return this.#length === this.#ring.length || this.#bytes >= this.#byteLimit;
  }

  /** The packet whose turn it is. */
  get first(): Packet | undefined {
    return this.#ring[this.#first];
  }

  /**
   * Appends a packet; the caller has checked {@linkcode PacketQueue.full}.
   *
   * @throws {TypeError} when the packet is free, or on loan to a stage or script.
   */
  push(packet: Packet): void {
    if (packet.isFixed) throw fixedError("queue a packet", packet);
    let slot = this.#first + this.#length++;
    if (slot >= this.#ring.length) slot -= this.#ring.length;
    this.#ring[slot] = packet;
    this.#bytes += packet.length;
    // Nothing asks whose they are, and to store a short-lived queue in a long-lived packet takes V8 3 ns.
    packet.owner = undefined;
  }

  /** Takes the packet whose turn it is; the caller owns it. There must be one. */
  shift(): Packet {
    const packet = this.#ring[this.#first]!;
    this.#ring[this.#first] = undefined;
    this.#first = this.#first + 1 === this.#ring.length ? 0 : this.#first + 1;
    this.#length--;
    this.#bytes -= packet.length;
    return packet;
  }
}
