/**
 * Relay of a running tunnel, which moves its packets one breath at a time:
 *
 *     other workers ─► stages                            first, packets handed over by other workers
 *     device ─ inhale ─► stages ─ exhale ─► far end
 *     device ◄─ exhale ─ stages ◄─ inhale ─ far end      with the packets that the script sends
 *     due ticks                                          last
 */

import type { Waiter } from "../../driver/mod.ts";
import {
  type Device,
  Direction,
  type PacketBatch,
  type TunnelEnd,
  type Waitable,
} from "../../lib/core/mod.ts";
import { Breath, type LoopMember } from "./loop.ts";
import type { Pipeline } from "./pipeline.ts";

/** Source of packets that other workers hand over. */
export interface PacketSource {
  /** Moves packets into the pipeline while there is room; returns whether there were any. */
  receive(pipeline: Pipeline, now: number, waited: Waiter | undefined): boolean;
  /** Makes the loop's wait end when a packet is handed over. */
  arm(waiter: Waiter, pipeline: Pipeline): void;
}

/** Parts of a {@linkcode Relay}. */
export interface RelayParts {
  /** This machine's side. */
  readonly device: Device;
  /** The other side; without one, packets that reach it are dropped as `no far end`. */
  readonly far: TunnelEnd | undefined;
  /** The stages. */
  readonly pipeline: Pipeline;
  /** Packets that the script has sent since the last breath; a handler may send during a breath. */
  readonly sent: PacketBatch;
  /** Link to the same tunnel in the other workers. */
  readonly link: PacketSource | undefined;
}

/** Receiver of a relay's events. */
export interface RelayHost {
  /** Called after each breath. */
  breathed(came: Breath): void;
  /** Called when a breath threw. */
  fail(error: unknown): void;
}

/** A running tunnel, as the loop sees it. */
export class Relay implements LoopMember {
  /** Name of the device. */
  readonly name: string;
  /** True during a breath. */
  isBreathing = false;

  readonly #device: Device;
  readonly #far: TunnelEnd | undefined;
  readonly #pipeline: Pipeline;
  readonly #sent: PacketBatch;
  readonly #link: PacketSource | undefined;
  readonly #host: RelayHost;
  /** Places of the ends in the loop's wait; a far end with several descriptors has several in a row. */
  #devicePlace = 0;
  #farPlace = 0;
  #farPlaces = 0;

  /** Makes a relay between two ends. */
  constructor({ device, far, pipeline, sent, link }: RelayParts, host: RelayHost) {
    this.name = device.name;
    this.#device = device;
    this.#far = far;
    this.#pipeline = pipeline;
    this.#sent = sent;
    this.#link = link;
    this.#host = host;
  }

  /** See {@linkcode Pipeline.due}. */
  get due(): number {
    return this.#pipeline.due;
  }

  /** True if packets can arrive through descriptors only. */
  get waitable(): boolean {
    const far = this.#far;
    if (this.#device.waitable === undefined || this.#pipeline.isWaiting) return false;
    if (far?.waits !== undefined) return far.waits.every(({ waitable }) => waitable !== undefined);
    return far === undefined || far.waitable !== undefined;
  }

  /** Moves packets once. */
  breathe(now: number, waited: Waiter | undefined): Breath {
    this.isBreathing = true;
    const came = this.#move(now, waited);
    this.isBreathing = false;
    this.#host.breathed(came);
    return came;
  }

  /**
   * Performs one breath. There is more to do at once when a batch was filled, when packets wait before a stage that
   * this breath has passed already, or when an end that was not read can be read now.
   */
  #move(now: number, waited: Waiter | undefined): Breath {
    const device = this.#device;
    const far = this.#far;
    const pipeline = this.#pipeline;
    const { ledger } = pipeline;
    const { counters } = ledger;
    let moved = this.#link?.receive(pipeline, now, waited) === true;
    // There may be more than one breath takes over.
    let more = moved;

    const readsOut = pipeline.wantsOutbound;
    if (readsOut && (waited === undefined || waited.isReady(this.#devicePlace))) {
      const batch = pipeline.outbound[0]!;
      if (pipeline.inhale(device, batch, counters.outbound, now) > 0) moved = true;
      more ||= batch.full;
    }
    if (pipeline.flow(Direction.Outbound, now)) moved = true;
    if (pipeline.waitingForFar > 0) {
      moved = true;
      if (far === undefined) ledger.discardAll(pipeline.forFar, "no far end");
      else if (pipeline.exhaleToFar(far)) more ||= !readsOut;
    }
    const waiting = pipeline.waitingForFar;

    this.#sent.moveTo(pipeline.fromFar);
    const readsIn = far !== undefined && pipeline.wantsInbound;
    if (readsIn && (waited === undefined || this.#isFarReady(waited))) {
      const batch = pipeline.fromFar;
      if (pipeline.inhale(far, batch, counters.inbound, now) > 0) moved = true;
      more ||= batch.full;
    }
    if (pipeline.flow(Direction.Inbound, now)) moved = true;
    if (pipeline.waitingForDevice > 0) {
      moved = true;
      if (pipeline.exhaleToDevice(device)) {
        more ||= far !== undefined && !readsIn;
      }
    }

    // Segments may have left without a write to an end.
    if (!readsOut && pipeline.wantsOutbound || far !== undefined && !readsIn && pipeline.wantsInbound) {
      more = true;
    }
    if (pipeline.due <= now && pipeline.tick(now)) more = true;
    if (pipeline.pending || pipeline.waitingForFar > waiting) more = true;
    return more ? Breath.More : moved ? Breath.Moved : Breath.Idle;
  }

  /** Adds the ends' descriptors to the wait. */
  arm(waiter: Waiter): void {
    const pipeline = this.#pipeline;
    const far = this.#far;
    const device = this.#device;
    if (device.waitable !== undefined) {
      const reads = pipeline.wantsOutbound && this.#hasRoom(device);
      this.#devicePlace = waiter.add(device.waitable, reads, pipeline.waitingForDevice > 0);
    }
    if (far !== undefined) this.#armFar(waiter, far, pipeline.wantsInbound && this.#hasRoom(far));
    this.#link?.arm(waiter, pipeline);
  }

  #armFar(waiter: Waiter, far: TunnelEnd, reads: boolean): void {
    this.#farPlaces = 0;
    if (far.waits === undefined) {
      if (far.waitable !== undefined) {
        this.#addFar(waiter, far.waitable, reads, this.#pipeline.waitingForFar > 0);
      }
      return;
    }
    for (const { waitable, isFull } of far.waits) {
      if (waitable !== undefined) this.#addFar(waiter, waitable, reads, isFull);
    }
  }

  #addFar(waiter: Waiter, waitable: Waitable, reads: boolean, writes: boolean): void {
    const place = waiter.add(waitable, reads, writes);
    if (this.#farPlaces++ === 0) this.#farPlace = place;
  }

  #isFarReady(waited: Waiter): boolean {
    for (let i = 0; i < this.#farPlaces; i++) if (waited.isReady(this.#farPlace + i)) return true;
    return this.#farPlaces === 0;
  }

  /** Ends the tunnel. */
  fail(error: unknown): void {
    this.isBreathing = false;
    this.#host.fail(error);
  }

  /** Tells whether the pool has a slot for an end's packets. If not, it wakes the loop when there is one. */
  #hasRoom(end: TunnelEnd): boolean {
    const longest = end.longestRead ?? (end as Partial<Device>).mtu ?? this.#device.mtu;
    return this.#pipeline.ledger.pool.available(longest) > 0;
  }
}
