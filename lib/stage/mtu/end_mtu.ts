/**
 * The last step before a far end whose longest packet may be shorter than the device's: no packet vanishes for its length.
 *
 *     outbound ─► longer than the far end's MTU? ─ no ──► far end
 *                        └─ yes ─► may be fragmented? ─ yes ─► fragments ─► far end
 *                                         └─ no ─► fragmentation needed, packet too big ─► back
 */

import { IPV4_MIN_MTU, IPV6_MIN_MTU } from "../../wire/header_fields.ts";
import { MtuLimiter } from "./_mtu_limiter.ts";
import type { Packet, PacketBatch, Stage, StageContext, TunnelEnd } from "../../core/mod.ts";

/**
 * Keeps packets to the MTU that a far end has at the time, as a router does before a link.
 *
 * **Outbound**: IPv4 packets that are too long and allow it are fragmented (RFC 791 section 3.2). Those that do not are
 * answered with fragmentation needed (RFC 1191), IPv6 packets with packet too big (RFC 4443 section 3.2), at a limited
 * rate. Of a super-packet, the length of its segments counts.
 *
 * **Reasons**: those of `fragment()`, such as `longer than the mtu` for what could not be answered.
 *
 * **Limits**: below an MTU of 1280, which IPv6 does not know, IPv6 packets are fragmented. Below 68, and of what is no IP
 * packet, nothing is fragmented or answered: the end counts what it does not take.
 */
export class EndMtu implements Stage {
  /** Its name in statistics. */
  readonly name = "mtu";
  readonly #end: TunnelEnd;
  readonly #limiter: EndMtuLimiter;

  /** The step before this end. */
  constructor(end: TunnelEnd) {
    this.#end = end;
    this.#limiter = new EndMtuLimiter(end);
  }

  /** Tells whether an end needs the step: it carries IP packets up to some length. */
  static isFor(end: TunnelEnd): boolean {
    return end.payload !== "any" && (end.mtu !== undefined || end.mtuFor !== undefined);
  }

  /**
   * Tells whether no packet is longer than the end's MTU: the fast path. Always `false` for an end with several MTUs.
   */
  fits({ packets, length }: PacketBatch): boolean {
    const { mtu, mtuFor } = this.#end;
    if (mtuFor !== undefined) return false;
    for (let i = 0; i < length; i++) if (packets[i]!.length > mtu!) return false;
    return true;
  }

  /** Passes what the end takes. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#limiter.pass(batch, context);
  }
}

/** A limiter that reads its end's MTU for each packet. */
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
