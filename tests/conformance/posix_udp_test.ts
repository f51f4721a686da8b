/**
 * UDP sockets that move one datagram a call keep what every end promises: BSD's code, with Linux's numbers.
 * Needs --allow-ffi.
 */

import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { BsdUdpSocket, openBsdUdpSocket, UDP_SYMBOLS } from "../../driver/bsd/udp_socket.ts";
import { addressOf, Endpoint, portOf } from "../../driver/mod.ts";
import { Errno, errnoName } from "../../driver/linux/errno.ts";
import { posix } from "../../driver/linux/libc.ts";
import { Socket } from "../../driver/linux/udp_socket.ts";
import type { SocketSystem } from "../../driver/posix/udp_socket.ts";
import { formatAddress, parseAddress } from "../../lib/address.ts";
import { UdpTransport } from "../../runtime/transport/udp.ts";
import { cable } from "../kit/cable.ts";
import { endConformance, type EndPair } from "./end.ts";

/** Linux, as BSD's code takes it. */
function linux() {
  const { functions, ...rest } = posix();
  const system = {
    ...rest,
    functions: { ...functions, ...Deno.dlopen("libc.so.6", UDP_SYMBOLS).symbols },
    AF_INET6: Socket.AF_INET6,
    SOL_SOCKET: Socket.SOL_SOCKET,
    SEND_BUFFER: [Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    hasLength: false,
    Errno,
    errnoName,
    keepTo: () => {},
  } satisfies SocketSystem;
  return system;
}

if (Deno.build.os === "linux") {
  const system = linux();
  for (const host of ["127.0.0.1", "::1"]) {
    endConformance(`UdpTransport on a BsdUdpSocket over ${host}`, (): EndPair => {
      const address = parseAddress(host);
      const sockets = [1, 2].map(() => new BsdUdpSocket(system, { address }));
      const [near, far] = cable(
        ...sockets.map((socket, i) => {
          const peer = { host, port: portOf(sockets[1 - i]!.local), family: address.family };
          return new UdpTransport(socket, peer);
        }) as [UdpTransport, UdpTransport],
      );
      return { near, far, mtu: 1500, least: 20, failsWithPeer: false };
    });
  }

  Deno.test("openBsdUdpSocket() opens by BSD's structures and numbers, and says why it cannot", () => {
    const calls: unknown[][] = [];
    const answer = (name: string, result: number) => (...args: unknown[]) => {
      calls.push([
        name,
        ...args.map((arg) => ArrayBuffer.isView(arg) ? new Uint8Array(arg.buffer).toHex() : arg),
      ]);
      return result;
    };
    const bsd = (boundInterface: { ipv4: number; ipv6: number } | undefined, index: number) => ({
      ...system,
      AF_INET6: 30,
      boundInterface,
      fcntl: answer("fcntl", 0),
      functions: {
        ...system.functions,
        socket: answer("socket", 7),
        setsockopt: answer("setsockopt", 0),
        bind: answer("bind", 0),
        getsockname: answer("getsockname", 0),
        if_nametoindex: answer("if_nametoindex", index),
        close: answer("close", 0),
      },
    });
    const darwin = { ipv4: 25, ipv6: 125 };
    const options = { address: parseAddress("fd00::7"), port: 4500, interface: "en0", ipv6Only: true };
    const socket = openBsdUdpSocket(bsd(darwin, 4), options);
    socket.close();
    const sockaddr = "1c1e119400000000fd000000000000000000000000000007" + "00000000";
    deepStrictEqual(calls, [
      ["socket", 30, 2, 17],
      ["fcntl", 7, 2, 1],
      ["fcntl", 7, 4, system.O_NONBLOCK],
      ["setsockopt", 7, 41, 27, "01000000", 4],
      ["setsockopt", 7, 0xffff, 0x1002, "00004000", 4],
      ["setsockopt", 7, 0xffff, 0x1001, "00004000", 4],
      ["if_nametoindex", "656e3000"],
      ["setsockopt", 7, 41, 125, "04000000", 4],
      ["bind", 7, sockaddr, 28],
      ["getsockname", 7, "00".repeat(28), "1c000000"],
      ["close", 7],
    ]);
    const ipv4 = socket.endpoint(parseAddress("192.0.2.1"), 80);
    strictEqual(ipv4.toHex(), "10020050c0000201" + "00".repeat(20));
    strictEqual(formatAddress(addressOf(ipv4, 4)), "192.0.2.1");
    strictEqual(ipv4.length, Endpoint.Size);
    throws(() => openBsdUdpSocket(bsd(undefined, 4), options), { name: "NotSupported" });
    throws(() => openBsdUdpSocket(bsd(darwin, 0), options), {
      message: /^Cannot use interface "en0": .*: there is no interface of this name$/,
    });
    deepStrictEqual(calls.at(-1), ["close", 7]);
  });
}
