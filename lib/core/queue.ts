/** A bounded first-in-first-out queue of packets, in a ring. */

import { checkInteger, checkMin } from "./options.ts";
import { fixedError, type Packet } from "./packet.ts";

/** Options for {@linkcode PacketQueue}. */
export interface PacketQueueOptions {
  /** Number of packets that fill it. */
  packets: number;
  /** Number of bytes that fill it. @default {Infinity} */
  bytes?: number;
}

/** A first-in-first-out queue, in which ends keep packets between two breaths (turns of the packet loop). */
export class PacketQueue {
  readonly #ring: (Packet | undefined)[];
  readonly #byteLimit: number;
  #first = 0;
  #length = 0;
  #bytes = 0;

  /**
   * Creates an empty queue.
   *
   * @throws {RangeError} when a limit is below 1.
   */
  constructor({ packets, bytes = Infinity }: PacketQueueOptions) {
    checkInteger("create a packet queue", "packets", packets, 1, Infinity);
    checkMin("create a packet queue", "bytes", bytes, 1);
    this.#ring = new Array(packets).fill(undefined);
    this.#byteLimit = bytes;
  }

  /** Number of packets. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of the packets. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Set when a limit is reached. */
  get full(): boolean {
    return this.#length === this.#ring.length || this.#bytes >= this.#byteLimit;
  }

  /** Packet at the front; `undefined` if the queue is empty. */
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
    // Nothing reads the owner of a queued packet; storing a short-lived queue in a long-lived packet takes V8 3 ns.
    packet.owner = undefined;
  }

  /** Removes the packet at the front; the caller becomes its owner. The queue must not be empty. */
  shift(): Packet {
    const packet = this.#ring[this.#first]!;
    this.#ring[this.#first] = undefined;
    this.#first = this.#first + 1 === this.#ring.length ? 0 : this.#first + 1;
    this.#length--;
    this.#bytes -= packet.length;
    return packet;
  }
}
