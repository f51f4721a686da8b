/** A step that every packet of a tunnel passes, and what a step can do with one. */

import type { PacketBatch } from "./batch.ts";
import type { Packet } from "./packet.ts";

/** Which way a packet goes: from this machine, or to it. */
export const Direction = { Outbound: 0, Inbound: 1 } as const;
/** One of {@linkcode Direction}'s values. */
export type Direction = typeof Direction[keyof typeof Direction];

/** The other direction. */
export function opposite(direction: Direction): Direction {
  return direction === Direction.Outbound ? Direction.Inbound : Direction.Outbound;
}

/** What becomes of a packet: onward, thrown away and counted, or back where it came from. */
export const Verdict = { Pass: 0, Drop: 1, Reply: 2 } as const;
/** One of {@linkcode Verdict}'s values. */
export type Verdict = typeof Verdict[keyof typeof Verdict];

/**
 * Decides about one packet. `undefined` is {@linkcode Verdict}`.Pass`. The packet is the handler's until it
 * returns; it may read and change it, and cannot wait: an async function is a type error.
 */
export type PacketHandler = (packet: Packet, context: StageContext) => Verdict | undefined;

/**
 * A step of a tunnel. A stage sees whole batches, changes their packets in place, and says through its
 * context which packets do not simply go onward.
 *
 * @example A stage that counts
 * ```ts
 * import assert from "node:assert/strict";
 * import type { PacketBatch, Stage } from "@warren/tunnel/core";
 *
 * class Count implements Stage {
 *   readonly name = "count";
 *   packets = 0;
 *   outbound(batch: PacketBatch): void {
 *     this.packets += batch.length;
 *   }
 * }
 * assert(new Count().name === "count");
 * ```
 */
export interface Stage {
  /** What statistics and error messages call it. */
  readonly name: string;
  /** Packets from this machine. Without it they pass untouched. */
  outbound?(batch: PacketBatch, context: StageContext): void;
  /** Packets to this machine. Without it they pass untouched. */
  inbound?(batch: PacketBatch, context: StageContext): void;
  /**
   * Work that is due by time. First called in the first breath; returns after how many milliseconds it wants
   * to be called again, or `undefined` for not before the next `context.wake()`.
   */
  tick?(context: StageContext): number | undefined;
  /**
   * Tells whether it gets ordinary packets only, which a stage needs if it changes or moves the bytes behind the headers:
   * super-packets are segmented before it, and partial checksums finished, in each direction that it has a method for.
   * Towards a device that takes super-packets, segments are put together again. @default {false}
   */
  readonly segmented?: boolean;
  /**
   * Whether it now waits for promises, such as an answer of Deno's own sockets: the loop then has them looked at between
   * packets, and not every 8 to 12 ms. @default {false}
   */
  readonly isWaiting?: boolean;
  /** Its state, as values that JSON can hold. */
  save?(): unknown;
  /** Takes over a state that {@linkcode Stage.save} gave. */
  restore?(state: unknown): void;
  /** Called once when its tunnel closes; packets that it still holds are given back for it. */
  close?(): void;
}

/** Which of a script's workers this one is. */
export interface WorkerPlace {
  /** Its number, from 0. */
  readonly index: number;
  /** How many there are: 1 unless the device has several queues. */
  readonly count: number;
}

/**
 * What a stage can do. Every method takes a packet of the batch that the stage is looking at, one that it
 * holds, or one that it took; anything else is a `TypeError`, since it would lose or double a packet.
 */
export interface StageContext {
  /** The breath's time (monotonic milliseconds). */
  readonly now: number;
  /** Which way the current batch goes. */
  readonly direction: Direction;
  /** Which worker it runs in: each has stages of its own, so one that translates splits its ports among them. */
  readonly worker: WorkerPlace;
  /** A new packet of `length` bytes, for the stage to fill and emit; `undefined` when the pool is empty. */
  take(length: number): Packet | undefined;
  /**
   * Sends a packet onward from this stage in the given direction. Against the batch's direction it turns round
   * and passes only stages that it has passed. What is emitted goes ahead of what is left in the batch: a
   * stage that puts packets between those of a flow emits them all.
   */
  emit(packet: Packet, direction: Direction): void;
  /** Keeps a packet in the stage, which emits or drops it later; it is counted as queued meanwhile. */
  hold(packet: Packet): void;
  /** Throws a packet away and counts it under this reason. */
  drop(packet: Packet, reason: string): void;
  /**
   * Ends a packet that has served its purpose in the stage, such as a reply to a probe of its own, or one whose content
   * went out in others. It is counted as `consumed`, not as dropped.
   */
  done(packet: Packet): void;
  /**
   * Gives a packet to another worker, where it enters this stage again, in the batch's direction unless another one
   * is given: for a packet that came to this worker's queue and is another one's to know. It is copied once, with
   * all its properties but `time`; when that worker is far behind, it is dropped as `hand-over full`.
   *
   * A flow keeps its order when all of its packets in one direction are handed over, or none.
   *
   * @throws {RangeError} when there is no worker of this number.
   * @throws {TypeError} when it is this one.
   */
  handOver(packet: Packet, worker: number, direction?: Direction): void;
  /** Asks for a breath, with a call of `tick`: for callbacks that ran outside of one. */
  wake(): void;
}
