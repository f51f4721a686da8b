/** utun, macOS's own layer-3 tunnel: an interface that a socket of the system's control protocol makes. */

import { SOCK_DGRAM, viewOf } from "../bsd/bsd.ts";
import { LARGE_ROOM } from "../../lib/core/mod.ts";
import { FAMILY_HEADER_SIZE } from "../bsd/packet_io.ts";
import { guard } from "../posix/libc.ts";
import { Errno, systemError } from "./errno.ts";
import { DARWIN, type Darwin } from "./libsystem.ts";

// Specification
/** bsd/sys/socket.h 425, 536; bsd/sys/sys_domain.h 47, 48. */
export const PF_SYSTEM = 32;
export const SYSPROTO_CONTROL = 2;
export const AF_SYS_CONTROL = 2;
/** bsd/sys/socket.h 161, 380. */
const SOL_SOCKET = 0xffff;
const SO_RCVBUF = 0x1002;
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
/** Packets that wait in the socket; more wait in the interface's queue. The system's own limit is one. */
const PENDING = 64;
/** Room for those (bytes). Where the system has a lower limit, what does not fit is dropped and counted. */
const RECEIVE_BUFFER = PENDING * (LARGE_ROOM + FAMILY_HEADER_SIZE);

/**
 * The unit that a name asks for, which is one more than its number; 0: the system chooses.
 *
 * @throws {Deno.errors.NotSupported} for a name that macOS gives no such device.
 */
export function unitOf(name: string): number {
  if (name === "utun%d" || name === "tun%d") return 0;
  const number = /^utun(0|[1-9]\d{0,8})$/.exec(name)?.[1];
  if (number !== undefined) return Number(number) + 1;
  throw new Deno.errors.NotSupported(
    `Cannot open device "${name}": macOS calls its devices utun0, utun1 and so on: use one of those, or "utun%d"`,
  );
}

/** Where the control of this number is to be connected to. */
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

/** The question for the control's number, a `struct ctl_info`. */
function utunInfo(): Uint8Array<ArrayBuffer> {
  const info = new Uint8Array(CtlInfo.Size);
  new TextEncoder().encodeInto(UTUN_CONTROL_NAME, info.subarray(CtlInfo.Name));
  return info;
}

/** Whether the system has utun. It makes no interface, and needs no privilege. */
export function hasUtun({ functions, ioctl }: Darwin): boolean {
  const fd = functions.socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) return false;
  const has = ioctl(fd, CTLIOCGINFO, utunInfo()) >= 0;
  functions.close(fd);
  return has;
}

/** Makes an interface; it lives as long as the descriptor. */
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
  guard(darwin, fd);
  const own = new Uint8Array(IFNAMSIZ);
  const size = Uint32Array.of(own.length);
  if (functions.getsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, own, size) < 0) throw failed("getsockopt");
  // These only make it faster: errors are ignored.
  functions.setsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_MAX_PENDING_PACKETS, Uint32Array.of(PENDING), 4);
  functions.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, Uint32Array.of(RECEIVE_BUFFER), 4);
  undo.move();
  return { fd, name: new TextDecoder().decode(own.subarray(0, own.indexOf(0))) };
}

function openError(name: string, operation: string, failed: number): Error {
  const remedies: Record<number, string> = {
    [Errno.EPERM]: DARWIN.asRoot,
    [Errno.EBUSY]: `another program has this device open: choose another number, or "utun%d"`,
    [Errno.ENOENT]: "this system has no utun",
  };
  return systemError(`open device "${name}"`, operation, failed, remedies[failed]);
}
