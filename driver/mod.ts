/**
 * Devices and sockets of the operating system, through FFI. The code of a platform is imported on first use.
 *
 * @module
 */

import type { Device } from "../lib/core/mod.ts";
import { WITHOUT_DRIVER } from "./error.ts";
import { Bypass, coveringRoutes } from "./bypass.ts";
import { openPosix } from "./open_posix.ts";
import { checkDeviceOptions, type CheckedDeviceOptions, type DeviceOptions } from "./options.ts";
import type { Wakeup } from "./posix/wakeup.ts";
import type { DeviceShare, WakeupEnds } from "./share.ts";
import type { UdpSocket, UdpSocketOptions } from "./udp_socket.ts";
import type { Waiter } from "./waiter.ts";

export { DriverError, type DriverErrorOptions } from "./error.ts";
export {
  checkDeviceOptions,
  type CheckedDeviceOptions,
  type CheckedRoute,
  type CheckedRule,
  type DeviceOptions,
  parseRoute,
  type RouteOptions,
  type RuleOptions,
} from "./options.ts";
export { type Bypass, MAX_BYPASSED } from "./bypass.ts";
export { MemoryDevice, type MemoryDeviceOptions } from "./memory.ts";
export {
  addressOf,
  clearLocal,
  Endpoint,
  type EndpointBytes,
  formatEndpoint,
  hasLocal,
  isAt,
  isFromLocal,
  mapAddress,
  MAX_DATAGRAM,
  portOf,
  type UdpSocket,
  type UdpSocketOptions,
  unmapAddress,
} from "./udp_socket.ts";
export type { Wakeup } from "./posix/wakeup.ts";
export type { DeviceShare, Offload, WakeupEnds } from "./share.ts";
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

/** Opens a device like {@linkcode openDevice}. */
export async function openCheckedDevice(options: CheckedDeviceOptions): Promise<Device> {
  switch (Deno.build.os) {
    case "linux":
      if (options.queues > 1) {
        throw new TypeError(
          `Cannot open a device with ${options.queues} queues: each needs a worker, and only a script module runs in ` +
            "workers: write `export default script(import.meta, …)`",
        );
      }
      return (await import("./linux/device.ts")).openTunDevice(options);
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
 * Opens the bypass of a tunnel whose device is about to get these options: host routes for its far end's own packets.
 * `undefined` on systems other than Linux.
 */
export async function openBypass(options: CheckedDeviceOptions): Promise<Bypass | undefined> {
  if (Deno.build.os !== "linux") return undefined;
  const { LinuxHostRoutes } = await import("./linux/host_routes.ts");
  const { MAIN_TABLE } = await import("./linux/netlink/routes.ts");
  return new Bypass(new LinuxHostRoutes(options.name), coveringRoutes(options, MAIN_TABLE));
}

/**
 * Opens a device with several queues: a device for the first queue, and a share of each other queue for another thread.
 *
 * @throws {Deno.errors.NotSupported} on systems other than Linux; otherwise like {@linkcode openDevice}.
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

/** Creates a wakeup, which any thread can signal, or opens an existing one from its two ends. */
export async function openWakeup(ends?: WakeupEnds): Promise<{ wakeup: Wakeup; ends: WakeupEnds }> {
  const { Wakeup, openWakeupEnds } = await import("./posix/wakeup.ts");
  const posix = (await import("./linux/libc.ts")).posix();
  const both = ends ?? openWakeupEnds(posix);
  return { wakeup: new Wakeup(posix, both), ends: both };
}

/** Returns a function that reads the text of modules for a worker without `--allow-read`. */
export async function moduleReader(): Promise<(path: string) => string> {
  return (await import("./linux/module_text.ts")).readModuleText;
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

/** Returns the signals that this process ignores; none on Windows. */
export async function ignoredSignals(): Promise<Deno.Signal[]> {
  const posix = await openPosix();
  return posix === undefined ? [] : (await import("./posix/signals.ts")).ignoredSignals(posix);
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

function noDriver(): Error {
  return new Deno.errors.NotSupported(
    `Cannot use this system: Warren has no driver for ${Deno.build.os} yet: ${WITHOUT_DRIVER}`,
  );
}
