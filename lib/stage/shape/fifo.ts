/** One queue: first in, first out. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { PacketLists } from "./_packet_lists.ts";
import type { Scheduler } from "./scheduler.ts";

// Implementation
const PACKETS = 512;
const FULL = "queue full";

/** Options for {@linkcode Fifo}. */
export interface FifoOptions {
  /** How many packets may wait. @default {512} */
  readonly packets?: number;
  /** How many bytes may wait: one packet more than that many. @default {Infinity} */
  readonly bytes?: number;
}

const NAMES: OptionNames<FifoOptions> = { packets: "number", bytes: "number" };

/**
 * First in, first out; what finds it full is dropped as `queue full`. A flow that fills it makes every other one wait:
 * {@linkcode FqCodel} does not.
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
   * An empty queue.
   *
   * @throws {RangeError} when a bound is not at least 1.
   */
  constructor(options: FifoOptions = {}) {
    checkNames("make a Fifo", options, NAMES);
    const { packets = PACKETS, bytes = Infinity } = options;
    if (!(packets >= 1) || !(bytes >= 1)) {
      throw new RangeError(`Cannot bound a queue at ${packets} packets and ${bytes} bytes`);
    }
    this.#packetLimit = packets;
    this.#byteLimit = bytes;
  }

  /** How many packets wait. */
  get length(): number {
    return this.#lists.length;
  }

  /** How many bytes wait. */
  get bytes(): number {
    return this.#lists.bytesOf(0);
  }

  /** Appends a packet, or drops it. */
  enqueue(packet: Packet, context: StageContext): void {
    if (this.length >= this.#packetLimit || this.bytes >= this.#byteLimit) return context.drop(packet, FULL);
    context.hold(packet);
    this.#lists.push(0, packet, context.now);
  }

  /** The packet that has waited longest. */
  dequeue(): Packet | undefined {
    return this.#lists.shift(0);
  }
}
