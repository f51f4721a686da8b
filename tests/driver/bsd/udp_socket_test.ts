/** UDP sockets of the BSDs over functions of the test, which record their arguments. */

import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import type { Bsd } from "../../../driver/bsd/bsd.ts";
import { openBsdUdpSocket } from "../../../driver/bsd/udp_socket.ts";
import { FREEBSD } from "../../../driver/freebsd/libc.ts";
import { DARWIN } from "../../../driver/macos/libsystem.ts";
import { addressOf, Endpoint } from "../../../driver/mod.ts";
import { formatAddress, parseAddress } from "../../../lib/wire/address.ts";

Deno.test("openBsdUdpSocket() uses the structures and constants of the BSDs, and reports failures", () => {
  const calls: unknown[][] = [];
  const answer = (name: string, result: number) => (...args: unknown[]) => {
    calls.push([
      name,
      ...args.map((arg) => ArrayBuffer.isView(arg) ? new Uint8Array(arg.buffer).toHex() : arg),
    ]);
    return result;
  };
  const bsd = (boundInterface: Bsd["boundInterface"], index: number): Bsd => ({
    ...DARWIN,
    boundInterface,
    errno: () => 0,
    fcntl: answer("fcntl", 0),
    ioctl: answer("ioctl", 0),
    functions: {
      socket: answer("socket", 7),
      setsockopt: answer("setsockopt", 0),
      bind: answer("bind", 0),
      getsockname: answer("getsockname", 0),
      if_nametoindex: answer("if_nametoindex", index),
      close: answer("close", 0),
    } as unknown as Bsd["functions"],
  });
  const darwin = { ipv4: 25, ipv6: 125 };
  const options = { address: parseAddress("fd00::7"), port: 4500, interface: "en0", ipv6Only: true };
  const socket = openBsdUdpSocket(bsd(darwin, 4), options);
  socket.close();
  const sockaddr = "1c1e119400000000fd000000000000000000000000000007" + "00".repeat(24);
  deepStrictEqual(calls, [
    ["socket", 30, 2, 17],
    ["fcntl", 7, 2, 1],
    ["fcntl", 7, 4, DARWIN.O_NONBLOCK],
    ["setsockopt", 7, 41, 27, "01000000", 4],
    ["setsockopt", 7, 0xffff, 0x1002, "00004000", 4],
    ["setsockopt", 7, 0xffff, 0x1001, "00004000", 4],
    ["if_nametoindex", "656e3000"],
    ["setsockopt", 7, 41, 125, "04000000", 4],
    ["bind", 7, sockaddr, 28],
    ["getsockname", 7, "00".repeat(48), "1c000000"],
    ["close", 7],
  ]);
  const ipv4 = socket.endpoint(parseAddress("192.0.2.1"), 80);
  strictEqual(ipv4.toHex(), "10020050c0000201" + "00".repeat(40));
  strictEqual(formatAddress(addressOf(ipv4, 4)), "192.0.2.1");
  strictEqual(ipv4.length, Endpoint.Size);
  throws(() => openBsdUdpSocket(bsd(undefined, 4), options), { name: "NotSupported" });
  throws(() => openBsdUdpSocket(bsd(darwin, 0), options), {
    message: /^Cannot use interface "en0": .*: there is no interface of this name$/,
  });
  deepStrictEqual(calls.at(-1), ["close", 7]);
});

for (
  const [system, numbers, ipv4, ipv6] of [
    ["macOS", DARWIN, [0, 26], [41, 61]],
    ["FreeBSD", FREEBSD, [0, 7], [41, 36]],
  ] as const
) {
  Deno.test(`openBsdUdpSocket() on ${system} requests local addresses, and works without them if refused`, () => {
    for (const [address, option] of [["0.0.0.0", ipv4], ["::", ipv6]] as const) {
      for (const isRefused of [false, true]) {
        const asked: number[][] = [];
        const functions = {
          socket: () => 7,
          setsockopt: (_fd: number, level: number, name: number) => {
            const isLocal = level === option[0] && name === option[1];
            if (isLocal) asked.push([level, name]);
            return isLocal && isRefused ? -1 : 0;
          },
          bind: () => 0,
          getsockname: () => 0,
          close: () => 0,
        } as unknown as Bsd["functions"];
        const bsd: Bsd = { ...numbers, errno: () => 0, fcntl: () => 0, ioctl: () => 0, functions };
        const parsed = parseAddress(address);
        using plain = openBsdUdpSocket(bsd, { address: parsed });
        deepStrictEqual([plain.localAddresses, asked], [false, []]);
        using socket = openBsdUdpSocket(bsd, { address: parsed, localAddresses: true });
        deepStrictEqual([socket.localAddresses, asked], [!isRefused, [[...option]]]);
      }
    }
  });
}
