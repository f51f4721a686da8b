/**
 * The relay of a running tunnel, which moves packets between its ends, one breath at a time:
 *
 *     other workers ─► stages                            first, packets handed over by other workers
 *     device ─ inhale ─► stages ─ exhale ─► far end
 *     device ◄─ exhale ─ stages ◄─ inhale ─ far end      and packets that the script sends
 *     due ticks                                          last
 */

import type { Waiter } from "../../driver/mod.ts";
import {
  type Device,
  Direction,
  type EndWait,
  type PacketBatch,
  type TunnelEnd,
} from "../../lib/core/mod.ts";
import { Breath, type LoopMember } from "./loop.ts";
import type { Pipeline } from "./pipeline.ts";

/** Source of packets that other workers hand over. */
export interface PacketSource {
  /** Moves packets into the pipeline while there is room; returns true if there were any. */
  receive(pipeline: Pipeline, now: number, waited: Waiter | undefined): boolean;
  /** Makes the wait end when a packet is handed over. */
  arm(waiter: Waiter, pipeline: Pipeline): void;
}

/** Parts of a {@linkcode Relay}. */
export interface RelayParts {
  readonly device: Device;
  /** Without a far end, outbound packets are dropped after the last stage, with the reason `no far end`. */
  readonly far: TunnelEnd | undefined;
  readonly pipeline: Pipeline;
  /** Packets that the script has sent since the last breath, or a handler during a breath. */
  readonly sent: PacketBatch;
  /** Link to the same tunnel in the other workers. */
  readonly link: PacketSource | undefined;
  /** See {@linkcode LoopMember.busyPoll}. */
  readonly busyPoll: number;
}

/** Receiver of a relay's events. */
export interface RelayHost {
  /** Called after each breath. */
  breathed(came: Breath): void;
  /** Called when a breath threw. */
  fail(error: unknown): void;
}

/** A running tunnel, as a member of the loop. */
export class Relay implements LoopMember {
  /** Name of the device. */
  readonly name: string;
  readonly busyPoll: number;
  /** True during a breath. */
  isBreathing = false;

  readonly #device: Device;
  readonly #far: TunnelEnd | undefined;
  readonly #pipeline: Pipeline;
  readonly #sent: PacketBatch;
  readonly #link: PacketSource | undefined;
  readonly #host: RelayHost;
  /** Descriptors of both ends, and their places in the loop's wait. */
  readonly #waits: readonly EndWait[];
  /** Ends with timers. */
  readonly #timed: readonly TunnelEnd[];
  readonly #devicePlaces: number[] = [];
  readonly #farPlaces: number[] = [];

  constructor({ device, far, pipeline, sent, link, busyPoll }: RelayParts, host: RelayHost) {
    this.name = device.name;
    this.busyPoll = busyPoll;
    this.#device = device;
    this.#far = far;
    this.#pipeline = pipeline;
    this.#sent = sent;
    this.#link = link;
    this.#host = host;
    this.#timed = [device, far].filter((end) => end?.tick !== undefined) as TunnelEnd[];
    this.#waits = [...device.waits, ...(far?.waits ?? [])];
  }

  get due(): number {
    let { due } = this.#pipeline;
    for (const end of this.#timed) if (end.due! < due) due = end.due!;
    return due;
  }

  get waitable(): boolean {
    if (this.#pipeline.isWaiting) return false;
    for (const { waitable } of this.#waits) if (waitable === undefined) return false;
    return true;
  }

  breathe(now: number, waited: Waiter | undefined): Breath {
    this.isBreathing = true;
    const came = this.#move(now, waited);
    this.isBreathing = false;
    this.#host.breathed(came);
    return came;
  }

  /**
   * Performs one breath. The result is `More` if a batch was filled, if packets wait before a stage that this breath
   * has already passed, or if an end that was not read can be read now.
   */
  #move(now: number, waited: Waiter | undefined): Breath {
    const device = this.#device;
    const far = this.#far;
    const pipeline = this.#pipeline;
    const { ledger } = pipeline;
    const { counters } = ledger;
    let moved = this.#link?.receive(pipeline, now, waited) === true;
    // Other workers may have handed over more packets than one breath takes.
    let more = moved;

    const readsOut = pipeline.wantsOutbound;
    if (readsOut && (waited === undefined || isReady(waited, this.#devicePlaces))) {
      const batch = pipeline.outbound[0]!;
      if (pipeline.inhale(device, batch, counters.outbound, now) > 0) moved = true;
      more ||= batch.full;
    }
    if (pipeline.flow(Direction.Outbound, now)) moved = true;
    let written = false;
    if (pipeline.waitingForFar > 0) {
      if (far === undefined) ledger.discardAll(pipeline.forFar, "no far end");
      else written = pipeline.exhaleToFar(far);
      if (written) {
        moved = true;
        more ||= !readsOut;
      }
    }
    const waiting = pipeline.waitingForFar;

    this.#sent.moveTo(pipeline.fromFar);
    const readsIn = far !== undefined && pipeline.wantsInbound;
    // The reply to a packet just written may have arrived; a read that finds none costs less than another wait.
    if (readsIn && (waited === undefined || written || isReady(waited, this.#farPlaces))) {
      const batch = pipeline.fromFar;
      if (pipeline.inhale(far, batch, counters.inbound, now) > 0) moved = true;
      more ||= batch.full;
    }
    if (pipeline.flow(Direction.Inbound, now)) moved = true;
    if (pipeline.waitingForDevice > 0 && pipeline.exhaleToDevice(device)) {
      moved = true;
      more ||= far !== undefined && !readsIn;
    }

    // Segments may have left the queue before a stage, without a write to an end.
    if (!readsOut && pipeline.wantsOutbound || far !== undefined && !readsIn && pipeline.wantsInbound) {
      more = true;
    }
    if (pipeline.due <= now && pipeline.tick(now)) more = true;
    for (const end of this.#timed) {
      if (!(end.due! <= now)) continue;
      end.tick!();
      more = true;
    }
    if (pipeline.pending || pipeline.waitingForFar > waiting) more = true;
    return more ? Breath.More : moved ? Breath.Moved : Breath.Idle;
  }

  arm(waiter: Waiter): void {
    const pipeline = this.#pipeline;
    const far = this.#far;
    const { wantsOutbound, wantsInbound } = pipeline;
    this.#armEnd(waiter, this.#device, this.#devicePlaces, wantsOutbound, pipeline.waitingForDevice > 0);
    if (far !== undefined) {
      this.#armEnd(waiter, far, this.#farPlaces, wantsInbound, pipeline.waitingForFar > 0);
    }
    this.#link?.arm(waiter, pipeline);
  }

  /** Adds the descriptors of an end to the wait. If the pool has no slot for a read, it wakes the loop once it has. */
  #armEnd(waiter: Waiter, end: TunnelEnd, places: number[], wants: boolean, writes: boolean): void {
    const { waits } = end;
    const length = end.maxRead ?? end.mtu ?? this.#device.mtu;
    const reads = wants && this.#pipeline.ledger.pool.available(length) > 0;
    for (let i = 0; i < waits.length; i++) {
      const { waitable, isFull = writes } = waits[i]!;
      if (waitable !== undefined) places[i] = waiter.add(waitable, reads, isFull);
    }
  }

  fail(error: unknown): void {
    this.isBreathing = false;
    this.#host.fail(error);
  }
}

/** Reports whether the wait found a descriptor of an end ready. */
function isReady(waited: Waiter, places: readonly number[]): boolean {
  for (const place of places) if (waited.isReady(place)) return true;
  return false;
}
