/** A tunnel: a device joined to a far end through stages, and the three surfaces that a script works with. */

import { checkDeviceOptions, type DeviceOptions, openDevice, type Waiter } from "../driver/mod.ts";
import {
  type Device,
  Direction,
  type EndHost,
  type FlowStats,
  type Packet,
  PacketBatch,
  type PacketHandler,
  type Stage,
  type TunnelEnd,
  type TunnelStats,
  type WorkerPlace,
} from "../lib/core/mod.ts";
import { toStage } from "./handler.ts";
import { Breath, currentLoop, type Loop, type LoopMember } from "./loop.ts";
import { ALONE, closeStages, Pipeline, type PipelineHost } from "./pipeline.ts";
import { onInterrupt } from "./signals.ts";
import { BatchSurface, StreamSurface } from "./surfaces.ts";
import { type EndOpener, openFarEnd } from "./transport/mod.ts";
import { watch } from "./watchdog.ts";
import type { WorkerLink } from "./workers/link.ts";

// Implementation
/** Packets on their way in, after which the script can send no more. */
const SEND_LIMIT = 1024;
/** How long a stage may take (milliseconds). */
const WATCHDOG = 5000;
/** What a timer takes. */
const MAX_WATCHDOG = 2 ** 31 - 1;
/** Ends that are a tunnel's: each has one loop, for good. */
const held = new WeakSet<TunnelEnd>();

/** What a tunnel is made of. */
export interface TunnelOptions extends DeviceOptions {
  /** A device that is open already, in place of one that the other options describe. */
  device?: Device;
  /** What the tunnel leads to: an end, what opens one, or a URL such as `udp://192.0.2.1:4500`. */
  far?: TunnelEnd | EndOpener | string;
  /** Steps that every packet passes, on the way out in this order. */
  stages?: (Stage | PacketHandler)[];
  /** Ends the tunnel when it is aborted. */
  signal?: AbortSignal;
  /** Whether Ctrl-C and `SIGTERM` end the tunnel. @default {true} */
  signals?: boolean;
  /** After how many whole milliseconds a stage that does not return ends the process; 0 for never. @default {5000} */
  watchdog?: number;
}

/**
 * A device joined to a far end. One surface holds a tunnel: `run`, `for await`, or `readable` and `writable`.
 *
 * @example Answer everything (needs root)
 * ```ts no-eval
 * import { openTunnel, Verdict } from "@warren/tunnel";
 *
 * await using tunnel = await openTunnel({ address: "10.9.0.1/24" });
 * await tunnel.run(() => Verdict.Reply);
 * ```
 */
export class Tunnel implements AsyncDisposable {
  /** This machine's side. */
  readonly device: Device;
  /** Which of the script's workers it is in. */
  readonly worker: WorkerPlace;
  /** Ends when the tunnel is closed and everything is put back; rejects when it failed. */
  readonly closed: Promise<void>;

  readonly #loop: Loop;
  /** To the same tunnel of the other workers. */
  readonly #link: WorkerLink | undefined;
  readonly #stages: Stage[];
  readonly #member: LoopMember;
  /** What the script has sent since the last breath; a handler may send while the pipeline is at work. */
  readonly #sent = new PacketBatch();
  #far: TunnelEnd | undefined;
  #pipeline: Pipeline;
  #surface: "run" | "for await" | "streams" | undefined;
  #streams: StreamSurface | undefined;
  /** Where the ends stand in the loop's wait. */
  #devicePlace = 0;
  #farPlace = 0;
  #joined = false;
  #breathing = false;
  /** Whether it closes as soon as what the script has sent is with the device. */
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
    options: TunnelOptions,
    loop: Loop,
    link?: WorkerLink,
  ) {
    this.device = device;
    this.worker = link?.place ?? ALONE;
    this.#link = link;
    this.#far = far;
    this.#loop = loop;
    this.#stages = (options.stages ?? []).map(toStage);
    const signals = options.signals ?? true;
    this.#pipeline = new Pipeline([], this.#pipelineHost);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = { resolve, reject };
    promise.catch(() => {});
    this.#member = this.#asMember();
    for (const end of [device, far]) {
      if (end === undefined) continue;
      if (held.has(end)) throw new TypeError(`Cannot open a tunnel: "${end.name}" is another tunnel's`);
      held.add(end);
    }
    device.attach(this.#host(() => this.#pipeline.counters.inbound));
    far?.attach(this.#host(() => this.#pipeline.counters.outbound));
    this.#cleanups.push(watch(loop.heartbeat, {
      limit: options.watchdog ?? WATCHDOG,
      signals,
      rescue: () => device.rescue(),
    }));
    // The first worker's hears signals for all.
    if (signals && this.worker.index === 0) this.#cleanups.push(onInterrupt(() => this.close()));
    if (link !== undefined) {
      link.onEnd = (error) => error === undefined ? this.close() : this.#fail(error);
      link.onRing = () => loop.wake();
    }
    const abort = () => this.close();
    options.signal?.addEventListener("abort", abort);
    this.#cleanups.push(() => options.signal?.removeEventListener("abort", abort));
    if (options.signal?.aborted) this.close();
  }

  /** The device's name. */
  get name(): string {
    return this.device.name;
  }

  /** The far end, where there is one besides the script. */
  get far(): TunnelEnd | undefined {
    return this.#far;
  }

  /** Whether something holds it and it is not closed: packets move. */
  get isRunning(): boolean {
    return this.#surface !== undefined && !this.#closing;
  }

  /** What happened so far; in the first of several workers, in all of them. */
  get stats(): TunnelStats {
    return this.#link?.stats(this.#ownStats) ?? this.#ownStats;
  }

  get #ownStats(): TunnelStats {
    const stats = this.#pipeline.counters.snapshot(this.#pipeline.queued + this.#sent.length);
    // What an end has accepted and not delivered is still inside.
    const waiting = [[stats.outbound, this.#far], [stats.inbound, this.device]] as const;
    for (const [flow, end] of waiting) {
      const queued = end?.queued ?? 0;
      flow.packetsOut -= queued;
      stats.queued += queued;
    }
    return stats;
  }

  /**
   * Adds a stage behind those that it has: the last one added is nearest to the far end.
   *
   * @throws {TypeError} when the tunnel runs already.
   */
  use(stage: Stage | PacketHandler): this {
    if (this.#surface !== undefined) throw new TypeError(`Cannot add a stage: "${this.name}" runs already`);
    this.#stages.push(toStage(stage));
    return this;
  }

  /**
   * Moves packets until Ctrl-C, an abort or `close()`. The handler, if there is one, is the last stage before
   * the far end and sees both directions; without a far end, what it passes is dropped as `no far end`.
   *
   * @throws {TypeError} when something else holds the tunnel.
   * @throws {Error} when a stage threw, with its name; when an end failed, its failure.
   */
  run(handler?: PacketHandler): Promise<void> {
    this.#take("run");
    this.#start(handler === undefined ? [] : [toStage(handler)]);
    // A promise of its own: when nobody looks at it, its failure is not lost in silence.
    return this.closed.then(() => {});
  }

  /**
   * The packets from this machine, in batches; each is the script's until it asks for the next one. Packets
   * that it does not send on are done with. Leaving the loop closes the tunnel.
   *
   * @throws {TypeError} when the tunnel has a far end, or something else holds it.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<PacketBatch, void, void> {
    const surface = new BatchSurface();
    this.#takeAsFar("for await", surface);
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

  /** Packets from this machine, one owned `Uint8Array` each. Holds the tunnel, together with `writable`. */
  get readable(): ReadableStream<Uint8Array> {
    return this.#openStreams().readable;
  }

  /** Packets to this machine, one `Uint8Array` each. Holds the tunnel, together with `readable`. */
  get writable(): WritableStream<Uint8Array> {
    return this.#openStreams().writable;
  }

  /**
   * Sends a packet to this machine as if the far end had: it passes the stages inbound. Bytes are copied; a
   * packet of the batch that `for await` gave moves. Returns whether it was taken: `false` when 1024 packets
   * wait already or the pool is empty, which is counted.
   *
   * @throws {TypeError} when it is no packet of one's own, or empty or longer than 65,535 bytes.
   * @throws {Deno.errors.BadResource} after `close()`.
   */
  send(data: Uint8Array | Packet): boolean {
    if (this.#closing) throw new Deno.errors.BadResource(`Cannot send: the tunnel "${this.name}" is closed`);
    const { inboundLength, pool, counters } = this.#pipeline;
    if (data.length === 0 || data.length > 65_535) {
      throw new TypeError(`Cannot send a packet of ${data.length} bytes`);
    }
    if (!(data instanceof Uint8Array) && !(this.#far instanceof BatchSurface && this.#far.has(data))) {
      throw new TypeError("Cannot send a packet that is not in the current batch: send packet.data");
    }
    counters.inbound.packetsIn++;
    counters.inbound.bytesIn += data.length;
    if (inboundLength + this.#sent.length >= SEND_LIMIT) {
      counters.drop("send queue full");
      return false;
    }
    const packet = data instanceof Uint8Array ? pool.from(data) : data;
    if (packet === undefined) {
      counters.drop("pool empty");
      return false;
    }
    this.#sent.push(packet);
    this.#loop.wake();
    return true;
  }

  /** Ends the tunnel and puts back what it changed. Further calls do nothing. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (!this.#breathing) this.#end();
  }

  /** Closes the tunnel. It never throws: what went wrong is told by `run`, the surface, or `closed`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.closed.catch(() => {});
  }

  #asMember(): LoopMember {
    const due = () => this.#pipeline.due;
    const waitable = () => this.#waitable;
    return {
      name: this.device.name,
      get due() {
        return due();
      },
      get waitable() {
        return waitable();
      },
      breathe: (now, waited) => this.#breathe(now, waited),
      arm: (waiter) => this.#arm(waiter),
      fail: (error) => this.#fail(error),
    };
  }

  #breathe(now: number, waited: Waiter | undefined): Breath {
    this.#breathing = true;
    const came = this.#move(now, waited);
    this.#breathing = false;
    if (came > Breath.Idle) this.#publish();
    const failure = this.device.failure ?? this.#far?.failure;
    if (failure !== undefined) this.#failure ??= failure;
    if (this.#finishing && this.#pipeline.inboundLength + this.#sent.length === 0) this.#closing = true;
    if (this.#closing || failure !== undefined) this.#end();
    return came;
  }

  /**
   * One breath. There is more to do at once when a batch was filled, when packets stand before a stage that this
   * breath has passed already, or when a way is free that was not when its reader was due.
   */
  #move(now: number, waited: Waiter | undefined): Breath {
    const { device } = this;
    const far = this.#far;
    const pipeline = this.#pipeline;
    const { counters } = pipeline;
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
      if (far === undefined) pipeline.discardAll(pipeline.forFar, "no far end");
      else if (pipeline.exhaleToFar(far)) more ||= !readsOut;
    }
    const waiting = pipeline.waitingForFar;

    this.#sent.moveTo(pipeline.fromFar);
    const readsIn = far !== undefined && pipeline.wantsInbound;
    if (readsIn && (waited === undefined || waited.isReady(this.#farPlace))) {
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

    if (pipeline.due <= now && pipeline.tick(now)) more = true;
    if (pipeline.pending || pipeline.waitingForFar > waiting) more = true;
    return more ? Breath.More : moved ? Breath.Moved : Breath.Idle;
  }

  get #waitable(): boolean {
    return this.device.waitable !== undefined &&
      (this.#far === undefined || this.#far.waitable !== undefined);
  }

  #arm(waiter: Waiter): void {
    const pipeline = this.#pipeline;
    const far = this.#far;
    const { device } = this;
    if (device.waitable !== undefined) {
      const reads = pipeline.wantsOutbound && this.#hasRoom(device);
      this.#devicePlace = waiter.add(device.waitable, reads, pipeline.waitingForDevice > 0);
    }
    if (far?.waitable !== undefined) {
      const reads = pipeline.wantsInbound && this.#hasRoom(far);
      this.#farPlace = waiter.add(far.waitable, reads, pipeline.waitingForFar > 0);
    }
    this.#link?.arm(waiter, pipeline);
  }

  /** With no slot for an end's packets, what is ready cannot be read: the pool wakes the loop when there is one. */
  #hasRoom(end: TunnelEnd): boolean {
    const mtu = (end as Partial<Device>).mtu ?? this.device.mtu;
    return this.#pipeline.pool.available(mtu) > 0;
  }

  get #pipelineHost(): PipelineHost {
    const loop = this.#loop;
    const { pool, heartbeat } = loop;
    const others = this.#link === undefined ? {} : { others: this.#link };
    return { pool, heartbeat, ...others, wake: () => loop.wake() };
  }

  /** Tells the other workers what there is to tell. */
  #publish(): void {
    if (this.#link === undefined) return;
    const pipeline = this.#pipeline;
    const forFar = this.#far?.queued ?? 0;
    const forDevice = this.device.queued;
    const inside = pipeline.queued + this.#sent.length + forFar + forDevice;
    this.#link.publish(pipeline.counters, inside, forFar, forDevice);
  }

  #host(flow: () => FlowStats): EndHost {
    return {
      pool: this.#loop.pool,
      wake: () => this.#loop.wake(),
      watch: (waitable, readable) => {
        const end = this.#loop.watch(waitable, readable);
        this.#cleanups.push(end);
        return end;
      },
      drop: (packet, reason) => {
        flow().packetsOut--;
        flow().bytesOut -= packet.length;
        this.#pipeline.discard(packet, reason);
      },
      done: (packet) => this.#pipeline.giveBack(packet),
      refuse: (bytes, reason) => {
        const { counters } = this.#pipeline;
        const arriving = flow() === counters.inbound ? counters.outbound : counters.inbound;
        arriving.packetsIn++;
        arriving.bytesIn += bytes;
        counters.drop(reason);
      },
    };
  }

  #take(surface: "run" | "for await" | "streams"): void {
    if (this.#surface !== undefined) {
      throw new TypeError(`Cannot hold "${this.name}" by ${surface}: ${this.#surface} holds it already`);
    }
    if (this.#closing) throw new Deno.errors.BadResource(`Cannot ${surface}: "${this.name}" is closed`);
    this.#surface = surface;
  }

  #takeAsFar(surface: "for await" | "streams", end: TunnelEnd): void {
    if (this.#far !== undefined) {
      throw new TypeError(
        `Cannot hold "${this.name}" by ${surface}: its far end is ${this.#far.name}: use run()`,
      );
    }
    this.#take(surface);
    this.#far = end;
    end.attach(this.#host(() => this.#pipeline.counters.outbound));
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
    this.#pipeline = new Pipeline([...this.#stages, ...last], this.#pipelineHost, this.#pipeline.counters);
    this.#joined = true;
    this.#loop.join(this.#member);
  }

  #fail(error: unknown): void {
    this.#breathing = false;
    this.#failure ??= error;
    this.#end();
  }

  #end(): void {
    if (this.#isClosed) return;
    this.#closing = true;
    this.#isClosed = true;
    if (this.#joined) this.#loop.leave(this.#member);
    for (const cleanup of this.#cleanups) cleanup();
    const waitables = [this.device.waitable, this.#far?.waitable].filter((waitable) =>
      waitable !== undefined
    );
    const problems: unknown[] = this.#failure === undefined ? [] : [this.#failure];
    const attempts = [
      () => this.#pipeline.discardAll(this.#sent, "closed"),
      () => this.#pipeline.close(),
      () => this.#joined || closeStages(this.#stages),
      () => this.#streams?.close(this.#failure),
      () => this.#far?.close(),
      () => this.device.close(),
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
      this.#far?.closed,
      this.#link?.leave(),
    ];
    Promise.allSettled(endings).then((results) => {
      for (const result of results) if (result.status === "rejected") problems.push(result.reason);
      if (problems.length === 0) this.#settleClosed.resolve();
      else this.#settleClosed.reject(problems.length === 1 ? problems[0] : new AggregateError(problems));
    });
  }
}

/**
 * Opens a tunnel's device and far end. For programs that embed Warren; a script says `script()`.
 *
 * @throws {RangeError} when `watchdog` is no whole number, or negative.
 * @throws {TypeError} for several queues, each of which takes a worker that runs a script's module.
 * @throws {Error} as {@linkcode openDevice} does, and as the far end's opener does.
 */
export async function openTunnel(options: TunnelOptions = {}): Promise<Tunnel> {
  const count = workerCount(options);
  if (count > 1) {
    throw new TypeError(
      `Cannot open a tunnel with ${count} queues: each takes a worker, and only a script's module runs in several: ` +
        "write `export default script(import.meta, …)`",
    );
  }
  const openNear = async () => options.device ?? await openDevice(options);
  return await openTunnelOver(options, openNear, () => openFarEnd(options.far));
}

/** How many workers a tunnel takes: one for each queue, where there are several. */
export function workerCount(options: TunnelOptions): number {
  return Deno.build.os === "linux" ? checkDeviceOptions(options).queues : 1;
}

/** Opens a tunnel whose ends are opened so; for a script in several workers, with its link. */
export async function openTunnelOver(
  options: TunnelOptions,
  openNear: () => Promise<Device>,
  openFar: () => Promise<TunnelEnd | undefined>,
  link?: WorkerLink,
): Promise<Tunnel> {
  const { watchdog = WATCHDOG } = options;
  if (!Number.isInteger(watchdog) || watchdog < 0 || watchdog > MAX_WATCHDOG) {
    throw new RangeError(
      `Cannot set the watchdog to ${watchdog}: it takes whole milliseconds up to ${MAX_WATCHDOG}`,
    );
  }
  const loop = currentLoop();
  await using undo = new AsyncDisposableStack();
  const device = await openNear();
  undo.defer(() => closeWhole(device));
  const far = await openFar();
  if (far !== undefined) undo.defer(() => closeWhole(far));
  await loop.acquire(device.waitable !== undefined || far?.waitable !== undefined);
  undo.defer(() => loop.release([]));
  const tunnel = new Tunnel(device, far, options, loop, link);
  undo.move();
  return tunnel;
}

/** Closes an end, until the system has everything back: what is opened next may have the same name. */
async function closeWhole(end: TunnelEnd): Promise<void> {
  end.close();
  await end.closed;
}
