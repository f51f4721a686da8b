/** Devices as far ends. */

import { checkDeviceOptions, DEVICE_OPTIONS, type DeviceOptions, openDevice } from "../../driver/mod.ts";
import type { Device } from "../../lib/core/mod.ts";
import { checkOptions } from "../../lib/core/options.ts";

/** Options that each opener was created with, for scripts whose workers each open one queue of the device. */
const optionsOf = new WeakMap<object, DeviceOptions>();

/**
 * Far end on a second device of this machine. The device is created or attached to when the tunnel opens; its changes
 * to the system are undone when the tunnel closes. As a URL: `tun:NAME`.
 *
 * @throws {SyntaxError} when an address, route or rule does not parse.
 * @throws {RangeError} for a name, MTU or queue length out of range. The opener rejects with the errors of
 * `openDevice`.
 *
 * @example Relay between two devices
 * ```ts
 * import { device, script } from "@warren/tunnel";
 *
 * export default script(import.meta, { name: "left", far: device({ name: "right" }) }, (tunnel) => tunnel.run());
 * ```
 */
export function device(options: DeviceOptions = {}): () => Promise<Device> {
  checkOptions("open a device", options, DEVICE_OPTIONS);
  checkDeviceOptions(options);
  const open = () => openDevice(options);
  optionsOf.set(open, options);
  return open;
}

/** Returns the options of an opener created by {@linkcode device}; `undefined` for any other far end. */
export function deviceOptionsOf(far: object | undefined): DeviceOptions | undefined {
  return far === undefined ? undefined : optionsOf.get(far);
}
