/** Addresses exchanged one for one: NAT of IPv4 addresses that leaves ports alone and keeps no state. */

import { IPV4_DST, IPV4_SRC } from "../../wire/header_fields.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import { versionOf } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";
import { firstAddress, readIpv4Prefix } from "./_napt_options.ts";
import { setQuoted } from "./_quoted.ts";
import { drop } from "../../core/drop.ts";
import { isIcmpError } from "../../wire/icmp_query.ts";
import { QuotedPacket } from "../../wire/quoted_packet.ts";

// Implementation
const NAMES: OptionNames<StaticNatOptions> = { rules: "needed list" };
const RULE: OptionNames<StaticNatRule> = { inside: "needed text", outside: "needed text" };
/** The packet that the error at hand quotes. */
const quoted = new QuotedPacket();

/** An inside address and its outside one, or prefixes of equal length, whose addresses go by their places in them. */
export interface StaticNatRule {
  /** An address, or a prefix. */
  readonly inside: string;
  /** An address, or a prefix of the same length. */
  readonly outside: string;
}

/** What a {@linkcode StaticNat} is made of. */
export interface StaticNatOptions {
  /** Which addresses are exchanged for which. Prefixes of one side must not overlap. */
  readonly rules: readonly StaticNatRule[];
}

/**
 * NAT of IPv4 addresses, one for one (RFC 2663 section 4.1.1): of single addresses and of whole prefixes. It keeps no
 * state, so it translates every protocol, fragments too, and either side may begin.
 *
 * **Outbound**: the source of a packet becomes its outside address. What goes to an outside address of a rule turns
 * round to the inside host, with its source translated, too. In ICMP errors, the destination of the packet that they
 * quote is translated. Packets from other sources pass.
 *
 * **Inbound**: the destination becomes the inside address; in ICMP errors, the source of what they quote. Packets for
 * other destinations pass.
 *
 * **Options**: see {@linkcode StaticNatOptions}.
 *
 * **Counters**: drops are counted as `malformed`, and `not translated`: an ICMP error from outside about a packet that
 * no rule lets out.
 *
 * **Limits**: an ICMP error that an inside router sends from an address without a rule leaves with that address.
 * Addresses in payloads and in IP options are not looked for. A rule covers all ports: a firewall is another stage.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { StaticNat } from "@warren/tunnel/nat";
 *
 * const nat = new StaticNat({
 *   rules: [
 *     { inside: "10.9.0.5", outside: "198.51.100.5" },
 *     { inside: "10.9.1.0/24", outside: "203.0.113.0/24" },
 *   ],
 * });
 * assert.equal(nat.name, "static nat"); // then: tunnel.use(nat)
 * ```
 */
export class StaticNat implements Stage {
  /** `static nat`. */
  readonly name = "static nat";
  readonly #outwards: Exchange;
  readonly #inwards: Exchange;

  /**
   * A NAT by these rules.
   *
   * @throws {SyntaxError} when an address or prefix does not parse.
   * @throws {TypeError} when one is not IPv4, the prefixes of a rule differ in length, or two of one side overlap.
   */
  constructor(options: StaticNatOptions) {
    checkNames("make a static NAT", options, NAMES);
    if (!Array.isArray(options.rules)) {
      throw new TypeError("Cannot make a static NAT: rules is no list of them");
    }
    for (const rule of options.rules) checkNames("translate by a rule", rule, RULE);
    const rules = options.rules.map(({ inside, outside }) => {
      const [from, to] = [readIpv4Prefix(inside), readIpv4Prefix(outside)];
      if (from.length !== to.length) {
        throw new TypeError(`Cannot exchange ${inside} for ${outside}: their lengths differ`);
      }
      return { inside: firstAddress(from), outside: firstAddress(to), count: 2 ** (32 - from.length) };
    });
    this.#outwards = new Exchange(rules.map(({ inside, outside, count }) => [inside, outside, count]));
    this.#inwards = new Exchange(rules.map(({ inside, outside, count }) => [outside, inside, count]));
  }

  /** Translates sources. */
  outbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 6) continue;
      const ip = Ipv4.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else if (this.#translateSource(packet, ip, context) && this.#inwards.of(ip.dst) >= 0) {
        if (this.#translateDestination(packet, ip, context)) context.emit(packet, Direction.Inbound);
      }
    }
  }

  /** Translates destinations. */
  inbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (versionOf(packet) === 6) continue;
      const ip = Ipv4.of(packet);
      if (ip === undefined) context.drop(packet, "malformed");
      else this.#translateDestination(packet, ip, context);
    }
  }

  /** Returns whether the packet goes on. */
  #translateSource(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    // Padding may tell of anybody.
    packet.length = ip.totalLength;
    const icmp = errorOf(packet, ip);
    if (icmp !== undefined) {
      if (!quotesIpv4(icmp)) return drop(packet, "malformed", context);
      const quoted = this.#outwards.of(packet.view.getUint32(icmp.quotedOffset + IPV4_DST));
      if (quoted >= 0) setQuoted(icmp, IPV4_DST, quoted, 0, -1);
    }
    const outside = this.#outwards.of(ip.src);
    if (outside >= 0) ip.src = outside;
    return true;
  }

  /** Returns whether the packet goes on. */
  #translateDestination(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    const inside = this.#inwards.of(ip.dst);
    if (inside < 0) return true;
    const icmp = errorOf(packet, ip);
    if (icmp !== undefined) {
      if (!quotesIpv4(icmp)) return drop(packet, "malformed", context);
      const quoted = this.#inwards.of(packet.view.getUint32(icmp.quotedOffset + IPV4_SRC));
      if (quoted < 0) return drop(packet, "not translated", context);
      setQuoted(icmp, IPV4_SRC, quoted, 0, -1);
    }
    ip.dst = inside;
    return true;
  }
}

/** Ranges of addresses and what they are exchanged for. */
class Exchange {
  readonly #first: Uint32Array;
  readonly #last: Uint32Array;
  readonly #target: Uint32Array;

  constructor(ranges: [first: number, target: number, count: number][]) {
    ranges.sort(([one], [other]) => one - other);
    this.#first = Uint32Array.from(ranges, ([first]) => first);
    this.#last = Uint32Array.from(ranges, ([first, , count]) => first + count - 1);
    this.#target = Uint32Array.from(ranges, ([, target]) => target);
    for (let i = 1; i < ranges.length; i++) {
      if (this.#first[i]! <= this.#last[i - 1]!) {
        throw new TypeError("Cannot exchange addresses: prefixes of one side overlap");
      }
    }
  }

  /** What an address is exchanged for; -1 for nothing. */
  of(address: number): number {
    let low = 0;
    let high = this.#first.length - 1;
    while (low <= high) {
      const middle = low + high >> 1;
      if (address < this.#first[middle]!) high = middle - 1;
      else if (address > this.#last[middle]!) low = middle + 1;
      else return this.#target[middle]! + address - this.#first[middle]!;
    }
    return -1;
  }
}

/** The ICMP error that a packet is. */
function errorOf(packet: Packet, ip: Ipv4): Icmpv4 | undefined {
  const icmp = ip.protocol === Protocol.Icmp ? Icmpv4.of(packet) : undefined;
  return icmp !== undefined && icmp.quotedOffset >= 0 ? icmp : undefined;
}

/** Whether an error quotes a whole IPv4 header, and is not about another error, whose quotation nobody translates. */
function quotesIpv4(icmp: Icmpv4): boolean {
  if (!quoted.read(icmp)) return false;
  const { protocol, upperOffset, end, fragmentOffset } = quoted;
  return protocol !== Protocol.Icmp || fragmentOffset !== 0 || upperOffset >= end ||
    !isIcmpError(4, icmp.packet.bytes[upperOffset]!);
}
