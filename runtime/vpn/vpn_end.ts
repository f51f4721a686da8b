/**
 * A VPN protocol as an end of a tunnel, over another end.
 *
 *     tunnel ── write ─► protocol.outbound ─► exhale ─► end below
 *                            │     ▲ emit
 *                       emit ▼     │
 *     tunnel ◄── read ── protocol.inbound ◄── inhale ── end below
 *
 * The protocol is the only stage of a pipeline of its own, so it has the same context as a stage of the tunnel.
 */

import { errorMessage } from "../../driver/error.ts";
import { checkEnd, waitsBelow } from "../../lib/core/end.ts";
import {
  Direction,
  type EndHost,
  type EndWait,
  HEADROOM,
  type PacketBatch,
  type TunnelEnd,
  type TunnelStats,
} from "../../lib/core/mod.ts";
import { checkInteger } from "../../lib/core/options.ts";
import type { PacketSink } from "../../lib/core/write_to.ts";
import type { VpnProtocol } from "../../lib/vpn/protocol.ts";
import { toStage } from "../engine/handler.ts";
import { Heartbeat } from "../engine/heartbeat.ts";
import { closeStages, Pipeline } from "../engine/pipeline.ts";
import { VpnLedger } from "./_vpn_ledger.ts";

// Implementation
/** Maximum number of bytes that a protocol may add to a packet, of which a slot has room before and after the packet. */
const MAX_OVERHEAD = HEADROOM / 2;

/**
 * Checks the parts of a VPN protocol.
 *
 * @throws {TypeError} when one is missing or of the wrong type.
 * @throws {RangeError} when its overhead is out of range.
 */
export function checkProtocol(protocol: VpnProtocol): void {
  const { name, overhead } = toStage(protocol) as VpnProtocol;
  checkInteger(`use VPN protocol "${name}"`, "overhead", overhead, 0, MAX_OVERHEAD);
}

/** The end below, as the pipeline writes to it: counts the tunnel's packets that it takes. */
class Lower implements PacketSink {
  readonly #end: TunnelEnd;
  readonly #ledger: VpnLedger;

  constructor(end: TunnelEnd, ledger: VpnLedger) {
    this.#end = end;
    this.#ledger = ledger;
  }

  get name(): string {
    return this.#end.name;
  }

  get offload(): boolean {
    return this.#end.offload === true;
  }

  write(batch: PacketBatch): number {
    const ledger = this.#ledger;
    const waiting = ledger.ownIn(batch);
    const taken = this.#end.write(batch);
    const left = waiting - ledger.ownIn(batch);
    ledger.inside -= left;
    ledger.handedOn += left;
    return taken;
  }
}

/** The tunnel, as the pipeline writes to it: the batch of the tunnel's current read. */
class Upper implements PacketSink {
  readonly name = "the tunnel";
  readonly offload = true;
  /** Batch of the current read. */
  batch: PacketBatch | undefined;
  readonly #ledger: VpnLedger;

  constructor(ledger: VpnLedger) {
    this.#ledger = ledger;
  }

  write(from: PacketBatch): number {
    const batch = this.batch!;
    const { packets, length } = from;
    const ledger = this.#ledger;
    ledger.inside -= ledger.ownIn(from);
    let count = 0;
    for (; count < length && !batch.full; count++) batch.push(packets[count]!);
    from.shift(count);
    ledger.inside += ledger.ownIn(from);
    return count;
  }
}

/** Parts of a {@linkcode VpnEnd} that exist once it is attached. */
interface Attached {
  readonly host: EndHost;
  readonly ledger: VpnLedger;
  readonly pipeline: Pipeline;
  readonly heartbeat: Heartbeat;
  readonly upper: Upper;
  readonly lower: Lower;
}

/**
 * Runs a VPN protocol over another end, as `vpn()` opens it. To the tunnel it is a far end that carries IP packets.
 *
 * **MTU**: that of the end below, less the protocol's overhead.
 * **Back-pressure**: while the end below is full, at most one batch and the protocol's own packets wait here, and `write`
 * takes nothing.
 * **Counters**: a packet that the protocol drops, or that the end below drops, is a drop of the tunnel, with the same
 * reason. Packets that the protocol creates, and datagrams that it consumes, are counted only in
 * {@linkcode VpnEnd.stats}.
 * **Errors**: an error that the protocol throws, or a failure of the end below, is its failure, which ends the tunnel.
 *
 * @example A protocol that inverts all bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction, openTunnel, type PacketBatch, VpnEnd, type VpnProtocol } from "@warren/tunnel";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 *
 * class Invert implements VpnProtocol {
 *   readonly name = "invert";
 *   readonly overhead = 0;
 *   readonly segmented = true;
 *   outbound(batch: PacketBatch): void {
 *     for (const { bytes, offset, length } of batch) {
 *       for (let i = offset; i < offset + length; i++) bytes[i]! ^= 0xff;
 *     }
 *   }
 *   inbound(batch: PacketBatch): void {
 *     this.outbound(batch);
 *   }
 * }
 *
 * const [device, system] = MemoryDevice.pair();
 * const [lower, wire] = MemoryDevice.pair({ payload: "any" });
 * await using tunnel = await openTunnel({ device, far: new VpnEnd(new Invert(), lower) });
 * await using peer = await openTunnel({ device: wire });
 * await using local = await openTunnel({ device: system });
 * tunnel.run().catch(() => {});
 * local.send(Uint8Array.of(0x45, 0, 0, 20));
 * local.run().catch(() => {});
 * for await (const [packet] of peer) {
 *   assert.deepEqual([...packet!.data], [0xba, 0xff, 0xff, 0xeb]);
 *   break;
 * }
 * ```
 */
export class VpnEnd implements TunnelEnd {
  /** Name for messages: `sealed over udp 192.0.2.1:4500`. */
  readonly name: string;
  /** Descriptors of the end below. */
  readonly waits: readonly EndWait[];
  /** True if the protocol takes super-packets. */
  readonly offload: boolean;
  readonly #protocol: VpnProtocol;
  readonly #end: TunnelEnd;
  #attached: Attached | undefined;
  #failure: Error | undefined;
  #closed = false;
  /** True after the end below has requested a breath, since it may then have room again. */
  #hasRoom = false;

  /**
   * Takes ownership of the end below, which is closed with it.
   *
   * @throws {TypeError} when the protocol or the end lacks a part, or the end does not carry `payload: "any"`.
   * @throws {RangeError} when the protocol's overhead is out of range.
   */
  constructor(protocol: VpnProtocol, over: TunnelEnd) {
    checkProtocol(protocol);
    const { name, segmented } = protocol;
    checkEnd(over);
    const { payload = "ip" } = over;
    if (payload !== "any") {
      throw new TypeError(
        `Cannot run VPN protocol "${name}" over "${over.name}": its payload must be "any", got "${payload}"`,
      );
    }
    this.name = `${name} over ${over.name}`;
    this.offload = segmented !== true;
    this.#protocol = protocol;
    this.#end = over;
    this.waits = waitsBelow(
      over,
      () => this.#attached !== undefined && this.#attached.pipeline.waitingForFar > 0,
    );
  }

  /** Maximum packet length (bytes); `undefined` if the end below has no limit. */
  get mtu(): number | undefined {
    const { mtu } = this.#end;
    return mtu === undefined ? undefined : mtu - this.#protocol.overhead;
  }

  get maxRead(): number | undefined {
    return this.#end.maxRead ?? this.#end.mtu;
  }

  /** Number of the tunnel's packets here and in the end below. */
  get queued(): number {
    if (this.#attached === undefined || this.#closed) return 0;
    const { inside, handedOn } = this.#attached.ledger;
    return inside + Math.min(handedOn, this.#end.queued);
  }

  get due(): number {
    if (this.#attached === undefined || !this.#works) return Infinity;
    if (this.#hasRoom && this.#attached.pipeline.waitingForFar > 0) return 0;
    return Math.min(this.#attached.pipeline.due, this.#end.due ?? Infinity);
  }

  get failure(): Error | undefined {
    return this.#failure ?? this.#end.failure;
  }

  get closed(): Promise<void> | undefined {
    return this.#end.closed;
  }

  /**
   * A snapshot of its own counters: `outbound` from the tunnel to datagrams, `inbound` from datagrams to the tunnel. They
   * add up as those of a tunnel do.
   *
   * @throws {TypeError} before `attach`.
   */
  get stats(): TunnelStats {
    if (this.#attached === undefined) throw new TypeError(`Cannot count: "${this.name}" has no tunnel yet`);
    const { ledger, pipeline } = this.#attached;
    const stats = ledger.counters.snapshot(pipeline.queued, pipeline.stageStats);
    const { queued } = this.#end;
    stats.outbound.packetsOut -= queued;
    stats.queued += queued;
    return stats;
  }

  attach(host: EndHost): void {
    const ledger = new VpnLedger(host, this.#protocol.overhead);
    const heartbeat = new Heartbeat();
    const wake = () => host.wake();
    const pipeline = new Pipeline([this.#protocol], { ledger, heartbeat, others: undefined, wake });
    const [upper, lower] = [new Upper(ledger), new Lower(this.#end, ledger)];
    this.#attached = { host, ledger, pipeline, heartbeat, upper, lower };
    this.#end.attach({
      pool: host.pool,
      now: () => host.now(),
      wake: () => {
        this.#hasRoom = true;
        host.wake();
      },
      watch: (waitable, readable) => host.watch(waitable, readable),
      finish: (packet, reason) => ledger.finish(packet, Direction.Outbound, reason),
      refuse: (bytes, reason) => ledger.refuse(bytes, Direction.Inbound, reason),
    });
  }

  read(batch: PacketBatch): number {
    if (!this.#works) return 0;
    const { length } = batch;
    try {
      this.#receive(batch, this.#attached!);
    } catch (error) {
      this.#fail(error);
    }
    return batch.length - length;
  }

  /** Takes the whole batch, or nothing while the end below is full. */
  write(batch: PacketBatch): number {
    if (!this.#works) return 0;
    const { length } = batch;
    try {
      this.#send(batch, this.#attached!);
    } catch (error) {
      this.#fail(error);
    }
    return length - batch.length;
  }

  /** Runs the protocol's timers and those of the end below, and sends what they emit. */
  tick(): void {
    if (!this.#works) return;
    const attached = this.#attached!;
    const { host, pipeline, lower } = attached;
    this.#hasRoom = false;
    try {
      if (this.#end.due! <= host.now()) this.#end.tick!();
      pipeline.tick(host.now());
      if (pipeline.waitingForFar > 0) pipeline.exhaleToFar(lower);
    } catch (error) {
      this.#fail(error);
    }
    if (pipeline.waitingForDevice > 0) host.wake();
  }

  /**
   * Drops the packets inside as `closed`, closes the protocol, then the end below.
   *
   * @throws {AggregateError} when the protocol threw, after everything is closed.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      if (this.#attached === undefined) closeStages([this.#protocol]);
      else this.#attached.pipeline.close();
    } finally {
      this.#end.close();
    }
  }

  /** Calls {@linkcode VpnEnd.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  get #works(): boolean {
    return !this.#closed && this.failure === undefined;
  }

  #send(batch: PacketBatch, { host, ledger, pipeline, lower }: Attached): void {
    if (pipeline.waitingForFar > 0) pipeline.exhaleToFar(lower);
    pipeline.flow(Direction.Outbound, host.now());
    if (!pipeline.wantsOutbound) return;
    ledger.enter(batch);
    batch.moveTo(pipeline.outbound[0]!);
    pipeline.flow(Direction.Outbound, host.now());
    if (pipeline.waitingForFar > 0) pipeline.exhaleToFar(lower);
    if (pipeline.waitingForDevice > 0 || pipeline.pending) host.wake();
  }

  #receive(batch: PacketBatch, { host, ledger, pipeline, lower, upper }: Attached): void {
    const now = host.now();
    const before = batch.length;
    if (pipeline.waitingForFar > 0) pipeline.exhaleToFar(lower);
    pipeline.flow(Direction.Outbound, now);
    let came = 0;
    if (pipeline.wantsInbound) {
      const { fromFar } = pipeline;
      const first = fromFar.length;
      came = pipeline.inhale(this.#end, fromFar, ledger.counters.inbound, now);
      ledger.arrive(fromFar, first);
    }
    pipeline.flow(Direction.Inbound, now);
    if (pipeline.waitingForFar > 0) pipeline.exhaleToFar(lower);
    if (pipeline.waitingForDevice > 0) {
      upper.batch = batch;
      pipeline.exhaleToDevice(upper);
    }
    // The tunnel sees only the packets in its batch: without a wake, it would not read the rest of the end below.
    if (came !== batch.length - before || pipeline.pending) host.wake();
  }

  /** Ends the tunnel; the error of a protocol gets the name of the end. */
  #fail(cause: unknown): void {
    const { heartbeat, host } = this.#attached!;
    const isProtocol = heartbeat.cells[1] !== 0;
    this.#failure = !isProtocol && cause instanceof Error
      ? cause
      : new Error(`Cannot go on with "${this.name}": ${heartbeat.current} threw: ${errorMessage(cause)}`, {
        cause,
      });
    heartbeat.cells[1] = 0;
    host.wake();
  }
}
