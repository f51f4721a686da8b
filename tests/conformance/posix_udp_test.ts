/**
 * UDP sockets that move one datagram a call keep what every end promises: BSD's code, with Linux's numbers.
 * Needs --allow-ffi.
 */

import { type Bsd, BSD_SYMBOLS } from "../../driver/bsd/bsd.ts";
import { BsdUdpSocket } from "../../driver/bsd/udp_socket.ts";
import { portOf } from "../../driver/mod.ts";
import { Errno } from "../../driver/linux/errno.ts";
import { posix } from "../../driver/linux/libc.ts";
import { LOCAL_CONTROL } from "../../driver/linux/local_control.ts";
import { Socket } from "../../driver/linux/udp_socket.ts";
import type { SocketSystem } from "../../driver/posix/udp_socket.ts";
import { parseAddress } from "../../lib/wire/address.ts";
import { UdpTransport } from "../../runtime/transport/udp_transport.ts";
import { cable } from "../kit/cable.ts";
import { endConformance, type EndPair } from "./end.ts";

/** Symbols of BSD; glibc has no sysctl for new programs. */
const { sysctl: _, ...SYMBOLS } = BSD_SYMBOLS;

/** Linux, as BSD's code takes it. */
function linux() {
  const { functions, ...rest } = posix();
  const system = {
    ...rest,
    functions: { ...Deno.dlopen("libc.so.6", SYMBOLS).symbols, ...functions, sysctl: () => -1 },
    AF_INET6: Socket.AF_INET6,
    SOL_SOCKET: Socket.SOL_SOCKET,
    SEND_BUFFER: [Socket.SO_SNDBUF],
    RECEIVE_BUFFER: [Socket.SO_RCVBUF],
    IPV6_V6ONLY: Socket.IPV6_V6ONLY,
    localControl: LOCAL_CONTROL,
    hasLength: false,
    Errno,
    bindToInterface: () => {},
  } satisfies SocketSystem & Pick<Bsd, "functions">;
  return system;
}

if (Deno.build.os === "linux") {
  const system = linux();
  for (const host of ["127.0.0.1", "::1"]) {
    endConformance(`UdpTransport on a BsdUdpSocket over ${host}`, (): EndPair => {
      const address = parseAddress(host);
      const sockets = [1, 2].map(() => new BsdUdpSocket(system, { address, localAddresses: true }));
      const [near, far] = cable(
        ...sockets.map((socket, i) => {
          const peer = { host, port: portOf(sockets[1 - i]!.local), family: address.family };
          return new UdpTransport(socket, { peer: [peer] });
        }) as [UdpTransport, UdpTransport],
      );
      return { near, far, mtu: 1500, least: 20, failsWithPeer: false };
    });
  }
}
