/**
 * Devices and sockets of the operating system, through FFI. The code of a platform is imported on first use.
 *
 * @module
 */

import type { Device } from "../lib/core/mod.ts";
import { noDriver } from "./error.ts";
import { openCheckedDevice } from "./open_device.ts";
import { openPosix } from "./open_posix.ts";
import { checkDeviceOptions, type DeviceOptions } from "./options.ts";
import type { UdpSocket, UdpSocketOptions } from "./udp_socket.ts";
import type { Waiter } from "./waiter.ts";

export { DriverError, type DriverErrorOptions } from "./error.ts";
export { type DeviceOptions, parseRoute, type RouteOptions, type RuleOptions } from "./options.ts";
export { MemoryDevice, type MemoryDeviceOptions } from "./memory.ts";
export {
  addressOf,
  Endpoint,
  type EndpointBytes,
  formatEndpoint,
  portOf,
  type UdpSocket,
  type UdpSocketOptions,
} from "./udp_socket.ts";
export type { Waiter } from "./waiter.ts";

/**
 * Opens the local side of a tunnel: creates a TUN device (macOS: utun, Windows: Wintun adapter), or attaches to an
 * existing one of that name (Linux, FreeBSD, Windows), and configures it. Closing it undoes the configuration.
 *
 * **macOS**: devices are called `utunN`; with `utun%d` or the default name, the system chooses the number. A default
 * route is installed as two halves, which leave the existing one in place.
 * **FreeBSD**: devices are called `tunN`; routes as on macOS. After a crash the interface remains, without addresses and
 * routes. An existing interface loses its addresses and routes on close.
 * **Windows**: the first device loads wintun.dll, which removes adapters of Wintun before 0.14, even those of other
 * products.
 *
 * @throws {SyntaxError} when an address, route or rule does not parse; {@linkcode RangeError} for a name, MTU or queue
 * length out of range; {@linkcode TypeError} for an unknown option, and for several queues, which need a script module.
 * These errors leave the system untouched.
 * @throws {Deno.errors.PermissionDenied} on Linux without root, `CAP_NET_ADMIN` or a device prepared for this user; on
 * macOS and FreeBSD without root; on Windows without administrator rights.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} on a system without a driver, and for options that the system does not support.
 * @throws {Deno.errors.NotFound} on Windows without wintun.dll; `warren driver install` installs it.
 * @throws {DriverError} when the system refuses for another reason.
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  return await openCheckedDevice(checkDeviceOptions(options));
}

/**
 * Opens the waiter of a loop.
 *
 * @throws {Deno.errors.NotSupported} on a system without a driver.
 */
export async function openWaiter(): Promise<Waiter> {
  if (Deno.build.os === "windows") return new (await import("./windows/waiter.ts")).EventWaiter();
  const posix = await openPosix();
  if (posix === undefined) throw noDriver();
  return new (await import("./posix/waiter.ts")).PollWaiter(posix);
}

/**
 * Opens a UDP socket of the operating system.
 *
 * @throws {Deno.errors.AddrInUse} when the port is in use; {@linkcode Deno.errors.PermissionDenied} when it is not
 * allowed; {@linkcode Deno.errors.NotFound} when the interface does not exist; {@linkcode DriverError} otherwise.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} on a system without a driver.
 */
export async function openUdpSocket(options: UdpSocketOptions): Promise<UdpSocket> {
  switch (Deno.build.os) {
    case "linux":
      return new (await import("./linux/udp_socket.ts")).LinuxUdpSocket(options);
    case "darwin": {
      const { darwin } = await import("./macos/libsystem.ts");
      return (await import("./bsd/udp_socket.ts")).openBsdUdpSocket(darwin(), options);
    }
    case "freebsd": {
      const { freebsd } = await import("./freebsd/libc.ts");
      return (await import("./bsd/udp_socket.ts")).openBsdUdpSocket(freebsd(), options);
    }
    case "windows":
      return new (await import("./windows/udp_socket.ts")).WindowsUdpSocket(options);
    default:
      throw noDriver();
  }
}
