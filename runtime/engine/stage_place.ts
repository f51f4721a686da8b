/** A stage in its place among the others: the context that it sees, and the bookkeeping of what it claims. */

import {
  Direction,
  DropCounts,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
  type StageStats,
  type WorkerPlace,
} from "../../lib/core/mod.ts";
import { type Borrower, changedError, type LendingBatch } from "../../lib/core/batch.ts";
import { EndMtu } from "../../lib/stage/mtu/end_mtu.ts";
import type { Ledger } from "./ledger.ts";
import { HandlerStage } from "./handler.ts";
import { Segmenting } from "./segmenting.ts";

/** What a stage in its place uses of its row. */
export interface StageRow {
  /** Counts the packets of the tunnel. */
  readonly ledger: Ledger;
  /** Which worker it runs in. */
  readonly worker: WorkerPlace;
  /** Whether nothing moves any more. */
  readonly closed: boolean;
  /** Batches about to enter each stage on the way out; the last waits for the far end. */
  readonly outbound: readonly LendingBatch[];
  /** Batches about to leave each stage on the way in; the first waits for the device. */
  readonly inbound: readonly LendingBatch[];
  /** Hands a packet of a stage over to another worker. */
  handOver(packet: Packet, worker: number, stage: number, direction: Direction): void;
  /** Asks for a breath. */
  wake(): void;
}

/** A stage in its place: the context that it sees, and the bookkeeping of what it claims. */
export class StagePlace implements StageContext, Borrower {
  readonly stage: Stage;
  /** Which worker it runs in. */
  readonly worker: WorkerPlace;
  /** Its number for the watchdog. */
  readonly number: number;
  readonly title: string;
  readonly remedy = "use context.emit, hold, drop, done and handOver";
  now = 0;
  direction: Direction = Direction.Outbound;
  /** When it wants its next tick (monotonic milliseconds). */
  due: number;
  /** How many packets it holds or has taken. */
  held = 0;

  readonly #row: StageRow;
  readonly #ledger: Ledger;
  readonly #dropped = new DropCounts();
  readonly #index: number;
  /** How many packets of the batch that it looks at are claimed: they leave it when the stage returns. */
  claimed = 0;
  #batch: PacketBatch | undefined;
  /** Segments for a stage that takes no super-packets, outbound and inbound. */
  readonly #inlets: readonly (Segmenting | undefined)[];
  /** The stage, where it is the last step before a far end with an MTU. */
  readonly #endMtu: EndMtu | undefined;
  /** Tells whether it sees batches: a handler sees their packets only. */
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
      segmented === true && method !== undefined ? new Segmenting(row.ledger) : undefined
    );
  }

  /** Its part in the tunnel's counters. */
  get stats(): StageStats {
    const { name, counters = {} } = this.stage;
    const numbers = Object.entries(counters).filter(([, value]) => typeof value === "number");
    return {
      name,
      dropped: Object.fromEntries(this.#dropped.reasons),
      counters: Object.fromEntries(numbers),
    };
  }

  /** The place where a direction's super-packets are segmented for it; `undefined` when it takes them as they are. */
  inlet(direction: Direction): Segmenting | undefined {
    return this.#inlets[direction];
  }

  /**
   * Runs the stage over a batch; what it claims is gone from the batch afterwards. The stage has a list of its own, so
   * that the batch is as it was whatever becomes of that.
   *
   * @throws {TypeError} when it has changed the batch.
   */
  pass(batch: LendingBatch, direction: Direction, now: number): void {
    const { stage } = this;
    if (direction === Direction.Outbound ? stage.outbound === undefined : stage.inbound === undefined) return;
    // Lending a batch costs 10 ns a packet (`deno task bench stages`), and nearly all packets fit.
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
      // A stage that throws has claimed packets as well: what is left is the batch's alone.
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
        `Cannot tick again in ${wait} ms: a tick returns milliseconds from 0 on, or undefined`,
      );
    }
    this.due = wait === undefined ? Infinity : now + wait;
  }

  take(length: number): Packet | undefined {
    if (this.#row.closed) return undefined;
    const packet = this.#ledger.pool.take(length);
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
    this.#claim(packet, "be done with");
    this.#ledger.counters.consumed++;
    this.#ledger.giveBack(packet);
  }

  handOver(packet: Packet, worker: number, direction: Direction = this.direction): void {
    const { index, count } = this.worker;
    if (!Number.isInteger(worker) || worker < 0 || worker >= count) {
      throw new RangeError(
        `Cannot hand over to worker ${Deno.inspect(worker)}: there are ${count}, from 0 on`,
      );
    }
    if (worker === index) throw new TypeError(`Cannot hand over to worker ${worker}: it is this one`);
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
        `Cannot ${verb} a packet that stage "${this.stage.name}" does not have: it was dropped, held or emitted before`,
      );
    }
  }
}
