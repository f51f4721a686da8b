/**
 * Datagrams to send, as sendmmsg(2) takes them: those of one length to one endpoint are one message, which the system
 * or the network card cuts (UDP_SEGMENT of udp(7), Linux 4.18). The last one of a message may be shorter.
 *
 *     1400 1400 1400 900 │ 1400 1400 │ 1500 ─► three messages
 */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import { Messages, Mmsghdr } from "../posix/messages.ts";
import { isAt } from "../udp_socket.ts";

// Specification
/**
 * sys/socket.h, with the `__u16` of UDP_SEGMENT behind it, padded:
 *
 * ```c
 * struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };
 * ```
 */
export const Cmsghdr = { length: 0, level: 8, type: 12, size: 16 } as const;
/** netinet/udp.h */
export const Segment = { SOL_UDP: 17, UDP_SEGMENT: 103 } as const;
/** RFC 791 section 3.1 and RFC 768: what a message has in all; IPv6's could have 20 bytes more. */
const LONGEST_MESSAGE = 65_507;

// Implementation
const WORD = 4;
const CONTROL_SIZE = Cmsghdr.size + 8;
/** `cmsg_len` counts the value, and not the padding. */
const CONTROL_LENGTH = Cmsghdr.size + 2;

/** What one sendmmsg sends. */
export class Segments extends Messages {
  readonly #control: Uint32Array<ArrayBuffer>;
  readonly #controlAddress: number;
  /** How many datagrams there are up to each message, and with it. */
  readonly #ends: number[];
  readonly #family: 4 | 6;

  /** For so many datagrams in slots of this pool. */
  constructor(count: number, pool: PacketPool, endpointSize: number, family: 4 | 6) {
    super(count, pool, endpointSize);
    this.#family = family;
    this.#ends = new Array(count).fill(0);
    this.#control = new Uint32Array(count * CONTROL_SIZE / WORD);
    this.#controlAddress = addressOf(this.#control);
    for (let i = 0; i < this.#control.length; i += CONTROL_SIZE / WORD) {
      this.#control[i + Cmsghdr.length / WORD] = CONTROL_LENGTH;
      this.#control[i + Cmsghdr.level / WORD] = Segment.SOL_UDP;
      this.#control[i + Cmsghdr.type / WORD] = Segment.UDP_SEGMENT;
    }
  }

  /** Takes `packets[start]` to `packets[end - 1]`; those longer than `longest` alone. Returns how many messages. */
  fill(packets: readonly Packet[], start: number, end: number, longest: number): number {
    let messages = 0;
    for (let first = start; first < end; messages++) {
      const next = this.#endOf(packets, first, end, longest);
      for (let i = first; i < next; i++) this.setVector(i - start, packets[i]!, packets[i]!.length);
      this.setHeader(messages, packets[first]!, first - start, next - first);
      this.#setControl(messages, next - first > 1 ? packets[first]!.length : 0);
      this.#ends[messages] = next - start;
      first = next;
    }
    return messages;
  }

  /** How many datagrams so many messages are. */
  datagrams(messages: number): number {
    return messages === 0 ? 0 : this.#ends[messages - 1]!;
  }

  /** Where the message ends that starts with this packet. */
  #endOf(packets: readonly Packet[], first: number, end: number, longest: number): number {
    const { length, view, slotEnd } = packets[first]!;
    let next = first + 1;
    if (length > longest) return next;
    for (let bytes = length; next < end; next++) {
      const packet = packets[next]!;
      bytes += packet.length;
      if (packet.length > length || bytes > LONGEST_MESSAGE) break;
      if (!isAt(packet, view, slotEnd, this.#family)) break;
      if (packet.length < length) return next + 1;
    }
    return next;
  }

  /** Says how long the segments of a message are; 0: it is one datagram. */
  #setControl(message: number, segment: number): void {
    const header = message * (Mmsghdr.size / WORD);
    const control = message * (CONTROL_SIZE / WORD);
    const address = segment === 0 ? 0 : this.#controlAddress + message * CONTROL_SIZE;
    this.#control[control + Cmsghdr.size / WORD] = segment;
    setAddress(this.headers, header + Mmsghdr.control / WORD, address);
    this.headers[header + Mmsghdr.controlLength / WORD] = segment === 0 ? 0 : CONTROL_SIZE;
  }
}
