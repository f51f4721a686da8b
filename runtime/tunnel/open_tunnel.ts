/** Opens tunnels: their ends, one after the other, or nothing. */

import {
  type Bypass,
  checkDeviceOptions,
  type CheckedDeviceOptions,
  DEVICE_OPTIONS,
  type DeviceOptions,
  openBypass,
  openDevice,
} from "../../driver/mod.ts";
import type { Device, TunnelEnd } from "../../lib/core/mod.ts";
import { checkNames, type OptionNames } from "../../lib/core/options.ts";
import { explain } from "./explain.ts";
import { currentLoop } from "../engine/loop.ts";
import { learnSignals, onInterrupt } from "../engine/signals.ts";
import { deviceOptionsOf } from "../transport/device.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "../transport/end_opener.ts";
import { openerOf, openFarEnd } from "../transport/mod.ts";
import { closedInTime, Tunnel, type TunnelOptions } from "./tunnel.ts";
import { checkLimit } from "../engine/watchdog.ts";
import type { WorkerLink } from "../ring/link.ts";

// Implementation
const TUNNEL_OPTIONS: OptionNames<TunnelOptions> = {
  ...DEVICE_OPTIONS,
  device: "optional",
  far: "optional",
  stages: "optional",
  signal: "optional",
  signals: "optional",
  watchdog: "optional",
};

/**
 * Opens a tunnel's device and far end. For programs that embed Warren; a script says `script()`.
 *
 * @throws {RangeError} when `watchdog` is no whole number, or negative.
 * @throws {TypeError} for an option that there is not, and for several queues, each of which takes a worker that runs a
 * script's module.
 * @throws {Error} as {@linkcode openDevice} does, and as the far end's opener does; the reason of `signal` when it is
 * aborted, and an `Interruption` for SIGINT, SIGTERM or SIGHUP, while an end opens: nothing is left open then.
 */
export async function openTunnel(options: TunnelOptions = {}): Promise<Tunnel> {
  const count = workerCount(options);
  if (count > 1) {
    throw new TypeError(
      `Cannot open a tunnel with ${count} queues: each takes a worker, and only a script's module runs in several: ` +
        "write `export default script(import.meta, …)`",
    );
  }
  await using start = await TunnelStart.begin(options, true);
  await openOwnFar(start, options);
  return await openOwnNear(start, options);
}

/** Opens a tunnel's far end, unless it is a device, which is opened with the tunnel's own. */
export async function openOwnFar(start: TunnelStart, { far }: TunnelOptions): Promise<void> {
  if (far !== undefined && !isDevice(far)) await start.openFar((context) => openFarEnd(far, context));
}

/** Opens a tunnel's device, and with it the tunnel. */
export function openOwnNear(start: TunnelStart, options: TunnelOptions): Promise<Tunnel> {
  const { far } = options;
  const openFarDevice = far !== undefined && isDevice(far) ? () => openFarEnd(far) : undefined;
  return start.openNear(() => openDevice(deviceOptions(options)), openFarDevice);
}

function isDevice(far: NonNullable<TunnelOptions["far"]>): boolean {
  return deviceOptionsOf(openerOf(far)) !== undefined;
}

/** Checks what a tunnel is asked to be, without asking the system; returns what its device is. */
export function checkTunnelOptions(options: TunnelOptions): CheckedDeviceOptions {
  checkNames("open a tunnel", options, TUNNEL_OPTIONS);
  const { device, signal, stages } = options;
  if (device !== undefined && typeof (device as Partial<Device> | null)?.attach !== "function") {
    throw new TypeError(
      `Cannot use ${Deno.inspect(device, { depth: 0 })} as a device: it must be an open device`,
    );
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(
      `Cannot open a tunnel: signal must be an AbortSignal, got ${Deno.inspect(signal, { depth: 0 })}`,
    );
  }
  if (stages !== undefined && !Array.isArray(stages)) {
    throw new TypeError(`Cannot use stages ${Deno.inspect(stages, { depth: 0 })}: they are no array`);
  }
  return checkDeviceOptions(options);
}

/** How many workers a tunnel takes: one for each queue, where there are several. */
export function workerCount(options: TunnelOptions): number {
  const { queues } = checkTunnelOptions(options);
  return Deno.build.os === "linux" ? queues : 1;
}

/** The options that are the device's. */
function deviceOptions(options: TunnelOptions): DeviceOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => Object.hasOwn(DEVICE_OPTIONS, name)));
}

/** The process was asked to end while a tunnel opened. */
export class Interruption extends Error {
  /** @ignore */
  override readonly name = "Interruption";
}

/**
 * A tunnel that opens: first its far end, while the system's routes are as they were, then its device. Until it is open,
 * signals and `options.signal` end every step, and what was opened is closed again.
 *
 *     far end: names, connection ─► device: addresses, routes, rules ─► tunnel
 *                    └── an interruption ───────────┴──► closed, newest first
 */
export class TunnelStart implements AsyncDisposable {
  readonly #options: TunnelOptions;
  /** Aborted when the tunnel ends, also before it is open. */
  readonly #ending = new AbortController();
  /** Ends that are open, in their order. */
  readonly #opened: TunnelEnd[] = [];
  readonly #cleanups: (() => void)[] = [];
  #far: TunnelEnd | undefined;
  #bypass: Bypass | undefined;
  #interrupted = false;

  private constructor(options: TunnelOptions) {
    this.#options = options;
    if (options.device !== undefined) this.#opened.push(options.device);
  }

  /**
   * Begins to open a tunnel: listens for what ends it.
   *
   * @param hearsSignals Whether signals may end it; those of a script with several workers come to the first one.
   */
  static async begin(options: TunnelOptions, hearsSignals: boolean): Promise<TunnelStart> {
    checkLimit(options.watchdog);
    const start = new TunnelStart(options);
    const { signal, signals = true } = options;
    if (hearsSignals && signals) {
      await learnSignals();
      start.#cleanups.push(onInterrupt((signal) => start.#abort(new Interruption(interruptedBy(signal)))));
    }
    const abort = () => start.#abort(signal!.reason);
    signal?.addEventListener("abort", abort);
    start.#cleanups.push(() => signal?.removeEventListener("abort", abort));
    if (signal?.aborted) start.#ending.abort(signal.reason);
    return start;
  }

  /** Opens the far end. */
  async openFar(open: (context: FarEndContext) => Promise<TunnelEnd | undefined>): Promise<void> {
    const { signal } = this.#ending;
    const bypass = this.#options.device === undefined
      ? await openBypass(deviceOptions(this.#options))
      : undefined;
    this.#bypass = bypass;
    const context: FarEndContext = bypass === undefined ? { ...WITHOUT_TUNNEL, signal } : {
      signal,
      bypass: (address, interfaceName) => bypass.keep(address, interfaceName),
      lookUp: (look) => bypass.lookUp(look),
    };
    this.#far = await this.#attempt(() => open(context));
  }

  /** Opens the device, and with it the tunnel; for a script in several workers, with its link. */
  async openNear(
    open: () => Promise<Device>,
    openFarDevice?: () => Promise<TunnelEnd | undefined>,
    link?: WorkerLink,
  ): Promise<Tunnel> {
    const device = this.#options.device ?? await this.#attempt(open);
    this.#bypass?.opened();
    const far = openFarDevice === undefined ? this.#far : await this.#attempt(openFarDevice);
    const loop = currentLoop();
    const farWaits = far?.waits?.some(({ waitable }) => waitable !== undefined) ??
      far?.waitable !== undefined;
    await loop.acquire(device.waitable !== undefined || farWaits);
    try {
      if (this.#interrupted) this.#ending.signal.throwIfAborted();
      const [ending, bypass] = [this.#ending, this.#bypass];
      const tunnel = new Tunnel(device, far, this.#options, loop, { ending, bypass }, link);
      this.#opened.length = 0;
      this.#bypass = undefined;
      return tunnel;
    } catch (error) {
      await loop.release([]);
      throw error;
    } finally {
      this.#stopListening();
    }
  }

  /** Closes what was opened, unless it is a tunnel by now, until the system has it back, within a bounded time. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopListening();
    this.#close();
    await Promise.allSettled(this.#opened.splice(0).map(({ closed }) => closedInTime(closed)));
  }

  /** Waits for an end to open, or for the end of it all. */
  async #attempt<End extends TunnelEnd | undefined>(open: () => Promise<End>): Promise<End> {
    const { signal } = this.#ending;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () => reject(signal.reason);
    signal.throwIfAborted();
    signal.addEventListener("abort", abort);
    const opening = open();
    try {
      const end = await Promise.race([opening, aborted]);
      if (end !== undefined) this.#opened.push(end);
      return end;
    } catch (error) {
      // It may open all the same.
      if (signal.aborted) opening.then((end) => end && close(end), () => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Closes what is open at once: the process may be about to end. */
  #abort(reason: unknown): void {
    this.#interrupted = true;
    this.#ending.abort(reason);
    this.#close();
  }

  /** Closes what is open, newest first. */
  #close(): void {
    for (const end of this.#opened.toReversed()) close(end);
    this.#bypass?.close();
  }

  #stopListening(): void {
    for (const cleanup of this.#cleanups.splice(0)) cleanup();
  }
}

/** Closes an end of a tunnel that does not open: why it does not is told by an error of its own. */
function close(end: TunnelEnd): void {
  try {
    end.close();
  } catch (error) {
    console.warn(`warren: ${explain(error)}`);
  }
}

function interruptedBy(signal: Deno.Signal | undefined): string {
  return `Cannot open the tunnel: ${signal === undefined ? "the process ends" : `interrupted by ${signal}`}`;
}
