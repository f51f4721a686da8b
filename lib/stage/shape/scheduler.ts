/** What decides which of the packets that wait goes next. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";

/**
 * A queue discipline: {@linkcode Fifo}, {@linkcode FqCodel}, {@linkcode Priority}, or one of your own. It serves one
 * direction of one stage, has a bound, and says by `context.drop` what it throws away.
 *
 * @example The newest packet first
 * ```ts
 * import assert from "node:assert/strict";
 * import type { Packet, StageContext } from "@warren/tunnel/core";
 * import type { Scheduler } from "@warren/tunnel/shape";
 *
 * class Stack implements Scheduler {
 *   readonly #packets: Packet[] = [];
 *   get length(): number {
 *     return this.#packets.length;
 *   }
 *   enqueue(packet: Packet, context: StageContext): void {
 *     if (this.length === 100) return context.drop(packet, "queue full");
 *     context.hold(packet);
 *     this.#packets.push(packet);
 *   }
 *   dequeue(): Packet | undefined {
 *     return this.#packets.pop();
 *   }
 * }
 * assert.equal(new Stack().length, 0);
 * ```
 */
export interface Scheduler {
  /** How many packets wait. */
  readonly length: number;
  /** Takes a packet: holds it by `context.hold`, or drops it or others. */
  enqueue(packet: Packet, context: StageContext): void;
  /** The packet that goes next, which is still held; `undefined`: none waits, or all that did are dropped. */
  dequeue(context: StageContext): Packet | undefined;
}
