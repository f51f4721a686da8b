/**
 * What moves the packets of a running tunnel, a breath at a time:
 *
 *     device ─ inhale ─► stages ─ exhale ─► far end    packets of the script, and of other workers, join on the way
 *     device ◄─ exhale ─ stages ◄─ inhale ─ far end    then ticks that are due
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

/** Packets that other workers hand over. */
export interface PacketSource {
  /** Takes what was handed over, as far as there is room; returns whether anything came. */
  receive(pipeline: Pipeline, now: number, waited: Waiter | undefined): boolean;
  /** Has the loop's wait end when something is handed over. */
  arm(waiter: Waiter, pipeline: Pipeline): void;
}

/** What a relay moves packets between. */
export interface RelayParts {
  /** This machine's side. */
  readonly device: Device;
  /** The other side; without one, what comes to it is dropped as `no far end`. */
  readonly far: TunnelEnd | undefined;
  /** The stages. */
  readonly pipeline: Pipeline;
  /** What the script has sent since the last breath; a handler may send while the pipeline is at work. */
  readonly sent: PacketBatch;
  /** To the same tunnel of the other workers. */
  readonly link: PacketSource | undefined;
}

/** Whom a relay tells. */
export interface RelayHost {
  /** A breath is over. */
  breathed(came: Breath): void;
  /** A breath threw. */
  fail(error: unknown): void;
}

/** A tunnel as its loop sees it. */
export class Relay implements LoopMember {
  /** The device's. */
  readonly name: string;
  /** Whether a breath is under way. */
  isBreathing = false;

  readonly #device: Device;
  readonly #far: TunnelEnd | undefined;
  readonly #pipeline: Pipeline;
  readonly #sent: PacketBatch;
  readonly #link: PacketSource | undefined;
  readonly #host: RelayHost;
  /** Where the ends stand in the loop's wait; the far end may stand there several times, one behind the other. */
  #devicePlace = 0;
  #farPlace = 0;
  #farPlaces = 0;

  /** Between these ends. */
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

  /** Whether nothing but both ends' descriptors brings it packets. */
  get waitable(): boolean {
    const far = this.#far;
    if (this.#device.waitable === undefined || this.#pipeline.isWaiting) return false;
    if (far?.waits !== undefined) return far.waits.every(({ waitable }) => waitable !== undefined);
    return far === undefined || far.waitable !== undefined;
  }

  /** Moves packets, once. */
  breathe(now: number, waited: Waiter | undefined): Breath {
    this.isBreathing = true;
    const came = this.#move(now, waited);
    this.isBreathing = false;
    this.#host.breathed(came);
    return came;
  }

  /**
   * One breath. There is more to do at once when a batch was filled, when packets stand before a stage that this
   * breath has passed already, or when a way is free that was not when its reader was due.
   */
  #move(now: number, waited: Waiter | undefined): Breath {
    const device = this.#device;
    const far = this.#far;
    const pipeline = this.#pipeline;
    const { ledger } = pipeline;
    const { counters } = ledger;
    let moved = this.#link?.receive(pipeline, now, waited) === true;
    // The others may have handed over more than one breath takes.
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

    // Segments may have gone their way without an end.
    if (!readsOut && pipeline.wantsOutbound || far !== undefined && !readsIn && pipeline.wantsInbound) {
      more = true;
    }
    if (pipeline.due <= now && pipeline.tick(now)) more = true;
    if (pipeline.pending || pipeline.waitingForFar > waiting) more = true;
    return more ? Breath.More : moved ? Breath.Moved : Breath.Idle;
  }

  /** Says what to wait for. */
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

  /** With no slot for an end's packets, what is ready cannot be read: the pool wakes the loop when there is one. */
  #hasRoom(end: TunnelEnd): boolean {
    const longest = end.longestRead ?? (end as Partial<Device>).mtu ?? this.#device.mtu;
    return this.#pipeline.ledger.pool.available(longest) > 0;
  }
}
