/** What opens a tunnel: its ends, one after the other, or nothing. */

import { checkDeviceOptions, openDevice } from "../driver/mod.ts";
import type { Device, TunnelEnd } from "../lib/core/mod.ts";
import { currentLoop } from "./loop.ts";
import { openFarEnd } from "./transport/mod.ts";
import { Tunnel, type TunnelOptions } from "./tunnel.ts";
import { checkLimit } from "./watchdog.ts";
import type { WorkerLink } from "./workers/link.ts";

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
  checkLimit(options.watchdog);
  const loop = currentLoop();
  await using undo = new AsyncDisposableStack();
  const device = await openNear();
  undo.defer(() => closeWhole(device));
  const far = await openFar();
  if (far !== undefined) undo.defer(() => closeWhole(far));
  const farWaits = far?.waits?.some(({ waitable }) => waitable !== undefined) ?? far?.waitable !== undefined;
  await loop.acquire(device.waitable !== undefined || farWaits);
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
