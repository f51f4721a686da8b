/** NPTv6: translates one IPv6 prefix to another, stateless and checksum-neutral (RFC 6296). */

import * as field from "../../wire/header_fields.ts";
import { parseCidr, type Prefix } from "../../wire/address.ts";
import { sum } from "../../core/checksum.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { Icmpv6 } from "../../wire/icmpv6.ts";
import type { Ipv6 } from "../../wire/ipv6.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";
import { ipv6Of } from "./_headers.ts";
import { quotesPacket } from "./_quoted.ts";
import { drop } from "../../core/drop.ts";

// Specification: RFC 6296 sections 3.1, 3.4 and 3.5
const { IPV6_DST, IPV6_SRC } = field;
const MIN_LENGTH = 1;
/** A longer prefix would leave no word to adjust. */
const MAX_LENGTH = 112;
/** Up to this length, only the subnet word is adjusted. */
const SITE = 48;
const SUBNET_WORD = 3;
const FIRST_IDENTIFIER_WORD = 4;
const WORDS = 8;
/** Negative zero in one's complement. */
const MINUS_ZERO = 0xffff;

// Implementation
const NAMES: OptionKinds<Nptv6Options> = { inside: "text", outside: "text" };

/** Options of {@linkcode Nptv6}. */
export interface Nptv6Options {
  /** Prefix of the inside network, such as `"fd01:203:405::/48"`. */
  readonly inside: string;
  /** Prefix on the outside, of the same length. */
  readonly outside: string;
}

/**
 * NPTv6: IPv6 prefix translation (RFC 6296). Adjusts one word of each address so that checksums stay valid. Stateless;
 * translates all protocols and fragments, and either side may initiate.
 *
 * **Outbound**: rewrites sources with the inside prefix; hairpins packets to the outside prefix; other packets pass.
 * **Inbound**: rewrites destinations with the outside prefix; other packets pass.
 * **Options**: {@linkcode Nptv6Options}. **Drops**: `malformed`, `no mapping`.
 * **Limits**: no ICMPv6 errors for dropped packets; addresses in payloads and extension headers are not translated.
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
  /** Adjustments that are added to the word, outbound and inbound. */
  readonly #outboundAdjustment: number;
  readonly #inboundAdjustment: number;

  /**
   * A translator between two prefixes.
   *
   * @throws {SyntaxError} when a prefix does not parse.
   * @throws {TypeError} when one is not IPv6, or their lengths differ.
   * @throws {RangeError} when their length is not from 1 to 112 bits.
   */
  constructor(options: Nptv6Options) {
    checkOptions("translate prefixes", options, NAMES, ["inside", "outside"]);
    const [inside, outside] = [parseCidr(options.inside), parseCidr(options.outside)];
    const got = `got "${options.inside}" and "${options.outside}"`;
    if (inside.address.family !== 6 || outside.address.family !== 6) {
      throw new TypeError(`Cannot translate prefixes: both must be IPv6, ${got}`);
    }
    if (inside.length !== outside.length) {
      throw new TypeError(`Cannot translate prefixes: both must have the same length, ${got}`);
    }
    if (inside.length < MIN_LENGTH || inside.length > MAX_LENGTH) {
      throw new RangeError(
        `Cannot translate prefixes: length must be from ${MIN_LENGTH} to ${MAX_LENGTH} bits, ${got}`,
      );
    }
    this.#inside = inside;
    this.#outside = outside;
    this.#insideBytes = inside.network.bytes;
    this.#outsideBytes = outside.network.bytes;
    // Section 3.1: the difference between the checksums of the prefixes.
    const [before, after] = [sum(this.#insideBytes, 0, 16), sum(this.#outsideBytes, 0, 16)];
    this.#outboundAdjustment = addOnes(before, ~after & MINUS_ZERO);
    this.#inboundAdjustment = addOnes(after, ~before & MINUS_ZERO);
  }

  /** Translates an inside address, 16 bytes from `start` on; returns whether it has an outside address. */
  toOutside(bytes: Uint8Array, start = 0): boolean {
    return this.#translate(bytes, start, this.#outsideBytes, this.#outboundAdjustment);
  }

  /** Translates an outside address, 16 bytes from `start` on; returns whether it has an inside address. */
  toInside(bytes: Uint8Array, start = 0): boolean {
    return this.#translate(bytes, start, this.#insideBytes, this.#inboundAdjustment);
  }

  /** Translates sources. */
  outbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = ipv6Of(packet, context);
      if (ip !== undefined && this.#translateSource(packet, ip, context)) {
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
      const ip = ipv6Of(packet, context);
      if (ip !== undefined) this.#translateDestination(packet, ip, context);
    }
  }

  /** Translates the source; returns whether the packet goes on. */
  #translateSource(packet: Packet, ip: Ipv6, context: StageContext): boolean {
    // Padding might reveal data of other hosts.
    packet.length = ip.totalLength;
    const { bytes } = packet;
    const error = errorOf(packet, ip);
    if (error !== undefined) {
      if (!quotesPacket(error, 6)) return drop(packet, "malformed", context);
      const dst = error.quotedOffset + IPV6_DST;
      if (this.#inside.containsIpv6(bytes, dst) && !this.toOutside(bytes, dst)) {
        return drop(packet, "no mapping", context);
      }
    }
    const src = ip.start + IPV6_SRC;
    if (!this.#inside.containsIpv6(bytes, src) || this.toOutside(bytes, src)) return true;
    return drop(packet, "no mapping", context);
  }

  /** Translates the destination; returns whether the packet goes on. */
  #translateDestination(packet: Packet, ip: Ipv6, context: StageContext): boolean {
    const { bytes } = packet;
    const dst = ip.start + IPV6_DST;
    if (!this.#outside.containsIpv6(bytes, dst)) return true;
    const error = errorOf(packet, ip);
    if (error !== undefined) {
      if (!quotesPacket(error, 6)) return drop(packet, "malformed", context);
      const src = error.quotedOffset + IPV6_SRC;
      if (this.#outside.containsIpv6(bytes, src) && !this.toInside(bytes, src)) {
        return drop(packet, "no mapping", context);
      }
    }
    return this.toInside(bytes, dst) || drop(packet, "no mapping", context);
  }

  #translate(bytes: Uint8Array, start: number, prefix: Uint8Array, adjustment: number): boolean {
    const { length } = this.#inside;
    // Section 3.5: a word that holds bits of the prefix cannot be adjusted.
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
    // Section 3.4: 0xffff becomes 0, so that the reverse translation finds the word that was adjusted.
    const written = adjusted === MINUS_ZERO ? 0 : adjusted;
    bytes[start + 2 * word] = written >> 8;
    bytes[start + 2 * word + 1] = written;
    return true;
  }
}

/** Adds in one's complement. */
function addOnes(one: number, other: number): number {
  const total = one + other;
  return (total & 0xffff) + (total >>> 16);
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** Returns the ICMPv6 error in a packet, if it is one. */
function errorOf(packet: Packet, ip: Ipv6): Icmpv6 | undefined {
  const icmp = ip.protocol === Protocol.Icmpv6 ? Icmpv6.of(packet) : undefined;
  return icmp !== undefined && icmp.quotedOffset >= 0 ? icmp : undefined;
}
