/**
 * Structures and constants of macOS and FreeBSD against the headers: those of xnu 11417.101.15, with line numbers, and
 * those of FreeBSD 11 to 14, which are the same.
 */

import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { type Bsd, BSD_SYMBOLS } from "../../../driver/bsd/bsd.ts";
import { BsdErrno } from "../../../driver/bsd/errno.ts";
import { Ifaliasreq, IfData, Ifreq, In6Aliasreq, Interface, Request } from "../../../driver/bsd/interface.ts";
import {
  IfMsghdr,
  MessageType,
  readInterfaceState,
  routeMessage,
  RtMsghdr,
} from "../../../driver/bsd/route_socket.ts";
import { checkSupported, halves } from "../../../driver/bsd/setup.ts";
import { linkSockaddr, netmask, sockaddr, SockaddrIn6 } from "../../../driver/bsd/sockaddr.ts";
import { SIOCIFDESTROY, tunPath, TunRequest } from "../../../driver/freebsd/device.ts";
import { FREEBSD } from "../../../driver/freebsd/libc.ts";
import * as freebsdErrno from "../../../driver/freebsd/errno.ts";
import { MsghdrX } from "../../../driver/macos/batch_io.ts";
import * as darwinErrno from "../../../driver/macos/errno.ts";
import { DARWIN, STACK_VARIADIC_SYMBOLS } from "../../../driver/macos/libsystem.ts";
import {
  CtlInfo,
  CTLIOCGINFO,
  SockaddrCtl,
  sockaddrCtl,
  unitOf,
  UTUN_CONTROL_NAME,
} from "../../../driver/macos/utun.ts";
import { checkDeviceOptions } from "../../../driver/options.ts";
import { formatAddress, formatCidr, parseAddress, parseCidr } from "../../../lib/wire/address.ts";

/** A system that records its calls. */
class FakeSystem {
  readonly told: string[] = [];
  readonly bsd: Bsd;

  constructor(numbers: typeof DARWIN | typeof FREEBSD) {
    const functions = { socket: (family: number) => family, close: () => 0, if_nametoindex: () => 7 };
    this.bsd = {
      ...numbers,
      functions: functions as unknown as Bsd["functions"],
      errno: () => 0,
      fcntl: () => 0,
      ioctl: (family, request, argument) => {
        this.told.push(`${family} ${request.toString(16)} ${argument.toHex()}`);
        return 0;
      },
    };
  }
}

const darwin = new FakeSystem(DARWIN).bsd;
const freebsd = new FakeSystem(FREEBSD).bsd;

/** sys/ioccom.h of both systems: direction, size, group and number. */
function ioc(direction: "R" | "W" | "WR", group: string, number: number, size: number): bigint {
  const bits = { R: 0x4000_0000, W: 0x8000_0000, WR: 0xc000_0000 }[direction];
  return BigInt(bits) | BigInt(size << 16 | group.charCodeAt(0) << 8 | number);
}

Deno.test("requests of ioctl() contain the size of their structure", () => {
  const { sizes } = DARWIN;
  const of: [bigint, bigint][] = [
    [Request.SIOCSIFFLAGS, ioc("W", "i", 16, Ifreq.Size)], // bsd/sys/sockio.h 88
    [Request.SIOCGIFFLAGS, ioc("WR", "i", 17, Ifreq.Size)], // bsd/sys/sockio.h 89
    [Request.SIOCGIFMTU, ioc("WR", "i", 51, Ifreq.Size)], // bsd/sys/sockio.h 113
    [Request.SIOCSIFMTU, ioc("W", "i", 52, Ifreq.Size)], // bsd/sys/sockio.h 114
    [DARWIN.SIOCAIFADDR, ioc("W", "i", 26, sizes.ifaliasreq)], // bsd/sys/sockio.h 95
    [DARWIN.SIOCAIFADDR_IN6, ioc("W", "i", 26, sizes.in6_aliasreq)], // bsd/netinet6/in6_var.h 632
    [CTLIOCGINFO, ioc("WR", "N", 3, CtlInfo.Size)], // bsd/sys/kern_control.h 103
    [FREEBSD.SIOCAIFADDR, ioc("W", "i", 43, FREEBSD.sizes.ifaliasreq)], // sys/sys/sockio.h
    [FREEBSD.SIOCAIFADDR_IN6, ioc("W", "i", 27, FREEBSD.sizes.in6_aliasreq)], // sys/netinet6/in6_var.h
    [SIOCIFDESTROY, ioc("W", "i", 121, Ifreq.Size)], // sys/sys/sockio.h
    [TunRequest.TUNGIFNAME, ioc("R", "t", 93, Ifreq.Size)], // sys/net/if_tun.h
    [TunRequest.TUNSIFMODE, ioc("W", "t", 94, 4)], // sys/net/if_tun.h
    [TunRequest.TUNSIFHEAD, ioc("W", "t", 96, 4)], // sys/net/if_tun.h
  ];
  for (const [i, [number, computed]] of of.entries()) strictEqual(number, computed, `request ${i}`);
});

/** Returns the end of a member, where the next one starts, before alignment. */
const after = (offset: number, size: number, alignment: number) =>
  Math.ceil((offset + size) / alignment) * alignment;

Deno.test("offsets follow from the members before them", () => {
  const name = 16;
  const [sockaddrIn, sockaddrIn6, int, long] = [16, SockaddrIn6.Size, 4, 8];
  // struct ifaliasreq: bsd/net/if.h 390, sys/net/if.h
  strictEqual(Ifaliasreq.Address, name);
  strictEqual(Ifaliasreq.Destination, after(Ifaliasreq.Address, sockaddrIn, 1));
  strictEqual(Ifaliasreq.Mask, after(Ifaliasreq.Destination, sockaddrIn, 1));
  strictEqual(DARWIN.sizes.ifaliasreq, after(Ifaliasreq.Mask, sockaddrIn, 4));
  strictEqual(FREEBSD.sizes.ifaliasreq, after(Ifaliasreq.Mask, sockaddrIn, 4) + int);
  // struct in6_aliasreq: bsd/netinet6/in6_var.h 402, 118, sys/netinet6/in6_var.h
  strictEqual(In6Aliasreq.Address, name);
  strictEqual(In6Aliasreq.Mask, after(name, 2 * sockaddrIn6, 4));
  strictEqual(In6Aliasreq.Flags, after(In6Aliasreq.Mask, sockaddrIn6, 4));
  strictEqual(In6Aliasreq.ValidTime, after(In6Aliasreq.Flags, int, long) + 2 * long);
  strictEqual(In6Aliasreq.PreferredTime, In6Aliasreq.ValidTime + int);
  strictEqual(DARWIN.sizes.in6_aliasreq, after(In6Aliasreq.PreferredTime, int, long));
  strictEqual(FREEBSD.sizes.in6_aliasreq, after(In6Aliasreq.PreferredTime, int + int, long));
  // struct rt_msghdr, struct rt_metrics: bsd/net/route.h 158, 75; sys/net/route.h, in longs
  deepStrictEqual(RtMsghdr, {
    Length: 0,
    Version: 2,
    Type: 3,
    Index: 4,
    Flags: after(4, 2, 4),
    Addresses: 12,
    Pid: 16,
    Sequence: 20,
  });
  strictEqual(DARWIN.sizes.rt_msghdr, RtMsghdr.Sequence + 3 * int + int + 14 * int);
  strictEqual(FREEBSD.sizes.rt_msghdr, after(RtMsghdr.Sequence, 3 * int, long) + long + 14 * long);
  // struct if_msghdr, struct if_data: bsd/net/if.h 179, bsd/net/if_var.h 169; sys/net/if.h
  deepStrictEqual(IfMsghdr, {
    Length: 0,
    Type: 3,
    Flags: 8,
    Index: 12,
    Mtu: after(12, 2, 8) + 8,
    MinSize: 28,
  });
  // struct if_msghdr2, struct if_data64: bsd/net/if.h 220, bsd/net/if_var.h 207
  strictEqual(DARWIN.counters.data, after(12, 2, 4) + 4 * int);
  strictEqual(DARWIN.counters.queueDrops, after(12, 2, 4) + 2 * int);
  // Eight bytes, MTU and metric, the baud rate; then counters of eight bytes.
  strictEqual(IfData.Mtu, 8);
  strictEqual(IfData.InPackets, 8 + 2 * int + long);
  const counters = [
    "InPackets",
    "InErrors",
    "OutPackets",
    "OutErrors",
    ,
    "InBytes",
    "OutBytes",
    ,
    ,
    "InQueueDrops",
  ] as const;
  counters.forEach((name, i) =>
    name !== undefined && strictEqual(IfData[name], IfData.InPackets + i * long, name)
  );
  strictEqual(FREEBSD.counters.queueDrops, FREEBSD.counters.data + IfData.InQueueDrops + long);
  // struct sockaddr_dl: bsd/net/if_dl.h 96, sys/net/if_dl.h
  strictEqual(DARWIN.sizes.sockaddr_dl, 8 + 12);
  strictEqual(FREEBSD.sizes.sockaddr_dl, 8 + 46);
  // struct ctl_info, struct sockaddr_ctl: bsd/sys/kern_control.h 118, 141
  strictEqual(CtlInfo.Size, CtlInfo.Name + 96);
  strictEqual(SockaddrCtl.Size, SockaddrCtl.Unit + int + 5 * int);
  ok(UTUN_CONTROL_NAME.length < 96);
  // struct msghdr_x, in words of four bytes: bsd/sys/socket_private.h 403
  const pointer = 2;
  strictEqual(MsghdrX.Iov, after(pointer, 1, pointer));
  strictEqual(MsghdrX.IovLength, MsghdrX.Iov + pointer);
  strictEqual(MsghdrX.Flags, after(MsghdrX.IovLength, 1, pointer) + pointer + 1);
  strictEqual(MsghdrX.DataLength, MsghdrX.Flags + 1);
  strictEqual(MsghdrX.Words, MsghdrX.DataLength + pointer);
});

/** Removes blanks from hexadecimal digits. */
function golden(...parts: string[]): string {
  return parts.join("").replaceAll(/[\s|]/g, "");
}
const ZEROS = (count: number) => "00".repeat(count);

Deno.test("sockaddr() and linkSockaddr() start with one byte of length and one of family", () => {
  const four = sockaddr(darwin, parseAddress("10.9.0.1"));
  strictEqual(four.toHex(), golden("10 02 0000 0a090001", ZEROS(8)));
  const six = (family: string) => golden(`1c ${family} 0000 00000000 fe80${ZEROS(13)}01 00000000`);
  strictEqual(sockaddr(darwin, parseAddress("fe80::1")).toHex(), six("1e"));
  strictEqual(sockaddr(freebsd, parseAddress("fe80::1")).toHex(), six("1c"));
  strictEqual(linkSockaddr(darwin, 0x0102).toHex(), golden("14 12 0201", ZEROS(16)));
  strictEqual(linkSockaddr(freebsd, 0x0102).toHex(), golden("36 12 0201", ZEROS(50)));
});

Deno.test("sockaddrCtl() is struct sockaddr_ctl", () => {
  strictEqual(sockaddrCtl(5, 8).toHex(), golden("20 20 0200 05000000 08000000", ZEROS(20)));
});

Deno.test("Interface.addAddress() is struct ifaliasreq and struct in6_aliasreq of FreeBSD", () => {
  const system = new FakeSystem(FREEBSD);
  const own = new Interface(system.bsd, "tun7");
  own.addAddress(parseCidr("10.9.0.1/20"), false);
  own.addAddress(parseCidr("fd00::1/64"), false);
  const name = `74756e37${ZEROS(12)}`;
  deepStrictEqual(system.told.map((line) => line.replaceAll(" ", "")), [
    golden(
      "2 8044692b",
      name,
      `10020000 0a090001 ${ZEROS(8)} | ${ZEROS(16)} | 10020000 fffff000 ${ZEROS(8)} | 00000000`,
    ),
    golden(
      "28 8088691b",
      name,
      `1c1c0000 00000000 fd00${ZEROS(13)}01 00000000 | ${ZEROS(28)} |`,
      `1c1c0000 00000000 ${"ff".repeat(8)}${ZEROS(8)} 00000000 |`,
      `20000000 ${ZEROS(16)} ffffffff ffffffff | 00000000 00000000`,
    ),
  ]);
});

/** Returns a message without its sequence number. */
function bytesOf(message: Uint8Array): string {
  return message.fill(0, RtMsghdr.Sequence, RtMsghdr.Sequence + 4).toHex();
}

Deno.test("routeMessage() is struct rt_msghdr with its addresses, each rounded up", () => {
  const route = { to: parseCidr("10.1.2.3/16"), via: undefined };
  const [to, mask] = [`10020000 0a010000 ${ZEROS(8)}`, `10020000 ffff0000 ${ZEROS(8)}`];
  const start = (length: string) => `${length} 05 01 0000 0000 01080000 07000000`;
  strictEqual(
    bytesOf(routeMessage(darwin, MessageType.RTM_ADD, route, 9)),
    golden(start("9000"), ZEROS(76), to, `14120900 ${ZEROS(16)}`, mask),
  );
  strictEqual(
    bytesOf(routeMessage(freebsd, MessageType.RTM_ADD, route, 9)),
    golden(start("f000"), ZEROS(136), to, `36120900 ${ZEROS(50)} | 0000`, mask),
  );
});

Deno.test("routeMessage() queries the interface of a route", () => {
  const route = { to: parseCidr("10.1.2.3/32"), via: undefined };
  strictEqual(
    bytesOf(routeMessage(darwin, MessageType.RTM_GET, route, 0)),
    golden(
      "8000 05 04 0000 0000 05080000 11000000",
      ZEROS(76),
      `10020000 0a010203 ${ZEROS(8)} | 14120000 ${ZEROS(16)}`,
    ),
  );
});

Deno.test("routeMessage() of IPv6 by a next hop clears the host bits", () => {
  const route = { to: parseCidr("2001:db8::ffff/32"), via: parseAddress("fd00::2") };
  const six = (address: string) => golden("1c1e0000 00000000", address, "00000000");
  strictEqual(
    bytesOf(routeMessage(darwin, MessageType.RTM_DELETE, route, 9)),
    golden(
      "b000 05 02 0000 0000 03080000 07000000",
      ZEROS(76),
      six(`20010db8${ZEROS(12)}`),
      six(`fd00${ZEROS(13)}02`),
      six(`ffffffff${ZEROS(12)}`),
    ),
  );
});

Deno.test("readInterfaceState() is undefined for truncated and other messages", () => {
  const message = new Uint8Array(IfMsghdr.MinSize).fill(0xa5);
  message.set([112, 0, 5, MessageType.RTM_IFINFO]);
  message.set([9, 0], IfMsghdr.Index);
  message.set([0x51, 0x80, 0, 0], IfMsghdr.Flags);
  message.set([0xdc, 5, 0, 0], IfMsghdr.Mtu);
  deepStrictEqual(readInterfaceState(message, 9), { flags: 0x8051, mtu: 1500 });
  strictEqual(readInterfaceState(message, 8), undefined);
  for (let length = 0; length < message.length; length++) {
    strictEqual(readInterfaceState(message.subarray(0, length), 9), undefined);
  }
  message[IfMsghdr.Type] = MessageType.RTM_ADD;
  strictEqual(readInterfaceState(message, 9), undefined);
});

Deno.test("netmask() and Prefix.network are the mask and the network of a prefix", () => {
  for (
    const [prefix, mask, first] of [
      ["10.9.7.1/0", "0.0.0.0", "0.0.0.0"],
      ["10.9.7.1/9", "255.128.0.0", "10.0.0.0"],
      ["10.9.7.1/24", "255.255.255.0", "10.9.7.0"],
      ["10.9.7.1/32", "255.255.255.255", "10.9.7.1"],
      ["fd00:ffff::1/20", "ffff:f000::", "fd00:f000::"],
      ["fd00::1/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::1"],
    ] as const
  ) {
    strictEqual(formatAddress(netmask(parseCidr(prefix))), mask);
    strictEqual(formatAddress(parseCidr(prefix).network), first);
  }
});

Deno.test("halves() makes two routes of a default route, and one of any other", () => {
  const of = (route: string) =>
    checkDeviceOptions({ route }).routes.flatMap(halves).map(({ to, via }) =>
      `${formatCidr(to)} ${via === undefined ? "" : formatAddress(via)}`.trim()
    );
  deepStrictEqual(of("default via 10.9.0.2"), ["0.0.0.0/1 10.9.0.2", "128.0.0.0/1 10.9.0.2"]);
  deepStrictEqual(of("::/0"), ["::/1", "8000::/1"]);
  deepStrictEqual(of("0.0.0.0/1"), ["0.0.0.0/1"]);
});

Deno.test("checkSupported() refuses options that the BSDs do not support", () => {
  throws(
    () => checkSupported("FreeBSD", checkDeviceOptions({ route: "10.0.0.0/8 table 7" })),
    new Deno.errors.NotSupported(
      'Cannot open device "tun%d": FreeBSD has no routing tables that a route can choose',
    ),
  );
});

Deno.test("unitOf() and tunPath() return the unit and the file of a name", () => {
  deepStrictEqual(["tun%d", "utun%d", "utun0", "utun12"].map(unitOf), [0, 0, 1, 13]);
  deepStrictEqual(["tun%d", "tun0", "tun12"].map(tunPath), ["/dev/tun", "/dev/tun0", "/dev/tun12"]);
  for (const name of ["utun", "utun01", "utun-1", "tun3", "wg0", "utun%d0"]) {
    throws(() => unitOf(name), Deno.errors.NotSupported);
  }
  for (const name of ["tun", "tun01", "utun3", "tun123456", "../tun1"]) {
    throws(() => tunPath(name), Deno.errors.NotSupported);
  }
});

Deno.test("variadic functions get their arguments on the stack on Apple's arm64", () => {
  const registers = 8;
  for (const { parameters } of Object.values(STACK_VARIADIC_SYMBOLS)) {
    strictEqual(parameters.length, registers + 1);
  }
  strictEqual(STACK_VARIADIC_SYMBOLS.ioctl.parameters[registers], "buffer");
  strictEqual(STACK_VARIADIC_SYMBOLS.fcntl.parameters[registers], "i32");
});

Deno.test("no shared function of the BSDs is variadic", () => {
  for (const name of ["open", "fcntl", "ioctl"]) ok(!(name in BSD_SYMBOLS), name);
});

Deno.test("systemError() knows the error numbers of each system", () => {
  const of = (errors: typeof darwinErrno | typeof freebsdErrno, number: number) =>
    errors.systemError("open it", "open", number, "do this");
  strictEqual(of(darwinErrno, 102).message, "Cannot open it: EOPNOTSUPP (102): do this");
  strictEqual(of(darwinErrno, 45).message, "Cannot open it: ENOTSUP (45): do this");
  strictEqual(of(freebsdErrno, 45).message, "Cannot open it: EOPNOTSUPP (45): do this");
  ok(of(darwinErrno, 45) instanceof Deno.errors.NotSupported);
  ok(of(darwinErrno, 1) instanceof Deno.errors.PermissionDenied);
  ok(of(darwinErrno, 6) instanceof Deno.errors.NotFound);
  strictEqual(darwinErrno.errnoName(35), "EAGAIN");
  strictEqual(darwinErrno.errnoName(200), "errno 200");
  for (const { Errno } of [darwinErrno, freebsdErrno]) {
    strictEqual(new Set(Object.values(Errno)).size, Object.keys(Errno).length, "no number twice");
  }
  strictEqual(BsdErrno.ENOBUFS, 55);
});
