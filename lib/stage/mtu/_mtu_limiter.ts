/** Fragments packets longer than an MTU, or answers them with an ICMP error that reports the MTU. */

import { Fragmenter } from "../../split/fragmenter.ts";
import { longestLength } from "../../split/stage_segmenter.ts";
import type { Packet, PacketBatch, StageContext } from "../../core/mod.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip } from "../../wire/ip.ts";

/** Options of {@linkcode MtuLimiter}; see `FragmentOptions`. */
export interface MtuLimiterOptions {
  /** Fragments IPv4 packets with Don't Fragment set. @default {false} */
  readonly ignoreDontFragment?: boolean;
  /** Fragments IPv6 packets. @default {false} */
  readonly fragmentIpv6?: boolean;
  /** Sends errors about packets that must not be fragmented. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

/** Keeps the packets of a batch within an MTU. */
export class MtuLimiter {
  fragmentIpv6: boolean;
  readonly #ignoreDontFragment: boolean;
  readonly #errors: IcmpErrors;
  readonly #fragmenter: Fragmenter;

  /** @param mtu The maximum packet length (bytes). */
  constructor(mtu: number, options: MtuLimiterOptions = {}) {
    const { ignoreDontFragment = false, fragmentIpv6 = false, errors = new IcmpErrors() } = options;
    this.fragmentIpv6 = fragmentIpv6;
    this.#ignoreDontFragment = ignoreDontFragment;
    this.#errors = errors;
    this.#fragmenter = new Fragmenter(mtu);
  }

  /** Maximum packet length (bytes). */
  get mtu(): number {
    return this.#fragmenter.mtu;
  }

  set mtu(mtu: number) {
    this.#fragmenter.mtu = mtu;
  }

  /** Passes on, fragments or answers the packets of a batch, in order. */
  pass({ packets, length }: PacketBatch, context: StageContext): void {
    let fitting = 0;
    while (fitting < length && this.fits(packets[fitting]!)) fitting++;
    if (fitting === length) return;
    // Emitted packets go ahead of those left in the batch: to keep the order, all are emitted.
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (i < fitting || this.fits(packet)) context.emit(packet, context.direction);
      else this.limit(packet, context);
    }
  }

  /** Reports whether a packet, or each segment of a super-packet, is within the MTU; `true` if it is not IP. */
  fits(packet: Packet): boolean {
    if (packet.length <= this.mtu) return true;
    const ip = Ip.of(packet);
    return ip === undefined || longestLength(packet, ip) <= this.mtu;
  }

  /** Fragments a packet that does not fit, or answers it with an error. */
  limit(packet: Packet, context: StageContext): void {
    const ip = Ip.of(packet)!;
    const may = ip.version === 4 ? !ip.dontFragment || this.#ignoreDontFragment : this.fragmentIpv6;
    if (may) this.#fragmenter.fragment(packet, context);
    else this.#errors.answer(packet, IcmpError.PacketTooBig, context, "longer than the MTU", this.mtu);
  }
}
