/**
 * What joins a tunnel with the same tunnel of the other workers: packets handed over, and counters.
 *
 *     this worker                                      another worker
 *     stage ─► send ─► ring ─ commit, wakeup ─────────►  its wait ends ─► receive ─► the same stage
 *     breath ─► publish ────────────────────────────►  stats
 */

import { openWakeup, type Waiter, type Wakeup, type WakeupEnds } from "../../driver/mod.ts";
import {
  type Counters,
  Direction,
  type Packet,
  type TunnelStats,
  type WorkerPlace,
} from "../../lib/core/mod.ts";
import type { OtherWorkers, Pipeline } from "../engine/pipeline.ts";
import { makeRing, PacketRing } from "./ring.ts";
import {
  type Handed,
  makeSharedCounters,
  nothingHanded,
  readAll,
  SharedCounters,
  sum,
  type Told,
} from "./counters.ts";

// Implementation
/** Packets that one breath takes over from others. */
const RECEIVED_LIMIT = 64;

/** What all workers of a tunnel have in common: values that can be posted. */
export interface LinkParts {
  /** Each one's counters. */
  readonly counters: readonly SharedArrayBuffer[];
  /** A word for each one: whether it waits, and is to be woken. */
  readonly waiting: SharedArrayBuffer;
  /** Each one's wakeup. */
  readonly wakeups: readonly WakeupEnds[];
}

/** What a link needs of the thread that it is in. */
export interface LinkHost {
  /** Brings a ring that this worker writes to another worker. */
  bring(ring: SharedArrayBuffer, to: number): void;
  /** Ends the tunnel in the other workers, too; settled when it has ended there. */
  leave(): Promise<void>;
}

/** Makes what a tunnel of so many workers has in common. Its wakeups are closed when the last worker has ended. */
export async function makeLinkParts(count: number): Promise<LinkParts> {
  const wakeups: WakeupEnds[] = [];
  for (let i = 0; i < count; i++) wakeups.push((await openWakeup()).ends);
  return {
    counters: Array.from({ length: count }, makeSharedCounters),
    waiting: new SharedArrayBuffer(4 * count),
    wakeups,
  };
}

/** Frees what {@linkcode makeLinkParts} took of the system. */
export async function closeLinkParts({ wakeups }: LinkParts): Promise<void> {
  for (const ends of wakeups) (await openWakeup(ends)).wakeup.close();
}

/** A tunnel's link to the other workers. */
export class WorkerLink implements OtherWorkers {
  readonly place: WorkerPlace;
  /** Called when another worker has ended the tunnel: with why, when it failed. */
  onEnd: ((error: unknown) => void) | undefined;
  /** Called when a ring came. */
  onRing: (() => void) | undefined;

  readonly #host: LinkHost;
  readonly #counters: readonly SharedCounters[];
  readonly #waiting: Int32Array;
  readonly #wakeups: readonly Wakeup[];
  /** Rings by their readers and by their writers; made when they are needed. */
  readonly #outgoing = new Map<number, PacketRing>();
  readonly #incoming: PacketRing[] = [];
  /** Those that have packets to be shown. */
  readonly #pushed = new Set<number>();
  readonly #handed: Handed = nothingHanded();
  /** Where the wakeup stands in the loop's wait, and whether the loop is about to wait. */
  #wakeupPlace = 0;
  #armed = false;
  /** Whether no worker has anything open. */
  #ended = false;

  private constructor(place: WorkerPlace, parts: LinkParts, wakeups: readonly Wakeup[], host: LinkHost) {
    this.place = place;
    this.#host = host;
    this.#counters = parts.counters.map((memory) => new SharedCounters(memory));
    this.#waiting = new Int32Array(parts.waiting);
    this.#wakeups = wakeups;
  }

  /** The side of one worker. */
  static async open(place: WorkerPlace, parts: LinkParts, host: LinkHost): Promise<WorkerLink> {
    const wakeups: Wakeup[] = [];
    for (const ends of parts.wakeups) wakeups.push((await openWakeup(ends)).wakeup);
    return new WorkerLink(place, parts, wakeups, host);
  }

  /** Copies a packet for the same stage of another worker, which sees it after `commit`. */
  send(packet: Packet, worker: number, stage: number, direction: Direction): boolean {
    let ring = this.#outgoing.get(worker);
    if (ring === undefined) {
      const memory = makeRing();
      ring = new PacketRing(memory);
      this.#outgoing.set(worker, ring);
      this.#host.bring(memory, worker);
    }
    if (!ring.push(packet, tagOf(stage, direction))) return false;
    const flow = direction === Direction.Outbound ? this.#handed.outbound : this.#handed.inbound;
    flow.packetsOut++;
    flow.bytesOut += packet.length;
    this.#pushed.add(worker);
    return true;
  }

  /** A ring that another worker writes. */
  accept(memory: SharedArrayBuffer): void {
    this.#incoming.push(new PacketRing(memory));
    this.onRing?.();
  }

  /** Takes what others have handed over, as far as there is room; returns whether anything came. */
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
        if (packet === undefined) pipeline.refuse(nextLength, direction, "longer than any slot");
        else pipeline.accept(packet, stageOf(nextTag), direction, now);
      }
    }
    // Not always the same worker's first.
    if (this.#incoming.length > 1 && count > 0) this.#incoming.push(this.#incoming.shift()!);
    return count > 0;
  }

  /** Has the loop's wait end when something is handed over. */
  arm(waiter: Waiter, pipeline: Pipeline): void {
    const wakeup = this.#wakeups[this.place.index]!;
    this.#wakeupPlace = waiter.add(wakeup.waitable, true, false);
    this.#armed = true;
    Atomics.store(this.#waiting, this.place.index, 1);
    // Whoever shows a packet after this line rings; what was shown before is seen here.
    if (this.#incoming.some((ring) => canTake(ring, pipeline))) wakeup.signal();
  }

  /** Tells the counters, and then shows what was handed over, so that nobody has taken more than is told. */
  publish(counters: Counters, inside: number, forFar: number, forDevice: number): void {
    this.#counters[this.place.index]!.publish(counters, this.#handed, inside, forFar, forDevice);
    for (const worker of this.#pushed) {
      this.#outgoing.get(worker)!.commit();
      if (Atomics.exchange(this.#waiting, worker, 0) === 1) this.#wakeups[worker]!.signal();
    }
    this.#pushed.clear();
  }

  /** This worker's counters, or in the first one, whose are given, the sums over all. */
  stats(own: TunnelStats): TunnelStats {
    if (this.place.index !== 0) return own;
    const others = readAll(this.#counters.slice(1));
    const first: Told = { stats: own, handed: this.#handed };
    return sum([first, ...others], this.#ended);
  }

  /** The tunnel has ended here: so it does elsewhere. */
  async leave(): Promise<void> {
    await this.#host.leave();
    this.#ended = true;
  }
}

/** What a ring keeps with a packet: the stage's number, and the direction in the lowest bit. */
function tagOf(stage: number, direction: Direction): number {
  return stage << 1 | direction;
}

function stageOf(tag: number): number {
  return tag >>> 1;
}

function directionOf(tag: number): Direction {
  return (tag & 1) as Direction;
}

/** Tells whether the next packet of a ring has somewhere to go. One that no slot will ever hold has: it is dropped. */
function canTake(ring: PacketRing, pipeline: Pipeline): boolean {
  const length = ring.nextLength;
  const { pool } = pipeline.ledger;
  return length >= 0 && pipeline.takes(directionOf(ring.nextTag)) &&
    (pool.available(length) > 0 || !pool.holds(length));
}
