/** Context of a scheduler in tests, and numbered packets. */

import { Direction, type Packet, PacketPool, type StageContext, type WorkerPlace } from "@warren/tunnel/core";
import { encodePacket } from "../../../kit/packet_text.ts";

/** A stage's context for one queue: what it holds, and what it dropped. */
export class QueueContext implements StageContext {
  readonly direction: Direction = Direction.Outbound;
  readonly worker: WorkerPlace = { index: 0, count: 1 };
  readonly pool: PacketPool = new PacketPool({ small: 4096, large: 4 });
  now = 0;
  /** The marks of packets that were dropped, in their order. */
  dropped: number[] = [];
  reasons: Set<string> = new Set();
  readonly #held = new Set<Packet>();

  /** A packet with a mark to know it by. */
  packet(text: string, mark = 0): Packet {
    const packet = this.pool.from(encodePacket(text))!;
    packet.mark = mark;
    return packet;
  }

  hold(packet: Packet): void {
    this.#held.add(packet);
  }
  drop(packet: Packet, reason: string): void {
    this.dropped.push(packet.mark);
    this.reasons.add(reason);
    this.#held.delete(packet);
    this.pool.give(packet);
  }

  /** Takes a packet that a queue has let go; returns its mark. */
  done(packet: Packet | undefined): number | undefined {
    if (packet === undefined) return undefined;
    if (!this.#held.delete(packet)) throw new Error("the queue let a packet go that it did not hold");
    this.pool.give(packet);
    return packet.mark;
  }

  /** Number of held packets. */
  get held(): number {
    return this.#held.size;
  }

  take(): undefined {
    throw new Error("a queue makes no packets");
  }
  emit(): void {
    throw new Error("a queue emits nothing");
  }
  handOver(): void {
    throw new Error("a queue hands nothing over");
  }
  wake(): void {
    throw new Error("a queue must not wake the loop");
  }
}
