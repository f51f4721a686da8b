/** A stage in a pipeline: its {@linkcode StageContext}, and the number of packets that it has claimed. */

import {
  Direction,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
  type StageStats,
  type WorkerPlace,
} from "../../lib/core/mod.ts";
import { DropCounts } from "../../lib/core/stats.ts";
import { type Borrower, changedError, type LendingBatch } from "../../lib/core/batch.ts";
import { gotValue } from "../../lib/core/options.ts";
import { EndMtu } from "../../lib/stage/mtu/end_mtu.ts";
import type { Ledger } from "./ledger.ts";
import { HandlerStage } from "./handler.ts";
import { SegmentQueue } from "./segment_queue.ts";

/** The part of a pipeline that its stages use. */
export interface StageRow {
  /** Accounting of the tunnel. */
  readonly ledger: Ledger;
  /** This worker. */
  readonly worker: WorkerPlace;
  /** True after `close`. */
  readonly closed: boolean;
  /** Outbound batches before each stage; the last one waits for the far end. */
  readonly outbound: readonly LendingBatch[];
  /** Inbound batches after each stage; the first one waits for the device. */
  readonly inbound: readonly LendingBatch[];
  /** Hands a packet over to another worker, for the stage with the same index. */
  handOver(packet: Packet, worker: number, stage: number, direction: Direction): void;
  /** Requests a breath. */
  wake(): void;
}

/** A stage in a pipeline, and the context that it sees. */
export class StagePlace implements StageContext, Borrower {
  readonly stage: Stage;
  readonly worker: WorkerPlace;
  /** Number of the stage for the watchdog. */
  readonly number: number;
  readonly title: string;
  readonly remedy = "use context.emit, hold, drop, done and handOver";
  now = 0;
  direction: Direction = Direction.Outbound;
  /** Time of the next tick (monotonic milliseconds); `Infinity` for none. */
  due: number;
  /** Number of packets that the stage owns: held, or created and not yet emitted. */
  held = 0;

  readonly #row: StageRow;
  readonly #ledger: Ledger;
  readonly #dropped = new DropCounts();
  readonly #index: number;
  /** Number of packets that the stage has claimed from the current batch; they leave it when the stage returns. */
  claimed = 0;
  #batch: PacketBatch | undefined;
  /** Queues before a stage with `segmented`, by direction. */
  readonly #inlets: readonly (SegmentQueue | undefined)[];
  /** The stage, if it enforces the MTU of the far end. */
  readonly #endMtu: EndMtu | undefined;
  /** True if the stage sees batches; handlers see only packets. */
  readonly #borrows: boolean;

  constructor(stage: Stage, index: number, number: number, row: StageRow) {
    this.stage = stage;
    this.number = number;
    this.#index = index;
    this.#row = row;
    this.#ledger = row.ledger;
    this.worker = row.worker;
    this.due = stage.tick === undefined ? Infinity : 0;
    this.title = `stage "${stage.name}"`;
    this.#endMtu = stage instanceof EndMtu ? stage : undefined;
    this.#borrows = !(stage instanceof HandlerStage);
    const { segmented, outbound, inbound } = stage;
    this.#inlets = [outbound, inbound].map((method) =>
      segmented === true && method !== undefined ? new SegmentQueue(row.ledger) : undefined
    );
  }

  /** Drops of the stage by reason, and its own counters. */
  get stats(): StageStats {
    const { name, counters = {} } = this.stage;
    const numbers = Object.entries(counters).filter(([, value]) => typeof value === "number");
    return {
      name,
      dropped: Object.fromEntries(this.#dropped.reasons),
      counters: Object.fromEntries(numbers),
    };
  }

  /** Returns the queue that segments super-packets before the stage; `undefined` if the stage takes them. */
  inlet(direction: Direction): SegmentQueue | undefined {
    return this.#inlets[direction];
  }

  /**
   * Runs the stage over a batch, then removes the packets that the stage has claimed. The stage gets a copy of the list
   * of packets, so it cannot change the batch itself.
   *
   * @throws {TypeError} when the stage has changed the copy.
   */
  pass(batch: LendingBatch, direction: Direction, now: number): void {
    const { stage } = this;
    if (direction === Direction.Outbound ? stage.outbound === undefined : stage.inbound === undefined) return;
    // Lending a batch takes 10 ns per packet (`deno task bench stages`), and nearly all packets fit.
    if (this.#endMtu?.fits(batch) === true) return;
    const loan = this.#borrows ? batch.lend(this) : batch;
    this.#batch = batch;
    this.direction = direction;
    this.now = now;
    try {
      if (direction === Direction.Outbound) stage.outbound!(loan, this);
      else stage.inbound!(loan, this);
      if (loan !== batch && !batch.isIntact()) throw changedError(this);
    } finally {
      // A stage that throws may have claimed packets before.
      this.#batch = undefined;
      if (this.claimed === batch.length) batch.clear();
      else if (this.claimed > 0) batch.compact();
      this.claimed = 0;
    }
  }

  tick(now: number): void {
    this.now = now;
    this.direction = Direction.Outbound;
    const wait = this.stage.tick!(this);
    if (wait !== undefined && !(typeof wait === "number" && wait >= 0)) {
      throw new TypeError(
        `Cannot schedule a tick: tick must return milliseconds of at least 0 or undefined, ${gotValue(wait)}`,
      );
    }
    this.due = wait === undefined ? Infinity : now + wait;
  }

  take(length: number): Packet | undefined {
    if (this.#row.closed) return undefined;
    const packet = this.#ledger.take(length);
    if (packet === undefined) return undefined;
    packet.owner = this;
    packet.isFixed = true;
    packet.time = this.now;
    this.held++;
    this.#ledger.counters.created++;
    return packet;
  }

  emit(packet: Packet, direction: Direction): void {
    this.#claim(packet, "emit");
    const { outbound, inbound } = this.#row;
    if (direction === Direction.Outbound) outbound[this.#index + 1]!.append(packet);
    else inbound[this.#index]!.append(packet);
  }

  hold(packet: Packet): void {
    this.#claim(packet, "hold");
    packet.owner = this;
    this.held++;
  }

  drop(packet: Packet, reason: string): void {
    this.#claim(packet, "drop");
    this.#dropped.count(reason);
    this.#ledger.discard(packet, reason);
  }

  done(packet: Packet): void {
    this.#claim(packet, "consume");
    this.#ledger.counters.consumed++;
    this.#ledger.giveBack(packet);
  }

  handOver(packet: Packet, worker: number, direction: Direction = this.direction): void {
    const { index, count } = this.worker;
    if (!Number.isInteger(worker) || worker < 0 || worker >= count) {
      throw new RangeError(
        `Cannot hand over a packet: worker must be an integer from 0 to ${count - 1}, ${gotValue(worker)}`,
      );
    }
    if (worker === index) throw new TypeError(`Cannot hand over to worker ${worker}: it is this worker`);
    this.#claim(packet, "hand over");
    this.#row.handOver(packet, worker, this.#index, direction);
  }

  wake(): void {
    if (this.stage.tick !== undefined) this.due = 0;
    this.#row.wake();
  }

  #claim(packet: Packet, verb: string): void {
    if (packet.owner === this) this.held--;
    else if (packet.owner !== undefined && packet.owner === this.#batch) this.claimed++;
    else {
      throw new TypeError(
        `Cannot ${verb} a packet that stage "${this.stage.name}" does not own: it was dropped, held or emitted before`,
      );
    }
  }
}
