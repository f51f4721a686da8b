/** A second device as a far end. */

import { checkDeviceOptions, DEVICE_OPTIONS, type DeviceOptions, openDevice } from "../../driver/mod.ts";
import type { Device } from "../../lib/core/mod.ts";
import { checkNames } from "../../lib/core/options.ts";

/** What {@linkcode device} was given: several workers open a queue each. */
const optionsOf = new WeakMap<object, DeviceOptions>();

/**
 * Joins the tunnel to another device of this machine, made or attached to when the tunnel opens, and put back
 * when it closes. As a URL: `tun:NAME`.
 *
 * @throws {SyntaxError} when an address, route or rule does not parse; {@linkcode RangeError} for a name, MTU
 * or queue length out of range. What it returns throws as `openDevice` does.
 *
 * @example
 * ```ts
 * import { device, script } from "@warren/tunnel";
 *
 * export default script(import.meta, { name: "left", far: device({ name: "right" }) }, (tunnel) => tunnel.run());
 * ```
 */
export function device(options: DeviceOptions = {}): () => Promise<Device> {
  checkNames("open a device", options, DEVICE_OPTIONS);
  checkDeviceOptions(options);
  const open = () => openDevice(options);
  optionsOf.set(open, options);
  return open;
}

/** The options of a far end that {@linkcode device} opens; `undefined` of any other one. */
export function deviceOptionsOf(far: object | undefined): DeviceOptions | undefined {
  return far === undefined ? undefined : optionsOf.get(far);
}
