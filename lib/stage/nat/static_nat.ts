/** Static NAT: one-to-one translation of IPv4 addresses, stateless, ports unchanged. */

import * as field from "../../wire/header_fields.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { Icmpv4 } from "../../wire/icmpv4.ts";
import type { Ipv4 } from "../../wire/ipv4.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";
import { firstAddress, readIpv4Prefix } from "./_napt_options.ts";
import { ipv4Of } from "./_headers.ts";
import { quotesPacket, setQuoted } from "./_quoted.ts";
import { drop } from "../../core/drop.ts";

// Specification
const { IPV4_DST, IPV4_SRC } = field;

// Implementation
const NAMES: OptionKinds<StaticNatOptions> = { rules: "list" };
const RULE: OptionKinds<StaticNatRule> = { inside: "text", outside: "text" };

/** Pair of addresses, or of prefixes of equal length whose host bits are kept. */
export interface StaticNatRule {
  /** Inside address or prefix. */
  readonly inside: string;
  /** Outside address, or prefix of the same length. */
  readonly outside: string;
}

/** Options of {@linkcode StaticNat}. */
export interface StaticNatOptions {
  /** Pairs of inside and outside addresses. Prefixes of one side must not overlap. */
  readonly rules: readonly StaticNatRule[];
}

/**
 * Static NAT: translates IPv4 addresses or whole prefixes one to one (RFC 2663 section 4.1.1). Stateless; translates all
 * protocols and fragments, and either side may initiate.
 *
 * **Outbound**: rewrites the source, hairpins packets to an outside address; packets from other sources pass.
 * **Inbound**: rewrites the destination; packets to other destinations pass.
 * **Options**: {@linkcode StaticNatOptions}. **Drops**: `malformed`, `not translated` (an ICMP error from outside that
 * quotes a packet without a rule).
 * **Limits**: an ICMP error from an inside router without a rule leaves with the router's address. Addresses in payloads
 * and IP options are not translated. All ports are open: add a firewall.
 *
 * @example A packet leaves with the outside address
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseIpv4 } from "@warren/tunnel/address";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { StaticNat } from "@warren/tunnel/nat";
 *
 * const nat = new StaticNat({ rules: [{ inside: "10.9.1.0/24", outside: "203.0.113.0/24" }] }); // tunnel.use(nat)
 * const packet = new PacketPool().take(100)!;
 * Ipv4.encode(packet, { src: parseIpv4("10.9.1.7"), dst: parseIpv4("192.0.2.1"), protocol: 47 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * nat.outbound(batch, {} as StageContext);
 * assert.equal(Ipv4.of(packet)!.srcText, "203.0.113.7");
 * ```
 */
export class StaticNat implements Stage {
  /** `static nat`. */
  readonly name = "static nat";
  readonly #outsideOf: AddressMap;
  readonly #insideOf: AddressMap;

  /**
   * A NAT with these rules.
   *
   * @throws {SyntaxError} when an address or prefix does not parse.
   * @throws {TypeError} when one is not IPv4, the prefixes of a rule differ in length, or two of one side overlap.
   */
  constructor(options: StaticNatOptions) {
    checkOptions("create a StaticNat", options, NAMES, ["rules"]);
    for (const rule of options.rules) {
      checkOptions("translate by a rule", rule, RULE, ["inside", "outside"]);
    }
    const rules = options.rules.map(({ inside, outside }) => {
      const [from, to] = [readIpv4Prefix(inside), readIpv4Prefix(outside)];
      if (from.length !== to.length) {
        throw new TypeError(
          `Cannot create a StaticNat: prefixes must have the same length, got "${inside}" and "${outside}"`,
        );
      }
      return { inside: firstAddress(from), outside: firstAddress(to), count: 2 ** (32 - from.length) };
    });
    this.#outsideOf = new AddressMap(rules.map(({ inside, outside, count }) => [inside, outside, count]));
    this.#insideOf = new AddressMap(rules.map(({ inside, outside, count }) => [outside, inside, count]));
  }

  /** Translates sources. */
  outbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = ipv4Of(packet, context);
      if (ip !== undefined && this.#translateSource(packet, ip, context) && this.#insideOf.of(ip.dst) >= 0) {
        if (this.#translateDestination(packet, ip, context)) context.emit(packet, Direction.Inbound);
      }
    }
  }

  /** Translates destinations. */
  inbound(batch: PacketBatch, context: StageContext): void {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = ipv4Of(packet, context);
      if (ip !== undefined) this.#translateDestination(packet, ip, context);
    }
  }

  /** Translates the source; returns whether the packet goes on. */
  #translateSource(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    // Padding might reveal data of other hosts.
    packet.length = ip.totalLength;
    const icmp = errorOf(packet, ip);
    if (icmp !== undefined) {
      if (!quotesPacket(icmp, 4)) return drop(packet, "malformed", context);
      const quoted = this.#outsideOf.of(packet.view.getUint32(icmp.quotedOffset + IPV4_DST));
      if (quoted >= 0) setQuoted(icmp, IPV4_DST, quoted, 0, -1);
    }
    const outside = this.#outsideOf.of(ip.src);
    if (outside >= 0) ip.src = outside;
    return true;
  }

  /** Translates the destination; returns whether the packet goes on. */
  #translateDestination(packet: Packet, ip: Ipv4, context: StageContext): boolean {
    const inside = this.#insideOf.of(ip.dst);
    if (inside < 0) return true;
    const icmp = errorOf(packet, ip);
    if (icmp !== undefined) {
      if (!quotesPacket(icmp, 4)) return drop(packet, "malformed", context);
      const quoted = this.#insideOf.of(packet.view.getUint32(icmp.quotedOffset + IPV4_SRC));
      if (quoted < 0) return drop(packet, "not translated", context);
      setQuoted(icmp, IPV4_SRC, quoted, 0, -1);
    }
    ip.dst = inside;
    return true;
  }
}

/** Map from ranges of addresses to others of the same length. */
class AddressMap {
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
        throw new TypeError("Cannot create a StaticNat: two prefixes of one side overlap");
      }
    }
  }

  /** Returns the address that an address maps to; -1 for none. */
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

/** Returns the ICMP error in a packet, if it is one. */
function errorOf(packet: Packet, ip: Ipv4): Icmpv4 | undefined {
  const icmp = ip.protocol === Protocol.Icmp ? Icmpv4.of(packet) : undefined;
  return icmp !== undefined && icmp.quotedOffset >= 0 ? icmp : undefined;
}
