/** FIFO queue with a limit. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import { checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";
import { PacketLists } from "./_packet_lists.ts";
import type { Scheduler } from "./scheduler.ts";

// Implementation
const PACKETS = 512;
const FULL = "queue full";

/** Options of {@linkcode Fifo}. */
export interface FifoOptions {
  /** Maximum packets that wait. @default {512} */
  readonly packets?: number;
  /** Bytes at which the queue is full; the packet that reaches them still fits. @default {Infinity} */
  readonly bytes?: number;
}

const NAMES: OptionKinds<FifoOptions> = { packets: "number", bytes: "number" };

/**
 * First in, first out. A full queue drops arriving packets: `queue full`. A flow that fills it delays all
 * others; {@linkcode FqCodel} prevents that.
 *
 * @example A queue of 50 ms at 10 Mbit/s
 * ```ts
 * import { Fifo, Shaper } from "@warren/tunnel/shape";
 *
 * new Shaper({ outbound: { rateBitsPerSecond: 10e6, queue: new Fifo({ bytes: 62_500 }) } });
 * ```
 */
export class Fifo implements Scheduler {
  readonly #lists = new PacketLists(1);
  readonly #packetLimit: number;
  readonly #byteLimit: number;

  /**
   * Creates an empty queue.
   *
   * @throws {RangeError} when a limit is below 1.
   */
  constructor(options: FifoOptions = {}) {
    checkOptions("create a Fifo", options, NAMES);
    const { packets = PACKETS, bytes = Infinity } = options;
    checkMin("create a Fifo", "packets", packets, 1);
    checkMin("create a Fifo", "bytes", bytes, 1);
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
  }

  /** Packets that wait. */
  get length(): number {
    return this.#lists.length;
  }

  /** Bytes on the wire of packets that wait. */
  get bytes(): number {
    return this.#lists.bytesOf(0);
  }

  /** Appends a packet, or drops it when the queue is full. */
  enqueue(packet: Packet, context: StageContext): void {
    if (this.length >= this.#packetLimit || this.bytes >= this.#byteLimit) return context.drop(packet, FULL);
    context.hold(packet);
    this.#lists.push(0, packet, context.now);
  }

  /** Removes the packet that has waited longest. */
  dequeue(): Packet | undefined {
    return this.#lists.shift(0);
  }
}
