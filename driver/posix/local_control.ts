/** Control messages that carry a datagram's local address, so that replies leave from the address the peer sent to. */

import type { Packet } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";
import { clearLocal, Endpoint } from "../udp_socket.ts";

// Specification: sys/socket.h
/**
 * Offsets in a control message (`struct cmsghdr`, CMSG_DATA(3), CMSG_SPACE(3)). The length field has 64 bits on Linux,
 * where code that accesses only its lower 32 bits works because it is little-endian and its values are small.
 *
 * ```c
 * struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };    // Linux
 * struct cmsghdr { socklen_t cmsg_len; int cmsg_level; int cmsg_type; }; // macOS, FreeBSD
 * ```
 */
export interface CmsgLayout {
  /** Offset of the length, which includes header and value. */
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

/** Control message for the local address in one address family; its offsets are relative to its value. */
export interface LocalMessage {
  /** Protocol level of the message and the option. */
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
  /** Offset of the interface index in IPv6 messages; link-local addresses need it. */
  readonly interface: number;
  /** Size of the value (bytes). */
  readonly size: number;
}

/** A system's control messages for local addresses, by IP version. */
export interface LocalControl {
  /** Layout of control messages. */
  readonly layout: CmsgLayout;
  readonly 4: LocalMessage;
  readonly 6: LocalMessage;
}

/**
 * Values of the messages, in netinet/in.h and netinet6/in6.h.
 *
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

/** Returns the space that a control message takes up with a value of `size` bytes. */
export function controlSpace({ data, alignment }: CmsgLayout, size: number): number {
  return Math.ceil((data + size) / alignment) * alignment;
}

/** Control messages for several datagrams. */
export class LocalControls {
  /** Space for one message (bytes). */
  readonly space: number;
  /** Memory of all messages. */
  readonly view: DataView<ArrayBuffer>;
  readonly #address: number;
  readonly #stride: number;
  readonly #isIpv4: boolean;
  readonly #level: number;
  readonly #type: number;
  /** Length of header and value (bytes). */
  readonly #length: number;
  readonly #levelOffset: number;
  readonly #typeOffset: number;
  readonly #receivedOffset: number;
  readonly #sentOffset: number;
  readonly #interfaceOffset: number;

  /**
   * Allocates messages for `count` datagrams.
   *
   * @param stride Bytes from one message to the next: its space and room for further control messages.
   */
  constructor(count: number, control: LocalControl, family: 4 | 6, stride?: number) {
    const { layout, [family]: message } = control;
    const { data } = layout;
    this.#isIpv4 = family === 4;
    this.#level = message.level;
    this.#type = message.receivedType;
    this.#length = data + message.size;
    this.#levelOffset = layout.level;
    this.#typeOffset = layout.type;
    this.#receivedOffset = data + message.receivedAddress;
    this.#sentOffset = data + message.sentAddress;
    this.#interfaceOffset = data + message.interface;
    this.space = controlSpace(layout, message.size);
    this.#stride = stride ?? this.space;
    const memory = new Uint8Array(count * this.#stride);
    this.view = new DataView(memory.buffer);
    this.#address = addressOf(memory);
    for (let start = 0; start < memory.length; start += this.#stride) {
      this.view.setUint32(start + layout.length, this.#length, true);
      this.view.setUint32(start + layout.level, message.level, true);
      this.view.setUint32(start + layout.type, message.sentType, true);
    }
  }

  /** Returns the memory address of a datagram's control messages. */
  addressOf(datagram: number): number {
    return this.#address + datagram * this.#stride;
  }

  /** Copies the local address of a received datagram to its packet's endpoint, or zeros if the system reported none. */
  read(datagram: number, controlLength: number, packet: Packet): void {
    const { view } = this;
    const start = datagram * this.#stride;
    const isPresent = controlLength >= this.#length &&
      view.getUint32(start + this.#typeOffset, true) === this.#type &&
      view.getUint32(start + this.#levelOffset, true) === this.#level;
    if (!isPresent) return clearLocal(packet);
    const local = packet.slotEnd + Endpoint.Local;
    const address = start + this.#receivedOffset;
    packet.view.setUint32(local, view.getUint32(address));
    if (this.#isIpv4) return;
    for (let i = WORD; i < IPV6_SIZE; i += WORD) {
      packet.view.setUint32(local + i, view.getUint32(address + i));
    }
    // RFC 4291 section 2.5.6: addresses in fe80::/10 are valid only on their own link.
    const isLinkLocal = (view.getUint16(address) & 0xffc0) === 0xfe80;
    const index = isLinkLocal ? view.getUint32(start + this.#interfaceOffset, true) : 0;
    packet.view.setUint32(packet.slotEnd + Endpoint.Interface, index, true);
  }

  /** Copies the local address of a packet's endpoint to its datagram. Returns false if it has none. */
  write(datagram: number, packet: Packet): boolean {
    const { view } = this;
    const start = datagram * this.#stride;
    const local = packet.slotEnd + Endpoint.Local;
    let any = packet.view.getUint32(local);
    view.setUint32(start + this.#sentOffset, any);
    if (this.#isIpv4) return any !== 0;
    for (let i = WORD; i < IPV6_SIZE; i += WORD) {
      const word = packet.view.getUint32(local + i);
      view.setUint32(start + this.#sentOffset + i, word);
      any |= word;
    }
    const index = packet.view.getUint32(packet.slotEnd + Endpoint.Interface, true);
    view.setUint32(start + this.#interfaceOffset, index, true);
    return any !== 0;
  }
}
