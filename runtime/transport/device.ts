/** Devices as far ends. */

import { openCheckedDevice } from "../../driver/open_device.ts";
import { checkDeviceOptions, type CheckedDeviceOptions, type DeviceOptions } from "../../driver/options.ts";
import type { Device } from "../../lib/core/mod.ts";

/** Options that each opener was created with, for scripts whose workers each open one queue of the device. */
const optionsOf = new WeakMap<object, CheckedDeviceOptions>();

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
  const checked = checkDeviceOptions(options);
  const open = () => openCheckedDevice(checked);
  optionsOf.set(open, checked);
  return open;
}

/** Returns the options of an opener created by {@linkcode device}; `undefined` for any other far end. */
export function deviceOptionsOf(far: object | undefined): CheckedDeviceOptions | undefined {
  return far === undefined ? undefined : optionsOf.get(far);
}
