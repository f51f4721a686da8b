/** Opens tunnels: the far end, then the device; after a failure, nothing stays open. */

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
import { checkOptions, gotValue, type OptionKinds } from "../../lib/core/options.ts";
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
const TUNNEL_OPTIONS: OptionKinds<TunnelOptions> = {
  ...DEVICE_OPTIONS,
  device: "optional",
  far: "optional",
  stages: "list",
  signal: "optional",
  signals: "boolean",
  watchdog: "number",
};

/**
 * Opens a tunnel: its far end, then its device. For programs that embed Warren; scripts use `script()`.
 *
 * After an error, nothing stays open.
 *
 * @throws {TypeError} for an unknown option or one of the wrong type, and for several queues: each queue needs a worker
 * that runs the module of a script.
 * @throws {RangeError} when `watchdog` is not an integer from 0 to 2^31 - 1.
 * @throws {Error} the errors of {@linkcode openDevice} and of the far end's opener; while the ends open, the reason of
 * `signal` when it is aborted, and an `Interruption` on SIGINT, SIGTERM or SIGHUP.
 */
export async function openTunnel(options: TunnelOptions = {}): Promise<Tunnel> {
  const count = workerCount(options);
  if (count > 1) {
    throw new TypeError(
      `Cannot open a tunnel with ${count} queues: each needs a worker, and only the module of a script runs in workers: ` +
        "write `export default script(import.meta, …)`",
    );
  }
  await using start = await TunnelStart.begin(options, true);
  await openOwnFar(start, options);
  return await openOwnNear(start, options);
}

/** Opens a tunnel's far end, unless that is a device, which opens after the tunnel's own device. */
export async function openOwnFar(start: TunnelStart, { far }: TunnelOptions): Promise<void> {
  if (far !== undefined && !isDevice(far)) await start.openFar((context) => openFarEnd(far, context));
}

/** Opens a tunnel's device, and then the tunnel. */
export function openOwnNear(start: TunnelStart, options: TunnelOptions): Promise<Tunnel> {
  const { far } = options;
  const openFarDevice = far !== undefined && isDevice(far) ? () => openFarEnd(far) : undefined;
  return start.openNear(() => openDevice(deviceOptions(options)), openFarDevice);
}

function isDevice(far: NonNullable<TunnelOptions["far"]>): boolean {
  return deviceOptionsOf(openerOf(far)) !== undefined;
}

/** Checks the options of a tunnel without a system call; returns the checked options of its device. */
export function checkTunnelOptions(options: TunnelOptions): CheckedDeviceOptions {
  checkOptions("open a tunnel", options, TUNNEL_OPTIONS);
  const { device, signal } = options;
  if (device !== undefined && typeof (device as Partial<Device> | null)?.attach !== "function") {
    throw new TypeError(`Cannot open a tunnel: device must be an open device, ${gotValue(device)}`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`Cannot open a tunnel: signal must be an AbortSignal, ${gotValue(signal)}`);
  }
  return checkDeviceOptions(options);
}

/** Returns the number of workers of a tunnel: one for each queue on Linux, otherwise one. */
export function workerCount(options: TunnelOptions): number {
  const { queues } = checkTunnelOptions(options);
  return Deno.build.os === "linux" ? queues : 1;
}

/** Returns the options of the device among those of a tunnel. */
function deviceOptions(options: TunnelOptions): DeviceOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => Object.hasOwn(DEVICE_OPTIONS, name)));
}

/** Error of a tunnel that a signal, or the end of the process, stopped from opening. */
export class Interruption extends Error {
  /** @ignore */
  override readonly name = "Interruption";
}

/**
 * A tunnel that is being opened: first its far end, before the tunnel's routes exist, then its device. Until it is
 * open, signals and `options.signal` end every step and close the ends that are open.
 *
 *     far end: names, connection ─► device: addresses, routes, rules ─► tunnel
 *                    └── signal, abort ──────────────┴──► ends closed, newest first
 */
export class TunnelStart implements AsyncDisposable {
  readonly #options: TunnelOptions;
  /** Aborted when the tunnel ends, even before it is open. */
  readonly #ending = new AbortController();
  /** Open ends, oldest first. */
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
   * Begins to open a tunnel: listens for signals and `options.signal`.
   *
   * @param takesSignals True in the first worker of a script, which receives the signals for all.
   */
  static async begin(options: TunnelOptions, takesSignals: boolean): Promise<TunnelStart> {
    checkLimit(options.watchdog);
    const start = new TunnelStart(options);
    const { signal, signals = true } = options;
    if (takesSignals && signals) {
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

  /** Opens the device, and then the tunnel; in a script with several workers, with the link between them. */
  async openNear(
    open: () => Promise<Device>,
    openFarDevice?: () => Promise<TunnelEnd | undefined>,
    link?: WorkerLink,
  ): Promise<Tunnel> {
    const device = this.#options.device ?? await this.#attempt(open);
    this.#bypass?.opened();
    const far = openFarDevice === undefined ? this.#far : await this.#attempt(openFarDevice);
    const loop = currentLoop();
    const waits = [...device.waits, ...(far?.waits ?? [])];
    await loop.acquire(waits.some(({ waitable }) => waitable !== undefined));
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

  /** Closes the open ends unless the tunnel is open, and waits for that, for a bounded time. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopListening();
    this.#close();
    await Promise.allSettled(this.#opened.splice(0).map(({ closed }) => closedInTime(closed)));
  }

  /** Waits for an end to open, or for the abort. */
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
      // It may still open.
      if (signal.aborted) opening.then((end) => end && close(end), () => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Closes the open ends at once: the process may be about to end. */
  #abort(reason: unknown): void {
    this.#interrupted = true;
    this.#ending.abort(reason);
    this.#close();
  }

  /** Closes the open ends, newest first. */
  #close(): void {
    for (const end of this.#opened.toReversed()) close(end);
    this.#bypass?.close();
  }

  #stopListening(): void {
    for (const cleanup of this.#cleanups.splice(0)) cleanup();
  }
}

/** Closes an end of a tunnel that failed to open; an error of `close` is printed, since the failure is thrown. */
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
