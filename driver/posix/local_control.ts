/** Control messages that carry a datagram's local address, by which replies leave from the address that was written to. */

import type { Packet } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";
import { clearLocal, Endpoint } from "../udp_socket.ts";

// Specification: sys/socket.h
/**
 * A system's `struct cmsghdr` and the alignment of control messages, CMSG_DATA(3) and CMSG_SPACE(3). All of
 * its fields that differ in size are little-endian and below 4 GiB.
 *
 * ```c
 * struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };    // Linux
 * struct cmsghdr { socklen_t cmsg_len; int cmsg_level; int cmsg_type; }; // macOS, FreeBSD
 * ```
 */
export interface CmsgLayout {
  /** The offset of the length, which is that of header and value. */
  readonly length: number;
  /** The offset of the level. */
  readonly level: number;
  /** The offset of the type. */
  readonly type: number;
  /** The offset of the value. */
  readonly data: number;
  /** The alignment of a message (bytes). */
  readonly alignment: number;
}

/** One family's control message for the local address, with offsets within its value. */
export interface LocalMessage {
  /** Its level, and that of the option. */
  readonly level: number;
  /** The option of setsockopt(2) that has the system send it. */
  readonly option: number;
  /** Its type when it comes from the system. */
  readonly receivedType: number;
  /** The offset of this machine's address in it. */
  readonly receivedAddress: number;
  /** Its type when it goes to the system. */
  readonly sentType: number;
  /** The offset of this machine's address in it. */
  readonly sentAddress: number;
  /** The offset of the interface's index in IPv6's, which link-local addresses need. */
  readonly interface: number;
  /** The size of its value. */
  readonly size: number;
}

/** A system's control messages for local addresses. */
export interface LocalControl {
  /** The header. */
  readonly layout: CmsgLayout;
  /** IPv4's message. */
  readonly 4: LocalMessage;
  /** IPv6's message. */
  readonly 6: LocalMessage;
}

/**
 * ```c
 * struct in_pktinfo  { unsigned int ipi_ifindex; struct in_addr ipi_spec_dst; struct in_addr ipi_addr; };
 * struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
 * ```
 */
export const InPktinfo = { ipi_ifindex: 0, ipi_spec_dst: 4, ipi_addr: 8, size: 12 } as const;
/** See {@linkcode InPktinfo}. */
export const In6Pktinfo = { ipi6_addr: 0, ipi6_ifindex: 16, size: 20 } as const;

// Implementation
const WORD = 4;
const IPV6_SIZE = 16;

/** The bytes that a control message with a value of this size takes. */
export function controlSpace({ data, alignment }: CmsgLayout, size: number): number {
  return Math.ceil((data + size) / alignment) * alignment;
}

/** Memory for the control messages of several datagrams, each of which has so much room. */
export class LocalControls {
  /** The bytes of one message. */
  readonly space: number;
  /** All of it. */
  readonly view: DataView<ArrayBuffer>;
  readonly #address: number;
  readonly #stride: number;
  readonly #isIpv4: boolean;
  readonly #level: number;
  readonly #type: number;
  /** The length of a whole message: header and value. */
  readonly #length: number;
  readonly #levelAt: number;
  readonly #typeAt: number;
  readonly #receivedAt: number;
  readonly #sentAt: number;
  readonly #interfaceAt: number;

  /** @param stride The bytes for each datagram; further control messages may follow the first. */
  constructor(count: number, control: LocalControl, family: 4 | 6, stride?: number) {
    const { layout, [family]: message } = control;
    const { data } = layout;
    this.#isIpv4 = family === 4;
    this.#level = message.level;
    this.#type = message.receivedType;
    this.#length = data + message.size;
    this.#levelAt = layout.level;
    this.#typeAt = layout.type;
    this.#receivedAt = data + message.receivedAddress;
    this.#sentAt = data + message.sentAddress;
    this.#interfaceAt = data + message.interface;
    this.space = controlSpace(layout, message.size);
    this.#stride = stride ?? this.space;
    const memory = new Uint8Array(count * this.#stride);
    this.view = new DataView(memory.buffer);
    this.#address = addressOf(memory);
    for (let at = 0; at < memory.length; at += this.#stride) {
      this.view.setUint32(at + layout.length, this.#length, true);
      this.view.setUint32(at + layout.level, message.level, true);
      this.view.setUint32(at + layout.type, message.sentType, true);
    }
  }

  /** The address of a datagram's control messages. */
  addressOf(datagram: number): number {
    return this.#address + datagram * this.#stride;
  }

  /** Puts the local address of a received datagram into its packet's endpoint; zeros where the system told none. */
  read(datagram: number, controlLength: number, packet: Packet): void {
    const { view } = this;
    const at = datagram * this.#stride;
    const isThere = controlLength >= this.#length && view.getUint32(at + this.#typeAt, true) === this.#type &&
      view.getUint32(at + this.#levelAt, true) === this.#level;
    if (!isThere) return clearLocal(packet);
    const local = packet.slotEnd + Endpoint.Local;
    const address = at + this.#receivedAt;
    packet.view.setUint32(local, view.getUint32(address));
    if (this.#isIpv4) return;
    for (let i = WORD; i < IPV6_SIZE; i += WORD) {
      packet.view.setUint32(local + i, view.getUint32(address + i));
    }
    // RFC 4291 section 2.5.6: fe80::/10 means something on one link alone.
    const isLinkLocal = (view.getUint16(address) & 0xffc0) === 0xfe80;
    const index = isLinkLocal ? view.getUint32(at + this.#interfaceAt, true) : 0;
    packet.view.setUint32(packet.slotEnd + Endpoint.Interface, index, true);
  }

  /** Has a datagram leave from the local address of a packet's endpoint; returns whether there is one. */
  write(datagram: number, packet: Packet): boolean {
    const { view } = this;
    const at = datagram * this.#stride;
    const local = packet.slotEnd + Endpoint.Local;
    let any = packet.view.getUint32(local);
    view.setUint32(at + this.#sentAt, any);
    if (this.#isIpv4) return any !== 0;
    for (let i = WORD; i < IPV6_SIZE; i += WORD) {
      const word = packet.view.getUint32(local + i);
      view.setUint32(at + this.#sentAt + i, word);
      any |= word;
    }
    const index = packet.view.getUint32(packet.slotEnd + Endpoint.Interface, true);
    view.setUint32(at + this.#interfaceAt, index, true);
    return any !== 0;
  }
}
