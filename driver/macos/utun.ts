/** utun, the layer-3 tunnel interface of macOS, which a kernel control socket creates. */

import { LARGE_ROOM } from "../../lib/core/mod.ts";
import { FAMILY_HEADER_SIZE } from "../bsd/packet_io.ts";
import { Socket } from "../bsd/udp_socket.ts";
import { SOCK_DGRAM } from "../posix/udp_socket.ts";
import { setNonBlocking } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import { DARWIN, type Darwin } from "./libsystem.ts";
import { viewOf } from "../native_memory.ts";

// Specification
/** bsd/sys/socket.h 425, 536; bsd/sys/sys_domain.h 47, 48. */
export const PF_SYSTEM = 32;
export const SYSPROTO_CONTROL = 2;
export const AF_SYS_CONTROL = 2;
/** bsd/sys/kern_control.h 103: _IOWR('N', 3, struct ctl_info). */
export const CTLIOCGINFO = 0xc064_4e03n;
/** bsd/sys/kern_control.h 118: `struct ctl_info { u32 ctl_id; char ctl_name[96]; }`. */
export const CtlInfo = { Id: 0, Name: 4, Size: 100 } as const;
/**
 * bsd/sys/kern_control.h 141: `struct sockaddr_ctl { u8 sc_len, sc_family; u16 ss_sysaddr; u32 sc_id, sc_unit,
 * sc_reserved[5]; }`.
 */
export const SockaddrCtl = { Length: 0, Family: 1, System: 2, Id: 4, Unit: 8, Size: 32 } as const;
/** bsd/net/if_utun.h 51, 57, 63. */
export const UTUN_CONTROL_NAME = "com.apple.net.utun_control";
export const UTUN_OPT_IFNAME = 2;
export const UTUN_OPT_MAX_PENDING_PACKETS = 16;
const IFNAMSIZ = 16;

// Implementation
/** Packets that can wait in the socket; further ones wait in the interface queue. The system default is 1. */
const MAX_PENDING = 64;
/** Receive buffer for these packets (bytes). If the system allows less, it drops and counts what does not fit. */
const RECEIVE_BUFFER = MAX_PENDING * (LARGE_ROOM + FAMILY_HEADER_SIZE);

/**
 * Returns the unit for an interface name: its number plus 1, or 0 to let the system choose.
 *
 * @throws {Deno.errors.NotSupported} for a name that macOS does not allow.
 */
export function unitOf(name: string): number {
  if (name === "utun%d" || name === "tun%d") return 0;
  const number = /^utun(0|[1-9]\d{0,8})$/.exec(name)?.[1];
  if (number !== undefined) return Number(number) + 1;
  throw new Deno.errors.NotSupported(
    `Cannot open device "${name}": name must be utun0, utun1 and so on, or "utun%d", on macOS`,
  );
}

/** Returns the `struct sockaddr_ctl` of a kernel control. */
export function sockaddrCtl(id: number, unit: number): Uint8Array<ArrayBuffer> {
  const address = new Uint8Array(SockaddrCtl.Size);
  const view = viewOf(address);
  view.setUint8(SockaddrCtl.Length, SockaddrCtl.Size);
  view.setUint8(SockaddrCtl.Family, PF_SYSTEM);
  view.setUint16(SockaddrCtl.System, AF_SYS_CONTROL, true);
  view.setUint32(SockaddrCtl.Id, id, true);
  view.setUint32(SockaddrCtl.Unit, unit, true);
  return address;
}

/** Returns a `struct ctl_info` that requests the ID of the utun control. */
function utunInfo(): Uint8Array<ArrayBuffer> {
  const info = new Uint8Array(CtlInfo.Size);
  new TextEncoder().encodeInto(UTUN_CONTROL_NAME, info.subarray(CtlInfo.Name));
  return info;
}

/** Reports whether the system supports utun, without creating an interface. Needs no privileges. */
export function hasUtun({ functions, ioctl }: Darwin): boolean {
  const fd = functions.socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) return false;
  const has = ioctl(fd, CTLIOCGINFO, utunInfo()) >= 0;
  functions.close(fd);
  return has;
}

/**
 * Creates an interface, which the system removes when the descriptor is closed.
 *
 * @throws {Deno.errors.PermissionDenied} when the process is not root.
 * @throws {DriverError} when another program has this interface open.
 */
export function openUtun(darwin: Darwin, name: string): { fd: number; name: string } {
  const { functions, errno } = darwin;
  const unit = unitOf(name);
  const failed = (operation: string) => openError(name, operation, errno());
  const fd = functions.socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) throw failed("socket");
  using undo = new DisposableStack();
  undo.defer(() => functions.close(fd));
  const info = utunInfo();
  if (darwin.ioctl(fd, CTLIOCGINFO, info) < 0) throw failed("CTLIOCGINFO");
  const address = sockaddrCtl(viewOf(info).getUint32(CtlInfo.Id, true), unit);
  if (functions.connect(fd, address, address.length) < 0) throw failed("connect");
  setNonBlocking(darwin, fd);
  const nameBytes = new Uint8Array(IFNAMSIZ);
  const size = Uint32Array.of(nameBytes.length);
  if (functions.getsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, nameBytes, size) < 0) {
    throw failed("getsockopt");
  }
  // Errors are ignored, because these options affect only performance.
  functions.setsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS, Uint32Array.of(MAX_PENDING), 4);
  functions.setsockopt(fd, Socket.SOL_SOCKET, Socket.SO_RCVBUF, Uint32Array.of(RECEIVE_BUFFER), 4);
  undo.move();
  return { fd, name: new TextDecoder().decode(nameBytes.subarray(0, nameBytes.indexOf(0))) };
}

function openError(name: string, operation: string, failed: number): Error {
  const remedies: Record<number, string> = {
    [Errno.EPERM]: DARWIN.asRoot,
    [Errno.EBUSY]: `another program has this device open: choose another number, or "utun%d"`,
    [Errno.ENOENT]: "this system has no utun",
  };
  return systemError(`open device "${name}"`, operation, failed, remedies[failed]);
}
