/** What is done with packets that are longer than an MTU: fragments, or an error that tells the MTU. */

import { Divider } from "./_divider.ts";
import { longestLength } from "./_packet_parts.ts";
import type { Packet, PacketBatch, StageContext } from "./core/mod.ts";
import { IcmpError, IcmpErrors } from "./icmp_error.ts";
import { Ip } from "./ip.ts";

/** Options for {@linkcode Fragmenter}; `fragment()` has the same, and explains them. */
export interface FragmenterOptions {
  /** Whether IPv4 packets that forbid it are fragmented, too. @default {false} */
  readonly ignoreDontFragment?: boolean;
  /** Whether IPv6 packets are fragmented. @default {false} */
  readonly divideIpv6?: boolean;
  /** Answers packets that must not be fragmented. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

/** Passes a batch on, packets that are too long in fragments, or back as errors. */
export class Fragmenter {
  /** Whether IPv6 packets are fragmented. */
  divideIpv6: boolean;
  readonly #ignoreDontFragment: boolean;
  readonly #errors: IcmpErrors;
  readonly #divider: Divider;

  /** @param mtu The longest packet (bytes). */
  constructor(mtu: number, options: FragmenterOptions = {}) {
    const { ignoreDontFragment = false, divideIpv6 = false, errors = new IcmpErrors() } = options;
    this.divideIpv6 = divideIpv6;
    this.#ignoreDontFragment = ignoreDontFragment;
    this.#errors = errors;
    this.#divider = new Divider(mtu);
  }

  /** The longest packet (bytes). */
  get mtu(): number {
    return this.#divider.mtu;
  }

  set mtu(mtu: number) {
    this.#divider.mtu = mtu;
  }

  /** Passes a batch on. */
  pass({ packets, length }: PacketBatch, context: StageContext): void {
    let fitting = 0;
    while (fitting < length && this.fits(packets[fitting]!)) fitting++;
    if (fitting === length) return;
    // What is emitted goes ahead of what is left in the batch, so all of them are, in their order.
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (i < fitting || this.fits(packet)) context.emit(packet, context.direction);
      else this.divide(packet, context);
    }
  }

  /** Whether a packet, or each segment of a super-packet, is no longer than the MTU. What is no IP packet is. */
  fits(packet: Packet): boolean {
    if (packet.length <= this.mtu) return true;
    const ip = Ip.of(packet);
    return ip === undefined || longestLength(packet, ip) <= this.mtu;
  }

  /** Fragments a packet that does not fit, or answers it. */
  divide(packet: Packet, context: StageContext): void {
    const ip = Ip.of(packet)!;
    const may = ip.version === 4 ? !ip.dontFragment || this.#ignoreDontFragment : this.divideIpv6;
    if (may) this.#divider.divide(packet, context);
    else this.#errors.answer(packet, IcmpError.PacketTooBig, context, "longer than the mtu", this.mtu);
  }
}
