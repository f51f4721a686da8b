/** Reads ICMP errors about sent datagrams from a socket's error queue: IP_RECVERR (ip(7)), IPV6_RECVERR (ipv6(7)). */

import { addressOf as memoryAddress, setAddress } from "../native_memory.ts";
import { Mmsghdr } from "../posix/messages.ts";
import { Endpoint, type EndpointBytes } from "../udp_socket.ts";
import { Errno, errnoName } from "./errno.ts";
import { libc } from "./libc.ts";
import { Cmsghdr, PacketInfo } from "./local_control.ts";

// Specification
/** linux/in.h, linux/in6.h, linux/socket.h, linux/errqueue.h */
export const ErrorQueue = {
  IP_RECVERR: 11,
  IPV6_RECVERR: 25,
  MSG_ERRQUEUE: 0x2000,
  SO_EE_ORIGIN_ICMP: 2,
  SO_EE_ORIGIN_ICMP6: 3,
} as const;
/**
 * An error in the queue (linux/errqueue.h), followed by the `sockaddr` of its sender.
 *
 * ```c
 * struct sock_extended_err {
 *   __u32 ee_errno;
 *   __u8 ee_origin;
 *   __u8 ee_type;
 *   __u8 ee_code;
 *   __u8 ee_pad;
 *   __u32 ee_info;
 *   __u32 ee_data;
 * };
 * ```
 */
export const SockExtendedErr = { ee_errno: 0, ee_origin: 4, size: 16 } as const;

const { IPPROTO_IP, IPPROTO_IPV6 } = PacketInfo;

// Implementation
const WORD = 4;
const CONTROL_SIZE = 128;
/** Maximum number of errors taken per call; the others remain queued. */
const MAX_ERRORS = 64;

/** The error queue of one socket. */
export class SocketErrors {
  readonly #fd: number;
  readonly #libc = libc();
  readonly #onUnreachable: (endpoint: EndpointBytes, code: string) => void;
  readonly #header = new Uint32Array(Mmsghdr.size / WORD);
  readonly #endpoint: EndpointBytes = new Uint8Array(Endpoint.Size);
  readonly #control = new Uint8Array(CONTROL_SIZE);
  readonly #view = new DataView(this.#control.buffer);

  /** Enables the error queue of a socket. */
  constructor(fd: number, family: 4 | 6, onUnreachable: (endpoint: EndpointBytes, code: string) => void) {
    this.#fd = fd;
    this.#onUnreachable = onUnreachable;
    setAddress(this.#header, Mmsghdr.name / WORD, memoryAddress(this.#endpoint));
    setAddress(this.#header, Mmsghdr.control / WORD, memoryAddress(this.#control));
    const yes = Int32Array.of(1);
    this.#libc.setsockopt(fd, IPPROTO_IP, ErrorQueue.IP_RECVERR, yes, yes.byteLength);
    if (family === 6) {
      this.#libc.setsockopt(fd, IPPROTO_IPV6, ErrorQueue.IPV6_RECVERR, yes, yes.byteLength);
    }
  }

  /** Takes errors off the queue and reports unreachable peers; returns the number of errors taken. */
  drain(): number {
    const header = this.#header;
    let count = 0;
    for (; count < MAX_ERRORS; count++) {
      header[Mmsghdr.nameLength / WORD] = Endpoint.Ipv6Size;
      header[Mmsghdr.controlLength / WORD] = CONTROL_SIZE;
      if (this.#libc.recvmmsg(this.#fd, header, 1, ErrorQueue.MSG_ERRQUEUE, null) !== 1) break;
      this.#report(header[Mmsghdr.controlLength / WORD]!);
    }
    return count;
  }

  #report(controlLength: number): void {
    const view = this.#view;
    if (controlLength < Cmsghdr.size + SockExtendedErr.size) return;
    const level = view.getUint32(Cmsghdr.level, true);
    const type = view.getUint32(Cmsghdr.type, true);
    const isError = level === IPPROTO_IP && type === ErrorQueue.IP_RECVERR ||
      level === IPPROTO_IPV6 && type === ErrorQueue.IPV6_RECVERR;
    if (!isError) return;
    const origin = view.getUint8(Cmsghdr.size + SockExtendedErr.ee_origin);
    if (origin !== ErrorQueue.SO_EE_ORIGIN_ICMP && origin !== ErrorQueue.SO_EE_ORIGIN_ICMP6) return;
    const failed = view.getUint32(Cmsghdr.size + SockExtendedErr.ee_errno, true);
    // The kernel does path MTU discovery itself.
    if (failed === Errno.EMSGSIZE) return;
    this.#onUnreachable(this.#endpoint, errnoName(failed));
  }
}
