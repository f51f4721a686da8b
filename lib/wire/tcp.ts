/** TCP header and options, read and written in place (RFC 9293). */

import { checkInteger } from "../core/options.ts";
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
const ENCODE = "encode a TCP header";
const VIEW = nextViewNumber();

/** Options that {@linkcode Tcp.encode} lays out. */
export interface TcpOptions {
  /** Maximum segment size that the sender accepts (bytes, without headers). */
  mss?: number;
  /** Window scale: shift count of the sender's windows, 0 to 14 (RFC 7323 section 2.3). */
  windowScale?: number;
  /** SACK Permitted: the sender accepts selective acknowledgments (RFC 2018). @default {false} */
  sackPermitted?: boolean;
  /** Timestamps: the sender's clock and the latest value that it received (RFC 7323 section 3.2). */
  timestamps?: { tsval: number; tsecr: number };
}

/** Header fields for {@linkcode Tcp.encode}. */
export interface TcpFields {
  /** Source port. */
  srcPort: number;
  /** Destination port. */
  dstPort: number;
  /** Sequence number of the first payload byte, or of a SYN. */
  seq: number;
  /** Acknowledgment number: next byte that the sender expects; valid with {@linkcode Tcp.Ack}. @default {0} */
  ack?: number;
  /** Flags: a sum of {@linkcode Tcp.Fin} to {@linkcode Tcp.Cwr}. */
  flags: number;
  /** Receive window of the sender, unscaled. @default {65535} */
  window?: number;
  /** End of urgent data, from `seq` (bytes); valid with {@linkcode Tcp.Urg}. @default {0} */
  urgentPointer?: number;
  /** Options, or their bytes: at most 40, padded with zeros to a multiple of 4. */
  options?: TcpOptions | Uint8Array;
}

/**
 * TCP header. Every setter updates the checksum. A number that does not fit its field loses its high bits. Each getter
 * of an option searches for it anew; a malformed option ends the search.
 *
 * **Fields that can be set**: `srcPort` and `dstPort` (16 bits), `seq` and `ack` (unsigned 32 bits), `flags` (a sum of
 * {@linkcode Tcp.Fin} and the others), `window` (16 bits, unscaled), `urgentPointer` (16 bits, from `seq`); in options
 * that are present, `mss` (bytes), `tsval` and `tsecr` (unsigned 32 bits).
 *
 * **Limits**: options can be read and changed, but not added or removed.
 *
 * @example Clamping the MSS to a tunnel's MTU
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
  /** FIN: the sender has no more data. */
  static readonly Fin = 0x01;
  /** SYN: opens a connection. */
  static readonly Syn = 0x02;
  /** RST: resets the connection. */
  static readonly Rst = 0x04;
  /** PSH: the receiver delivers the data without waiting for more. */
  static readonly Psh = 0x08;
  /** ACK: {@linkcode Tcp.ack} is valid. */
  static readonly Ack = 0x10;
  /** URG: {@linkcode Tcp.urgentPointer} is valid. */
  static readonly Urg = 0x20;
  /** ECE: echoes Congestion Experienced; in a SYN, offers ECN (RFC 3168 section 6.1). */
  static readonly Ece = 0x40;
  /** CWR: the congestion window was reduced (RFC 3168 section 6.1). */
  static readonly Cwr = 0x80;

  /**
   * Returns the packet's TCP header over IPv4 or IPv6; `undefined` for other protocols and later fragments. The result is
   * also `undefined`, and the packet marked `malformed`, if the header is truncated or has an inconsistent length.
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
   * Prepends a header. Its checksum is written by the IP header's `encode`, which must follow.
   *
   * @throws {RangeError} when a field is out of range, the options exceed 40 bytes, or the packet has no headroom left;
   * the packet is then unchanged.
   */
  static encode(packet: Packet, fields: TcpFields): void {
    const { srcPort, dstPort, seq, ack = 0, flags, window = DEFAULT_WINDOW, urgentPointer = 0 } = fields;
    checkInteger(ENCODE, "srcPort", srcPort, 0, 0xffff);
    checkInteger(ENCODE, "dstPort", dstPort, 0, 0xffff);
    checkInteger(ENCODE, "seq", seq, 0, 0xffffffff);
    checkInteger(ENCODE, "ack", ack, 0, 0xffffffff);
    checkInteger(ENCODE, "flags", flags, 0, 0xff);
    checkInteger(ENCODE, "window", window, 0, 0xffff);
    checkInteger(ENCODE, "urgentPointer", urgentPointer, 0, 0xffff);
    const options = optionBytes(fields.options ?? {});
    const headerLength = HEADER + (options.length + 3 & ~3);
    if (options.length > MAX_OPTIONS) {
      throw new RangeError(
        `Cannot ${ENCODE}: options must have at most ${MAX_OPTIONS} bytes, got ${options.length}`,
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

  /** Sequence number of the first payload byte, or of the SYN or FIN (unsigned 32 bits). */
  get seq(): number {
    return this.packet.view.getUint32(this.start + SEQ);
  }
  set seq(value: number) {
    this.setDoubleWord(SEQ, value);
  }

  /** Acknowledgment number: next byte that the sender expects (unsigned 32 bits); valid if `isAck`. */
  get ack(): number {
    return this.packet.view.getUint32(this.start + ACK);
  }
  set ack(value: number) {
    this.setDoubleWord(ACK, value);
  }

  /** Length of this header with its options: 20 to 60 bytes. */
  get headerLength(): number {
    return this.payloadOffset - this.start;
  }

  /** Flags: a sum of {@linkcode Tcp.Fin} to {@linkcode Tcp.Cwr}. */
  get flags(): number {
    return this.packet.bytes[this.start + FLAGS_BYTE]!;
  }
  set flags(value: number) {
    const word = this.packet.view.getUint16(this.start + FLAGS);
    this.setWord(FLAGS, word & 0xff00 | value & 0xff);
  }

  /** State of the FIN flag. */
  get isFin(): boolean {
    return (this.flags & Tcp.Fin) !== 0;
  }

  /** State of the SYN flag. */
  get isSyn(): boolean {
    return (this.flags & Tcp.Syn) !== 0;
  }

  /** State of the RST flag. */
  get isRst(): boolean {
    return (this.flags & Tcp.Rst) !== 0;
  }

  /** State of the PSH flag. */
  get isPsh(): boolean {
    return (this.flags & Tcp.Psh) !== 0;
  }

  /** State of the ACK flag. */
  get isAck(): boolean {
    return (this.flags & Tcp.Ack) !== 0;
  }

  /** State of the URG flag. */
  get isUrg(): boolean {
    return (this.flags & Tcp.Urg) !== 0;
  }

  /** State of the ECE flag. */
  get isEce(): boolean {
    return (this.flags & Tcp.Ece) !== 0;
  }

  /** State of the CWR flag. */
  get isCwr(): boolean {
    return (this.flags & Tcp.Cwr) !== 0;
  }

  /** Receive window of the sender, before the connection's window scale. */
  get window(): number {
    return this.packet.view.getUint16(this.start + WINDOW);
  }
  set window(value: number) {
    this.setWord(WINDOW, value);
  }

  /** End of urgent data, from `seq` (bytes); valid if `isUrg`. */
  get urgentPointer(): number {
    return this.packet.view.getUint16(this.start + URGENT_POINTER);
  }
  set urgentPointer(value: number) {
    this.setWord(URGENT_POINTER, value);
  }

  /** Maximum segment size option (RFC 9293 section 3.7.1), in bytes. Setting does nothing if it is absent. */
  get mss(): number | undefined {
    const at = this.#optionOf(MSS, MSS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint16(at + 2);
  }
  set mss(value: number) {
    const at = this.#optionOf(MSS, MSS_LENGTH);
    if (at >= 0) this.setWord(at + 2 - this.start, value);
  }

  /** Window scale option (RFC 7323 section 2.2) as stored; receivers take more than 14 as 14 (section 2.3). */
  get windowScale(): number | undefined {
    const at = this.#optionOf(WINDOW_SCALE, WINDOW_SCALE_LENGTH);
    return at < 0 ? undefined : this.packet.bytes[at + 2]!;
  }

  /** SACK Permitted option: selective acknowledgments are offered (RFC 2018 section 2). */
  get sackPermitted(): boolean {
    return this.#optionOf(SACK_PERMITTED, SACK_PERMITTED_LENGTH) >= 0;
  }

  /** TSval of the timestamps option, the sender's clock (RFC 7323 section 3.2). Setting does nothing if absent. */
  get tsval(): number | undefined {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint32(at + TSVAL);
  }
  set tsval(value: number) {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    if (at >= 0) this.setDoubleWord(at + TSVAL - this.start, value);
  }

  /** TSecr of the timestamps option, the echoed clock (RFC 7323 section 3.2). Setting does nothing if absent. */
  get tsecr(): number | undefined {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    return at < 0 ? undefined : this.packet.view.getUint32(at + TSECR);
  }
  set tsecr(value: number) {
    const at = this.#optionOf(TIMESTAMPS, TIMESTAMPS_LENGTH);
    if (at >= 0) this.setDoubleWord(at + TSECR - this.start, value);
  }

  /** Offset of the options in `packet.bytes`; they end at `payloadOffset`. There may be none. */
  get optionsOffset(): number {
    return this.start + HEADER;
  }

  /**
   * Returns the offset in `packet.bytes` of the first option of a kind, at its kind byte; -1 for none. The option does not
   * extend beyond the header; the caller compares its length with the length that its kind requires.
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
      // Section 3.1: the length includes the kind and length bytes; with less than 2, no option follows.
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

/** Lays out options with 32-bit values at multiples of 4, as RFC 7323 appendix A recommends. */
function optionBytes(options: TcpOptions | Uint8Array): Uint8Array {
  if (options instanceof Uint8Array) return options;
  const { mss, windowScale, sackPermitted = false, timestamps } = options;
  const bytes: number[] = [];
  if (mss !== undefined) {
    checkInteger(ENCODE, "mss", mss, 0, 0xffff);
    bytes.push(MSS, MSS_LENGTH, mss >> 8, mss & 0xff);
  }
  if (sackPermitted || timestamps !== undefined) {
    if (sackPermitted) bytes.push(SACK_PERMITTED, SACK_PERMITTED_LENGTH);
    if (!sackPermitted || timestamps === undefined) bytes.push(NO_OPERATION, NO_OPERATION);
  }
  if (timestamps !== undefined) {
    const { tsval, tsecr } = timestamps;
    checkInteger(ENCODE, "tsval", tsval, 0, 0xffffffff);
    checkInteger(ENCODE, "tsecr", tsecr, 0, 0xffffffff);
    bytes.push(TIMESTAMPS, TIMESTAMPS_LENGTH);
    for (const value of [tsval, tsecr]) {
      bytes.push(value >>> 24, value >>> 16 & 0xff, value >>> 8 & 0xff, value & 0xff);
    }
  }
  if (windowScale !== undefined) {
    checkInteger(ENCODE, "windowScale", windowScale, 0, MAX_WINDOW_SCALE);
    bytes.push(NO_OPERATION, WINDOW_SCALE, WINDOW_SCALE_LENGTH, windowScale);
  }
  return Uint8Array.from(bytes);
}
