/** An rtnetlink socket, which receives messages only from the kernel. */

import { Errno, systemError } from "../errno.ts";
import { errno, libc } from "../libc.ts";
import { type Message, readMessages } from "./message.ts";
import { viewOf } from "../../native_memory.ts";

// Specification: include/linux/socket.h, include/uapi/linux/netlink.h
/**
 * ```c
 * struct sockaddr_nl {
 *   sa_family_t nl_family;   // and two bytes of padding
 *   __u32 nl_pid;            // 0: the kernel
 *   __u32 nl_groups;
 * };
 * ```
 */
const SOCKADDR_NL = { family: 0, pid: 4, groups: 8, size: 12 } as const;
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const MSG_TRUNC = 0x20;
/** Multicast groups (include/uapi/linux/rtnetlink.h). `Ipv6Rule` is the bit of RTNLGRP_IPV6_RULE (19). */
export const RTMGRP = {
  Link: 0x1,
  Ipv4Address: 0x10,
  Ipv4Route: 0x40,
  Ipv4Rule: 0x80,
  Ipv6Address: 0x100,
  Ipv6Route: 0x400,
  Ipv6Rule: 0x4_0000,
} as const;
/** Flag of a non-blocking socket (include/uapi/asm-generic/fcntl.h). */
export const SOCK_NONBLOCK = 0o4000;

// Implementation
// rtnetlink datagrams are at most 32 KiB (NLMSG_GOODSIZE, af_netlink.c).
const RECEIVE_BYTES = 65536;

/** An rtnetlink socket. */
export class NetlinkSocket {
  #descriptor: number;
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);
  readonly #sender = new Uint8Array(SOCKADDR_NL.size);
  readonly #senderLength = new Uint32Array(1);

  /** Opens a socket that joins multicast groups; `flags` are ORed into the socket type. */
  constructor(groups: number, flags: number) {
    const { socket, bind } = libc();
    this.#descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);
    if (this.#descriptor < 0) throw systemError("open a netlink socket", "socket", errno());
    const address = new Uint8Array(SOCKADDR_NL.size);
    const view = viewOf(address);
    view.setUint16(SOCKADDR_NL.family, AF_NETLINK, true);
    view.setUint32(SOCKADDR_NL.groups, groups, true);
    if (bind(this.#descriptor, address, SOCKADDR_NL.size) < 0) {
      const error = systemError("bind a netlink socket", "bind", errno());
      this.close();
      throw error;
    }
  }

  /**
   * Descriptor of the socket.
   *
   * @throws {Deno.errors.BadResource} after `close`.
   */
  get descriptor(): number {
    if (this.#descriptor < 0) throw new Deno.errors.BadResource("Cannot use netlink: it was closed");
    return this.#descriptor;
  }

  /** Sets an option, if the kernel supports it. */
  set(level: number, option: number, value: Uint8Array<ArrayBuffer>): void {
    libc().setsockopt(this.descriptor, level, option, value, value.length);
  }

  /** Sends a message; returns 0 or an error number. */
  send(message: Uint8Array<ArrayBuffer>): number {
    for (;;) {
      const count = libc().sendto(this.descriptor, message, BigInt(message.length), 0, null, 0);
      const error = count < 0 ? errno() : 0;
      if (error !== Errno.EINTR) return error;
    }
  }

  /** Receives a datagram; returns its messages, which are valid until the next call, or an error number. */
  receive(): Message[] | number {
    for (;;) {
      this.#senderLength[0] = SOCKADDR_NL.size;
      const count = libc().recvfrom(
        this.descriptor,
        this.#buffer,
        BigInt(this.#buffer.length),
        MSG_TRUNC,
        this.#sender,
        this.#senderLength,
      );
      if (count < 0) {
        const error = errno();
        if (error === Errno.EINTR) continue;
        return error;
      }
      if (count > this.#buffer.length) return Errno.EMSGSIZE;
      // Other processes can also send to this socket; the kernel's port ID is 0.
      if (viewOf(this.#sender).getUint32(SOCKADDR_NL.pid, true) !== 0) continue;
      return readMessages(this.#buffer.subarray(0, count));
    }
  }

  /** Reads all queued messages; returns true if one is relevant, or if the kernel dropped any from a full queue. */
  drain(isRelevant: (message: Message) => boolean): boolean {
    let found = false;
    for (;;) {
      const messages = this.receive();
      if (messages === Errno.ENOBUFS) found = true;
      else if (typeof messages === "number") return found;
      else if (messages.some(isRelevant)) found = true;
    }
  }

  /** Closes the socket; further calls do nothing. */
  close(): void {
    if (this.#descriptor < 0) return;
    libc().close(this.#descriptor);
    this.#descriptor = -1;
  }
}
