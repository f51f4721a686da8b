/**
 * The stages of one tunnel, in a row between its two ends.
 *
 *     device ─► outbound[0] ─ stage 0 ─► outbound[1] ─ stage 1 ─► outbound[2] ─► far end
 *     device ◄─ inbound[0] ◄─ stage 0 ── inbound[1] ◄─ stage 1 ── inbound[2] ◄── far end
 *
 * Batches stand between the stages. A whole batch is swapped into the next place, so packets are not moved one by one.
 * A packet that stage `i` turns round goes into the other row beside stage `i`, and so passes back through the stages
 * that it has already passed.
 */

import { errorMessage } from "../../driver/error.ts";
import { LendingBatch } from "../../lib/core/batch.ts";
import {
  Direction,
  type FlowStats,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageStats,
  type TunnelEnd,
  type WorkerPlace,
} from "../../lib/core/mod.ts";
import { SINGLE_WORKER } from "../../lib/core/stage.ts";
import { OUT_OF_SLOT } from "../../lib/core/packet.ts";
import type { PacketSink } from "../../lib/core/write_to.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { Ledger } from "./ledger.ts";
import { Outlet } from "./outlet.ts";
import type { SegmentQueue } from "./segment_queue.ts";
import { StagePlace, type StageRow } from "./stage_place.ts";

// Implementation
/** Maximum number of packets that wait for an end while that end is still read. */
const TURNED_LIMIT = 256;

/** The part of a tunnel that its pipeline uses. */
export interface PipelineHost {
  /** Accounting of the tunnel. */
  readonly ledger: Ledger;
  /** Signs of life for the watchdog. */
  readonly heartbeat: Heartbeat;
  /** Link to the other workers; `undefined` in a script with a single worker. */
  readonly others: OtherWorkers | undefined;
  /** Requests a breath. */
  wake(): void;
}

/** Link to the other workers. */
export interface OtherWorkers {
  /** This worker. */
  readonly place: WorkerPlace;
  /** Copies a packet to the same stage of another worker; returns false if there is no room. */
  send(packet: Packet, worker: number, stage: number, direction: Direction): boolean;
}

/** The stages of one tunnel and the batches between them. */
export class Pipeline implements StageRow {
  /** Outbound batches before each stage; the last one waits for the far end. */
  readonly outbound: LendingBatch[] = [];
  /** Inbound batches after each stage; the first one waits for the device. */
  readonly inbound: LendingBatch[] = [];
  /** Accounting of the tunnel. */
  readonly ledger: Ledger;
  /** This worker. */
  readonly worker: WorkerPlace;
  /** True after {@linkcode Pipeline.close}. */
  closed = false;

  readonly #host: PipelineHost;
  readonly #places: StagePlace[];
  /** Indexes of the stages with `segmented`, which need super-packets to be segmented. */
  readonly #segmented: number[];
  readonly #farOutlet: Outlet;
  readonly #deviceOutlet: Outlet;

  /** Creates a pipeline of stages in outbound order. */
  constructor(stages: readonly Stage[], host: PipelineHost) {
    this.#host = host;
    this.ledger = host.ledger;
    this.worker = host.others?.place ?? SINGLE_WORKER;
    this.#places = stages.map((stage, index) =>
      new StagePlace(stage, index, host.heartbeat.name(stage.name), this)
    );
    this.#segmented = stages.map((_, index) => index).filter((index) => stages[index]!.segmented === true);
    this.#farOutlet = new Outlet(host.ledger, Direction.Outbound);
    this.#deviceOutlet = new Outlet(host.ledger, Direction.Inbound);
    for (let i = 0; i <= stages.length; i++) {
      this.outbound.push(new LendingBatch());
      this.inbound.push(new LendingBatch());
    }
  }

  /** Packets that wait for the far end. */
  get forFar(): PacketBatch {
    return this.outbound[this.#places.length]!;
  }

  /** Packets that wait for the device. */
  get forDevice(): PacketBatch {
    return this.inbound[0]!;
  }

  /** Packets from the far end that wait for the last stage. */
  get fromFar(): PacketBatch {
    return this.inbound[this.#places.length]!;
  }

  /** Number of inbound packets inside, without those held by stages. */
  get inboundLength(): number {
    let sum = this.#deviceOutlet.queued;
    for (const batch of this.inbound) sum += batch.length;
    for (const index of this.#segmented) sum += this.#places[index]!.inlet(Direction.Inbound)?.queued ?? 0;
    return sum;
  }

  /** Number of packets that wait for the far end. */
  get waitingForFar(): number {
    return this.forFar.length + this.#farOutlet.queued;
  }

  /** Number of packets that wait for the device. */
  get waitingForDevice(): number {
    return this.forDevice.length + this.#deviceOutlet.queued;
  }

  /** True if the device may be read, because there is room both for the far end and for replies. */
  get wantsOutbound(): boolean {
    return this.waitingForFar === 0 && this.waitingForDevice < TURNED_LIMIT &&
      !this.#isSegmenting(Direction.Outbound);
  }

  /** True if the far end may be read, because there is room both for the device and for replies. */
  get wantsInbound(): boolean {
    return this.waitingForDevice === 0 && this.waitingForFar < TURNED_LIMIT &&
      !this.#isSegmenting(Direction.Inbound);
  }

  /** Number of packets inside: held by stages or waiting between them. */
  get queued(): number {
    let sum = this.#farOutlet.queued;
    for (const place of this.#places) sum += place.held - place.claimed;
    for (const index of this.#segmented) sum += this.#places[index]!.inlet(Direction.Outbound)?.queued ?? 0;
    for (const batch of this.outbound) sum += batch.length;
    return sum + this.inboundLength;
  }

  /** Counters of the stages, in outbound order. */
  get stageStats(): StageStats[] {
    return this.#places.map(({ stats }) => stats);
  }

  /** Time of the next tick (monotonic milliseconds); `Infinity` for none. */
  get due(): number {
    let due = Infinity;
    for (const place of this.#places) if (place.due < due) due = place.due;
    return due;
  }

  /**
   * Reads an end into the first batch of its direction; returns the number of packets.
   *
   * @throws {TypeError} when the end threw or returned packets of another pool; the message names the end.
   */
  inhale(end: TunnelEnd, batch: PacketBatch, flow: FlowStats, now: number): number {
    const first = batch.length;
    let fault: TypeError | undefined;
    try {
      end.read(batch);
    } catch (cause) {
      fault = new TypeError(`Cannot read from "${end.name}": its read threw: ${errorMessage(cause)}`, {
        cause,
      });
    }
    const { packets, length } = batch;
    for (let i = first; i < length; i++) {
      const packet = packets[i]!;
      packet.time = now;
      flow.bytesIn += packet.length;
    }
    flow.packetsIn += length - first;
    // Checking one packet suffices: an end with a pool of its own takes all packets from that pool.
    if (length > first && packets[first]!.pool !== this.ledger.pool) fault ??= this.#expelForeign(end, batch);
    if (fault !== undefined) throw fault;
    return length - first;
  }

  /** Returns packets of other pools to those pools. */
  #expelForeign(end: TunnelEnd, batch: PacketBatch): TypeError {
    for (const packet of batch) {
      if (packet.pool === this.ledger.pool) continue;
      packet.isFixed = false;
      packet.pool.give(packet);
      this.ledger.counters.drop("of another pool");
    }
    batch.compact();
    return new TypeError(
      `Cannot read from "${end.name}": it returned packets of another pool: take packets from host.pool`,
    );
  }

  /** True if a stage waits for a promise. */
  get isWaiting(): boolean {
    for (const { stage } of this.#places) if (stage.isWaiting === true) return true;
    return false;
  }

  /** True if packets wait for a stage that can run: turned round, emitted by a tick, or not yet segmented. */
  get pending(): boolean {
    for (let i = 0; i < this.#places.length; i++) {
      if (this.outbound[i]!.length > 0 && (this.waitingForFar === 0 || !this.#segmented.includes(i))) {
        return true;
      }
    }
    return this.waitingForFar === 0 && this.#isSegmenting(Direction.Outbound) ||
      this.waitingForDevice === 0 && this.#isSegmenting(Direction.Inbound);
  }

  /**
   * Passes the packets of one direction through the stages; returns true if any moved. A stage with `segmented` gets
   * one batch of segments per breath, and only if no packet waits for the end; the other packets wait before the stage.
   */
  flow(direction: Direction, now: number): boolean {
    const { cells } = this.#host.heartbeat;
    const places = this.#places;
    const row = direction === Direction.Outbound ? this.outbound : this.inbound;
    let moved = false;
    for (let step = 0; step < places.length; step++) {
      const index = direction === Direction.Outbound ? step : places.length - 1 - step;
      const from = direction === Direction.Outbound ? index : index + 1;
      const to = direction === Direction.Outbound ? index + 1 : index;
      const batch = row[from]!;
      const place = places[index]!;
      const inlet = place.inlet(direction);
      if (batch.length === 0 && (inlet === undefined || inlet.queued === 0)) continue;
      cells[1] = place.number;
      if (inlet?.finish(batch) === true) {
        if (this.#passSegments(place, inlet, from, to, direction, now)) moved = true;
        continue;
      }
      moved = true;
      place.pass(batch, direction, now);
      const onward = row[to]!;
      if (onward.length === 0) {
        row[to] = batch;
        row[from] = onward;
      } else {
        batch.moveTo(onward);
      }
    }
    cells[1] = 0;
    return moved;
  }

  /** Passes one batch of segments through a stage; returns false instead if packets wait for the end. */
  #passSegments(
    place: StagePlace,
    inlet: SegmentQueue,
    from: number,
    to: number,
    direction: Direction,
    now: number,
  ): boolean {
    const isOutbound = direction === Direction.Outbound;
    if ((isOutbound ? this.waitingForFar : this.waitingForDevice) > 0) return false;
    const row = isOutbound ? this.outbound : this.inbound;
    inlet.fill(row[from]!);
    place.pass(inlet.segments, direction, now);
    inlet.segments.moveTo(row[to]!);
    return true;
  }

  /** Reports whether packets wait before a stage with `segmented`. */
  #isSegmenting(direction: Direction): boolean {
    for (const index of this.#segmented) {
      const inlet = this.#places[index]!.inlet(direction);
      if (inlet === undefined) continue;
      const before = direction === Direction.Outbound ? this.outbound[index]! : this.inbound[index + 1]!;
      if (inlet.queued > 0 || before.length > 0) return true;
    }
    return false;
  }

  /** Writes the packets that wait for the far end; returns true if any left. */
  exhaleToFar(end: PacketSink): boolean {
    return this.#farOutlet.exhale(end, this.forFar);
  }

  /** Writes the packets that wait for the device; returns true if any left. */
  exhaleToDevice(end: PacketSink): boolean {
    return this.#deviceOutlet.exhale(end, this.forDevice);
  }

  /** Runs the ticks that are due; returns false if there were none. */
  tick(now: number): boolean {
    let ticked = false;
    const { cells } = this.#host.heartbeat;
    for (const place of this.#places) {
      if (place.due > now) continue;
      cells[1] = place.number;
      place.tick(now);
      ticked = true;
    }
    cells[1] = 0;
    return ticked;
  }

  /** Reports whether there is room for packets of other workers in a direction. */
  takes(direction: Direction): boolean {
    const waiting = direction === Direction.Outbound ? this.waitingForFar : this.waitingForDevice;
    return waiting < TURNED_LIMIT;
  }

  /** Takes a packet that another worker has handed over, for the stage with the same index. */
  accept(packet: Packet, stage: number, direction: Direction, now: number): void {
    const isOutbound = direction === Direction.Outbound;
    const flow = this.ledger.flow(direction);
    flow.packetsIn++;
    flow.bytesIn += packet.length;
    packet.time = now;
    // A script may use different stages in each worker.
    if (stage >= this.#places.length) return this.ledger.discard(packet, "hand-over to a missing stage");
    if (isOutbound) this.outbound[stage]!.push(packet);
    else this.inbound[stage + 1]!.push(packet);
  }

  /** Hands a packet over to another worker, for the stage with the same index. */
  handOver(packet: Packet, worker: number, stage: number, direction: Direction): void {
    if (!packet.isInSlot) return this.ledger.discard(packet, OUT_OF_SLOT);
    if (!this.#host.others!.send(packet, worker, stage, direction)) {
      return this.ledger.discard(packet, "hand-over full");
    }
    const flow = this.ledger.flow(direction);
    flow.packetsOut++;
    flow.bytesOut += packet.length;
    // The other worker counts it as malformed.
    packet.malformed = false;
    this.ledger.giveBack(packet);
  }

  /** Requests a breath. */
  wake(): void {
    this.#host.wake();
  }

  /**
   * Closes the stages and drops all packets inside with the reason `closed`.
   *
   * @throws {AggregateError} when stages threw, after all are closed.
   */
  close(): void {
    this.closed = true;
    for (const batch of this.outbound) this.ledger.discardAll(batch, "closed");
    for (const batch of this.inbound) this.ledger.discardAll(batch, "closed");
    this.#farOutlet.clear("closed");
    this.#deviceOutlet.clear("closed");
    for (const place of this.#places) {
      place.inlet(Direction.Outbound)?.clear("closed");
      place.inlet(Direction.Inbound)?.clear("closed");
    }
    for (const place of this.#places) {
      if (place.held === 0) continue;
      for (const packet of this.ledger.pool.packets) {
        if (packet.owner === place) this.ledger.discard(packet, "closed");
      }
      place.held = 0;
    }
    for (const { number } of this.#places) this.#host.heartbeat.forget(number);
    closeStages(this.#places.map(({ stage }) => stage));
  }
}

/**
 * Closes stages in order.
 *
 * @throws {AggregateError} when stages threw, after all are closed.
 */
export function closeStages(stages: readonly Stage[]): void {
  const failures: unknown[] = [];
  for (const stage of stages) {
    try {
      stage.close?.();
    } catch (cause) {
      failures.push(new Error(`Cannot close stage "${stage.name}": ${errorMessage(cause)}`, { cause }));
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, "Cannot close every stage");
}
