/** The TCP header with its options, in place (RFC 9293). */

import { checkField } from "./_encode.ts";
import { PortsView } from "./_ports_view.ts";
import type { Packet } from "../core/packet.ts";
import * as field from "./header_fields.ts";
import { nextViewNumber } from "./header_view.ts";
import { transport } from "./ip.ts";
import { Protocol } from "./protocol.ts";

export type { PortsView } from "./_ports_view.ts";

// Specification: RFC 9293 section 3.1
//
//     0                   1                   2                   3
//     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |          Source Port          |       Destination Port        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                        Sequence Number                        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                    Acknowledgment Number                      |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |  Data |       |C|E|U|A|P|R|S|F|                               |
//    | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//    |       |       |R|E|G|K|H|T|N|N|                               |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |           Checksum            |         Urgent Pointer        |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//    |                           [Options]                           |
//    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const { SRC_PORT, DST_PORT, TCP_SEQ: SEQ, TCP_ACK: ACK, TCP_FLAGS: FLAGS, TCP_FLAGS_BYTE: FLAGS_BYTE } =
  field;
const { TCP_WINDOW: WINDOW, TCP_CHECKSUM: CHECKSUM, TCP_URGENT: URGENT_POINTER } = field;
const { TCP_HEADER: HEADER, TCP_MAX_OPTIONS: MAX_OPTIONS, TCP_MAX_WINDOW_SCALE: MAX_WINDOW_SCALE } = field;
const { END_OF_OPTIONS, NO_OPERATION } = field;

// Specification: options, as kind, length, data. RFC 9293 section 3.2, RFC 7323 sections 2.2 and 3.2, RFC 2018
const MSS = 2;
const MSS_LENGTH = 4;
const WINDOW_SCALE = 3;
const WINDOW_SCALE_LENGTH = 3;
const SACK_PERMITTED = 4;
const SACK_PERMITTED_LENGTH = 2;
const TIMESTAMPS = 8;
const TIMESTAMPS_LENGTH = 10;
const TSVAL = 2;
const TSECR = 6;

// Implementation
const DEFAULT_WINDOW = 65_535;
const VIEW = nextViewNumber();

/** The options that {@linkcode Tcp.encode} can lay out by itself. */
export interface TcpOptions {
  /** The longest segment that the sender takes (bytes, without headers). */
  mss?: number;
  /** By how many bits the sender's windows are to be shifted, 0 to 14 (RFC 7323 section 2.3). */
  windowScale?: number;
  /** Whether the sender understands selective acknowledgments (RFC 2018). @default {false} */
  sackPermitted?: boolean;
  /** The sender's clock, and the last one that it saw from the other side (RFC 7323 section 3.2). */
  timestamps?: { tsval: number; tsecr: number };
}

/** What {@linkcode Tcp.encode} writes. */
export interface TcpFields {
  /** The sender's port. */
  srcPort: number;
  /** The receiver's port. */
  dstPort: number;
  /** The number of the first byte of the payload, or of a SYN. */
  seq: number;
  /** The number of the byte that is expected next; means something with {@linkcode Tcp.Ack}. @default {0} */
  ack?: number;
  /** A sum of {@linkcode Tcp.Fin} to {@linkcode Tcp.Cwr}. */
  flags: number;
  /** How many bytes the sender takes, unscaled. @default {65535} */
  window?: number;
  /** Where urgent data ends, from `seq` on; means something with {@linkcode Tcp.Urg}. @default {0} */
  urgentPointer?: number;
  /** Options, or their bytes: up to 40, padded with zeros to a multiple of 4. */
  options?: TcpOptions | Uint8Array;
}

/**
 * A TCP header. Every setter keeps the checksum. A number that does not fit its field loses its high bits. Options
 * are looked up anew by each getter: an option that is malformed, or behind one that is, is not found.
 *
 * **Fields that can be set**: `srcPort` and `dstPort` (16 bits), `seq` and `ack` (unsigned 32 bits), `flags` (a sum of
 * {@linkcode Tcp.Fin} and the others), `window` (16 bits, not scaled), `urgentPointer` (16 bits, from `seq` on); in
 * options that are there, `mss` (bytes), `tsval` and `tsecr` (unsigned 32 bits).
 *
 * **Limits**: options can be read and changed, not added or removed.
 *
 * @example Clamping the MSS, as a tunnel's router does
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Tcp } from "@warren/tunnel/tcp";
 *
 * const packet = new PacketPool().take(0)!;
 * Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Syn, options: { mss: 1460 } });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: 6 });
 *
 * const tcp = Tcp.of(packet)!;
 * if (tcp.isSyn && tcp.mss !== undefined && tcp.mss > 1360) tcp.mss = 1360;
 * assert(tcp.mss === 1360 && tcp.checksumValid);
 * ```
 */
export class Tcp extends PortsView {
  /** The sender has no more data. */
  static readonly Fin = 0x01;
  /** Opens a connection. */
  static readonly Syn = 0x02;
  /** Ends a connection at once. */
  static readonly Rst = 0x04;
  /** The data should reach the application without waiting for more. */
  static readonly Psh = 0x08;
  /** {@linkcode Tcp.ack} means something. */
  static readonly Ack = 0x10;
  /** {@linkcode Tcp.urgentPointer} means something. */
  static readonly Urg = 0x20;
  /** Congestion was met on the way here; in a SYN, ECN is understood (RFC 3168 section 6.1). */
  static readonly Ece = 0x40;
  /** The congestion window was reduced (RFC 3168 section 6.1). */
  static readonly Cwr = 0x80;

  /**
   * The packet's TCP header, over IPv4 or IPv6. `undefined` for another protocol and for a fragment other than the
   * first; and for a header that is cut short or lies about its length, which makes the packet `malformed`.
   */
  static of(packet: Packet): Tcp | undefined {
    const ip = transport(packet, Protocol.Tcp);
    if (ip === undefined) return undefined;
    const start = ip.payloadOffset;
    const room = ip.payloadLength;
    const headerLength = room < HEADER ? 0 : packet.bytes[start + FLAGS]! >> 4 << 2;
    // Section 3.1: the data offset is at least 5.
    if (headerLength < HEADER || headerLength > room) {
      packet.malformed = true;
      return undefined;
    }
    const tcp = (packet.views[VIEW] ??= new Tcp(packet, ip, Protocol.Tcp)) as Tcp;
    tcp.place(ip, start, start + headerLength, start + room);
    return tcp;
  }

  /**
   * Puts a header in front of what the packet holds. Its checksum is written by the IP header's `encode`, which
   * has to follow.
   *
   * @throws {RangeError} when a field does not fit, there are more than 40 bytes of options, or the packet's
   * headroom is used up; the packet is then as it was.
   */
  static encode(packet: Packet, fields: TcpFields): void {
    const { srcPort, dstPort, seq, ack = 0, flags, window = DEFAULT_WINDOW, urgentPointer = 0 } = fields;
    checkField("a TCP", "srcPort", srcPort, 0xffff);
    checkField("a TCP", "dstPort", dstPort, 0xffff);
    checkField("a TCP", "seq", seq, 0xffffffff);
    checkField("a TCP", "ack", ack, 0xffffffff);
    checkField("a TCP", "flags", flags, 0xff);
    checkField("a TCP", "window", window, 0xffff);
    checkField("a TCP", "urgentPointer", urgentPointer, 0xffff);
    const options = optionBytes(fields.options ?? {});
    const headerLength = HEADER + (options.length + 3 & ~3);
    if (options.length > MAX_OPTIONS) {
      throw new RangeError(
        `Cannot encode ${options.length} bytes of TCP options: ${MAX_OPTIONS} is the most`,
      );
    }
    packet.prepend(headerLength);
    const { bytes, view, offset } = packet;
    view.setUint16(offset + SRC_PORT, srcPort);
    view.setUint16(offset + DST_PORT, dstPort);
    view.setUint32(offset + SEQ, seq);
    view.setUint32(offset + ACK, ack);
    view.setUint16(offset + FLAGS, headerLength >> 2 << 12 | flags);
    view.setUint16(offset + WINDOW, window);
    view.setUint16(offset + CHECKSUM, 0);
    view.setUint16(offset + URGENT_POINTER, urgentPointer);
    bytes.set(options, offset + HEADER);
    bytes.fill(END_OF_OPTIONS, offset + HEADER + options.length, offset + headerLength);
  }

  /** The number of the first byte of the payload, or of the SYN or FIN (unsigned 32 bits). */
  get seq(): number {
    return this.packet.view.getUint32(this.start + SEQ);
  }
  set seq(value: number) {
    this.setDoubleWord(SEQ, value);
  }

  /** The number of the byte that the sender expects next (unsigned 32 bits); whether it counts says `isAck`. */
  get ack(): number {
    return this.packet.view.getUint32(this.start + ACK);
  }
  set ack(value: number) {
    this.setDoubleWord(ACK, value);
  }

  /** The bytes of this header with its options: 20 to 60. */
  get headerLength(): number {
    return this.payloadOffset - this.start;
  }

  /** All flags, a sum of {@linkcode Tcp.Fin} to {@linkcode Tcp.Cwr}. */
  get flags(): number {
    return this.packet.bytes[this.start + FLAGS_BYTE]!;
  }
  set flags(value: number) {
    const word = this.packet.view.getUint16(this.start + FLAGS);
    this.setWord(FLAGS, word & 0xff00 | value & 0xff);
  }

  /** Whether {@linkcode Tcp.Fin} is set. */
  get isFin(): boolean {
    return (this.flags & Tcp.Fin) !== 0;
  }

  /** Whether {@linkcode Tcp.Syn} is set. */
  get isSyn(): boolean {
    return (this.flags & Tcp.Syn) !== 0;
  }

  /** Whether {@linkcode Tcp.Rst} is set. */
  get isRst(): boolean {
    return (this.flags & Tcp.Rst) !== 0;
  }

  /** Whether {@linkcode Tcp.Psh} is set. */
  get isPsh(): boolean {
    return (this.flags & Tcp.Psh) !== 0;
  }

  /** Whether {@linkcode Tcp.Ack} is set. */
  get isAck(): boolean {
    return (this.flags & Tcp.Ack) !== 0;
  }

  /** Whether {@linkcode Tcp.Urg} is set. */
  get isUrg(): boolean {
    return (this.flags & Tcp.Urg) !== 0;
  }

  /** Whether {@linkcode Tcp.Ece} is set. */
  get isEce(): boolean {
    return (this.flags & Tcp.Ece) !== 0;
  }

  /** Whether {@linkcode Tcp.Cwr} is set. */
  get isCwr(): boolean {
    return (this.flags & Tcp.Cwr) !== 0;
  }

  /** How many bytes the sender takes, before the connection's window scale is applied. */
  get window(): number {
    return this.packet.view.getUint16(this.start + WINDOW);
  }
  set window(value: number) {
    this.setWord(WINDOW, value);
  }

  /** Where urgent data ends, from `seq` on; whether it counts says `isUrg`. */
  get urgentPointer(): number {
    return this.packet.view.getUint16(this.start + URGENT_POINTER);
  }
  set urgentPointer(value: number) {
    this.setWord(URGENT_POINTER, value);
  }

  /** The maximum segment size option (RFC 9293 section 3.7.1), in bytes. Setting does nothing without it. */
  get mss(): number | undefined {
    const at = this.#optionOf(MSS, MSS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint16(at + 2);
  }
  set mss(value: number) {
    const at = this.#optionOf(MSS, MSS_LENGTH);
    if (at >= 0) this.setWord(at + 2 - this.start, value);
  }

  /** The window scale option (RFC 7323 section 2.2), as it stands: above 14 it counts as 14 (section 2.3). */
  get windowScale(): number | undefined {
    const at = this.#optionOf(WINDOW_SCALE, WINDOW_SCALE_LENGTH);
    return at < 0 ? undefined : this.packet.bytes[at + 2]!;
  }

  /** Whether selective acknowledgments are offered (RFC 2018 section 2). */
  get sackPermitted(): boolean {
    return this.#optionOf(SACK_PERMITTED, SACK_PERMITTED_LENGTH) >= 0;
  }

  /** The sender's clock in the timestamps option (RFC 7323 section 3.2). Setting does nothing without it. */
  get tsval(): number | undefined {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint32(at + TSVAL);
  }
  set tsval(value: number) {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    if (at >= 0) this.setDoubleWord(at + TSVAL - this.start, value);
  }

  /** The echoed clock in the timestamps option (RFC 7323 section 3.2). Setting does nothing without it. */
  get tsecr(): number | undefined {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint32(at + TSECR);
  }
  set tsecr(value: number) {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    if (at >= 0) this.setDoubleWord(at + TSECR - this.start, value);
  }

  /** Where the options start in `packet.bytes`; they end at `payloadOffset`, and there may be none. */
  get optionsOffset(): number {
    return this.start + HEADER;
  }

  /**
   * Where the first option of this kind starts in `packet.bytes`, with its kind and length bytes; -1 when there
   * is none. The whole option, as its length says, is within the header; what length its kind should have is
   * the caller's affair.
   */
  option(kind: number): number {
    const { bytes } = this.packet;
    const end = this.payloadOffset;
    let at = this.start + HEADER;
    while (at < end) {
      const found = bytes[at]!;
      if (found === END_OF_OPTIONS || found === NO_OPERATION) {
        if (found === kind) return at;
        if (found === END_OF_OPTIONS) return -1;
        at++;
        continue;
      }
      const length = at + 1 < end ? bytes[at + 1]! : 0;
      // Section 3.1: the length counts the two bytes of kind and length; with less there is no next option.
      if (length < 2 || at + length > end) return -1;
      if (found === kind) return at;
      at += length;
    }
    return -1;
  }

  #optionOf(kind: number, length: number): number {
    const at = this.option(kind);
    return at >= 0 && this.packet.bytes[at + 1] === length ? at : -1;
  }
}

/** Lays options out so that 32-bit values stand at multiples of 4, as RFC 7323 appendix A advises. */
function optionBytes(options: TcpOptions | Uint8Array): Uint8Array {
  if (options instanceof Uint8Array) return options;
  const { mss, windowScale, sackPermitted = false, timestamps } = options;
  const bytes: number[] = [];
  if (mss !== undefined) {
    checkField("a TCP", "mss", mss, 0xffff);
    bytes.push(MSS, MSS_LENGTH, mss >> 8, mss & 0xff);
  }
  if (sackPermitted || timestamps !== undefined) {
    if (sackPermitted) bytes.push(SACK_PERMITTED, SACK_PERMITTED_LENGTH);
    if (!sackPermitted || timestamps === undefined) bytes.push(NO_OPERATION, NO_OPERATION);
  }
  if (timestamps !== undefined) {
    const { tsval, tsecr } = timestamps;
    checkField("a TCP", "tsval", tsval, 0xffffffff);
    checkField("a TCP", "tsecr", tsecr, 0xffffffff);
    bytes.push(TIMESTAMPS, TIMESTAMPS_LENGTH);
    for (const value of [tsval, tsecr]) {
      bytes.push(value >>> 24, value >>> 16 & 0xff, value >>> 8 & 0xff, value & 0xff);
    }
  }
  if (windowScale !== undefined) {
    checkField("a TCP", "windowScale", windowScale, MAX_WINDOW_SCALE);
    bytes.push(NO_OPERATION, WINDOW_SCALE, WINDOW_SCALE_LENGTH, windowScale);
  }
  return Uint8Array.from(bytes);
}
