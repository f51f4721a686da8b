/** TUN devices of a program without offload: one packet per read, without a header before it. */

import { errno, libc } from "../../driver/linux/libc.ts";
import { cString } from "../../driver/posix/libc.ts";

// Specification
// fcntl.h
const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
// linux/if_tun.h; linux/if.h, struct ifreq
const TUNSETIFF = 0x400454can;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const Ifreq = { Name: 0, Flags: 16, Size: 40 } as const;

/** Creates a device or attaches to one; returns its descriptor, which this process keeps open. */
export function openPlainTun(name: string): number {
  const { open, ioctl } = libc();
  const fd = open(cString("/dev/net/tun"), O_RDWR | O_NONBLOCK, 0);
  const request = new Uint8Array(Ifreq.Size);
  request.set(cString(name), Ifreq.Name);
  new DataView(request.buffer).setUint16(Ifreq.Flags, IFF_TUN | IFF_NO_PI, true);
  if (ioctl(fd, TUNSETIFF, request) < 0) throw new Error(`Cannot open device "${name}": errno ${errno()}`);
  return fd;
}
