/**
 * The last step before the far end, whose MTU may be lower than the device's: no packet is lost silently for its length.
 *
 *     outbound ─► longer than the far end's MTU? ─ no ──► far end
 *                        └─ yes ─► may be fragmented? ─ yes ─► fragments ─► far end
 *                                         └─ no ─► fragmentation needed, packet too big ─► back to the sender
 */

import { IPV4_MIN_MTU, IPV6_MIN_MTU } from "../../wire/header_fields.ts";
import { MtuLimiter } from "./_mtu_limiter.ts";
import type { Packet, PacketBatch, Stage, StageContext, TunnelEnd } from "../../core/mod.ts";

/**
 * Enforces the far end's current MTU, as a router does before a link. A tunnel adds this stage itself.
 *
 * **Outbound**: fragments IPv4 packets that are too long and allow it (RFC 791 section 3.2). Answers others with
 * fragmentation needed (RFC 1191) or packet too big (RFC 4443 section 3.2), at a limited rate. The length of a super-packet
 * is that of its segments.
 * **Drops**: those of `fragment()`, such as `longer than the MTU` when no error could be sent.
 * **Limits**: below 1280, the minimum of IPv6, IPv6 packets are fragmented. Below 68, and for packets that are not IP, the
 * stage passes everything and the end refuses what it cannot send.
 */
export class EndMtu implements Stage {
  /** Name in statistics: `mtu`. */
  readonly name = "mtu";
  readonly #end: TunnelEnd;
  readonly #limiter: EndMtuLimiter;

  /** Reads the MTU of this end. */
  constructor(end: TunnelEnd) {
    this.#end = end;
    this.#limiter = new EndMtuLimiter(end);
  }

  /** Reports whether an end needs this stage: it carries IP packets and has an MTU. */
  static isFor(end: TunnelEnd): boolean {
    return end.payload !== "any" && (end.mtu !== undefined || end.mtuFor !== undefined);
  }

  /**
   * Reports whether all packets are within the end's MTU: the fast path. Always `false` for an end with several MTUs.
   */
  fits({ packets, length }: PacketBatch): boolean {
    const { mtu, mtuFor } = this.#end;
    if (mtuFor !== undefined) return false;
    for (let i = 0; i < length; i++) if (packets[i]!.length > mtu!) return false;
    return true;
  }

  /** Fragments or answers packets longer than the end's MTU. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#limiter.pass(batch, context);
  }
}

/** A limiter that reads the end's MTU for each packet. */
class EndMtuLimiter extends MtuLimiter {
  readonly #end: TunnelEnd;

  constructor(end: TunnelEnd) {
    super(IPV4_MIN_MTU);
    this.#end = end;
  }

  override fits(packet: Packet): boolean {
    const end = this.#end;
    const mtu = end.mtuFor === undefined ? end.mtu! : end.mtuFor(packet);
    if (packet.length <= mtu || !(mtu >= IPV4_MIN_MTU)) return true;
    this.mtu = mtu;
    this.fragmentIpv6 = mtu < IPV6_MIN_MTU;
    return super.fits(packet);
  }
}
