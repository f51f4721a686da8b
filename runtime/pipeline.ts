/**
 * The stages of one tunnel, between its two ends.
 *
 *     device ─► outbound[0] ─ stage 0 ─► outbound[1] ─ stage 1 ─► outbound[2] ─► far end
 *     device ◄─ inbound[0] ◄─ stage 0 ── inbound[1] ◄─ stage 1 ── inbound[2] ◄── far end
 *
 * Batches stand between the stages; a stage's output is swapped into the next place, so that handles are not
 * moved one by one. To turn a packet round at stage `i` is to push it into the other row, at the same stage:
 * it then passes, backwards, the stages that it has passed.
 */

import { said } from "../driver/error.ts";
import {
  Counters,
  Direction,
  type FlowStats,
  type Packet,
  PacketBatch,
  type PacketPool,
  type Stage,
  type StageContext,
  type TunnelEnd,
  type WorkerPlace,
} from "../lib/core/mod.ts";
import { Cutting, type CuttingHost } from "./cutting.ts";
import type { Heartbeat } from "./heartbeat.ts";

// Implementation
/** The packets that may wait for an end before the end on the other side is no longer read. */
const TURNED_LIMIT = 256;
/** The place of a script that runs once. */
export const ALONE: WorkerPlace = { index: 0, count: 1 };

// Specification: UDP_MAX_SEGMENTS, linux/udp.h; GSO_BY_FRAGS, linux/skbuff.h
const MOST_SEGMENTS = 128;

/** What a pipeline gets from the loop. */
export interface PipelineHost {
  /** Where packets live. */
  readonly pool: PacketPool;
  /** What the watchdog reads. */
  readonly heartbeat: Heartbeat;
  /** The other workers; `undefined` without any. */
  readonly others?: OtherWorkers;
  /** Asks for a breath. */
  wake(): void;
}

/** What takes packets to other workers. */
export interface OtherWorkers {
  /** Which worker this one is. */
  readonly place: WorkerPlace;
  /** Copies a packet for the same stage of another worker; returns whether there was room. */
  send(packet: Packet, worker: number, stage: number, direction: Direction): boolean;
}

/** A stage in its place: the context that it sees, and the bookkeeping of what it claims. */
class Place implements StageContext {
  readonly stage: Stage;
  /** Which worker it runs in. */
  readonly worker: WorkerPlace;
  /** Its number for the watchdog. */
  readonly number: number;
  now = 0;
  direction: Direction = Direction.Outbound;
  /** When it wants its next tick (monotonic milliseconds). */
  due: number;
  /** How many packets it holds or has taken. */
  held = 0;

  readonly #pipeline: Pipeline;
  readonly #index: number;
  /** How many packets of the batch that it looks at are claimed: they leave it when the stage returns. */
  claimed = 0;
  #batch: PacketBatch | undefined;

  constructor(stage: Stage, index: number, number: number, pipeline: Pipeline) {
    this.stage = stage;
    this.number = number;
    this.#index = index;
    this.#pipeline = pipeline;
    this.worker = pipeline.worker;
    this.due = stage.tick === undefined ? Infinity : 0;
  }

  /** Runs the stage over a batch; what it claims is gone from the batch afterwards. */
  pass(batch: PacketBatch, direction: Direction, now: number): void {
    const { stage } = this;
    if (direction === Direction.Outbound ? stage.outbound === undefined : stage.inbound === undefined) return;
    const count = batch.length;
    this.#batch = batch;
    this.direction = direction;
    this.now = now;
    try {
      if (direction === Direction.Outbound) stage.outbound!(batch, this);
      else stage.inbound!(batch, this);
      if (batch.length !== count) {
        throw new TypeError("Cannot change a batch's length: use context.drop, hold and emit");
      }
    } finally {
      // A stage that throws has claimed packets, too: what is left is the batch's alone.
      this.#batch = undefined;
      if (this.claimed > 0) batch.compact();
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
    if (this.#pipeline.closed) return undefined;
    const packet = this.#pipeline.pool.take(length);
    if (packet === undefined) return undefined;
    packet.owner = this;
    packet.time = this.now;
    this.held++;
    this.#pipeline.counters.created++;
    return packet;
  }

  emit(packet: Packet, direction: Direction): void {
    this.#claim(packet, "emit");
    const { outbound, inbound } = this.#pipeline;
    if (direction === Direction.Outbound) outbound[this.#index + 1]!.push(packet);
    else inbound[this.#index]!.push(packet);
  }

  hold(packet: Packet): void {
    this.#claim(packet, "hold");
    packet.owner = this;
    this.held++;
  }

  drop(packet: Packet, reason: string): void {
    this.#claim(packet, "drop");
    this.#pipeline.discard(packet, reason);
  }

  handOver(packet: Packet, worker: number, direction: Direction = this.direction): void {
    const { index, count } = this.worker;
    if (!Number.isInteger(worker) || worker < 0 || worker >= count) {
      throw new RangeError(`Cannot hand over to worker ${worker}: there are ${count}, from 0 on`);
    }
    if (worker === index) throw new TypeError(`Cannot hand over to worker ${worker}: it is this one`);
    this.#claim(packet, "hand over");
    this.#pipeline.handOver(packet, worker, this.#index, direction);
  }

  wake(): void {
    if (this.stage.tick !== undefined) this.due = 0;
    this.#pipeline.wake();
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

/** The row of stages of one tunnel, with its counters. */
export class Pipeline {
  /** Batches about to enter each stage on the way out; the last waits for the far end. */
  readonly outbound: PacketBatch[] = [];
  /** Batches about to leave each stage on the way in; the first waits for the device. */
  readonly inbound: PacketBatch[] = [];
  /** What happened so far. */
  readonly counters: Counters;
  /** Where packets live. */
  readonly pool: PacketPool;
  /** Which worker this one is. */
  readonly worker: WorkerPlace;
  /** Whether nothing moves any more. */
  closed = false;

  readonly #host: PipelineHost;
  readonly #places: Place[];
  readonly #cuttingForFar: Cutting;
  readonly #cuttingForDevice: Cutting;

  /** A row of stages that packets pass in this order on their way out. */
  constructor(stages: readonly Stage[], host: PipelineHost, counters: Counters = new Counters()) {
    this.#host = host;
    this.counters = counters;
    this.pool = host.pool;
    this.worker = host.others?.place ?? ALONE;
    this.#places = stages.map((stage, index) =>
      new Place(stage, index, host.heartbeat.name(stage.name), this)
    );
    const cutting: CuttingHost = {
      pool: host.pool,
      create: (count) => void (counters.created += count),
      discard: (packet, reason) => this.discard(packet, reason),
    };
    this.#cuttingForFar = new Cutting(cutting);
    this.#cuttingForDevice = new Cutting(cutting);
    for (let i = 0; i <= stages.length; i++) {
      this.outbound.push(new PacketBatch());
      this.inbound.push(new PacketBatch());
    }
  }

  /** What waits for the far end. */
  get forFar(): PacketBatch {
    return this.outbound[this.#places.length]!;
  }

  /** What waits for the device. */
  get forDevice(): PacketBatch {
    return this.inbound[0]!;
  }

  /** What has come from the far end and waits for the last stage. */
  get fromFar(): PacketBatch {
    return this.inbound[this.#places.length]!;
  }

  /** How many packets are on their way in. */
  get inboundLength(): number {
    let sum = this.#cuttingForDevice.queued;
    for (const batch of this.inbound) sum += batch.length;
    return sum;
  }

  /** How many packets wait for the far end. */
  get waitingForFar(): number {
    return this.forFar.length + this.#cuttingForFar.queued;
  }

  /** How many packets wait for the device. */
  get waitingForDevice(): number {
    return this.forDevice.length + this.#cuttingForDevice.queued;
  }

  /** Whether the device may be read: its packets' way out is free, and so is the way back. */
  get wantsOutbound(): boolean {
    return this.waitingForFar === 0 && this.waitingForDevice < TURNED_LIMIT;
  }

  /** Whether the far end may be read. */
  get wantsInbound(): boolean {
    return this.waitingForDevice === 0 && this.waitingForFar < TURNED_LIMIT;
  }

  /** Packets inside: held by stages, or between them. */
  get queued(): number {
    let sum = this.#cuttingForFar.queued;
    for (const place of this.#places) sum += place.held - place.claimed;
    for (const batch of this.outbound) sum += batch.length;
    return sum + this.inboundLength;
  }

  /** When the next tick is due (monotonic milliseconds); `Infinity` for none. */
  get due(): number {
    let due = Infinity;
    for (const place of this.#places) if (place.due < due) due = place.due;
    return due;
  }

  /** Reads an end into the batch where its direction starts; returns how many packets came. */
  inhale(end: TunnelEnd, batch: PacketBatch, flow: FlowStats, now: number): number {
    const first = batch.length;
    end.read(batch);
    const { packets, length } = batch;
    for (let i = first; i < length; i++) {
      const packet = packets[i]!;
      packet.time = now;
      flow.bytesIn += packet.length;
    }
    flow.packetsIn += length - first;
    return length - first;
  }

  /** Whether packets stand before a stage on the way out: turned round, or emitted by a tick. */
  get pending(): boolean {
    for (let i = 0; i < this.#places.length; i++) if (this.outbound[i]!.length > 0) return true;
    return false;
  }

  /** Passes what stands in one row through its stages; returns whether there was anything. */
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
      if (batch.length === 0) continue;
      moved = true;
      const place = places[index]!;
      cells[1] = place.number;
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

  /** Writes what waits for the far end; returns whether it took anything. */
  exhaleToFar(end: TunnelEnd): boolean {
    return this.#exhale(end, this.forFar, this.#cuttingForFar, this.counters.outbound);
  }

  /** Writes what waits for the device; returns whether it took anything. */
  exhaleToDevice(end: TunnelEnd): boolean {
    return this.#exhale(end, this.forDevice, this.#cuttingForDevice, this.counters.inbound);
  }

  /**
   * Ends hand the bytes to the system by address: a packet that a script has moved out of its slot goes no further
   * than here. Super-packets are cut for an end that does not take them.
   */
  #exhale(end: TunnelEnd, batch: PacketBatch, cutting: Cutting, flow: FlowStats): boolean {
    const { packets } = batch;
    let outside = false;
    const whole = end.offload === true;
    let isSuper = cutting.queued > 0;
    for (let i = 0; i < batch.length; i++) {
      const packet = packets[i]!;
      if (packet.malformed) this.#countMalformed(packet);
      if (!packet.isInSlot) outside = true;
      if (packet.segmentSize !== 0 && !(whole && passesWhole(packet))) isSuper = true;
    }
    if (outside) return this.#expel(batch);
    if (!isSuper) return write(end, batch, flow);
    let moved = false;
    do {
      cutting.fill(batch);
      if (!write(end, cutting.segments, flow)) return moved;
      moved = true;
    } while (cutting.segments.length === 0 && batch.length > 0);
    return true;
  }

  /** Calls the ticks that are due; returns whether there were any. */
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

  /** Whether packets of another worker may come in this direction. */
  takes(direction: Direction): boolean {
    const waiting = direction === Direction.Outbound ? this.waitingForFar : this.waitingForDevice;
    return waiting < TURNED_LIMIT;
  }

  /** Takes a packet that another worker's stage has handed over to the same one here. */
  accept(packet: Packet, stage: number, direction: Direction, now: number): void {
    const isOutbound = direction === Direction.Outbound;
    const flow = isOutbound ? this.counters.outbound : this.counters.inbound;
    flow.packetsIn++;
    flow.bytesIn += packet.length;
    packet.time = now;
    // A script may give its workers different stages.
    if (stage >= this.#places.length) return this.discard(packet, "handed over to no stage");
    if (isOutbound) this.outbound[stage]!.push(packet);
    else this.inbound[stage + 1]!.push(packet);
  }

  /** Hands a packet of a stage over to another worker. */
  handOver(packet: Packet, worker: number, stage: number, direction: Direction): void {
    if (!packet.isInSlot) return this.discard(packet, "moved out of its slot");
    if (!this.#host.others!.send(packet, worker, stage, direction)) {
      return this.discard(packet, "hand-over full");
    }
    const flow = direction === Direction.Outbound ? this.counters.outbound : this.counters.inbound;
    flow.packetsOut++;
    flow.bytesOut += packet.length;
    // Counted where it ends.
    packet.malformed = false;
    this.pool.give(packet);
  }

  /** Asks for a breath. */
  wake(): void {
    this.#host.wake();
  }

  /** Throws a packet away and counts it. */
  discard(packet: Packet, reason: string): void {
    this.counters.drop(reason);
    this.giveBack(packet);
  }

  /** Gives a packet back to the pool, counted if it was malformed. */
  giveBack(packet: Packet): void {
    if (packet.malformed) this.#countMalformed(packet);
    this.pool.give(packet);
  }

  /** Throws away all packets of a batch. */
  discardAll(batch: PacketBatch, reason: string): void {
    for (let i = 0; i < batch.length; i++) this.discard(batch.packets[i]!, reason);
    batch.clear();
  }

  /**
   * Closes the stages and gives back every packet inside, counted as `closed`.
   *
   * @throws {AggregateError} when stages threw; all were closed.
   */
  close(): void {
    this.closed = true;
    for (const batch of this.outbound) this.discardAll(batch, "closed");
    for (const batch of this.inbound) this.discardAll(batch, "closed");
    this.#cuttingForFar.clear("closed");
    this.#cuttingForDevice.clear("closed");
    for (const place of this.#places) {
      if (place.held === 0) continue;
      for (const packet of this.pool.packets) if (packet.owner === place) this.discard(packet, "closed");
      place.held = 0;
    }
    for (const { number } of this.#places) this.#host.heartbeat.forget(number);
    closeStages(this.#places.map(({ stage }) => stage));
  }

  /** Throws away the packets of a batch that are not in their slots. */
  #expel(batch: PacketBatch): boolean {
    for (let i = 0; i < batch.length; i++) {
      const packet = batch.packets[i]!;
      if (!packet.isInSlot) this.discard(packet, "moved out of its slot");
    }
    batch.compact();
    return true;
  }

  #countMalformed(packet: Packet): void {
    packet.malformed = false;
    this.counters.malformed++;
  }
}

/** Whether every end with offload takes a super-packet: Linux takes those of 128 datagrams, and no segments of 65,535 bytes. */
function passesWhole({ segmentSize, length }: Packet): boolean {
  return segmentSize >>> 0 === segmentSize && segmentSize < 65_535 && length <= segmentSize * MOST_SEGMENTS;
}

/** Writes a batch to an end, and counts what it took. */
function write(end: TunnelEnd, batch: PacketBatch, flow: FlowStats): boolean {
  let bytes = 0;
  for (let i = 0; i < batch.length; i++) bytes += batch.packets[i]!.length;
  const taken = end.write(batch);
  for (let i = 0; i < batch.length; i++) bytes -= batch.packets[i]!.length;
  flow.packetsOut += taken;
  flow.bytesOut += bytes;
  return taken > 0;
}

/**
 * Closes stages, one after the other.
 *
 * @throws {AggregateError} when some threw; all were closed.
 */
export function closeStages(stages: readonly Stage[]): void {
  const failures: unknown[] = [];
  for (const stage of stages) {
    try {
      stage.close?.();
    } catch (cause) {
      failures.push(new Error(`Cannot close stage "${stage.name}": ${said(cause)}`, { cause }));
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, "Cannot close every stage");
}
