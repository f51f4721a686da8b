/** The tunnel: a device joined to a far end through stages, held by one of three surfaces. */

import type { Bypass } from "../../driver/bypass.ts";
import { bytesOf } from "../../lib/core/bytes_of.ts";
import {
  type Device,
  Direction,
  type EndHost,
  LARGE_ROOM,
  opposite,
  type Packet,
  PacketBatch,
  type PacketHandler,
  type Stage,
  type TunnelEnd,
  type TunnelStats,
  type WorkerPlace,
} from "../../lib/core/mod.ts";
import { SINGLE_WORKER } from "../../lib/core/stage.ts";
import { EndMtu } from "../../lib/stage/mtu/end_mtu.ts";
import { Ledger } from "../engine/ledger.ts";
import { Breath, type Loop } from "../engine/loop.ts";
import { toStage } from "../engine/handler.ts";
import { closeStages, Pipeline } from "../engine/pipeline.ts";
import { Relay } from "../engine/relay.ts";
import { onInterrupt } from "../engine/signals.ts";
import { BatchSurface, StreamSurface } from "./surfaces.ts";
import type { CheckedTunnelOptions } from "./tunnel_options.ts";
import { watch } from "../engine/watchdog.ts";
import type { WorkerLink } from "../ring/link.ts";

// Implementation
/** Maximum inbound packets inside; further ones that the script sends are dropped. */
const SEND_LIMIT = 1024;
/** Ends that belong to a tunnel, or did: an end is attached once. */
const held = new WeakSet<TunnelEnd>();
/** Maximum time to wait for a far end to close (milliseconds): its network may be gone. It then ends by itself. */
const CLOSE_TIMEOUT = 1000;

/** Waits until an end is closed, for a bounded time. */
export async function closedInTime(closed: Promise<void> | undefined): Promise<void> {
  if (closed === undefined) return;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSE_TIMEOUT));
  await Promise.race([closed, timeout]).finally(() => clearTimeout(timer));
}

/** Parts of a tunnel that exist before it is open. */
export interface TunnelPlace {
  /** Aborted when the tunnel ends, for work of the far end that is in progress. */
  readonly ending: AbortController;
  /** Routes the far end's own packets past the tunnel. */
  readonly bypass: Bypass | undefined;
}

/**
 * A device joined to a far end through stages. {@linkcode openTunnel} opens it, and `script()` passes it to `main`.
 *
 * One surface holds a tunnel for its lifetime: `run` calls a handler for each packet; `for await` yields batches; the
 * streams `readable` and `writable` carry one `Uint8Array` a packet. No packet moves before a surface holds it. Only
 * `run` works with a far end; with the other surfaces the script is the far end.
 *
 * **Back-pressure**: While an end is full, the other end is not read, so the kernel's queue fills and drops.
 *
 * **Errors**: A stage that throws and an end that fails close the tunnel; `closed` and the surface reject.
 *
 * @example Change each packet and send it back
 * ```ts
 * import assert from "node:assert/strict";
 * import { openTunnel, Verdict } from "@warren/tunnel";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 *
 * const [device, otherSide] = MemoryDevice.pair();
 * await using tunnel = await openTunnel({ device });
 * await using tester = await openTunnel({ device: otherSide });
 * tunnel.run((packet) => {
 *   packet.bytes[packet.offset] = 7;
 *   return Verdict.Reply;
 * });
 * tester.send(Uint8Array.of(1, 2, 3));
 * for await (const [packet] of tester) {
 *   assert.deepEqual([...packet!.data], [7, 2, 3]);
 *   tunnel.close();
 *   break;
 * }
 * ```
 */
export class Tunnel implements AsyncDisposable {
  /** This machine's side. */
  readonly device: Device;
  /** Index of the worker that runs it, and the number of workers. */
  readonly worker: WorkerPlace;
  /** Resolves when the tunnel is closed and its changes to the system are undone; rejects if it failed. */
  readonly closed: Promise<void>;

  readonly #loop: Loop;
  /** Time after the last packet for which the loop spins (milliseconds). */
  readonly #busyPoll: number;
  /** Link to the same tunnel in the other workers. */
  readonly #link: WorkerLink | undefined;
  readonly #bypass: Bypass | undefined;
  readonly #stages: Stage[];
  readonly #ledger: Ledger;
  /** Packets that the script has sent since the last breath. */
  readonly #sent = new PacketBatch();
  /** Number of inbound packets inside after that breath. */
  #leftInside = 0;
  #far: TunnelEnd | undefined;
  /** Made when a surface takes the tunnel, as is the relay. */
  #pipeline: Pipeline | undefined;
  #relay: Relay | undefined;
  #surface: "run" | "for await" | "streams" | undefined;
  #batches: BatchSurface | undefined;
  #streams: StreamSurface | undefined;
  /** True if the tunnel closes as soon as the device has all that the script has sent. */
  #finishing = false;
  #closing = false;
  #isClosed = false;
  #failure: unknown;
  #settleClosed: { resolve(): void; reject(error: unknown): void };
  readonly #cleanups: (() => void)[] = [];

  /** For {@linkcode openTunnel}. */
  constructor(
    device: Device,
    far: TunnelEnd | undefined,
    { stages, signal, signals, busyPoll, watchdog, loop }: CheckedTunnelOptions,
    { ending, bypass }: TunnelPlace,
    link?: WorkerLink,
  ) {
    this.device = device;
    this.worker = link?.place ?? SINGLE_WORKER;
    this.#link = link;
    this.#far = far;
    this.#loop = loop;
    this.#ledger = new Ledger(loop.pool);
    this.#stages = stages.map(toStage);
    this.#busyPoll = busyPoll / 1000;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = { resolve, reject };
    promise.catch(() => {});
    for (const end of [device, far]) {
      if (end === undefined) continue;
      if (held.has(end)) throw new TypeError(`Cannot open a tunnel: "${end.name}" belongs to another tunnel`);
      held.add(end);
    }
    device.attach(this.#host(Direction.Inbound));
    far?.attach(this.#host(Direction.Outbound));
    this.#cleanups.push(watch(loop.heartbeat, {
      limit: watchdog,
      signals,
      rescue: () => {
        const own = device.rescue();
        return own && { ...own, data: [...own.data, ...bypass?.rescueData ?? []] };
      },
    }));
    this.#bypass = bypass;
    if (bypass?.descriptor !== undefined) {
      this.#cleanups.push(loop.watch(bypass.descriptor, () => bypass.drain()));
    }
    // Signals come to the first worker, for all.
    if (signals && this.worker.index === 0) this.#cleanups.push(onInterrupt(() => this.close()));
    if (link !== undefined) {
      link.onEnd = (error) => error === undefined ? this.close() : this.#fail(error);
      link.onRing = () => loop.wake();
    }
    const abort = () => this.close();
    signal?.addEventListener("abort", abort);
    this.#cleanups.push(() => signal?.removeEventListener("abort", abort));
    // Work of the far end that is in progress, such as a look-up, ends with the tunnel.
    this.#cleanups.push(() =>
      ending.abort(new Deno.errors.BadResource(`The tunnel "${device.name}" is closed`))
    );
    if (signal?.aborted) this.close();
  }

  /** Name of the device, such as `tun0`. */
  get name(): string {
    return this.device.name;
  }

  /** The far end; `undefined` without one. With `for await` and streams, it is the surface. */
  get far(): TunnelEnd | undefined {
    return this.#far;
  }

  /** True while packets move: a surface holds the tunnel, and it is not closed. */
  get isRunning(): boolean {
    return this.#surface !== undefined && !this.#closing;
  }

  /** True once a surface has held the tunnel. */
  get hasRun(): boolean {
    return this.#surface !== undefined;
  }

  /**
   * A snapshot of the counters; in the first of several workers, the sums over all. At every moment the packets add up:
   * all `packetsIn` and `created` equal all `packetsOut`, `consumed`, `queued` and `dropped`.
   */
  get stats(): TunnelStats {
    return this.#link?.stats(this.#ownStats) ?? this.#ownStats;
  }

  get #ownStats(): TunnelStats {
    const stats = this.#ledger.counters.snapshot(this.#inside, this.#pipeline?.stageStats);
    // Packets that an end has accepted and not delivered are still inside.
    const waiting = [[stats.outbound, this.#far], [stats.inbound, this.device]] as const;
    for (const [flow, end] of waiting) {
      const queued = end?.queued ?? 0;
      flow.packetsOut -= queued;
      stats.queued += queued;
    }
    return stats;
  }

  /** Number of packets inside, except those that the ends have taken. */
  get #inside(): number {
    return (this.#pipeline?.queued ?? 0) + this.#sent.length;
  }

  /** Number of inbound packets inside. */
  get #arriving(): number {
    return (this.#pipeline?.inboundLength ?? 0) + this.#sent.length;
  }

  /**
   * Adds a stage. The last stage added is the nearest to the far end.
   *
   * @throws {TypeError} when a surface holds the tunnel already, or `stage` is not a stage or handler.
   */
  use(stage: Stage | PacketHandler): this {
    if (this.#surface !== undefined) throw new TypeError(`Cannot add a stage: "${this.name}" is running`);
    this.#stages.push(toStage(stage));
    return this;
  }

  /**
   * Moves packets until a signal, an abort or `close()`. The handler is the last stage before the far end and sees both
   * directions; without a far end, outbound packets that it passes are dropped as `no far end`.
   *
   * @throws {TypeError} when another surface holds the tunnel.
   * @throws {Deno.errors.BadResource} when the tunnel is closed.
   * @throws {Error} by rejection: the failure of an end, or an error with the name of the stage that threw.
   */
  run(handler?: PacketHandler): Promise<void> {
    this.#take("run");
    this.#start(handler === undefined ? [] : [toStage(handler)]);
    // A new promise: if the script ignores it, its rejection is reported as uncaught.
    return this.closed.then(() => {});
  }

  /**
   * Yields the packets from this machine, in batches of at most 64. A batch is valid until the script requests the next
   * one; packets that the script has not sent by then count as delivered. Leaving the loop closes the tunnel.
   *
   * @throws {TypeError} when the tunnel has a far end, or another surface holds it.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<PacketBatch, void, void> {
    const surface = new BatchSurface();
    this.#takeAsFar("for await", surface);
    this.#batches = surface;
    try {
      for (;;) {
        const { done, value } = await surface.next();
        if (done) break;
        yield value!;
      }
    } finally {
      this.close();
      await this.closed;
    }
  }

  /** Packets from this machine, as one `Uint8Array` each that the reader owns. Holds the tunnel with `writable`. */
  get readable(): ReadableStream<Uint8Array> {
    return this.#openStreams().readable;
  }

  /** Packets to this machine, as one `Uint8Array` each, which is copied. Holds the tunnel with `readable`. */
  get writable(): WritableStream<Uint8Array> {
    return this.#openStreams().writable;
  }

  /**
   * Sends a packet to this machine, through the stages inbound. Bytes are copied; a packet of the current `for await`
   * batch is moved. Returns false if the packet was dropped: as `send queue full` when 1,024 inbound packets are
   * inside, or as `pool empty`.
   *
   * @throws {TypeError} when `data` is neither bytes nor a packet of the current batch, is empty or longer than 65,535
   * bytes, or is a packet that was moved out of its slot.
   * @throws {Deno.errors.BadResource} after `close()`.
   */
  send(data: Uint8Array | Packet): boolean {
    if (this.#closing) throw new Deno.errors.BadResource(`Cannot send: the tunnel "${this.name}" is closed`);
    const { pool, counters } = this.#ledger;
    if (pool.owns(data)) return this.#sendPacket(data);
    const bytes = bytesOf(data);
    if (bytes === undefined) throw sendError();
    const { length } = bytes;
    if (length === 0 || length > LARGE_ROOM) {
      throw new TypeError(`Cannot send a packet: its length must be from 1 to ${LARGE_ROOM}, got ${length}`);
    }
    if (!this.#admits(length)) return false;
    const packet = pool.take(length);
    if (packet === undefined) {
      counters.drop("pool empty");
      return false;
    }
    packet.bytes.set(bytes, packet.offset);
    this.#sent.push(packet);
    this.#loop.wake();
    return true;
  }

  /** Sends a packet of the current batch. */
  #sendPacket(packet: Packet): boolean {
    if (this.#batches?.has(packet) !== true) throw sendError();
    if (!packet.isInSlot) throw new TypeError("Cannot send a packet that was moved out of its slot");
    if (!this.#admits(packet.length)) return false;
    packet.isFixed = false;
    this.#sent.push(packet);
    this.#loop.wake();
    return true;
  }

  /** Counts a packet that the script sends; returns whether there is room. */
  #admits(length: number): boolean {
    const { counters } = this.#ledger;
    counters.inbound.packetsIn++;
    counters.inbound.bytesIn += length;
    if (this.#leftInside + this.#sent.length < SEND_LIMIT) return true;
    counters.drop("send queue full");
    return false;
  }

  /** Closes the tunnel and undoes its changes to the system; `closed` resolves then. Further calls do nothing. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#relay?.isBreathing !== true) this.#end();
  }

  /** Closes the tunnel and waits for that. Never throws: `closed` and the surface carry the error. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.closed.catch(() => {});
  }

  #breathed(came: Breath): void {
    this.#leftInside = this.#pipeline!.inboundLength;
    if (came > Breath.Idle) this.#publish();
    const failure = this.device.failure ?? this.#far?.failure;
    if (failure !== undefined) this.#failure ??= failure;
    if (this.#finishing && this.#arriving === 0) this.#closing = true;
    if (this.#closing || failure !== undefined) this.#end();
  }

  /** Publishes the counters and the packets handed over, for the other workers. */
  #publish(): void {
    if (this.#link === undefined) return;
    const forFar = this.#far?.queued ?? 0;
    const forDevice = this.device.queued;
    this.#link.publish(this.#ledger.counters, this.#inside + forFar + forDevice, forFar, forDevice);
  }

  /** Returns the host of the end that a direction leads to. */
  #host(direction: Direction): EndHost {
    const ledger = this.#ledger;
    return {
      pool: ledger.pool,
      now: () => this.#loop.now,
      wake: () => this.#loop.wake(),
      watch: (waitable, readable) => {
        const end = this.#loop.watch(waitable, readable);
        this.#cleanups.push(end);
        return end;
      },
      finish: (packet, reason) => ledger.finish(packet, direction, reason),
      refuse: (bytes, reason) => ledger.refuse(bytes, opposite(direction), reason),
    };
  }

  #take(surface: "run" | "for await" | "streams"): void {
    if (this.#surface !== undefined) {
      throw new TypeError(`Cannot use ${surface} on "${this.name}": ${this.#surface} holds the tunnel`);
    }
    if (this.#closing) {
      throw new Deno.errors.BadResource(`Cannot use ${surface} on "${this.name}": the tunnel is closed`);
    }
    this.#surface = surface;
  }

  #takeAsFar(surface: "for await" | "streams", end: TunnelEnd): void {
    if (this.#far !== undefined) {
      throw new TypeError(
        `Cannot use ${surface} on "${this.name}": its far end is ${this.#far.name}: use run()`,
      );
    }
    this.#take(surface);
    this.#far = end;
    end.attach(this.#host(Direction.Outbound));
    this.#start([]);
  }

  #openStreams(): StreamSurface {
    if (this.#streams === undefined) {
      const streams = new StreamSurface(() => {
        this.#finishing = true;
        this.#loop.wake();
      });
      this.#takeAsFar("streams", streams);
      this.#streams = streams;
    }
    return this.#streams;
  }

  #start(last: Stage[]): void {
    const loop = this.#loop;
    const [device, far, link, sent, ledger] = [this.device, this.#far, this.#link, this.#sent, this.#ledger];
    const mtu = far !== undefined && EndMtu.isFor(far) ? [new EndMtu(far)] : [];
    const pipeline = new Pipeline([...this.#stages, ...last, ...mtu], {
      ledger,
      heartbeat: loop.heartbeat,
      others: link,
      wake: () => loop.wake(),
    });
    this.#pipeline = pipeline;
    this.#relay = new Relay({ device, far, pipeline, sent, link, busyPoll: this.#busyPoll }, {
      breathed: (came) => this.#breathed(came),
      fail: (error) => this.#fail(error),
    });
    loop.join(this.#relay);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#end();
  }

  #end(): void {
    if (this.#isClosed) return;
    this.#closing = true;
    this.#isClosed = true;
    if (this.#relay !== undefined) this.#loop.leave(this.#relay);
    for (const cleanup of this.#cleanups) cleanup();
    const waits = [...this.device.waits, ...(this.#far?.waits ?? [])];
    const waitables = waits.map(({ waitable }) => waitable).filter((waitable) => waitable !== undefined);
    const problems: unknown[] = this.#failure === undefined ? [] : [this.#failure];
    const attempts = [
      () => this.#ledger.discardAll(this.#sent, "closed"),
      () => this.#pipeline === undefined ? closeStages(this.#stages) : this.#pipeline.close(),
      () => this.#streams?.close(this.#failure),
      // The device's routes go first, so that the far end's last packets do not enter the tunnel.
      () => this.device.close(),
      () => this.#bypass?.close(),
      () => this.#far?.close(),
    ];
    for (const attempt of attempts) {
      try {
        attempt();
      } catch (error) {
        problems.push(error);
      }
    }
    this.#publish();
    const endings = [
      this.#loop.release(waitables),
      this.device.closed,
      closedInTime(this.#far?.closed),
      this.#link?.leave(),
    ];
    Promise.allSettled(endings).then((results) => {
      for (const result of results) if (result.status === "rejected") problems.push(result.reason);
      if (problems.length === 0) this.#settleClosed.resolve();
      else this.#settleClosed.reject(problems.length === 1 ? problems[0] : new AggregateError(problems));
    });
  }
}

function sendError(): TypeError {
  return new TypeError(
    "Cannot send: data must be a Uint8Array or a packet of the current batch: send a copy, packet.data",
  );
}
