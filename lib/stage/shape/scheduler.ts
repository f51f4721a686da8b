/** Interface of queues, which decide the order in which waiting packets leave. */

import type { Packet } from "../../core/packet.ts";
import type { StageContext } from "../../core/stage.ts";

/**
 * A queue discipline: {@linkcode Fifo}, {@linkcode FqCodel}, {@linkcode Priority}, or your own class. It serves one
 * direction of a stage, has a limit, and drops packets with `context.drop`.
 *
 * @example The newest packet first
 * ```ts
 * import assert from "node:assert/strict";
 * import { type Packet, PacketPool, type StageContext } from "@warren/tunnel/core";
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
 *
 * const context = { hold() {} } as unknown as StageContext;
 * const pool = new PacketPool();
 * const [first, second] = [pool.take(100)!, pool.take(100)!];
 * const stack = new Stack(); // new Shaper({ outbound: { rateBitsPerSecond: 1e6, queue: stack } })
 * stack.enqueue(first, context);
 * stack.enqueue(second, context);
 * assert.equal(stack.dequeue(), second);
 * ```
 */
export interface Scheduler {
  /** Packets that wait. */
  readonly length: number;
  /** Takes a packet: holds it with `context.hold`, or drops this or other packets. */
  enqueue(packet: Packet, context: StageContext): void;
  /** Removes the next packet, which stays held; `undefined` when none waits, or all that waited were dropped. */
  dequeue(context: StageContext): Packet | undefined;
}
