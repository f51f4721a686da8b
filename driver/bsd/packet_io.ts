/**
 * Packets with the four bytes before them that say their family, as `readv` and `writev` take them: two pieces each,
 * so that neither is moved in memory.
 *
 *     iovec 0: the family, big-endian ── iovec 1: the packet, where it lies in its slot
 */

import { addressOf } from "../native_memory.ts";
import { IOVEC_WORDS, setIovec } from "../posix/iovec.ts";
import { AF_INET, type Bsd } from "./bsd.ts";

// Specification
/** net/if_utun.h, net/if_tun.h: the bytes before each packet. */
export const FAMILY_HEADER_SIZE = 4;

/** A family before packets, in memory that does not move. */
export class FamilyHeader {
  readonly #bytes = new Uint8Array(FAMILY_HEADER_SIZE);
  /** Where it lies. */
  readonly address: number;

  /** For an address family; 0: room for any. */
  constructor(family: number) {
    new DataView(this.#bytes.buffer).setUint32(0, family);
    this.address = addressOf(this.#bytes);
  }
}

/** The pieces of some packets. */
export class PacketVectors {
  /** Two `struct iovec`s a packet. */
  readonly each: readonly Uint32Array<ArrayBuffer>[];

  /** For so many packets. */
  constructor(count: number) {
    this.each = Array.from({ length: count }, () => new Uint32Array(2 * IOVEC_WORDS));
  }

  /** Says where one lies, and its header. */
  set(i: number, header: FamilyHeader, address: number, length: number): void {
    const words = this.each[i]!;
    setIovec(words, 0, header.address, FAMILY_HEADER_SIZE);
    setIovec(words, 1, address, length);
  }
}

/** What moves packets between their slots and a descriptor. */
export interface PacketIo {
  /** The most packets of a call. */
  readonly most: number;
  /** Where the next ones go; what the calls below are about. */
  readonly vectors: PacketVectors;
  /** Reads up to so many packets; how many came, 0 when the device is gone, -1 with an error number. */
  receive(fd: number, count: number): number;
  /** The length of one that came, with its header (bytes). */
  length(i: number): number;
  /** Writes up to so many packets; how many went, or -1 with an error number. */
  send(fd: number, count: number): number;
}

/** One packet a call. */
export class SinglePacketIo implements PacketIo {
  readonly most = 1;
  readonly vectors: PacketVectors = new PacketVectors(1);
  readonly #functions: Bsd["functions"];
  #length = 0;

  /** By this system's `readv` and `writev`. */
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

/** The headers of a system. */
export class FamilyHeaders {
  /** Before IPv4. */
  readonly ipv4: FamilyHeader = new FamilyHeader(AF_INET);
  /** Before IPv6. */
  readonly ipv6: FamilyHeader;
  /** Where the headers of packets that come are left. */
  readonly incoming: FamilyHeader = new FamilyHeader(0);

  /** With this number for IPv6. */
  constructor({ AF_INET6 }: Bsd) {
    this.ipv6 = new FamilyHeader(AF_INET6);
  }

  /** The one before a packet that starts with this byte; `undefined` before what is no IP. */
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
