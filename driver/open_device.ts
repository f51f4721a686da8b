/** Opens devices from checked options: one for this thread, or the queues of one for several threads. */

import type { Device } from "../lib/core/mod.ts";
import { noDriver } from "./error.ts";
import type { CheckedDeviceOptions } from "./options.ts";
import type { DeviceShare } from "./share.ts";

/** Opens a device from checked options; otherwise like `openDevice`. */
export async function openCheckedDevice(options: CheckedDeviceOptions): Promise<Device> {
  switch (Deno.build.os) {
    case "linux":
      if (options.queues > 1) {
        throw new TypeError(
          `Cannot open a device with ${options.queues} queues: each needs a worker, and only a script module runs in ` +
            "workers: write `export default script(import.meta, …)`",
        );
      }
      return (await import("./linux/device.ts")).openTunQueues(options).device;
    case "darwin":
      return (await import("./macos/device.ts")).openUtunDevice(options);
    case "freebsd":
      return (await import("./freebsd/device.ts")).openFreeBsdDevice(options);
    case "windows":
      return await (await import("./windows/device.ts")).openWintunDevice(options);
    default:
      throw noDriver();
  }
}

/**
 * Opens a device with several queues: a device for the first queue, and a share of each other queue for another thread.
 *
 * @throws {Deno.errors.NotSupported} on systems other than Linux; otherwise like `openDevice`.
 */
export async function openDeviceQueues(
  options: CheckedDeviceOptions,
): Promise<{ device: Device; shares: DeviceShare[] }> {
  if (Deno.build.os !== "linux") {
    throw new Deno.errors.NotSupported(
      `Cannot open a device with ${options.queues} queues: only Linux has devices with several queues`,
    );
  }
  return (await import("./linux/device.ts")).openTunQueues(options);
}

/** Opens a queue of a device that another thread has opened. A failure closes the share's descriptor. */
export async function joinDevice(share: DeviceShare): Promise<Device> {
  return (await import("./linux/device.ts")).joinTunDevice(share);
}

/** Closes a share that no thread has joined. */
export async function dropShare({ fd }: DeviceShare): Promise<void> {
  (await import("./linux/libc.ts")).libc().close(fd);
}
