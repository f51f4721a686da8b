/** Control messages with a datagram's local address, so that replies leave from the address that a peer wrote to. */

import type { Packet } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";
import { clearLocal, Endpoint } from "../udp_socket.ts";

// Specification: sys/socket.h
/**
 * Layout of a system's `struct cmsghdr` and of control messages, CMSG_DATA(3) and CMSG_SPACE(3). Fields whose size
 * differs between systems are little-endian and below 4 GiB.
 *
 * ```c
 * struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };    // Linux
 * struct cmsghdr { socklen_t cmsg_len; int cmsg_level; int cmsg_type; }; // macOS, FreeBSD
 * ```
 */
export interface CmsgLayout {
  /** Offset of the length, which counts header and value. */
  readonly length: number;
  /** Offset of the level. */
  readonly level: number;
  /** Offset of the type. */
  readonly type: number;
  /** Offset of the value. */
  readonly data: number;
  /** Alignment of a message (bytes). */
  readonly alignment: number;
}

/** Control message with the local address in one family; offsets are within its value. */
export interface LocalMessage {
  /** Level of the message and of the option. */
  readonly level: number;
  /** Option of setsockopt(2) that enables the message. */
  readonly option: number;
  /** Type of received messages. */
  readonly receivedType: number;
  /** Offset of the local address in received messages. */
  readonly receivedAddress: number;
  /** Type of sent messages. */
  readonly sentType: number;
  /** Offset of the local address in sent messages. */
  readonly sentAddress: number;
  /** Offset of the interface index in IPv6 messages, which link-local addresses need. */
  readonly interface: number;
  /** Size of the value (bytes). */
  readonly size: number;
}

/** Control messages of a system for local addresses. */
export interface LocalControl {
  /** Layout of the header. */
  readonly layout: CmsgLayout;
  /** Message for IPv4. */
  readonly 4: LocalMessage;
  /** Message for IPv6. */
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

/** Space of a control message with a value of this size (bytes). */
export function controlSpace({ data, alignment }: CmsgLayout, size: number): number {
  return Math.ceil((data + size) / alignment) * alignment;
}

/** Memory for the control messages of several datagrams. */
export class LocalControls {
  /** Space of one message (bytes). */
  readonly space: number;
  /** The memory. */
  readonly view: DataView<ArrayBuffer>;
  readonly #address: number;
  readonly #stride: number;
  readonly #isIpv4: boolean;
  readonly #level: number;
  readonly #type: number;
  /** Length of a whole message: header and value. */
  readonly #length: number;
  readonly #levelAt: number;
  readonly #typeAt: number;
  readonly #receivedAt: number;
  readonly #sentAt: number;
  readonly #interfaceAt: number;

  /** Allocates `count` datagrams' messages, `stride` bytes apart; further control messages may follow each. */
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

  /** Memory address of a datagram's control messages. */
  addressOf(datagram: number): number {
    return this.#address + datagram * this.#stride;
  }

  /** Copies the local address of a received datagram to its packet's endpoint; zeros if there is none. */
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
    // RFC 4291 section 2.5.6: addresses in fe80::/10 are valid on one link only.
    const isLinkLocal = (view.getUint16(address) & 0xffc0) === 0xfe80;
    const index = isLinkLocal ? view.getUint32(at + this.#interfaceAt, true) : 0;
    packet.view.setUint32(packet.slotEnd + Endpoint.Interface, index, true);
  }

  /** Sets a datagram's local address to that of the packet's endpoint; `false` if that has none. */
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
