/** Opens tunnels: the far end, then the device; after a failure, nothing stays open. */

import type { Bypass } from "../../driver/bypass.ts";
import { openBypass } from "../../driver/open_bypass.ts";
import { openCheckedDevice } from "../../driver/open_device.ts";
import { checkEnd } from "../../lib/core/end.ts";
import type { Device, TunnelEnd } from "../../lib/core/mod.ts";
import { explain } from "./explain.ts";
import { learnSignals, onInterrupt } from "../engine/signals.ts";
import { deviceOptionsOf } from "../transport/device.ts";
import { type FarEndContext, WITHOUT_TUNNEL } from "../transport/end_opener.ts";
import { openFarEnd } from "../transport/mod.ts";
import { closedInTime, Tunnel } from "./tunnel.ts";
import { type CheckedTunnelOptions, checkTunnelOptions, type TunnelOptions } from "./tunnel_options.ts";
import type { WorkerLink } from "../ring/link.ts";

/**
 * Opens a tunnel: its far end, then its device. For programs that embed Warren; scripts use `script()`.
 *
 * After an error, nothing stays open.
 *
 * @throws {TypeError} for an unknown option or one of the wrong type, and for several queues: each queue needs a worker
 * that runs the module of a script; also for an end that lacks a part.
 * @throws {RangeError} when `watchdog` is not an integer from 0 to 2^31 - 1.
 * @throws {Error} the errors of {@linkcode openDevice} and of the far end's opener; while the ends open, the reason of
 * `signal` when it is aborted, and an `Interruption` on SIGINT, SIGTERM or SIGHUP.
 */
export async function openTunnel(options: TunnelOptions = {}): Promise<Tunnel> {
  const checked = checkTunnelOptions(options);
  if (checked.workers > 1) {
    throw new TypeError(
      `Cannot open a tunnel with ${checked.workers} queues: each needs a worker, and only the module of a script ` +
        "runs in workers: write `export default script(import.meta, …)`",
    );
  }
  await using start = await TunnelStart.begin(checked, true);
  await start.openFar();
  return await start.openNear();
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
  readonly #options: CheckedTunnelOptions;
  readonly #flags: FarEndContext["flags"];
  /** Aborted when the tunnel ends, even before it is open. */
  readonly #ending = new AbortController();
  /** Open ends, oldest first. */
  readonly #opened: TunnelEnd[] = [];
  readonly #cleanups: (() => void)[] = [];
  #far: TunnelEnd | undefined;
  #bypass: Bypass | undefined;
  #interrupted = false;

  private constructor(options: CheckedTunnelOptions, flags: FarEndContext["flags"]) {
    this.#options = options;
    this.#flags = flags;
    if (options.device !== undefined) this.#opened.push(options.device);
  }

  /**
   * Begins to open a tunnel: listens for signals and `options.signal`.
   *
   * @param takesSignals True in the first worker of a script, which receives the signals for all.
   * @param flags Values of the script's own flags.
   */
  static async begin(
    options: CheckedTunnelOptions,
    takesSignals: boolean,
    flags: FarEndContext["flags"] = {},
  ): Promise<TunnelStart> {
    const start = new TunnelStart(options, flags);
    const { signal, signals } = options;
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

  /** Opens the far end, unless that is a device, which opens after the tunnel's own device. */
  async openFar(): Promise<void> {
    const { device, deviceOptions, far } = this.#options;
    if (far === undefined || deviceOptionsOf(far) !== undefined) return;
    const { signal } = this.#ending;
    const bypass = device === undefined ? await openBypass(deviceOptions) : undefined;
    this.#bypass = bypass;
    const context: FarEndContext = bypass === undefined
      ? { ...WITHOUT_TUNNEL, signal, flags: this.#flags }
      : {
        signal,
        flags: this.#flags,
        bypass: (address, interfaceName) => bypass.keep(address, interfaceName),
        lookUp: (look) => bypass.lookUp(look),
      };
    this.#far = await this.#attempt(() => openFarEnd(far, context));
  }

  /**
   * Opens the device, the far end if that is not open yet, and then the tunnel.
   *
   * @param open Opens the device of a script with several workers.
   * @param openFar Opens its far end.
   * @param link Link to its other workers.
   */
  async openNear(
    open: () => Promise<Device> = () => openCheckedDevice(this.#options.deviceOptions),
    openFar: () => Promise<TunnelEnd | undefined> = () => openFarEnd(this.#options.far),
    link?: WorkerLink,
  ): Promise<Tunnel> {
    const device = this.#options.device ?? await this.#attempt(open);
    this.#bypass?.opened();
    const { loop } = this.#options;
    const isOpen = this.#options.far === undefined || this.#far !== undefined;
    const far = isOpen ? this.#far : await this.#attempt(openFar);
    const ends = far === undefined ? [device] : [device, far];
    ends.forEach(checkEnd);
    const waits = ends.flatMap((end) => end.waits);
    await loop.acquire(waits.some(({ waitable }) => waitable !== undefined));
    try {
      if (this.#interrupted) this.#ending.signal.throwIfAborted();
      const [ending, bypass] = [this.#ending, this.#bypass];
      const tunnel = new Tunnel(device, far, this.#options, { ending, bypass }, link);
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
