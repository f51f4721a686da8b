/**
 * Answers packets with ICMP errors and TCP resets, each built in the slot of the packet that it answers.
 *
 *     packet ─► answer allowed? ─► token left? ─► first segment ─► quoted after new headers ─► emitted to the sender
 *                     │ no             │ no
 *                     └────────────────┴─► dropped, with the caller's reason
 */

import { ErrorRateLimiter, type ErrorRateOptions } from "./_error_rate_limiter.ts";
import * as field from "../wire/header_fields.ts";
import { isIcmpError } from "../wire/icmp_query.ts";
import { nextHeaderField } from "../wire/ipv6_extensions.ts";
import { isUnicast4, isUnicast6 } from "../wire/unicast.ts";
import { parseAddress } from "../wire/address.ts";
import { sum } from "../core/checksum.ts";
import { type Direction, HEADROOM, opposite, type Packet, type StageContext } from "../core/mod.ts";
import { Icmpv4 } from "../wire/icmpv4.ts";
import { Icmpv6 } from "../wire/icmpv6.ts";
import { Ip, Protocol } from "../wire/ip.ts";
import { Ipv4 } from "../wire/ipv4.ts";
import { Ipv6 } from "../wire/ipv6.ts";
import { checkOptions, gotValue, type OptionKinds } from "../core/options.ts";
import { Segmenter } from "../split/segmenter.ts";
import { replaceWithSegment } from "../split/stage_segmenter.ts";
import { Tcp } from "../wire/tcp.ts";

export type { ErrorRate, ErrorRateOptions } from "./_error_rate_limiter.ts";

// Specification
const { IPV4_HEADER, IPV4_MIN_MTU } = field;
const { IPV6_DST, IPV6_HEADER, IPV6_MIN_MTU, IPV6_SRC } = field;
const { ICMP_HEADER, ICMPV4_MAX_ERROR } = field;
/** RFC 1812 section 4.3.2.5: precedence 6, which is the class selector CS6. */
const CLASS_SELECTOR_6 = 48;

/** ICMP errors that both ICMPv4 (RFC 792) and ICMPv6 (RFC 4443) have. */
export const IcmpError = {
  /** No route to the destination. Type 3 code 0; ICMPv6 type 1 code 0 */
  NetUnreachable: 0,
  /** Destination does not respond to the last router. Type 3 code 1; ICMPv6 type 1 code 3 */
  HostUnreachable: 1,
  /** Protocol unknown to the destination. Type 3 code 2; ICMPv6 type 4 code 1 */
  ProtocolUnreachable: 2,
  /** Port without a listener. Type 3 code 3; ICMPv6 type 1 code 4 */
  PortUnreachable: 3,
  /** Blocked by a filter. RFC 1812 section 5.2.7.1 type 3 code 13; ICMPv6 type 1 code 1 */
  AdministrativelyProhibited: 4,
  /** Longer than the next link's MTU, which is reported (bytes). RFC 1191 type 3 code 4; ICMPv6 type 2 */
  PacketTooBig: 5,
  /** TTL or hop limit exceeded. Type 11 code 0; ICMPv6 type 3 code 0 */
  TimeExceeded: 6,
  /** Fragments missing when the reassembly timer expired. Type 11 code 1; ICMPv6 type 3 code 1 */
  ReassemblyTimeExceeded: 7,
  /** Wrong field, whose offset in the packet is reported (bytes). Type 12; ICMPv6 type 4 */
  ParameterProblem: 8,
  /** First fragment without all headers. Type 12 code 2; RFC 7112 ICMPv6 type 4 code 3 */
  IncompleteHeaders: 9,
} as const;
/** One of {@linkcode IcmpError}'s values. */
export type IcmpError = typeof IcmpError[keyof typeof IcmpError];

/** Type and code, by {@linkcode IcmpError}. */
const IPV4_MESSAGES = [0x0300, 0x0301, 0x0302, 0x0303, 0x030d, 0x0304, 0x0b00, 0x0b01, 0x0c00, 0x0c02];
const IPV6_MESSAGES = [0x0100, 0x0103, 0x0401, 0x0104, 0x0101, 0x0200, 0x0300, 0x0301, 0x0400, 0x0403];

/** Options for {@linkcode IcmpErrors}. */
export interface IcmpErrorsOptions extends ErrorRateOptions {
  /** Source of errors: an address, or one of each IP version. @default {the destination of each packet} */
  readonly address?: string | readonly string[];
}

const NAMES: OptionKinds<IcmpErrorsOptions> = {
  ratePerSecond: "number",
  burst: "number",
  perDestination: "object",
  hashKey: "numbers",
  random: "function",
  address: "texts",
};

/**
 * Answers packets with ICMP errors about them, as a router or firewall does. The error replaces the packet; a packet that
 * must not be answered, or exceeds the rate limit, is dropped with the caller's reason. Allocates nothing.
 *
 * Never answered (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e): malformed packets and wrong
 * IPv4 header checksums; ICMP errors and redirects; fragments after the first, except malformed IPv6 ones; packets to
 * multicast and broadcast addresses, except IPv6 packet too big; packets from unspecified, loopback, multicast and
 * broadcast addresses.
 *
 * Errors and resets share a rate limit, in total and per destination: see {@linkcode ErrorRateOptions}. An error quotes
 * the packet, or a super-packet's first segment, with complete checksums, and has at most 576 bytes over IPv4 and 1280 over
 * IPv6. It goes to the end or peer that the packet came `from`.
 *
 * **Limits**: subnet broadcast addresses are unknown and treated as hosts. Later fragments get fewer errors than IPv6
 * allows. No ICMP extensions (RFC 4884).
 *
 * @example A stage that rejects all packets
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction, type Packet, type PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { IcmpError, IcmpErrors } from "@warren/tunnel/icmp_error";
 * import { Icmpv4 } from "@warren/tunnel/icmpv4";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 *
 * const errors = new IcmpErrors({ address: ["10.9.0.1", "fd09::1"] });
 * const reject = {
 *   name: "reject",
 *   outbound(batch: PacketBatch, context: StageContext): void {
 *     for (const packet of batch) errors.answer(packet, IcmpError.NetUnreachable, context, "rejected");
 *   },
 * };
 *
 * const packet = new PacketPool().from(new Uint8Array(8))!;
 * Ipv4.encode(packet, { src: 0x0a090002, dst: 0xc0000201, protocol: 17 });
 * const emitted: Packet[] = [];
 * const emit = (error: Packet) => emitted.push(error);
 * const context = { now: 0, direction: Direction.Outbound, emit } as unknown as StageContext;
 * reject.outbound([packet] as unknown as PacketBatch, context);
 * assert.deepEqual([Icmpv4.of(emitted[0]!)!.type, Ipv4.of(emitted[0]!)!.dst], [3, 0x0a090002]);
 * ```
 */
export class IcmpErrors {
  /** Packets answered. */
  answered = 0;
  /** Packets not answered because of the rate limit. */
  rateLimited = 0;
  /** Packets that must not be answered. */
  suppressed = 0;

  readonly #limiter: ErrorRateLimiter;
  /** Source addresses; -1 and `undefined` for the packet's destination. */
  #address4 = -1;
  #address6: Uint8Array | undefined;
  readonly #segmenter = new Segmenter();
  // Reused, to avoid allocation.
  readonly #ipv4 = { src: 0, dst: 0, protocol: 0, dscp: 0 };
  readonly #ipv6 = { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: 0 };
  readonly #icmp = { type: 0, code: 0, rest: 0 };
  readonly #tcp = { srcPort: 0, dstPort: 0, seq: 0, ack: 0, flags: 0, window: 0 };

  /**
   * Sets the source addresses and the rate limit.
   *
   * @throws {SyntaxError} when an address does not parse.
   * @throws {TypeError} when two addresses have the same version, or one is not a unicast address.
   * @throws {RangeError} when a rate is not above 0, or a burst is below 1.
   */
  constructor(options: IcmpErrorsOptions = {}) {
    checkOptions("answer with ICMP errors", options, NAMES);
    this.#limiter = new ErrorRateLimiter(options);
    const { address = [] } = options;
    for (const text of typeof address === "string" ? [address] : address) {
      const { family, bytes } = parseAddress(text);
      const number = new DataView(bytes.buffer).getUint32(0);
      const isTaken = family === 4 ? this.#address4 >= 0 : this.#address6 !== undefined;
      if (isTaken) throw addressError(`at most one IPv${family} address`, text);
      if (family === 4 ? !isUnicast4(number) : !isUnicast6(new DataView(bytes.buffer), 0)) {
        throw addressError("a unicast address", text);
      }
      if (family === 4) this.#address4 = number;
      else this.#address6 = bytes;
    }
  }

  /**
   * Answers the packet with an error about it, or drops it with this reason.
   *
   * @param rest MTU of `PacketTooBig`, or offset of the field of `ParameterProblem` (bytes); 0 otherwise.
   * @param direction Direction of the packet.
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
    if (packet.segmentSize > 0 && !this.#segment(packet)) return this.#drop(packet, context, reason);
    packet.length = Ip.of(packet)!.totalLength; // without padding
    packet.finish();
    if (ip.version === 4) this.#quoteIpv4(ip, error, rest);
    else this.#quoteIpv6(ip, error, rest);
    this.#sendBack(packet, context, direction);
  }

  /**
   * Answers a TCP packet with the reset of a closed port (RFC 9293 section 3.10.7.1), from the packet's destination.
   * Drops packets of other protocols, resets, and wrong checksums, with this reason.
   *
   * @param direction Direction of the packet.
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
    // The length of a fragment's TCP segment is unknown.
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
    this.#sendBack(packet, context, direction);
  }

  #drop(packet: Packet, context: StageContext, reason: string): void {
    this.suppressed++;
    context.drop(packet, reason);
  }

  #sendBack(packet: Packet, context: StageContext, direction: Direction): void {
    this.answered++;
    packet.to = packet.from;
    context.emit(packet, opposite(direction));
  }

  #hasToken(ip: Ip, now: number): boolean {
    if (this.#limiter.take(ip, now)) return true;
    this.rateLimited++;
    return false;
  }

  /** Reports whether the packet may be answered with this error, or with a reset if none is given. */
  #mayAnswer(ip: Ip, error?: IcmpError): boolean {
    if (ip.fragmentOffset !== 0) {
      // RFC 8200 section 4.5 requires it. A later fragment of ICMP may belong to an error.
      const isWrong = ip.version === 6 && error === IcmpError.ParameterProblem;
      if (!isWrong || ip.protocol === Protocol.Icmpv6) return false;
    } else if (isError(ip)) return false;
    if (ip.version === 6) return this.#mayAnswerIpv6(ip, error);
    // RFC 1812 section 4.2.2.5: a damaged header may have a wrong source.
    return isUnicast4(ip.src) && isUnicast4(ip.dst) &&
      sum(ip.packet.bytes, ip.start, ip.headerLength) === 0xffff;
  }

  #mayAnswerIpv6({ packet: { view }, start }: Ipv6, error: IcmpError | undefined): boolean {
    return isUnicast6(view, start + IPV6_SRC) && (isUnicast6(view, start + IPV6_DST) ||
      // RFC 4443 section 2.4 e.3: path MTU discovery works for multicast.
      error === IcmpError.PacketTooBig && this.#address6 !== undefined);
  }

  /** Replaces a super-packet with its first segment. */
  #segment(packet: Packet): boolean {
    const segment = this.#segmenter.start(packet) === undefined
      ? this.#segmenter.next(packet.pool)
      : undefined;
    if (segment === undefined) return false;
    replaceWithSegment(packet, segment);
    return true;
  }

  #quoteIpv4(ip: Ipv4, error: IcmpError, rest: number): void {
    const { packet } = ip;
    // The pointer is in the first of four bytes, the MTU in the last two (RFC 792, RFC 1191 section 4).
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
    if (error === IcmpError.ProtocolUnreachable) {
      word = nextHeaderField(packet.bytes, ip.start, ip.payloadOffset) - ip.start;
    }
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

  /** Saves the answer's addresses before the packet's header is overwritten. */
  #readAddresses(ip: Ip, usesOwn: boolean): void {
    if (ip.version === 4) {
      this.#ipv4.dst = ip.src;
      this.#ipv4.src = usesOwn && this.#address4 >= 0 ? this.#address4 : ip.dst;
    } else {
      this.#ipv6.dst.set(ip.src);
      this.#ipv6.src.set(usesOwn && this.#address6 !== undefined ? this.#address6 : ip.dst);
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

/** Reports whether the packet is, or may be, an ICMP error or a redirect. */
function isError({ version, protocol, payloadOffset, payloadLength, packet: { bytes } }: Ip): boolean {
  if (protocol !== (version === 4 ? Protocol.Icmp : Protocol.Icmpv6)) return false;
  return payloadLength === 0 || isIcmpError(version, bytes[payloadOffset]!);
}

function addressError(rule: string, text: string): TypeError {
  return new TypeError(`Cannot answer with ICMP errors: address must be ${rule}, ${gotValue(text)}`);
}

/** Truncates a packet to the quoted length and makes room for the headers before it. */
function shorten(packet: Packet, maxLength: number): void {
  packet.length = Math.min(packet.length, maxLength);
  const offset = packet.slotStart + HEADROOM;
  if (packet.offset >= offset) return;
  packet.bytes.copyWithin(offset, packet.offset, packet.offset + packet.length);
  packet.offset = offset;
}
