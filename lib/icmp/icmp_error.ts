/**
 * Answers to packets that go no further: the ICMP error about one, or a TCP reset, turned round in the packet's slot.
 *
 *     packet ─► may it be answered? ─► is there a token left? ─► its first segment ─► quoted behind new headers ─► back
 *                     │ no                   │ no
 *                     └──────────────────────┴─► dropped, with the caller's reason
 */

import { ErrorRateLimiter, type ErrorRateOptions } from "./_error_rate_limiter.ts";
import {
  ICMP_HEADER,
  ICMPV4_MAX_ERROR,
  IPV4_HEADER,
  IPV4_MIN_MTU,
  IPV6_DST,
  IPV6_HEADER,
  IPV6_MIN_MTU,
  IPV6_SRC,
} from "../wire/header_fields.ts";
import { isIcmpError } from "../wire/icmp_query.ts";
import { nextHeaderField, replaceWithSegment } from "../wire/packet_parts.ts";
import { isUnicast4, isUnicast6 } from "../wire/unicast.ts";
import { parseAddress } from "../wire/address.ts";
import { sum } from "../core/checksum.ts";
import { type Direction, HEADROOM, opposite, type Packet, type StageContext } from "../core/mod.ts";
import { Icmpv4 } from "../wire/icmpv4.ts";
import { Icmpv6 } from "../wire/icmpv6.ts";
import { Ip, Protocol } from "../wire/ip.ts";
import { Ipv4 } from "../wire/ipv4.ts";
import { Ipv6 } from "../wire/ipv6.ts";
import { checkNames, type OptionNames } from "../core/options.ts";
import { Segmenter } from "../split/segmenter.ts";
import { Tcp } from "../wire/tcp.ts";

export type { ErrorRate, ErrorRateOptions } from "./_error_rate_limiter.ts";

// Specification
/** RFC 1812 section 4.3.2.5: precedence 6, which is the class selector CS6. */
const CLASS_SELECTOR_6 = 48;
/** What an error says; each is one in both versions of ICMP. */
export const IcmpError = {
  /** There is no route to the destination. RFC 792 type 3 code 0, RFC 4443 type 1 code 0 */
  NetUnreachable: 0,
  /** The last router does not reach the destination. Type 3 code 1, type 1 code 3 */
  HostUnreachable: 1,
  /** The destination does not know the protocol. Type 3 code 2, type 4 code 1 */
  ProtocolUnreachable: 2,
  /** Nobody listens at the port. Type 3 code 3, type 1 code 4 */
  PortUnreachable: 3,
  /** A filter forbids it. RFC 1812 section 5.2.7.1 type 3 code 13, type 1 code 1 */
  AdministrativelyProhibited: 4,
  /** It is longer than the next link's MTU (bytes), which goes with it. RFC 1191 type 3 code 4, type 2 */
  PacketTooBig: 5,
  /** Its time to live ran out. Type 11 code 0, type 3 code 0 */
  TimeExceeded: 6,
  /** Fragments of it did not come in time. Type 11 code 1, type 3 code 1 */
  ReassemblyTimeExceeded: 7,
  /** A field is wrong; where it stands (bytes from the packet's start) goes with it. Type 12, type 4 */
  ParameterProblem: 8,
  /** A first fragment has not all headers. Type 12 code 2, RFC 7112 type 4 code 3 */
  IncompleteHeaders: 9,
} as const;
/** One of {@linkcode IcmpError}'s values. */
export type IcmpError = typeof IcmpError[keyof typeof IcmpError];

/** Type and code, by {@linkcode IcmpError}. */
const IPV4_MESSAGES = [0x0300, 0x0301, 0x0302, 0x0303, 0x030d, 0x0304, 0x0b00, 0x0b01, 0x0c00, 0x0c02];
const IPV6_MESSAGES = [0x0100, 0x0103, 0x0401, 0x0104, 0x0101, 0x0200, 0x0300, 0x0301, 0x0400, 0x0403];

/** Options for {@linkcode IcmpErrors}. */
export interface IcmpErrorsOptions extends ErrorRateOptions {
  /** Where errors come from: an address, or one of each version. @default the destination of each packet */
  readonly address?: string | readonly string[];
}

const NAMES: OptionNames<IcmpErrorsOptions> = {
  ratePerSecond: "optional",
  burst: "optional",
  perDestination: "optional",
  hashKey: "optional",
  random: "optional",
  address: "optional",
};

/**
 * Answers packets with errors about them, as a router or a firewall does. Every packet that it gets is claimed: turned
 * round where it stands, or dropped with the caller's reason, when it may not be answered or too many were.
 *
 * Never answered: what is malformed or has a wrong IPv4 header checksum; ICMP errors and redirects; fragments other
 * than the first, but for IPv6 ones that are wrong themselves; packets to multicast and broadcast addresses (but for packet too big over IPv6); and from
 * unspecified, loopback, multicast and broadcast ones (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC
 * 4443 section 2.4 e).
 *
 * Errors and resets share one budget, and each destination has its share of it: see {@linkcode ErrorRateOptions}. How
 * much of it is left cannot be found out from outside.
 *
 * An error quotes as much of the packet as fits 576 bytes over IPv4 and 1280 over IPv6, with finished checksums; of a
 * super-packet, the first segment. It leaves for `from`, whence the packet came. Nothing is allocated.
 *
 * **Limits**: a subnet's own broadcast address is not known and is taken for a host's. IPv6 would allow more errors about
 * later fragments. There are no extensions (RFC 4884).
 *
 * @example A stage that lets nothing through
 * ```ts
 * import assert from "node:assert/strict";
 * import type { PacketBatch, Stage, StageContext } from "@warren/tunnel/core";
 * import { IcmpError, IcmpErrors } from "@warren/tunnel/icmp_error";
 *
 * class Closed implements Stage {
 *   readonly name = "closed";
 *   readonly errors = new IcmpErrors({ address: ["10.9.0.1", "fd09::1"] });
 *   outbound(batch: PacketBatch, context: StageContext): void {
 *     for (let i = 0; i < batch.length; i++) {
 *       this.errors.answer(batch.packets[i]!, IcmpError.AdministrativelyProhibited, context, "closed");
 *     }
 *   }
 * }
 * assert.equal(new Closed().errors.answered, 0);
 * ```
 */
export class IcmpErrors {
  /** How many packets were answered. */
  answered = 0;
  /** How many could have been, but for the rate. */
  limited = 0;
  /** How many must not be. */
  silent = 0;

  readonly #limiter: ErrorRateLimiter;
  /** Our own addresses; -1 and `undefined`: a packet's destination instead. */
  #address4 = -1;
  #address6: Uint8Array | undefined;
  readonly #segmenter = new Segmenter();
  // Written again for each answer, so that none is made.
  readonly #ipv4 = { src: 0, dst: 0, protocol: 0, dscp: 0 };
  readonly #ipv6 = { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: 0 };
  readonly #icmp = { type: 0, code: 0, rest: 0 };
  readonly #tcp = { srcPort: 0, dstPort: 0, seq: 0, ack: 0, flags: 0, window: 0 };

  /**
   * Answers from these addresses, this often.
   *
   * @throws {SyntaxError} when an address does not parse.
   * @throws {TypeError} when there are two of one version, or one that cannot be a source.
   * @throws {RangeError} when a rate is not above 0, or a burst is below 1.
   */
  constructor(options: IcmpErrorsOptions = {}) {
    checkNames("answer by ICMP errors", options, NAMES);
    this.#limiter = new ErrorRateLimiter(options);
    const { address = [] } = options;
    for (const text of typeof address === "string" ? [address] : address) {
      const { family, bytes } = parseAddress(text);
      const number = new DataView(bytes.buffer).getUint32(0);
      const isTaken = family === 4 ? this.#address4 >= 0 : this.#address6 !== undefined;
      if (isTaken) throw new TypeError(`Cannot answer from ${text}: there is another IPv${family} address`);
      if (family === 4 ? !isUnicast4(number) : !isUnicast6(new DataView(bytes.buffer), 0)) {
        throw new TypeError(`Cannot answer from ${text}: it is no host's address`);
      }
      if (family === 4) this.#address4 = number;
      else this.#address6 = bytes;
    }
  }

  /**
   * Sends the packet back as an error about itself, or drops it with this reason.
   *
   * @param rest The MTU of `PacketTooBig`, and the place of `ParameterProblem`; 0 otherwise.
   * @param direction Which way the packet was going.
   */
  answer(
    packet: Packet,
    error: IcmpError,
    context: StageContext,
    reason: string,
    rest = 0,
    direction: Direction = context.direction,
  ): void {
    const ip = Ip.of(packet);
    if (ip === undefined || !this.#mayAnswer(ip, error)) return this.#drop(packet, context, reason);
    if (!this.#hasToken(ip, context.now)) return context.drop(packet, reason);
    if (packet.segmentSize > 0 && !this.#cut(packet)) return this.#drop(packet, context, reason);
    // Padding is no part of it.
    packet.length = Ip.of(packet)!.totalLength;
    packet.finish();
    if (ip.version === 4) this.#quoteIpv4(ip, error, rest);
    else this.#quoteIpv6(ip, error, rest);
    this.#turn(packet, context, direction);
  }

  /**
   * Sends a TCP packet back as the reset that a closed port answers with (RFC 9293 section 3.10.7.1), from the
   * packet's destination. What is no TCP, is a reset itself, or has a wrong checksum is dropped with this reason.
   *
   * @param direction Which way the packet was going.
   */
  reset(
    packet: Packet,
    context: StageContext,
    reason: string,
    direction: Direction = context.direction,
  ): void {
    const tcp = Tcp.of(packet);
    if (tcp === undefined) return this.#drop(packet, context, reason);
    const { ip } = tcp;
    // Nobody knows the length of a fragment's segment.
    if (ip.isFragment || tcp.isRst || !this.#mayAnswer(ip) || !tcp.checksumValid) {
      return this.#drop(packet, context, reason);
    }
    if (!this.#hasToken(ip, context.now)) return context.drop(packet, reason);
    const fields = this.#tcp;
    fields.srcPort = tcp.dstPort;
    fields.dstPort = tcp.srcPort;
    fields.seq = tcp.isAck ? tcp.ack : 0;
    const length = tcp.payloadLength + (tcp.isSyn ? 1 : 0) + (tcp.isFin ? 1 : 0);
    fields.ack = tcp.isAck ? 0 : tcp.seq + length >>> 0;
    fields.flags = tcp.isAck ? Tcp.Rst : Tcp.Rst | Tcp.Ack;
    this.#readAddresses(ip, false);
    packet.offset = packet.slotStart + HEADROOM;
    packet.length = 0;
    packet.segmentSize = 0;
    packet.checksumStart = 0;
    packet.checksumOffset = 0;
    Tcp.encode(packet, fields);
    this.#encodeIp(packet, ip.version, Protocol.Tcp, 0);
    this.#turn(packet, context, direction);
  }

  #drop(packet: Packet, context: StageContext, reason: string): void {
    this.silent++;
    context.drop(packet, reason);
  }

  #turn(packet: Packet, context: StageContext, direction: Direction): void {
    this.answered++;
    packet.to = packet.from;
    context.emit(packet, opposite(direction));
  }

  #hasToken(ip: Ip, now: number): boolean {
    if (this.#limiter.take(ip, now)) return true;
    this.limited++;
    return false;
  }

  /** Whether the packet's sender may be answered; with a reset when no error is given. */
  #mayAnswer(ip: Ip, error?: IcmpError): boolean {
    if (ip.fragmentOffset !== 0) {
      // RFC 8200 section 4.5 asks for it. A later fragment of ICMP may be one of an error.
      const isWrong = ip.version === 6 && error === IcmpError.ParameterProblem;
      if (!isWrong || ip.protocol === Protocol.Icmpv6) return false;
    } else if (isError(ip)) return false;
    if (ip.version === 6) return this.#mayAnswerIpv6(ip, error);
    // RFC 1812 section 4.2.2.5: what is damaged may have another's address.
    return isUnicast4(ip.src) && isUnicast4(ip.dst) &&
      sum(ip.packet.bytes, ip.start, ip.headerLength) === 0xffff;
  }

  #mayAnswerIpv6({ packet: { view }, start }: Ipv6, error: IcmpError | undefined): boolean {
    return isUnicast6(view, start + IPV6_SRC) && (isUnicast6(view, start + IPV6_DST) ||
      // RFC 4443 section 2.4 e.3: multicast, too, has a path with an MTU.
      error === IcmpError.PacketTooBig && this.#address6 !== undefined);
  }

  /** Makes a super-packet its first segment. */
  #cut(packet: Packet): boolean {
    const segment = this.#segmenter.start(packet) === undefined
      ? this.#segmenter.next(packet.pool)
      : undefined;
    if (segment === undefined) return false;
    replaceWithSegment(packet, segment);
    return true;
  }

  #quoteIpv4(ip: Ipv4, error: IcmpError, rest: number): void {
    const { packet } = ip;
    // The pointer is the first of four bytes, the MTU the last two (RFC 792, RFC 1191 section 4).
    let word = 0;
    if (error === IcmpError.ParameterProblem) word = (rest & 0xff) * 0x1000000;
    if (error === IcmpError.PacketTooBig) word = Math.min(Math.max(rest, IPV4_MIN_MTU), 0xffff);
    this.#readAddresses(ip, true);
    shorten(packet, ICMPV4_MAX_ERROR - IPV4_HEADER - ICMP_HEADER);
    Icmpv4.encode(packet, this.#message(IPV4_MESSAGES[error]!, word));
    this.#encodeIp(packet, 4, Protocol.Icmp, CLASS_SELECTOR_6);
  }

  #quoteIpv6(ip: Ipv6, error: IcmpError, rest: number): void {
    const { packet } = ip;
    let word = error === IcmpError.ParameterProblem ? rest : 0;
    if (error === IcmpError.PacketTooBig) word = Math.max(rest, IPV6_MIN_MTU);
    if (error === IcmpError.ProtocolUnreachable) word = nextHeaderField(ip, ip.payloadOffset) - ip.start;
    this.#readAddresses(ip, true);
    shorten(packet, IPV6_MIN_MTU - IPV6_HEADER - ICMP_HEADER); // RFC 4443 section 2.4 c
    Icmpv6.encode(packet, this.#message(IPV6_MESSAGES[error]!, word));
    this.#encodeIp(packet, 6, Protocol.Icmpv6, 0);
  }

  #message(typeAndCode: number, rest: number): { type: number; code: number; rest: number } {
    const message = this.#icmp;
    message.type = typeAndCode >> 8;
    message.code = typeAndCode & 0xff;
    message.rest = rest >>> 0;
    return message;
  }

  /** Notes where an answer comes from and goes, before the packet's own header is written over. */
  #readAddresses(ip: Ip, isOurs: boolean): void {
    if (ip.version === 4) {
      this.#ipv4.dst = ip.src;
      this.#ipv4.src = isOurs && this.#address4 >= 0 ? this.#address4 : ip.dst;
    } else {
      this.#ipv6.dst.set(ip.src);
      this.#ipv6.src.set(isOurs && this.#address6 !== undefined ? this.#address6 : ip.dst);
    }
  }

  #encodeIp(packet: Packet, version: 4 | 6, protocol: number, dscp: number): void {
    if (version === 4) {
      this.#ipv4.protocol = protocol;
      this.#ipv4.dscp = dscp;
      Ipv4.encode(packet, this.#ipv4);
    } else {
      this.#ipv6.nextHeader = protocol;
      Ipv6.encode(packet, this.#ipv6);
    }
  }
}

/** Whether it is an ICMP error or a redirect, or may be one. */
function isError({ version, protocol, payloadOffset, payloadLength, packet: { bytes } }: Ip): boolean {
  if (protocol !== (version === 4 ? Protocol.Icmp : Protocol.Icmpv6)) return false;
  return payloadLength === 0 || isIcmpError(version, bytes[payloadOffset]!);
}

/** Cuts a packet off behind what is quoted, and makes sure of the room for the headers before it. */
function shorten(packet: Packet, most: number): void {
  packet.length = Math.min(packet.length, most);
  const offset = packet.slotStart + HEADROOM;
  if (packet.offset >= offset) return;
  packet.bytes.copyWithin(offset, packet.offset, packet.offset + packet.length);
  packet.offset = offset;
}
