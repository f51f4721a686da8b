/** A Wintun adapter as a device: its session, its setup, its events, and the restart of a corrupt ring. */

import type {
  Device,
  DeviceEvent,
  DeviceStatistics,
  EndHost,
  EndWait,
  PacketBatch,
  Waitable,
} from "../../lib/core/mod.ts";
import { DeviceEvents } from "../events.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { type Adapter, closeAdapter, openAdapter } from "./adapter.ts";
import { LinkMonitor } from "./link_monitor.ts";
import { PoolAddresses } from "./pool_addresses.ts";
import { delay, type Session, startFirstSession, startSession } from "./session.ts";
import { checkSupported, Setup } from "./setup.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error } from "./win32_error.ts";

// Implementation
/** Delay between attempts to start the session again (milliseconds). */
const RESTART_AFTER = 100;
const MAX_RESTARTS = 20;
/** Time without a write after which Windows is nudged (milliseconds). */
const NUDGE_AFTER = 20;

/** Parts of a {@linkcode WintunDevice}. */
interface WintunParts {
  readonly adapter: Adapter;
  readonly session: Session;
  readonly setup: Setup;
  readonly monitor: LinkMonitor;
  readonly capacity: number;
}

/**
 * A Wintun adapter with its session. Super-packets of up to 65,535 bytes pass to Windows whole.
 *
 * Wintun 0.14.1 can miss the wakeup for a packet that is written just as its thread falls asleep; the packet then stays
 * in the ring until the next one is written. Therefore 20 ms after the last write the device _nudges_ Windows: it writes
 * a packet that is not IP. By then the thread sleeps, and this wakeup is not missed.
 *
 * **Limits**: Windows does not signal room in a full ring, so writes are retried by time. A packet whose wakeup was
 * missed, and that no other packet follows, is 20 to 40 ms late.
 */
export class WintunDevice implements Device {
  /** Name of the adapter. */
  readonly name: string;
  /** False: partial checksums are completed here, and Windows sends neither these nor super-packets. */
  readonly offload = false;
  /** Always 0: a write puts the packet into the ring. */
  readonly queued = 0;
  /** Error that ended the device. */
  failure: Error | undefined;
  /** One descriptor: {@linkcode WintunDevice.waitable}. */
  readonly waits: readonly EndWait[] = [this];
  /** Restarts of the session after its ring was corrupt; Wintun 0.14.1 can overrun it. */
  restarts = 0;
  /** Nudges written; Windows counts each as a discarded packet, `statistics` does not. */
  nudges = 0;
  /** Version of the running driver, such as `0.14`. */
  readonly driverVersion: string | undefined;
  /** Resolves when the adapter is removed, after `close`. */
  closed: Promise<void> = Promise.resolve();

  readonly #parts: WintunParts;
  readonly #events = new DeviceEvents();
  #mtu: number;
  #session: Session | undefined;
  #restarting: Promise<void> | undefined;
  #host: EndHost | undefined;
  #closed = false;
  #addresses: PoolAddresses | undefined;
  /** Packets written since the timer of the nudge was set. */
  #sent = 0;
  #nudging: ReturnType<typeof setTimeout> | undefined;

  /** Used by {@linkcode openWintunDevice}. */
  constructor(parts: WintunParts) {
    this.#parts = parts;
    this.#session = parts.session;
    this.name = parts.adapter.name;
    this.#mtu = parts.setup.mtu;
    this.driverVersion = parts.adapter.driverVersion;
  }

  /** MTU of the interface (bytes): that of IPv4, where the system has both IP versions. */
  get mtu(): number {
    return this.#mtu;
  }

  /** Length of the packet that waits in the ring for a slot, or else the MTU (bytes). */
  get maxRead(): number {
    return this.#session?.waitingLength || this.#mtu;
  }

  /** Event that Windows sets when packets have arrived. */
  get waitable(): Waitable | undefined {
    return this.#session?.readEvent;
  }

  /** Attaches the device to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#addresses = new PoolAddresses(host.pool);
    host.watch(this.#parts.monitor.waitable, () => this.#publishChanges());
  }

  /** Reads packets until the ring is empty, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const count = session.read(batch, this.#host!, this.#addresses!);
    // Other numbers are ERROR_NO_MORE_ITEMS, or left by another call: the ring is empty.
    if (session.failed === Win32.ERROR_INVALID_DATA) {
      this.#host!.refuse(0, "corrupt ring");
      this.#restarting = this.#restart(session);
    } else if (session.failed === Win32.ERROR_HANDLE_EOF) {
      this.#failRemoved("read from", "WintunReceivePacket");
    }
    return count;
  }

  /** Writes packets until the ring is full; packets that Windows would silently discard are dropped with their reason. */
  write(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const count = session.write(batch, this.#host!, this.#addresses!);
    if (session.failed === Win32.ERROR_HANDLE_EOF) {
      this.#failRemoved("write to", "WintunAllocateSendPacket");
    }
    if (session.sent > 0) {
      this.#sent += session.sent;
      if (this.#nudging === undefined) this.#nudgeLater();
    }
    batch.shift(count);
    return count;
  }

  /** Events of the interface, from IP Helper. The link is down for a moment while a session restarts. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** Counters of Windows; `txDropped` counts packets for which the ring had no room. */
  statistics(): DeviceStatistics | undefined {
    const statistics = this.#closed ? undefined : this.#parts.setup.statistics();
    return statistics && { ...statistics, rxDropped: Math.max(0, statistics.rxDropped - this.nudges) };
  }

  /** Always `undefined`: Windows removes adapter, addresses and routes with the process. */
  rescue(): undefined {
  }

  /** Undoes the setup and removes the adapter, which takes a moment: see {@linkcode WintunDevice.closed}. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#nudging);
    this.#events.end();
    const session = this.#session;
    this.#session = undefined;
    this.closed = this.#end(session);
    // A rejection reaches those who await it, and does not end the process otherwise.
    this.closed.catch(() => {});
  }

  /** Calls {@linkcode WintunDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Ends in this order: waits, routes, session, adapter. */
  async #end(session: Session | undefined): Promise<void> {
    const { adapter, setup, monitor } = this.#parts;
    await this.#restarting;
    await monitor.close();
    if (session !== undefined) await awaitUnused(session.readEvent);
    try {
      setup.undo();
    } finally {
      session?.end(this.#host);
      await closeAdapter(adapter);
    }
  }

  #publishChanges(): void {
    for (const event of this.#parts.monitor.drain()) {
      this.#mtu = event.mtu;
      this.#events.publish(event);
    }
  }

  /** Nudges Windows once nothing was written for a while. */
  #nudgeLater(): void {
    this.#sent = 0;
    this.#nudging = setTimeout(() => {
      if (this.#sent > 0) return this.#nudgeLater();
      this.#nudging = undefined;
      if (this.#session?.nudge()) this.nudges++;
    }, NUDGE_AFTER);
  }

  /** Replaces a session by a new one; packets in its rings are lost. */
  async #restart(corrupt: Session): Promise<void> {
    const { adapter, capacity } = this.#parts;
    this.#session = undefined;
    this.restarts++;
    await awaitUnused(corrupt.readEvent);
    corrupt.end(this.#host);
    for (let attempt = 1; !this.#closed; attempt++) {
      try {
        const session = await startSession("restart the session of", adapter, capacity);
        // If closed meanwhile, `close` has not seen this session.
        if (this.#closed) session.end(this.#host);
        else this.#session = session;
        break;
      } catch (error) {
        if (attempt === MAX_RESTARTS) {
          this.#fail(error as Error);
          break;
        }
        await delay(RESTART_AFTER);
      }
    }
    this.#restarting = undefined;
    this.#host!.wake();
  }

  #fail(failure: Error): void {
    if (this.failure !== undefined) return;
    this.failure = failure;
    this.#events.publish({ kind: "gone", mtu: this.mtu });
  }

  #failRemoved(verb: string, operation: string): void {
    const cause = "the adapter was removed or disabled";
    this.#fail(win32Error(`${verb} "${this.name}"`, operation, Win32.ERROR_HANDLE_EOF, cause));
  }
}

/** Creates or opens an adapter, starts its session and configures it. A failure undoes all of it. */
export async function openWintunDevice(options: CheckedDeviceOptions): Promise<WintunDevice> {
  checkSupported(options);
  const capacity = options.ringCapacity;
  const adapter = await openAdapter(options.name);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => closeAdapter(adapter));
  const session = await startFirstSession(adapter, capacity);
  undo.defer(() => session.end(undefined));
  const setup = new Setup(adapter);
  undo.defer(() => setup.undo());
  await setup.apply(options);
  const monitor = new LinkMonitor(adapter.name, adapter.luid);
  undo.move();
  return new WintunDevice({ adapter, session, setup, monitor, capacity });
}
