/** A tunnel: a device joined to a far end through stages, and the three surfaces that a script works with. */

import type { Bypass, DeviceOptions } from "../../driver/mod.ts";
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
import { EndMtu } from "../../lib/stage/mtu/end_mtu.ts";
import { Ledger } from "../engine/ledger.ts";
import { Breath, type Loop } from "../engine/loop.ts";
import { toStage } from "../engine/handler.ts";
import { ALONE, closeStages, Pipeline } from "../engine/pipeline.ts";
import { Relay } from "../engine/relay.ts";
import { onInterrupt } from "../engine/signals.ts";
import { BatchSurface, StreamSurface } from "./surfaces.ts";
import type { EndOpener } from "../transport/end_opener.ts";
import { checkLimit, watch } from "../engine/watchdog.ts";
import type { WorkerLink } from "../ring/link.ts";

// Implementation
/** Packets on their way in, after which the script can send no more. */
const SEND_LIMIT = 1024;
/** Ends that are a tunnel's: each has one loop, for good. */
const held = new WeakSet<TunnelEnd>();

/**
 * The time that a far end may take to close (milliseconds): it may wait for an answer from a network that is gone, and is
 * then left to end by itself.
 */
const CLOSE_TIMEOUT = 1000;

/** Waits until an end is closed, for a bounded time. */
export async function closedInTime(closed: Promise<void> | undefined): Promise<void> {
  if (closed === undefined) return;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSE_TIMEOUT));
  await Promise.race([closed, timeout]).finally(() => clearTimeout(timer));
}

/** What a tunnel is made of. */
export interface TunnelOptions extends DeviceOptions {
  /** A device that is open already, in place of one that the other options describe. */
  device?: Device;
  /** What the tunnel leads to: an end, what opens one, or a URL such as `udp://192.0.2.1:4500`. */
  far?: TunnelEnd | EndOpener | string;
  /** Steps that every packet passes, on the way out in this order. */
  stages?: (Stage | PacketHandler)[];
  /** Ends the tunnel when it is aborted, also while it opens. */
  signal?: AbortSignal;
  /**
   * Has SIGINT (Ctrl-C), SIGTERM and SIGHUP end the tunnel; on Windows, Ctrl-C and Ctrl-Break. A script's exit code
   * is 0 then, and 130 when a second signal comes, or a stage does not return. A signal that was ignored when the
   * process started, as nohup(1) has SIGHUP, stays ignored.
   *
   * @default {true}
   */
  signals?: boolean;
  /** After how many whole milliseconds a stage that does not return ends the process; 0 for never. @default {5000} */
  watchdog?: number;
}

/** A tunnel's surroundings, from before it was open. */
export interface TunnelPlace {
  /** Aborted by the tunnel's end: for what its far end still waits for. */
  readonly ending: AbortController;
  /** Has the far end's own packets leave beside the tunnel. */
  readonly bypass: Bypass | undefined;
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
  readonly #bypass: Bypass | undefined;
  readonly #stages: Stage[];
  readonly #ledger: Ledger;
  /** What the script has sent since the last breath. */
  readonly #sent = new PacketBatch();
  /** How many packets were on their way in after that breath. */
  #leftInside = 0;
  #far: TunnelEnd | undefined;
  /** Its stages and what moves packets through them, from when something holds it. */
  #pipeline: Pipeline | undefined;
  #relay: Relay | undefined;
  #surface: "run" | "for await" | "streams" | undefined;
  #batches: BatchSurface | undefined;
  #streams: StreamSurface | undefined;
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
    { ending, bypass }: TunnelPlace,
    link?: WorkerLink,
  ) {
    this.device = device;
    this.worker = link?.place ?? ALONE;
    this.#link = link;
    this.#far = far;
    this.#loop = loop;
    this.#ledger = new Ledger(loop.pool);
    this.#stages = (options.stages ?? []).map(toStage);
    const signals = options.signals ?? true;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#settleClosed = { resolve, reject };
    promise.catch(() => {});
    for (const end of [device, far]) {
      if (end === undefined) continue;
      if (held.has(end)) throw new TypeError(`Cannot open a tunnel: "${end.name}" is another tunnel's`);
      held.add(end);
    }
    device.attach(this.#host(Direction.Inbound));
    far?.attach(this.#host(Direction.Outbound));
    this.#cleanups.push(watch(loop.heartbeat, {
      limit: checkLimit(options.watchdog),
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
    // The first worker's hears signals for all.
    if (signals && this.worker.index === 0) this.#cleanups.push(onInterrupt(() => this.close()));
    if (link !== undefined) {
      link.onEnd = (error) => error === undefined ? this.close() : this.#fail(error);
      link.onRing = () => loop.wake();
    }
    const abort = () => this.close();
    options.signal?.addEventListener("abort", abort);
    this.#cleanups.push(() => options.signal?.removeEventListener("abort", abort));
    // What the far end still waits for, such as a name, ends with the tunnel.
    this.#cleanups.push(() =>
      ending.abort(new Deno.errors.BadResource(`The tunnel "${device.name}" is closed`))
    );
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

  /** True once something has held it: `run`, `for await` or a stream. */
  get hasRun(): boolean {
    return this.#surface !== undefined;
  }

  /** What happened so far; in the first of several workers, in all of them. */
  get stats(): TunnelStats {
    return this.#link?.stats(this.#ownStats) ?? this.#ownStats;
  }

  get #ownStats(): TunnelStats {
    const stats = this.#ledger.counters.snapshot(this.#inside, this.#pipeline?.stageStats);
    // What an end has accepted and not delivered is still inside.
    const waiting = [[stats.outbound, this.#far], [stats.inbound, this.device]] as const;
    for (const [flow, end] of waiting) {
      const queued = end?.queued ?? 0;
      flow.packetsOut -= queued;
      stats.queued += queued;
    }
    return stats;
  }

  /** Packets inside, but for those that the ends have taken. */
  get #inside(): number {
    return (this.#pipeline?.queued ?? 0) + this.#sent.length;
  }

  /** Packets on their way in. */
  get #arriving(): number {
    return (this.#pipeline?.inboundLength ?? 0) + this.#sent.length;
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
   * @throws {TypeError} when it is neither bytes nor a packet of the current batch, is empty or longer than 65,535
   * bytes, or a packet that was moved out of its slot.
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
      throw new TypeError(`Cannot send a packet of ${length} bytes: it must have 1 to ${LARGE_ROOM}`);
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

  /** Sends a packet of the batch that the script has. */
  #sendPacket(packet: Packet): boolean {
    if (this.#batches?.has(packet) !== true) throw sendError();
    if (!packet.isInSlot) throw new TypeError("Cannot send a packet that was moved out of its slot");
    if (!this.#admits(packet.length)) return false;
    packet.isFixed = false;
    this.#sent.push(packet);
    this.#loop.wake();
    return true;
  }

  /** Counts a packet that the script sends; returns whether there is room for it. */
  #admits(length: number): boolean {
    const { counters } = this.#ledger;
    counters.inbound.packetsIn++;
    counters.inbound.bytesIn += length;
    if (this.#leftInside + this.#sent.length < SEND_LIMIT) return true;
    counters.drop("send queue full");
    return false;
  }

  /** Ends the tunnel and puts back what it changed. Further calls do nothing. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#relay?.isBreathing !== true) this.#end();
  }

  /** Closes the tunnel. It never throws: what went wrong is told by `run`, the surface, or `closed`. */
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

  /** Tells the other workers what there is to tell. */
  #publish(): void {
    if (this.#link === undefined) return;
    const forFar = this.#far?.queued ?? 0;
    const forDevice = this.device.queued;
    this.#link.publish(this.#ledger.counters, this.#inside + forFar + forDevice, forFar, forDevice);
  }

  /** What the end gets where this direction leads. */
  #host(direction: Direction): EndHost {
    const ledger = this.#ledger;
    const leaving = ledger.flow(direction);
    const arriving = ledger.flow(opposite(direction));
    return {
      pool: ledger.pool,
      wake: () => this.#loop.wake(),
      watch: (waitable, readable) => {
        const end = this.#loop.watch(waitable, readable);
        this.#cleanups.push(end);
        return end;
      },
      drop: (packet, reason) => {
        leaving.packetsOut--;
        leaving.bytesOut -= packet.length;
        ledger.discard(packet, reason);
      },
      done: (packet) => ledger.giveBack(packet),
      refuse: (bytes, reason) => {
        arriving.packetsIn++;
        arriving.bytesIn += bytes;
        ledger.counters.drop(reason);
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
    this.#relay = new Relay({ device, far, pipeline, sent, link }, {
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
    const far = this.#far?.waits?.map(({ waitable }) => waitable) ?? [this.#far?.waitable];
    const waitables = [this.device.waitable, ...far].filter((waitable) => waitable !== undefined);
    const problems: unknown[] = this.#failure === undefined ? [] : [this.#failure];
    const attempts = [
      () => this.#ledger.discardAll(this.#sent, "closed"),
      () => this.#pipeline === undefined ? closeStages(this.#stages) : this.#pipeline.close(),
      () => this.#streams?.close(this.#failure),
      // Its routes go first: the far end's last words, and whatever else this machine sends, pass beside it again.
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
    "Cannot send: data must be a Uint8Array or a packet of the current batch: send packet.data",
  );
}
