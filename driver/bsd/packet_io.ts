/**
 * Scatter-gather I/O of packets and the 4-byte header with their address family. Header and packet have separate
 * iovecs, so that neither is copied.
 *
 *     iovec 0: header, big-endian ── iovec 1: packet in its slot
 */

import { addressOf } from "../native_memory.ts";
import { IOVEC_WORDS, setIovec } from "../posix/iovec.ts";
import { AF_INET } from "../posix/udp_socket.ts";
import type { Bsd } from "./bsd.ts";

// Specification
/** net/if_utun.h, net/if_tun.h: size of the header before each packet (bytes). */
export const FAMILY_HEADER_SIZE = 4;

/** Family headers at fixed addresses. */
export class FamilyHeaders {
  /** Memory of the headers, kept alive for the iovecs that point into it. */
  readonly #headers: Uint8Array<ArrayBuffer>;
  readonly #ipv4: number;
  readonly #ipv6: number;
  /** Address that the headers of received packets are written to. */
  readonly received: number;

  /** Creates the headers of a system. */
  constructor({ AF_INET6 }: Bsd) {
    this.#headers = Uint8Array.of(0, 0, 0, AF_INET, 0, 0, 0, AF_INET6, 0, 0, 0, 0);
    this.#ipv4 = addressOf(this.#headers);
    this.#ipv6 = this.#ipv4 + FAMILY_HEADER_SIZE;
    this.received = this.#ipv6 + FAMILY_HEADER_SIZE;
  }

  /** Returns the address of the header for a packet that starts with this byte; `undefined` if it is not IP. */
  of(first: number): number | undefined {
    switch (first >>> 4) {
      case 4:
        return this.#ipv4;
      case 6:
        return this.#ipv6;
      default:
        return undefined;
    }
  }
}

/** Iovecs for several packets. */
export class PacketVectors {
  /** `struct iovec[2]` of each packet. */
  readonly each: readonly Uint32Array<ArrayBuffer>[];

  constructor(count: number) {
    this.each = Array.from({ length: count }, () => new Uint32Array(2 * IOVEC_WORDS));
  }

  /** Sets the memory addresses of header `i` and packet `i`, and the packet length. */
  set(i: number, header: number, address: number, length: number): void {
    const words = this.each[i]!;
    setIovec(words, 0, header, FAMILY_HEADER_SIZE);
    setIovec(words, 1, address, length);
  }
}

/** I/O of packets between slots and the descriptor of a device. */
export interface PacketIo {
  /** Maximum packets per call. */
  readonly maxPackets: number;
  /** Iovecs that the next call uses. */
  readonly vectors: PacketVectors;
  /** Reads up to `count` packets. Returns their number, 0 when the device is gone, or -1 with errno set. */
  receive(fd: number, count: number): number;
  /** Returns the length of received packet `i`, including its header (bytes). */
  length(i: number): number;
  /** Writes up to `count` packets. Returns their number, or -1 with errno set. */
  send(fd: number, count: number): number;
}

/** I/O of one packet per call, with readv(2) and writev(2). */
export class SinglePacketIo implements PacketIo {
  readonly maxPackets = 1;
  readonly vectors: PacketVectors = new PacketVectors(1);
  readonly #functions: Bsd["functions"];
  #length = 0;

  constructor({ functions }: Bsd) {
    this.#functions = functions;
  }

  receive(fd: number): number {
    this.#length = this.#functions.readv(fd, this.vectors.each[0]!, 2);
    return this.#length > 0 ? 1 : this.#length;
  }

  length(): number {
    return this.#length;
  }

  send(fd: number): number {
    return this.#functions.writev(fd, this.vectors.each[0]!, 2) < 0 ? -1 : 1;
  }
}
