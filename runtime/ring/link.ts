/**
 * Link between the workers of one tunnel: hands packets over and shares counters.
 *
 *     this worker                                       another worker
 *     stage ──► send ─► ring, commit, wakeup ──────────► its wait ends ─► receive ─► the same stage
 *     breath ─► publish ───────────────────────────────► stats
 */

import { openPosix } from "../../driver/open_posix.ts";
import { openWakeupEnds, Wakeup } from "../../driver/posix/wakeup.ts";
import type { WakeupEnds } from "../../driver/share.ts";
import type { Waiter } from "../../driver/waiter.ts";
import { Direction, type Packet, type TunnelStats, type WorkerPlace } from "../../lib/core/mod.ts";
import type { Counters } from "../../lib/core/stats.ts";
import type { OtherWorkers, Pipeline } from "../engine/pipeline.ts";
import { allocateRing, PacketRing } from "./ring.ts";
import {
  allocateCounters,
  type HandOverStats,
  noHandOvers,
  readAll,
  SharedCounters,
  sum,
  type WorkerStats,
} from "./counters.ts";

// Implementation
/** Maximum number of packets received in one breath. */
const RECEIVED_LIMIT = 64;

/** Memory and descriptors that the workers of a tunnel share; they can be posted to a worker. */
export interface LinkParts {
  /** Counters of each worker. */
  readonly counters: readonly SharedArrayBuffer[];
  /** A 32-bit word for each worker: 1 while the worker waits and has to be woken. */
  readonly waiting: SharedArrayBuffer;
  /** Wakeup of each worker. */
  readonly wakeups: readonly WakeupEnds[];
}

/** Services that a worker gives its link. */
export interface LinkHost {
  /** Sends a ring to the worker that will read it. */
  sendRing(ring: SharedArrayBuffer, to: number): void;
  /** Closes the tunnel in the other workers; resolves when it is closed there. */
  leave(): Promise<void>;
}

/** Creates the shared parts of a tunnel with `count` workers; {@linkcode closeLinkParts} releases them. */
export async function createLinkParts(count: number): Promise<LinkParts> {
  const posix = (await openPosix())!;
  return {
    counters: Array.from({ length: count }, allocateCounters),
    waiting: new SharedArrayBuffer(4 * count),
    wakeups: Array.from({ length: count }, () => openWakeupEnds(posix)),
  };
}

/** Closes the wakeups of shared parts, after the last worker has ended. */
export async function closeLinkParts({ wakeups }: LinkParts): Promise<void> {
  for (const ends of wakeups) (await joinWakeup(ends)).close();
}

async function joinWakeup(ends: WakeupEnds): Promise<Wakeup> {
  return new Wakeup((await openPosix())!, ends);
}

/** One worker's side of a link. */
export class WorkerLink implements OtherWorkers {
  readonly place: WorkerPlace;
  /** Called when another worker has closed the tunnel, with the error if it failed. */
  onEnd: ((error: unknown) => void) | undefined;
  /** Called when a ring has been received. */
  onRing: (() => void) | undefined;

  readonly #host: LinkHost;
  readonly #counters: readonly SharedCounters[];
  readonly #waiting: Int32Array;
  readonly #wakeups: readonly Wakeup[];
  /** Ring to each other worker, created on first use. */
  readonly #outgoing = new Map<number, PacketRing>();
  /** Rings from other workers. */
  readonly #incoming: PacketRing[] = [];
  /** Workers whose rings have packets that are not committed. */
  readonly #pushed = new Set<number>();
  readonly #handed: HandOverStats = noHandOvers();
  /** Place of this worker's wakeup in the loop's wait. */
  #wakeupPlace = 0;
  /** True from before the loop's wait until `receive`. */
  #armed = false;
  /** True if the tunnel is closed in all workers. */
  #ended = false;

  private constructor(place: WorkerPlace, parts: LinkParts, wakeups: readonly Wakeup[], host: LinkHost) {
    this.place = place;
    this.#host = host;
    this.#counters = parts.counters.map((memory) => new SharedCounters(memory));
    this.#waiting = new Int32Array(parts.waiting);
    this.#wakeups = wakeups;
  }

  /** Opens one worker's side of a link. */
  static async open(place: WorkerPlace, parts: LinkParts, host: LinkHost): Promise<WorkerLink> {
    return new WorkerLink(place, parts, await Promise.all(parts.wakeups.map(joinWakeup)), host);
  }

  /**
   * Copies a packet for the same stage of another worker, which receives it after {@linkcode WorkerLink.publish}.
   * Returns false if the ring has no room.
   */
  send(packet: Packet, worker: number, stage: number, direction: Direction): boolean {
    let ring = this.#outgoing.get(worker);
    if (ring === undefined) {
      const memory = allocateRing();
      ring = new PacketRing(memory);
      this.#outgoing.set(worker, ring);
      this.#host.sendRing(memory, worker);
    }
    if (!ring.push(packet, tagOf(stage, direction))) return false;
    const flow = direction === Direction.Outbound ? this.#handed.outbound : this.#handed.inbound;
    flow.packetsOut++;
    flow.bytesOut += packet.length;
    this.#pushed.add(worker);
    return true;
  }

  /** Adds a ring to which another worker writes. */
  accept(memory: SharedArrayBuffer): void {
    this.#incoming.push(new PacketRing(memory));
    this.onRing?.();
  }

  /** Receives packets from other workers while there is room; returns true if there were any. */
  receive(pipeline: Pipeline, now: number, waited: Waiter | undefined): boolean {
    if (this.#armed) {
      this.#armed = false;
      Atomics.store(this.#waiting, this.place.index, 0);
      if (waited === undefined || waited.isReady(this.#wakeupPlace)) this.#wakeups[this.place.index]!.drain();
    }
    const { pool } = pipeline.ledger;
    let count = 0;
    for (const ring of this.#incoming) {
      for (; count < RECEIVED_LIMIT && canTake(ring, pipeline); count++) {
        const { nextLength, nextTag } = ring;
        const packet = pool.take(nextLength);
        if (packet === undefined) ring.skip(nextLength);
        else ring.shift(packet);
        const direction = directionOf(nextTag);
        const flow = direction === Direction.Outbound ? this.#handed.outbound : this.#handed.inbound;
        flow.packetsIn++;
        flow.bytesIn += nextLength;
        if (packet === undefined) pipeline.ledger.refuse(nextLength, direction, "longer than any slot");
        else pipeline.accept(packet, nextTag >>> 1, direction, now);
      }
    }
    // Next time, the ring of a different worker comes first.
    if (this.#incoming.length > 1 && count > 0) this.#incoming.push(this.#incoming.shift()!);
    return count > 0;
  }

  /** Makes the loop's wait end when another worker hands over a packet. */
  arm(waiter: Waiter, pipeline: Pipeline): void {
    const wakeup = this.#wakeups[this.place.index]!;
    this.#wakeupPlace = waiter.add(wakeup.waitable, true, false);
    this.#armed = true;
    Atomics.store(this.#waiting, this.place.index, 1);
    // A packet committed after this store signals the wakeup; one committed before it is found here.
    if (this.#incoming.some((ring) => canTake(ring, pipeline))) wakeup.signal();
  }

  /** Publishes the counters, then the packets handed over: no packet counts as received before it counts as sent. */
  publish(counters: Counters, inside: number, forFar: number, forDevice: number): void {
    this.#counters[this.place.index]!.publish(counters, this.#handed, inside, forFar, forDevice);
    for (const worker of this.#pushed) {
      this.#outgoing.get(worker)!.commit();
      if (Atomics.exchange(this.#waiting, worker, 0) === 1) this.#wakeups[worker]!.signal();
    }
    this.#pushed.clear();
  }

  /** In the first worker, returns the sum of all workers' counters; in other workers, their own counters. */
  stats(own: TunnelStats): TunnelStats {
    if (this.place.index !== 0) return own;
    const others = readAll(this.#counters.slice(1));
    const first: WorkerStats = { stats: own, handed: this.#handed };
    return sum([first, ...others], this.#ended);
  }

  /** Closes the tunnel in the other workers. */
  async leave(): Promise<void> {
    await this.#host.leave();
    this.#ended = true;
  }
}

/** Tag of a packet in a ring: the stage's index, and the direction in the lowest bit. */
function tagOf(stage: number, direction: Direction): number {
  return stage << 1 | direction;
}

function directionOf(tag: number): Direction {
  return (tag & 1) as Direction;
}

/** Reports whether a ring has a packet and there is room for it, or if it is to be dropped: longer than any slot. */
function canTake(ring: PacketRing, pipeline: Pipeline): boolean {
  const length = ring.nextLength;
  const { pool } = pipeline.ledger;
  return length >= 0 && pipeline.takes(directionOf(ring.nextTag)) &&
    (pool.available(length) > 0 || !pool.holds(length));
}
