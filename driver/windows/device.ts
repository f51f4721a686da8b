/** The device of Windows: a Wintun adapter with its current session, its configuration and its events. */

import type {
  Device,
  DeviceEvent,
  DeviceStatistics,
  EndHost,
  EndWait,
  PacketBatch,
  Waitable,
} from "../../lib/core/mod.ts";
import { setTimeout as delay } from "node:timers/promises";
import { DeviceEvents } from "../events.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { type Adapter, closeAdapter, openAdapter } from "./adapter.ts";
import { LinkMonitor } from "./link_monitor.ts";
import { PoolAddresses } from "./pool_addresses.ts";
import { type Session, startFirstSession, startSession } from "./session.ts";
import { checkSupported, Setup } from "./setup.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error } from "./win32_error.ts";

// Implementation
/** Delay between attempts to restart the session (milliseconds). */
const RESTART_RETRY_AFTER = 100;
const MAX_RESTART_ATTEMPTS = 20;
/** Time without a write after which the device nudges Wintun (milliseconds). */
const NUDGE_AFTER = 20;

interface WintunParts {
  readonly adapter: Adapter;
  readonly session: Session;
  readonly setup: Setup;
  readonly monitor: LinkMonitor;
  readonly capacity: number;
}

/**
 * A Wintun adapter with a session. Windows accepts super-packets of up to 65,535 bytes but does not send any.
 *
 * Wintun 0.14.1 can miss the wakeup for a packet written just as the driver's thread falls asleep. The packet then
 * stays in the ring until the next write. To bound this delay, the device _nudges_ Wintun 20 ms after the last write:
 * it writes a packet that is not IP. By then the thread is asleep, so this wakeup is not missed.
 *
 * **Limits**: Wintun does not report when a full ring has room again, so writes are retried on a timer. If the wakeup
 * for the last packet of a burst is missed, the packet is 20 to 40 ms late.
 */
export class WintunDevice implements Device {
  readonly name: string;
  /** False: Wintun's rings carry packets without metadata, so checksums must be complete. */
  readonly offload = false;
  /** Always 0: a written packet is in Wintun's ring. */
  readonly queued = 0;
  failure: Error | undefined;
  readonly waits: readonly EndWait[] = [this];
  /** Number of sessions that were restarted because their ring was corrupt, which Wintun 0.14.1 can cause. */
  restarts = 0;
  /** Number of nudges. Windows counts each as a discarded packet; `statistics` subtracts them. */
  nudges = 0;
  /** After `close`, resolves when the adapter is closed, and rejects when a change cannot be undone. */
  closed: Promise<void> = Promise.resolve();

  readonly #parts: WintunParts;
  readonly #events = new DeviceEvents();
  #mtu: number;
  #session: Session | undefined;
  #restarting: Promise<void> | undefined;
  #host: EndHost | undefined;
  #closed = false;
  #addresses: PoolAddresses | undefined;
  /** Packets written since the nudge timer was started. */
  #sent = 0;
  #nudgeTimer: ReturnType<typeof setTimeout> | undefined;

  /** For {@linkcode openWintunDevice}. */
  constructor(parts: WintunParts) {
    this.#parts = parts;
    this.#session = parts.session;
    this.name = parts.adapter.name;
    this.#mtu = parts.setup.mtu;
  }

  /** MTU of IPv4, or of IPv6 if the system has no IPv4 (bytes). */
  get mtu(): number {
    return this.#mtu;
  }

  /** Length of the received packet that waits for a slot, otherwise the MTU (bytes). */
  get maxRead(): number {
    return this.#session?.waitingLength || this.#mtu;
  }

  get waitable(): Waitable | undefined {
    return this.#session?.readEvent;
  }

  attach(host: EndHost): void {
    this.#host = host;
    this.#addresses = new PoolAddresses(host.pool);
    host.watch(this.#parts.monitor.waitable, () => this.#publishChanges());
  }

  read(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const count = session.read(batch, this.#host!, this.#addresses!);
    // ERROR_INVALID_DATA (13) means a corrupt ring, and a number not handled here an empty one.
    if (session.failed === Win32.ERROR_INVALID_DATA) {
      this.#host!.refuse(0, "corrupt ring");
      this.#restarting = this.#restart(session);
    } else if (session.failed === Win32.ERROR_HANDLE_EOF) {
      this.#failRemoved("read from", "WintunReceivePacket");
    }
    return count;
  }

  /** Drops packets that Windows would silently discard, so that they are counted with a reason. */
  write(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const count = session.write(batch, this.#host!, this.#addresses!);
    if (session.failed === Win32.ERROR_HANDLE_EOF) {
      this.#failRemoved("write to", "WintunAllocateSendPacket");
    }
    if (session.sent > 0) {
      this.#sent += session.sent;
      if (this.#nudgeTimer === undefined) this.#startNudgeTimer();
    }
    batch.shift(count);
    return count;
  }

  /** Includes `down` and `up` when a session restarts. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** `txDropped` includes the packets from Windows that found the ring full. */
  statistics(): DeviceStatistics | undefined {
    const statistics = this.#closed ? undefined : this.#parts.setup.statistics();
    return statistics && { ...statistics, rxDropped: Math.max(0, statistics.rxDropped - this.nudges) };
  }

  /** Always `undefined`: when the process ends, Windows removes the adapter with its addresses and routes. */
  rescue(): undefined {
  }

  /** Starts to undo the configuration and close the adapter; {@linkcode WintunDevice.closed} resolves afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#nudgeTimer);
    this.#events.end();
    const session = this.#session;
    this.#session = undefined;
    this.closed = this.#end(session);
    // Without a handler, a rejection would end the process.
    this.closed.catch(() => {});
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes the parts in the order that Windows needs: waits, configuration, session, adapter. */
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

  #startNudgeTimer(): void {
    this.#sent = 0;
    this.#nudgeTimer = setTimeout(() => {
      if (this.#sent > 0) return this.#startNudgeTimer();
      this.#nudgeTimer = undefined;
      if (this.#session?.nudge()) this.nudges++;
    }, NUDGE_AFTER);
  }

  /** Replaces a session with a new one; the packets in its rings are lost. */
  async #restart(corrupt: Session): Promise<void> {
    const { adapter, capacity } = this.#parts;
    this.#session = undefined;
    this.restarts++;
    await awaitUnused(corrupt.readEvent);
    corrupt.end(this.#host);
    for (let attempt = 1; !this.#closed; attempt++) {
      try {
        const session = await startSession("restart the session of", adapter, capacity);
        // `close` ran during the start and did not see this session.
        if (this.#closed) session.end(this.#host);
        else this.#session = session;
        break;
      } catch (error) {
        if (attempt === MAX_RESTART_ATTEMPTS) {
          this.#fail(error as Error);
          break;
        }
        await delay(RESTART_RETRY_AFTER);
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

/** Creates or opens an adapter, starts a session and configures the interface. Undoes everything when a step fails. */
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
