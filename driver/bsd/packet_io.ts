/**
 * Scatter-gather I/O of packets with their 4-byte family header, as for readv(2) and writev(2). Header and packet are
 * separate vectors, so that neither is copied.
 *
 *     iovec 0: address family, big-endian ── iovec 1: packet in its slot
 */

import { addressOf } from "../native_memory.ts";
import { IOVEC_WORDS, setIovec } from "../posix/iovec.ts";
import { AF_INET, type Bsd } from "./bsd.ts";

// Specification
/** net/if_utun.h, net/if_tun.h: size of the header before each packet (bytes). */
export const FAMILY_HEADER_SIZE = 4;

/** A family header at a fixed address. */
export class FamilyHeader {
  readonly #bytes = new Uint8Array(FAMILY_HEADER_SIZE);
  /** Address of the header. */
  readonly address: number;

  /** Creates the header of an address family; 0 for the header of received packets. */
  constructor(family: number) {
    new DataView(this.#bytes.buffer).setUint32(0, family);
    this.address = addressOf(this.#bytes);
  }
}

/** Vectors of several packets. */
export class PacketVectors {
  /** Two `struct iovec` per packet. */
  readonly each: readonly Uint32Array<ArrayBuffer>[];

  /** Creates the vectors of `count` packets. */
  constructor(count: number) {
    this.each = Array.from({ length: count }, () => new Uint32Array(2 * IOVEC_WORDS));
  }

  /** Sets header and packet of one entry. */
  set(i: number, header: FamilyHeader, address: number, length: number): void {
    const words = this.each[i]!;
    setIovec(words, 0, header.address, FAMILY_HEADER_SIZE);
    setIovec(words, 1, address, length);
  }
}

/** I/O of packets between slots and a descriptor. */
export interface PacketIo {
  /** Maximum packets per call. */
  readonly maxPackets: number;
  /** Vectors used by the following calls. */
  readonly vectors: PacketVectors;
  /** Reads up to `count` packets. Returns their number, 0 when the device is gone, -1 on error (errno). */
  receive(fd: number, count: number): number;
  /** Length of a received packet with its header (bytes). */
  length(i: number): number;
  /** Writes up to `count` packets. Returns their number, or -1 on error (errno). */
  send(fd: number, count: number): number;
}

/** I/O of one packet per call. */
export class SinglePacketIo implements PacketIo {
  readonly maxPackets = 1;
  readonly vectors: PacketVectors = new PacketVectors(1);
  readonly #functions: Bsd["functions"];
  #length = 0;

  /** Uses `readv` and `writev` of this system. */
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

/** Family headers of a system. */
export class FamilyHeaders {
  /** Header of IPv4 packets. */
  readonly ipv4: FamilyHeader = new FamilyHeader(AF_INET);
  /** Header of IPv6 packets. */
  readonly ipv6: FamilyHeader;
  /** Room for the headers of received packets. */
  readonly incoming: FamilyHeader = new FamilyHeader(0);

  /** Creates the headers with the system's number of IPv6. */
  constructor({ AF_INET6 }: Bsd) {
    this.ipv6 = new FamilyHeader(AF_INET6);
  }

  /** Returns the header of a packet that starts with this byte; `undefined` if it is not IP. */
  of(first: number): FamilyHeader | undefined {
    switch (first >>> 4) {
      case 4:
        return this.ipv4;
      case 6:
        return this.ipv6;
      default:
        return undefined;
    }
  }
}
