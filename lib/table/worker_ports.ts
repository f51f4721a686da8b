/** Divides a NAT's ports among workers; starts, restores and expires the flows of each worker. */

import type { Packet } from "../core/packet.ts";
import { type Direction, SINGLE_WORKER, type StageContext, type WorkerPlace } from "../core/stage.ts";

// Implementation
/** Interval between searches for idle flows, as long as there are flows (ms). */
const EXPIRY_INTERVAL = 1000;

/** Reports whether a worker owns a port. An even port and the next one have the same owner: a NAT can keep the parity. */
export function ownsPort(port: number, worker: WorkerPlace): boolean {
  return portOwner(port, worker) === worker.index;
}

/** Hands a packet over if another worker owns its port; returns whether it did. */
export function handOverToOwner(
  packet: Packet,
  port: number,
  direction: Direction,
  context: StageContext,
): boolean {
  const owner = portOwner(port, context.worker);
  if (owner === context.worker.index) return false;
  context.handOver(packet, owner, direction);
  return true;
}

function portOwner(port: number, { count }: WorkerPlace): number {
  return count === 1 ? 0 : (port >>> 1) % count;
}

/** Flows of a NAT on one worker. */
export interface PortFlows<Saved> {
  /** Number of flows. */
  readonly size: number;
  /** Returns all flows as JSON values. */
  save(now: number): Saved;
  /** Restores saved flows, except those whose port is not available on this worker. */
  restore(saved: Saved, now: number): void;
  /** Removes some idle flows; returns whether there may be more. */
  expire(now: number): boolean;
}

/** A NAT on one worker: place, time and flows. */
export class NatWorker<Flows extends PortFlows<Saved>, Saved> {
  /** Place of this worker, known from the first call on. */
  place: WorkerPlace = SINGLE_WORKER;
  /** Time of the current call. */
  now = 0;
  /** Flows of this worker. */
  flows: Flows;
  readonly #create: (place: WorkerPlace) => Flows;
  #isStarted = false;
  #isTicking = false;
  #saved: Saved | undefined;

  constructor(create: (place: WorkerPlace) => Flows) {
    this.#create = create;
    this.flows = create(SINGLE_WORKER);
  }

  /** Starts every call of the stage: takes the time and, on the first call, creates and restores the worker's flows. */
  begin(context: StageContext): void {
    this.now = context.now;
    if (!this.#isStarted) this.#start(context);
  }

  /** Returns the flows for {@linkcode NatWorker.restore}. */
  save(): Saved {
    return this.#saved ?? this.flows.save(this.now);
  }

  /** Replaces all flows on the next call of the stage. */
  restore(saved: Saved): void {
    this.#saved = saved;
    this.#isStarted = false;
  }

  /** Requests ticks, as long as there are flows. */
  watch(context: StageContext): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    context.wake();
  }

  /**
   * Removes idle flows; returns the time until the next tick (ms), `undefined` for none.
   *
   * @param due Time until the stage has other work; `Infinity` for none.
   */
  tick(due: number): number | undefined {
    if (this.flows.expire(this.now)) return 0;
    this.#isTicking = this.flows.size > 0 || due < Infinity;
    return this.#isTicking ? Math.min(EXPIRY_INTERVAL, due) : undefined;
  }

  #start(context: StageContext): void {
    this.#isStarted = true;
    this.place = context.worker;
    if (this.#saved === undefined && this.place.count === 1) return;
    this.flows = this.#create(this.place);
    if (this.#saved === undefined) return;
    this.flows.restore(this.#saved, this.now);
    this.#saved = undefined;
    this.watch(context);
  }
}
