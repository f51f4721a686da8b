/** One IPv6 prefix for another, without state and without a change of any checksum (RFC 6296). */

import { IPV6_DST, IPV6_SRC } from "../../wire/header_fields.ts";
import { parseCidr, type Prefix } from "../../wire/address.ts";
import { sum } from "../../core/checksum.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import { versionOf } from "../../wire/ip.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";
import { drop } from "../../core/drop.ts";
import { isIcmpError } from "../../wire/icmp_query.ts";
import { QuotedPacket } from "../../wire/quoted_packet.ts";

// Specification: RFC 6296 sections 3.1, 3.4 and 3.5
const SHORTEST = 1;
/** Beyond it no word would be left that could be adjusted. */
const LONGEST = 112;
/** Up to this length, the subnet's word is adjusted, and that alone. */
const SITE = 48;
const SUBNET_WORD = 3;
const FIRST_IDENTIFIER_WORD = 4;
const WORDS = 8;
/** One of the two zeros of one's complement. */
const MINUS_ZERO = 0xffff;

// Implementation
const NAMES: OptionNames<Nptv6Options> = { inside: "needed text", outside: "needed text" };
/** The packet that the error at hand quotes. */
const quoted = new QuotedPacket();

/** What an {@linkcode Nptv6} is made of. */
export interface Nptv6Options {
  /** The prefix of the inside network, such as `"fd01:203:405::/48"`. */
  readonly inside: string;
  /** The prefix that the outside sees; of the same length. */
  readonly outside: string;
}

/**
 * IPv6 prefix translation (RFC 6296): inside addresses get another prefix, and one of their words is adjusted so that no
 * checksum over them changes. It keeps no state; either side may begin, and all protocols pass, fragments too.
 *
 * **Outbound**: a source with the inside prefix gets the outside one. What goes to the outside prefix turns round to the
 * inside host, with its source translated, too. In ICMPv6 errors, the destination of the packet that they quote is
 * translated. Other packets pass.
 *
 * **Inbound**: a destination with the outside prefix gets the inside one; in ICMPv6 errors, the source of what they
 * quote. Other packets pass.
 *
 * **Options**: see {@linkcode Nptv6Options}. Up to /48, the word behind the prefix is adjusted; beyond, the first word of
 * the interface identifier that is not 0xffff.
 *
 * **Counters**: drops are counted as `malformed`, and `no mapping`: an address whose word to adjust is 0xffff, which
 * section 3.4 gives no translation.
 *
 * **Limits**: no ICMPv6 error answers what is dropped. An interface identifier of zeros is translated: that it was to be
 * dropped is an error of the RFC's text (errata 8757), which means that of ones. IPv4 passes. Addresses in payloads and
 * extension headers are not looked for.
 *
 * @example The example of RFC 6296 section 3.6
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatIpv6, parseIpv6 } from "@warren/tunnel/address";
 * import { Nptv6 } from "@warren/tunnel/nat";
 *
 * const nat = new Nptv6({ inside: "fd01:203:405::/48", outside: "2001:db8:1::/48" });
 * const address = parseIpv6("fd01:203:405:1::1234");
 * assert.equal(nat.toOutside(address), true);
 * assert.equal(formatIpv6(address), "2001:db8:1:d550::1234");
 * ```
 */
export class Nptv6 implements Stage {
  /** `nptv6`. */
  readonly name = "nptv6";
  readonly #inside: Prefix;
  readonly #outside: Prefix;
  readonly #insideBytes: Uint8Array;
  readonly #outsideBytes: Uint8Array;
  /** What is added to the word that is adjusted, on the way out and on the way in. */
  readonly #outwards: number;
  readonly #inwards: number;

  /**
   * A translation between two prefixes.
   *
   * @throws {SyntaxError} when a prefix does not parse.
   * @throws {TypeError} when one is not IPv6, or their lengths differ.
   * @throws {RangeError} when they are not of 1 to 112 bits.
   */
  constructor(options: Nptv6Options) {
    checkNames("translate prefixes", options, NAMES);
    const [inside, outside] = [parseCidr(options.inside), parseCidr(options.outside)];
    const what = `Cannot translate ${options.inside} to ${options.outside}`;
    if (inside.address.family !== 6 || outside.address.family !== 6) {
      throw new TypeError(`${what}: both must be IPv6`);
    }
    if (inside.length !== outside.length) throw new TypeError(`${what}: their lengths differ`);
    if (inside.length < SHORTEST || inside.length > LONGEST) {
      throw new RangeError(`${what}: ${SHORTEST} to ${LONGEST} bits are possible`);
    }
    this.#inside = inside;
    this.#outside = outside;
    this.#insideBytes = inside.network.bytes;
    this.#outsideBytes = outside.network.bytes;
    // Section 3.1: what the sum loses with one prefix and must get back.
    const [before, after] = [sum(this.#insideBytes, 0, 16), sum(this.#outsideBytes, 0, 16)];
    this.#outwards = addOnes(before, ~after & MINUS_ZERO);
    this.#inwards = addOnes(after, ~before & MINUS_ZERO);
  }

  /** Translates the 16 bytes of an inside address from `start` on; returns whether it has an outside one. */
  toOutside(bytes: Uint8Array, start = 0): boolean {
    return this.#translate(bytes, start, this.#outsideBytes, this.#outwards);
  }

  /** Translates the 16 bytes of an outside address from `start` on; returns whether it has an inside one. */
  toInside(bytes: Uint8Array, start = 0): boolean {
    return this.#translate(bytes, start, this.#insideBytes, this.#inwards);
  }

  /** Translates sources. */
  outbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 4) continue;
      const ip = Ipv6.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else if (this.#translateSource(packet, ip, context)) {
        if (!this.#outside.containsIpv6(packet.bytes, ip.start + IPV6_DST)) continue;
        if (this.#translateDestination(packet, ip, context)) context.emit(packet, Direction.Inbound);
      }
    }
  }

  /** Translates destinations. */
  inbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 4) continue;
      const ip = Ipv6.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else this.#translateDestination(packet, ip, context);
    }
  }

  /** Returns whether the packet goes on. */
  #translateSource(packet: Packet, ip: Ipv6, context: StageContext): boolean {
    // Padding may tell of anybody.
    packet.length = ip.totalLength;
    const { bytes } = packet;
    const error = errorOf(packet, ip);
    if (error !== undefined) {
      if (!quotesIpv6(error)) return drop(packet, "malformed", context);
      const dst = error.quotedOffset + IPV6_DST;
      if (this.#inside.containsIpv6(bytes, dst) && !this.toOutside(bytes, dst)) {
        return drop(packet, "no mapping", context);
      }
    }
    const src = ip.start + IPV6_SRC;
    if (!this.#inside.containsIpv6(bytes, src) || this.toOutside(bytes, src)) return true;
    return drop(packet, "no mapping", context);
  }

  /** Returns whether the packet goes on. */
  #translateDestination(packet: Packet, ip: Ipv6, context: StageContext): boolean {
    const { bytes } = packet;
    const dst = ip.start + IPV6_DST;
    if (!this.#outside.containsIpv6(bytes, dst)) return true;
    const error = errorOf(packet, ip);
    if (error !== undefined) {
      if (!quotesIpv6(error)) return drop(packet, "malformed", context);
      const src = error.quotedOffset + IPV6_SRC;
      if (this.#outside.containsIpv6(bytes, src) && !this.toInside(bytes, src)) {
        return drop(packet, "no mapping", context);
      }
    }
    return this.toInside(bytes, dst) || drop(packet, "no mapping", context);
  }

  #translate(bytes: Uint8Array, start: number, prefix: Uint8Array, adjustment: number): boolean {
    const { length } = this.#inside;
    // Section 3.5: a word with bits of the prefix cannot be adjusted.
    let word = length <= SITE ? SUBNET_WORD : Math.max(FIRST_IDENTIFIER_WORD, Math.ceil(length / 16));
    const last = length <= SITE ? SUBNET_WORD : WORDS - 1;
    while (wordAt(bytes, start + 2 * word) === MINUS_ZERO) if (word++ === last) return false;
    const whole = length >> 3;
    for (let i = 0; i < whole; i++) bytes[start + i] = prefix[i]!;
    if ((length & 7) !== 0) {
      const rest = 0xff >> (length & 7);
      bytes[start + whole] = prefix[whole]! | bytes[start + whole]! & rest;
    }
    const adjusted = addOnes(wordAt(bytes, start + 2 * word), adjustment);
    // Section 3.4: so that the way back finds the word that was adjusted.
    const written = adjusted === MINUS_ZERO ? 0 : adjusted;
    bytes[start + 2 * word] = written >> 8;
    bytes[start + 2 * word + 1] = written;
    return true;
  }
}

/** The sum in one's complement. */
function addOnes(one: number, other: number): number {
  const total = one + other;
  return (total & 0xffff) + (total >>> 16);
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** The ICMPv6 error that a packet is. */
function errorOf(packet: Packet, ip: Ipv6): Icmpv6 | undefined {
  const icmp = ip.protocol === Protocol.Icmpv6 ? Icmpv6.of(packet) : undefined;
  return icmp !== undefined && icmp.quotedOffset >= 0 ? icmp : undefined;
}

/** Whether an error quotes a whole IPv6 header, and is not about another error, whose quotation nobody translates. */
function quotesIpv6(icmp: Icmpv6): boolean {
  if (!quoted.read(icmp)) return false;
  const { protocol, upperOffset, end, fragmentOffset } = quoted;
  return protocol !== Protocol.Icmpv6 || fragmentOffset !== 0 || upperOffset >= end ||
    !isIcmpError(6, icmp.packet.bytes[upperOffset]!);
}
