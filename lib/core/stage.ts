/** Interface of a stage, a processing step of a tunnel, and its operations on packets. */

import type { PacketBatch } from "./batch.ts";
import type { Packet } from "./packet.ts";

/** Direction of a packet: outbound leaves this machine, inbound arrives. */
export const Direction = { Outbound: 0, Inbound: 1 } as const;
/** One of {@linkcode Direction}'s values. */
export type Direction = typeof Direction[keyof typeof Direction];

/** Returns the other direction. */
export function opposite(direction: Direction): Direction {
  return direction === Direction.Outbound ? Direction.Inbound : Direction.Outbound;
}

/** Fate of a packet: passed on, dropped and counted, or returned to the end that it came from. */
export const Verdict = { Pass: 0, Drop: 1, Reply: 2 } as const;
/** One of {@linkcode Verdict}'s values. */
export type Verdict = typeof Verdict[keyof typeof Verdict];

/**
 * Decides about one packet; `undefined` means {@linkcode Verdict}`.Pass`. The handler may change the packet until it
 * returns. An async function is a type error.
 */
export type PacketHandler = (packet: Packet, context: StageContext) => Verdict | undefined;

/**
 * A processing step of a tunnel. A stage gets packets in batches, on loan, and changes them in place. Packets go on to
 * the next stage unless the stage drops, holds, emits, ends or hands them over through its {@linkcode StageContext}.
 *
 * @example A stage that marks long packets
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type Stage } from "@warren/tunnel/core";
 *
 * class MarkLong implements Stage {
 *   readonly name = "mark long";
 *   outbound(batch: PacketBatch): void {
 *     for (const packet of batch) if (packet.length > 1000) packet.mark = 1;
 *   }
 * }
 *
 * const batch = new PacketBatch();
 * batch.push(new PacketPool().take(1400)!);
 * new MarkLong().outbound(batch);
 * assert.equal(batch.packets[0]!.mark, 1);
 * ```
 */
export interface Stage {
  /** Name in statistics and error messages. */
  readonly name: string;
  /** Processes packets from this machine. Without this method they pass unchanged. */
  outbound?(batch: PacketBatch, context: StageContext): void;
  /** Processes packets to this machine. Without this method they pass unchanged. */
  inbound?(batch: PacketBatch, context: StageContext): void;
  /**
   * Does timed work. Called in the first breath (turn of the packet loop), and again after the returned number of
   * milliseconds; `undefined` means not before the next `context.wake()`.
   */
  tick?(context: StageContext): number | undefined;
  /**
   * Requests ordinary packets, for a stage that changes or moves payload: in each direction for which the stage has a
   * method, super-packets are segmented and partial checksums completed before it. Segments are coalesced again before a
   * device that takes super-packets. @default {false}
   */
  readonly segmented?: boolean;
  /**
   * Set while promises are pending, such as reads from Deno's sockets: the loop then lets promises settle between packets
   * instead of every 8 to 12 ms. @default {false}
   */
  readonly isWaiting?: boolean;
  /** Counters by name, shown in `Tunnel.stats`: numbers that only grow, or current sizes. */
  readonly counters?: object;
  /** Returns the stage's state as JSON values. */
  save?(): unknown;
  /** Continues with a state that {@linkcode Stage.save} returned. */
  restore?(state: unknown): void;
  /** Called once when the tunnel closes. Packets that the stage still holds are returned to the pool afterwards. */
  close?(): void;
}

/** Place of a worker among those that run a script. */
export interface WorkerPlace {
  /** Number of this worker, from 0. */
  readonly index: number;
  /** Number of workers: 1 unless the device has several queues. */
  readonly count: number;
}

/** Place of the only worker. */
export const SINGLE_WORKER: WorkerPlace = { index: 0, count: 1 };

/**
 * Operations of a stage on packets of the current batch, packets that it holds, and packets from `take`; any other
 * packet is a `TypeError`, since it would be lost or sent twice.
 */
export interface StageContext {
  /** Start time of the current breath (monotonic milliseconds). */
  readonly now: number;
  /** Direction of the current batch. */
  readonly direction: Direction;
  /** Worker that runs the stage. Each worker has its own stages: a NAT, for example, splits its ports among them. */
  readonly worker: WorkerPlace;
  /** Returns a new packet of `length` uninitialized bytes, to fill and emit; `undefined` when the pool is empty. */
  take(length: number): Packet | undefined;
  /**
   * Sends a packet onward from this stage; against the batch's direction, back through the stages that it has passed.
   * Emitted packets go ahead of those left in the batch: a stage that inserts packets into a flow emits the whole flow.
   */
  emit(packet: Packet, direction: Direction): void;
  /** Keeps a packet, to emit or drop later. Until then it counts as queued. */
  hold(packet: Packet): void;
  /** Drops a packet and counts it under this reason. */
  drop(packet: Packet, reason: string): void;
  /**
   * Ends a packet that has served its purpose, such as the reply to a probe, or a super-packet whose segments were
   * emitted. It counts as `consumed`, not as dropped.
   */
  done(packet: Packet): void;
  /**
   * Moves a packet to the same stage in the worker that has the state for it. A copy with all properties except `time`
   * arrives there, in the batch's direction by default. If that worker is far behind, the packet is dropped as
   * `hand-over full`.
   *
   * A flow keeps its order if all or none of its packets in one direction are handed over.
   *
   * @throws {RangeError} when there is no worker of this number.
   * @throws {TypeError} when it is this worker.
   */
  handOver(packet: Packet, worker: number, direction?: Direction): void;
  /** Requests a breath that calls `tick`, from a callback that runs outside a breath. */
  wake(): void;
}
