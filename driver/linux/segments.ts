/**
 * Groups datagrams into messages for sendmmsg(2), which the kernel or the network card segments (UDP_SEGMENT of udp(7),
 * Linux 4.18). The datagrams of a message have the same endpoint and length; only the last may be shorter.
 *
 *     1400 1400 1400 900 │ 1400 1400 │ 1500 ─► three messages
 *
 *     control messages in each message:  local address │ segment size      (both optional)
 */

import type { Packet, PacketPool } from "../../lib/core/mod.ts";
import { controlSpace, LocalControls } from "../posix/local_control.ts";
import { Messages } from "../posix/messages.ts";
import { hasLocal, isAt, MAX_DATAGRAM } from "../udp_socket.ts";
import { Cmsghdr, LOCAL_CONTROL } from "./local_control.ts";

// Specification
/** netinet/udp.h */
export const Segment = { SOL_UDP: 17, UDP_SEGMENT: 103 } as const;

// Implementation
/** Space of a UDP_SEGMENT control message, whose value is a `__u16` (bytes). */
const SEGMENT_SPACE = controlSpace(LOCAL_CONTROL.layout, 2);
/** `cmsg_len` of a UDP_SEGMENT control message, which excludes padding (bytes). */
const SEGMENT_LENGTH = Cmsghdr.size + 2;

/** The messages of a sendmmsg call. */
export class Segments extends Messages {
  readonly #controls: LocalControls;
  /** Offset of the segment size within a message's control messages (bytes). */
  readonly #segmentControl: number;
  /** Space of a message's control messages (bytes). */
  readonly #stride: number;
  /** Number of datagrams up to the end of each message. */
  readonly #ends: number[];
  readonly #family: 4 | 6;
  readonly #localAddresses: boolean;

  /**
   * Allocates messages for `count` datagrams, which are packets of `pool`.
   *
   * @param localAddresses True to send datagrams from the local addresses in their endpoints.
   */
  constructor(count: number, pool: PacketPool, endpointSize: number, family: 4 | 6, localAddresses = false) {
    super(count, pool, endpointSize);
    this.#family = family;
    this.#localAddresses = localAddresses;
    this.#ends = new Array(count).fill(0);
    this.#segmentControl = controlSpace(LOCAL_CONTROL.layout, LOCAL_CONTROL[family].size);
    this.#stride = this.#segmentControl + SEGMENT_SPACE;
    this.#controls = new LocalControls(count, LOCAL_CONTROL, family, this.#stride);
    const { view } = this.#controls;
    for (let at = this.#segmentControl; at < view.byteLength; at += this.#stride) {
      view.setUint32(at + Cmsghdr.length, SEGMENT_LENGTH, true);
      view.setUint32(at + Cmsghdr.level, Segment.SOL_UDP, true);
      view.setUint32(at + Cmsghdr.type, Segment.UDP_SEGMENT, true);
    }
  }

  /**
   * Fills the messages with `packets[start]` to `packets[end - 1]`; returns the number of messages. Packets longer than
   * `maxSegment` are not grouped.
   */
  fill(packets: readonly Packet[], start: number, end: number, maxSegment: number): number {
    let messages = 0;
    for (let first = start; first < end; messages++) {
      const next = this.#endOf(packets, first, end, maxSegment);
      for (let i = first; i < next; i++) this.setVector(i - start, packets[i]!, packets[i]!.length);
      this.setHeader(messages, packets[first]!, first - start, next - first);
      this.#setControls(messages, packets[first]!, next - first > 1 ? packets[first]!.length : 0);
      this.#ends[messages] = next - start;
      first = next;
    }
    return messages;
  }

  /** Returns the number of datagrams in the first `messages` messages. */
  datagrams(messages: number): number {
    return messages === 0 ? 0 : this.#ends[messages - 1]!;
  }

  /** Returns the end of the message that starts with `packets[first]`. */
  #endOf(packets: readonly Packet[], first: number, end: number, maxSegment: number): number {
    const { length, view, slotEnd } = packets[first]!;
    let next = first + 1;
    if (length > maxSegment) return next;
    for (let bytes = length; next < end; next++) {
      const packet = packets[next]!;
      bytes += packet.length;
      if (packet.length > length || bytes > MAX_DATAGRAM) break;
      if (!isAt(packet, view, slotEnd, this.#family)) break;
      if (this.#localAddresses && !hasLocal(packet, view, slotEnd, this.#family)) break;
      if (packet.length < length) return next + 1;
    }
    return next;
  }

  /** Sets a message's local address and segment size; the latter is 0 for a single datagram. */
  #setControls(message: number, packet: Packet, segment: number): void {
    const segmentControl = this.#segmentControl;
    const isFromLocal = this.#localAddresses && this.#controls.write(message, packet);
    const start = isFromLocal ? 0 : segmentControl;
    const end = segment === 0 ? segmentControl : this.#stride;
    if (segment !== 0) {
      const at = message * this.#stride + segmentControl + Cmsghdr.size;
      this.#controls.view.setUint16(at, segment, true);
    }
    const address = start === end ? 0 : this.#controls.addressOf(message) + start;
    this.setControl(message, address, end - start);
  }
}
