/**
 * The operating system's devices, through FFI; a platform's code is imported when a device is opened.
 *
 * @module
 */

import type { Device } from "../lib/core/mod.ts";
import { checkNames } from "../lib/core/options.ts";
import { WITHOUT_DRIVER } from "./error.ts";
import { Bypass, coveringRoutes } from "./bypass.ts";
import { openPosix } from "./open_posix.ts";
import { checkDeviceOptions, DEVICE_OPTIONS, type DeviceOptions } from "./options.ts";
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
  DEVICE_OPTIONS,
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
 * Opens this machine's side of a tunnel: creates a TUN device (macOS: a utun; Windows: a Wintun adapter), or attaches
 * to one of that name that was made beforehand (Linux, FreeBSD), and sets it up as the options say. Closing it puts
 * everything back.
 *
 * On macOS a device is called `utunN`: the default name, or `utun%d`, has the system choose the number. Routes are
 * through the device alone; one to everywhere is made of two halves, beside the default route that is there.
 *
 * On FreeBSD it is called `tunN`, and routes are as on macOS. A crash leaves the interface, without addresses and
 * routes. One that was made beforehand loses its addresses and routes with the close, as FreeBSD has it.
 *
 * On Windows the first device loads wintun.dll, which then removes adapters of Wintun's generations before 0.14 that
 * other products may have installed.
 *
 * @throws {SyntaxError} when an address, route or rule does not parse; {@linkcode RangeError} for a name, MTU
 * or queue length out of range; {@linkcode TypeError} for an option that there is not, and for several queues, which are
 * a script's alone; nothing was touched.
 * @throws {Deno.errors.PermissionDenied} without root, `CAP_NET_ADMIN` or a device prepared for this user (Linux); on
 * macOS and FreeBSD, without root; on Windows, without an administrator's rights.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} on a system that Warren has no driver for, and for options that a system has
 * no counterpart for.
 * @throws {Deno.errors.NotFound} on Windows, without wintun.dll: `warren driver install`.
 * @throws {DriverError} when the system refuses for another reason, in its own words.
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  checkNames("open a device", options, DEVICE_OPTIONS);
  const checked = checkDeviceOptions(options);
  switch (Deno.build.os) {
    case "linux":
      if (checked.queues > 1) throw onlyForScripts(checked.queues);
      return (await import("./linux/device.ts")).openTunDevice(checked);
    case "darwin":
      return (await import("./macos/device.ts")).openUtunDevice(checked);
    case "freebsd":
      return (await import("./freebsd/device.ts")).openFreeBsdDevice(checked);
    case "windows":
      return await (await import("./windows/device.ts")).openWintunDevice(checked);
    default:
      throw noDriver();
  }
}

/** Several queues asked for where nothing but one thread is. */
function onlyForScripts(queues: number): TypeError {
  return new TypeError(
    `Cannot open a device with ${queues} queues: each takes a worker, and only a script's module runs in several: ` +
      "write `export default script(import.meta, …)`",
  );
}

/**
 * Opens the bypass of a tunnel whose device is about to have these options: host routes for its far end's own packets.
 * `undefined` on a system that has none yet.
 */
export async function openBypass(options: DeviceOptions): Promise<Bypass | undefined> {
  if (Deno.build.os !== "linux") return undefined;
  const checked = checkDeviceOptions(options);
  const { LinuxHostRoutes } = await import("./linux/host_routes.ts");
  const { MAIN_TABLE } = await import("./linux/netlink/routes.ts");
  return new Bypass(new LinuxHostRoutes(checked.name), coveringRoutes(checked, MAIN_TABLE));
}

/**
 * Opens a device of several queues: the first one's side of it, and a share of each other one for another thread. For
 * the runtime.
 *
 * @throws {Deno.errors.NotSupported} on other systems than Linux; else as {@linkcode openDevice}.
 */
export async function openDeviceQueues(
  options: DeviceOptions,
): Promise<{ device: Device; shares: DeviceShare[] }> {
  const checked = checkDeviceOptions(options);
  if (Deno.build.os !== "linux") {
    throw new Deno.errors.NotSupported(
      `Cannot open a device with ${checked.queues} queues: ${Deno.build.os} has none of several`,
    );
  }
  return (await import("./linux/device.ts")).openTunQueues(checked);
}

/** Serves a queue of a device that another thread has opened. What fails gives the share's descriptor back. */
export async function joinDevice(share: DeviceShare): Promise<Device> {
  return (await import("./linux/device.ts")).joinTunDevice(share);
}

/** Gives up a share that nobody has joined. */
export async function dropShare({ fd }: DeviceShare): Promise<void> {
  (await import("./linux/libc.ts")).libc().close(fd);
}

/** Makes a wakeup, which any thread can ring; or takes this thread's side of one that is there. */
export async function openWakeup(ends?: WakeupEnds): Promise<{ wakeup: Wakeup; ends: WakeupEnds }> {
  const { Wakeup, openWakeupEnds } = await import("./posix/wakeup.ts");
  const posix = (await import("./linux/libc.ts")).posix();
  const both = ends ?? openWakeupEnds(posix);
  return { wakeup: new Wakeup(posix, both), ends: both };
}

/** The function by which a worker without `--allow-read` gets the text of modules; see its file. */
export async function moduleReader(): Promise<(path: string) => string> {
  return (await import("./linux/module_text.ts")).readModuleText;
}

/**
 * Opens the wait of a loop.
 *
 * @throws {Deno.errors.NotSupported} on a system that Warren has no driver for.
 */
export async function openWaiter(): Promise<Waiter> {
  if (Deno.build.os === "windows") return new (await import("./windows/waiter.ts")).EventWaiter();
  const posix = await openPosix();
  if (posix === undefined) throw noDriver();
  return new (await import("./posix/waiter.ts")).PollWaiter(posix);
}

/** The signals that are ignored now; none where a system has no such thing. */
export async function ignoredSignals(): Promise<Deno.Signal[]> {
  const posix = await openPosix();
  return posix === undefined ? [] : (await import("./posix/signals.ts")).ignoredSignals(posix);
}

/**
 * Opens a UDP socket of the operating system.
 *
 * @throws {Deno.errors.AddrInUse} for a port that is taken; {@linkcode Deno.errors.PermissionDenied} for one that is
 * not allowed; {@linkcode Deno.errors.NotFound} for an interface that is not there; {@linkcode DriverError} otherwise.
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} on a system that Warren has no driver for.
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
