/** What opens a tunnel: its ends, one after the other, or nothing. */

import {
  checkDeviceOptions,
  type CheckedDeviceOptions,
  DEVICE_OPTIONS,
  type DeviceOptions,
  openDevice,
} from "../driver/mod.ts";
import type { Device, TunnelEnd } from "../lib/core/mod.ts";
import { checkNames, type OptionNames } from "../lib/options.ts";
import { currentLoop } from "./loop.ts";
import { openFarEnd } from "./transport/mod.ts";
import { Tunnel, type TunnelOptions } from "./tunnel.ts";
import { checkLimit } from "./watchdog.ts";
import type { WorkerLink } from "./workers/link.ts";

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
  const openNear = async () => options.device ?? await openDevice(deviceOptions(options));
  return await openTunnelOver(options, openNear, () => openFarEnd(options.far));
}

/** Checks what a tunnel is asked to be, without asking the system; returns what its device is. */
export function checkTunnelOptions(options: TunnelOptions): CheckedDeviceOptions {
  checkNames("open a tunnel", options, TUNNEL_OPTIONS);
  const { stages } = options;
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

/** Those that are the device's. */
function deviceOptions(options: TunnelOptions): DeviceOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => Object.hasOwn(DEVICE_OPTIONS, name)));
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
