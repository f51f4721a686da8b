/**
 * A Wintun adapter as a device: the library's two rings, each packet copied once.
 *
 *     read:  ReceivePacket ─► copy into a slot ─► ReleaseReceivePacket, at once and in order
 *     write: AllocateSendPacket ─► copy out of the slot ─► SendPacket, always: an allocation that is never sent
 *            would block all that follow
 */

import {
  type Device,
  type DeviceEvent,
  type DeviceStatistics,
  type EndHost,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type Waitable,
} from "../../lib/core/mod.ts";
import { DriverError } from "../error.ts";
import { DeviceEvents } from "../events.ts";
import { addressOf } from "../native_memory.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { type Adapter, closeAdapter, openAdapter, wintunError } from "./adapter.ts";
import { kernel32 } from "./kernel32.ts";
import { LinkMonitor } from "./link_monitor.ts";
import { PoolAddresses } from "./pool_addresses.ts";
import { checkSupported, Setup } from "./setup.ts";
import { letGo } from "./waiter.ts";
import { fromHresult, Win32, win32Error } from "./win32_error.ts";
import { codeOf, lastError, listening, wintun } from "./wintun.ts";

// Specification
/** RFC 791 section 3.1, RFC 8200 section 3: the shortest header by the version in the first four bits. */
const MIN_IPV4_LENGTH = 20;
const MIN_IPV6_LENGTH = 40;

// Implementation
/** How long a ring may stay full before packets for it are dropped (milliseconds). */
const FULL_RING_TIMEOUT = 250;
/** How soon a ring that could not be started again is tried once more (milliseconds). */
const RESTART_AFTER = 100;
const MAX_RESTARTS = 20;
/** When the first session, which a device that is just coming up may refuse, is tried once more (milliseconds). */
const START_AFTER = 1000;
/** After so long without a write, Windows is nudged (milliseconds). */
const NUDGE_AFTER = 20;
/** No IP packet: Windows' side counts it as discarded, and passes it on to nobody. */
const NUDGE = new Uint8Array(MIN_IPV4_LENGTH);
/** Lengths as the size_t that copying takes: a bigint made once, not once a packet. */
const LENGTHS: bigint[] = [];

function length64(length: number): bigint {
  return LENGTHS[length] ??= BigInt(length);
}

/** The two rings of an adapter, while it is up. */
interface Session {
  readonly handle: Deno.PointerObject;
  /** The event that Windows sets when a packet came. */
  readonly readEvent: Waitable;
}

/** What a {@linkcode WintunDevice} holds. */
interface WintunParts {
  readonly adapter: Adapter;
  readonly session: Session;
  readonly setup: Setup;
  readonly monitor: LinkMonitor;
  readonly capacity: number;
}

/**
 * A Wintun adapter with its session. Super-packets of up to 65,535 bytes go to Windows as they are.
 *
 * Wintun 0.14.1 can miss the wakeup for a packet that is written just as its thread falls asleep: it then lies in the
 * ring until the next one is written. So 20 ms after the last write one more follows that is no IP packet. It finds
 * the thread asleep, which misses nothing then, or wakes it for what lies there.
 *
 * **Limits**: Windows gives no sign when a full ring has room, so it is tried again by time. A packet whose wakeup
 * was missed, and that nothing follows, is 20 to 40 ms late.
 */
export class WintunDevice implements Device {
  /** The adapter's name. */
  readonly name: string;
  /** Super-packets are taken whole; unfinished sums are finished here, and none come. */
  readonly offload = false;
  /** Nothing waits here: a write hands the packet to the ring. */
  readonly queued = 0;
  /** Why it is gone. */
  failure: Error | undefined;
  /** How often the session had to be started again, its ring being corrupt: Wintun 0.14.1 can overrun it. */
  restarts = 0;
  /** How often Windows was nudged; it counts each as a discarded packet, and `statistics` does not. */
  nudges = 0;
  /** The running driver's version, such as `0.14`. */
  readonly driverVersion: string | undefined;
  /** Settled when the adapter is removed, after `close`. */
  closed: Promise<void> = Promise.resolve();

  readonly #wintun = wintun();
  readonly #kernel32 = kernel32();
  readonly #adapter: Adapter;
  readonly #setup: Setup;
  readonly #monitor: LinkMonitor;
  readonly #capacity: number;
  readonly #events = new DeviceEvents();
  #mtu: number;
  #session: Session | undefined;
  #restarting: Promise<void> | undefined;
  #host: EndHost | undefined;
  #closed = false;
  #addresses: PoolAddresses | undefined;
  readonly #size = new Uint32Array(1);
  /** A packet that is received and not released: there was no slot for it. Its length is in `#size`. */
  #waiting = 0n;
  /** Since when the ring for writing has taken nothing; 0 while it does. */
  #fullSince = 0;
  /** Packets written since the timer for the nudge was set. */
  #sent = 0;
  #nudging: ReturnType<typeof setTimeout> | undefined;

  /** For {@linkcode openWintunDevice}. */
  constructor({ adapter, session, setup, monitor, capacity }: WintunParts) {
    this.#adapter = adapter;
    this.#session = session;
    this.#setup = setup;
    this.#monitor = monitor;
    this.#capacity = capacity;
    this.name = adapter.name;
    this.#mtu = setup.mtu;
    this.driverVersion = adapter.driverVersion;
  }

  /** The longest packet that Windows sends through it (bytes): that of IPv4, where the system has both. */
  get mtu(): number {
    return this.#mtu;
  }

  /** The packet that waits in the ring for a slot, if there is one. */
  get longestRead(): number {
    return this.#waiting === 0n ? this.#mtu : this.#size[0]!;
  }

  /** The event that says that a packet came. */
  get waitable(): Waitable | undefined {
    return this.#session?.readEvent;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#addresses = new PoolAddresses(host.pool);
    host.watch(this.#monitor.waitable, () => this.#hear());
  }

  /** Reads packets until the ring is empty, the batch is full, or the pool is empty. */
  read(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const { pool } = this.#host!;
    const addresses = this.#addresses!;
    const { WintunReceivePacket, WintunReleaseReceivePacket } = this.#wintun;
    const { RtlMoveMemory, SetEvent } = this.#kernel32;
    const { handle } = session;
    const size = this.#size;
    let count = 0;
    let refused = 0;
    while (!batch.full) {
      let source = this.#waiting;
      if (source === 0n) {
        source = WintunReceivePacket(handle, size);
        if (source === 0n) {
          this.#readFailed(lastError());
          break;
        }
      }
      const length = size[0]!;
      if (length === 0) {
        WintunReleaseReceivePacket(handle, source);
        this.#host!.refuse(0, "empty");
        refused++;
        continue;
      }
      if (length > LARGE_ROOM) {
        this.#readFailed(Win32.ERROR_INVALID_DATA);
        break;
      }
      const packet = pool.take(length);
      if (packet === undefined) {
        this.#waiting = source;
        // The wait that ended took the event's signal; the next one has to end, too, when there are slots again.
        SetEvent(BigInt(session.readEvent));
        break;
      }
      this.#waiting = 0n;
      RtlMoveMemory(addresses.ofFresh(packet), source, length64(length));
      WintunReleaseReceivePacket(handle, source);
      batch.push(packet);
      count++;
    }
    // More may be there than a breath has shown that moved nothing.
    if (refused > 0) this.#host!.wake();
    return count;
  }

  /** Writes packets until the ring is full; what Windows would discard without a word is dropped, with the reason. */
  write(batch: PacketBatch): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const { packets, length } = batch;
    const addresses = this.#addresses!;
    const { WintunAllocateSendPacket, WintunSendPacket } = this.#wintun;
    const { RtlMoveMemory } = this.#kernel32;
    const { handle } = session;
    let count = 0;
    let sent = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      const unfit = unfitness(packet);
      if (unfit !== undefined) {
        this.#host!.drop(packet, unfit);
        continue;
      }
      packet.finish();
      const target = WintunAllocateSendPacket(handle, packet.length);
      if (target === 0n) {
        if (!this.#writeFailed(lastError(), sent)) break;
        this.#host!.drop(packet, "ring full");
        continue;
      }
      // From here to SendPacket nothing can fail.
      RtlMoveMemory(target, addresses.of(packet), length64(packet.length));
      WintunSendPacket(handle, target);
      packet.pool.give(packet);
      sent++;
    }
    if (sent > 0) {
      this.#fullSince = 0;
      this.#sent += sent;
      if (this.#nudging === undefined) this.#nudgeLater();
    }
    batch.shift(count);
    return count;
  }

  /** Changes of its interface, as IP Helper reports them; a session that is started again is down for a moment. */
  events(): AsyncIterable<DeviceEvent> {
    return this.#events.listen();
  }

  /** Windows' own counters; `txDropped` is what its side of the ring had no room for. */
  statistics(): DeviceStatistics | undefined {
    const statistics = this.#closed ? undefined : this.#setup.statistics();
    return statistics && { ...statistics, rxDropped: Math.max(0, statistics.rxDropped - this.nudges) };
  }

  /** Nothing: Windows removes an adapter, its addresses and routes with the process. */
  rescue(): undefined {
  }

  /** Puts everything back and removes the adapter, which takes a moment: see {@linkcode WintunDevice.closed}. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#nudging);
    this.#events.end();
    const session = this.#session;
    this.#session = undefined;
    this.closed = this.#end(session);
    // Whoever awaits it hears of it; whoever does not is not ended by it.
    this.closed.catch(() => {});
  }

  /** The same as {@linkcode WintunDevice.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The order matters: no wait, no routes, no session, no adapter. */
  async #end(session: Session | undefined): Promise<void> {
    await this.#restarting;
    await this.#monitor.close();
    if (session !== undefined) await letGo(session.readEvent);
    try {
      this.#setup.undo();
    } finally {
      if (session !== undefined) this.#endSession(session);
      await closeAdapter(this.#adapter);
    }
  }

  #endSession({ handle }: Session): void {
    const { WintunReleaseReceivePacket, WintunEndSession } = this.#wintun;
    if (this.#waiting !== 0n) {
      WintunReleaseReceivePacket(handle, this.#waiting);
      this.#waiting = 0n;
      this.#host!.refuse(this.#size[0]!, "closed");
    }
    WintunEndSession(handle);
  }

  #readFailed(failed: number): void {
    switch (failed) {
      case Win32.ERROR_INVALID_DATA:
        this.#host!.refuse(0, "corrupt ring");
        this.#restarting = this.#restart();
        break;
      case Win32.ERROR_HANDLE_EOF:
        this.#lose(this.#removed("read from", "WintunReceivePacket"));
        break;
        // ERROR_NO_MORE_ITEMS, and whatever another call may have left behind: nothing is there.
    }
  }

  /** Whether to drop the packet, and go on. */
  #writeFailed(failed: number, sent: number): boolean {
    if (failed === Win32.ERROR_HANDLE_EOF) {
      this.#lose(this.#removed("write to", "WintunAllocateSendPacket"));
      return false;
    }
    const now = performance.now();
    if (sent > 0 || this.#fullSince === 0) this.#fullSince = now;
    return now - this.#fullSince >= FULL_RING_TIMEOUT;
  }

  #hear(): void {
    for (const event of this.#monitor.drain()) {
      this.#mtu = event.mtu;
      this.#events.publish(event);
    }
  }

  /** Nudges Windows as soon as nothing was written for a while. */
  #nudgeLater(): void {
    this.#sent = 0;
    this.#nudging = setTimeout(() => {
      if (this.#sent > 0) return this.#nudgeLater();
      this.#nudging = undefined;
      this.#nudge();
    }, NUDGE_AFTER);
  }

  #nudge(): void {
    const session = this.#session;
    if (session === undefined) return;
    const target = this.#wintun.WintunAllocateSendPacket(session.handle, NUDGE.length);
    // A ring that is full is one that Windows is busy with.
    if (target === 0n) return;
    this.#kernel32.RtlMoveMemory(target, BigInt(addressOf(NUDGE)), length64(NUDGE.length));
    this.#wintun.WintunSendPacket(session.handle, target);
    this.nudges++;
  }

  /** Ends the session and starts another; what was in the rings is lost. */
  async #restart(): Promise<void> {
    const { handle, readEvent } = this.#session!;
    this.#session = undefined;
    this.#waiting = 0n;
    this.restarts++;
    await letGo(readEvent);
    this.#wintun.WintunEndSession(handle);
    for (let attempt = 1; !this.#closed; attempt++) {
      try {
        const session = await startSession("go on with", this.#adapter, this.#capacity);
        // Closed meanwhile: whoever closes it has not seen this session.
        if (this.#closed) this.#wintun.WintunEndSession(session.handle);
        else this.#session = session;
        break;
      } catch (error) {
        if (attempt === MAX_RESTARTS) {
          this.#lose(error as Error);
          break;
        }
        await delay(RESTART_AFTER);
      }
    }
    this.#restarting = undefined;
    this.#host!.wake();
  }

  #lose(failure: Error): void {
    if (this.failure !== undefined) return;
    this.failure = failure;
    this.#events.publish({ kind: "gone", mtu: this.mtu });
  }

  #removed(verb: string, operation: string): Error {
    return win32Error(
      `${verb} "${this.name}"`,
      operation,
      Win32.ERROR_HANDLE_EOF,
      "the adapter was removed or disabled",
    );
  }
}

/** Why Windows would not take a packet; `undefined` when it would. */
function unfitness(packet: Packet): string | undefined {
  const { length } = packet;
  if (length > LARGE_ROOM) return "longer than 65535 bytes";
  switch (length === 0 ? 0 : packet.bytes[packet.offset]! >>> 4) {
    case 4:
      return length < MIN_IPV4_LENGTH ? "shorter than its header" : undefined;
    case 6:
      return length < MIN_IPV6_LENGTH ? "shorter than its header" : undefined;
    default:
      return "neither IPv4 nor IPv6";
  }
}

/** Starts a session, which brings the link up. */
function startSession(verb: string, adapter: Adapter, capacity: number): Promise<Session> {
  return listening((errors) => {
    const { WintunStartSession, WintunGetReadWaitEvent } = wintun();
    const handle = WintunStartSession(adapter.handle, capacity);
    const failed = handle === null ? lastError() : 0;
    if (handle === null) {
      const code = fromHresult(codeOf(errors) ?? failed);
      throw wintunError(`${verb} "${adapter.name}"`, `WintunStartSession of ${capacity} bytes`, code, errors);
    }
    return Promise.resolve({ handle, readEvent: WintunGetReadWaitEvent(handle) });
  });
}

/** Starts an adapter's first session: at once, or at the second try. */
async function startFirstSession(adapter: Adapter, capacity: number): Promise<Session> {
  try {
    return await startSession("open device", adapter, capacity);
  } catch (error) {
    const isTaken = error instanceof DriverError && error.errno === Win32.ERROR_ALREADY_INITIALIZED;
    if (isTaken || error instanceof Deno.errors.PermissionDenied) throw error;
    await delay(START_AFTER);
    return await startSession("open device", adapter, capacity);
  }
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Makes or opens an adapter, starts its session and sets it up; what fails undoes what was done. */
export async function openWintunDevice(options: CheckedDeviceOptions): Promise<WintunDevice> {
  checkSupported(options);
  const capacity = options.ringCapacity;
  const adapter = await openAdapter(options.name);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => closeAdapter(adapter));
  const session = await startFirstSession(adapter, capacity);
  undo.defer(() => wintun().WintunEndSession(session.handle));
  const setup = new Setup(adapter);
  undo.defer(() => setup.undo());
  await setup.apply(options);
  const monitor = new LinkMonitor(adapter.name, adapter.luid);
  undo.move();
  return new WintunDevice({ adapter, session, setup, monitor, capacity });
}
