/** TUN devices of FreeBSD (/dev/tun, tun(4)). */

import { BsdDevice } from "../bsd/device.ts";
import { Ifreq, Interface } from "../bsd/interface.ts";
import { SinglePacketIo } from "../bsd/packet_io.ts";
import { RouteSocket } from "../bsd/route_socket.ts";
import { checkSupported, Setup } from "../bsd/setup.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { cString, setNonBlocking } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import { FREEBSD, type FreeBsd, freebsd } from "./libc.ts";
import { viewOf } from "../native_memory.ts";

// Specification
/** sys/fcntl.h. */
const O_RDWR = 2;
/** net/if_tun.h: _IOR('t', 93, struct ifreq), _IOW('t', 94, int), _IOW('t', 96, int). */
export const TunRequest = {
  TUNGIFNAME: 0x4020_745dn,
  TUNSIFMODE: 0x8004_745en,
  TUNSIFHEAD: 0x8004_7460n,
} as const;
/** sys/sockio.h: _IOW('i', 121, struct ifreq). */
export const SIOCIFDESTROY = 0x8020_6979n;
/** net/if.h. */
const IFF_BROADCAST = 0x2;
const IFF_MULTICAST = 0x8000;

/**
 * Returns the device file for a name; `/dev/tun` lets the system choose the number.
 *
 * @throws {Deno.errors.NotSupported} for a name that FreeBSD does not allow.
 */
export function tunPath(name: string): string {
  if (name === "tun%d") return "/dev/tun";
  if (/^tun(0|[1-9]\d{0,4})$/.test(name)) return `/dev/${name}`;
  throw new Deno.errors.NotSupported(
    `Cannot open device "${name}": name must be tun0, tun1 and so on, or "tun%d", on FreeBSD`,
  );
}

function open(bsd: FreeBsd, name: string): { fd: number; link: Interface } {
  const path = tunPath(name);
  const { functions, errno, ioctl } = bsd;
  const fd = functions.open(cString(path), O_RDWR, 0);
  if (fd < 0) throw openError(path, errno());
  using undo = new DisposableStack();
  undo.defer(() => functions.close(fd));
  setNonBlocking(bsd, fd);
  const request = (operation: keyof typeof TunRequest, argument: Uint8Array<ArrayBuffer>) => {
    if (ioctl(fd, TunRequest[operation], argument) < 0) {
      throw systemError(`open "${path}"`, operation, errno());
    }
  };
  const ifreq = new Uint8Array(Ifreq.Size);
  request("TUNGIFNAME", ifreq);
  request("TUNSIFHEAD", encodeInt(1));
  // On a broadcast interface, unlike a point-to-point one, addresses have prefixes.
  request("TUNSIFMODE", encodeInt(IFF_BROADCAST | IFF_MULTICAST));
  const link = new Interface(bsd, new TextDecoder().decode(ifreq.subarray(0, ifreq.indexOf(0))));
  undo.move();
  return { fd, link };
}

function encodeInt(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setInt32(0, value, true);
  return bytes;
}

function openError(path: string, failed: number): Error {
  const remedies: Record<number, string> = {
    [Errno.EPERM]: FREEBSD.asRoot,
    [Errno.EACCES]: FREEBSD.asRoot,
    [Errno.EBUSY]: "another program has this device open",
    [Errno.ENOENT]: "load the kernel module with `kldload if_tuntap`",
  };
  return systemError(`open "${path}"`, "open", failed, remedies[failed]);
}

/**
 * Creates a TUN device, or attaches to the existing one of that name, and configures it. If a step fails, the steps
 * before it are undone.
 *
 * When the descriptor is closed, FreeBSD removes addresses and routes but keeps the interface. If it was created here,
 * `close` destroys it; after a crash it remains, and the next device reuses it.
 */
export function openFreeBsdDevice(options: CheckedDeviceOptions, load: () => FreeBsd = freebsd): BsdDevice {
  checkSupported(FREEBSD.system, options);
  const bsd = load();
  // Opening the device file creates the interface if it is missing.
  const existed = bsd.functions.if_nametoindex(cString(options.name)) !== 0;
  const { fd, link } = open(bsd, options.name);
  // FreeBSD does not destroy an interface whose descriptor is open.
  const remove = existed ? () => {} : () => link.destroy("SIOCIFDESTROY", SIOCIFDESTROY);
  using undo = new DisposableStack();
  undo.defer(remove);
  undo.defer(() => bsd.functions.close(fd));
  const setup = new Setup(bsd, link, false);
  undo.defer(() => setup.undo());
  setup.apply(options);
  const routeSocket = undo.use(new RouteSocket(bsd));
  const device = new BsdDevice({ bsd, fd, io: new SinglePacketIo(bsd), link, setup, routeSocket, remove });
  undo.move();
  return device;
}
