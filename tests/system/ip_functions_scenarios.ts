/** The middle of a crossing, with a scenario's stages between its devices. Its numbers are the last line that it says. */

import { device, openTunnel } from "@warren/tunnel";
import { Direction, type PacketBatch, type Stage, type StageContext } from "@warren/tunnel/core";
import { fragment } from "@warren/tunnel/fragment";
import { IcmpError, IcmpErrors } from "@warren/tunnel/icmp_error";
import { mssClamp } from "@warren/tunnel/mss_clamp";
import { PathMtu } from "@warren/tunnel/path_mtu";
import { Reassemble } from "@warren/tunnel/reassemble";
import { ttl } from "@warren/tunnel/ttl";

/** Where errors come from. */
export const ROUTER = { ipv4: "10.9.0.254", ipv6: "fd09::254" } as const;

/** Refuses TCP by a reset, and all else as a filter does. */
class Refuse implements Stage {
  readonly name = "refuse";
  readonly #errors: IcmpErrors;

  constructor(errors: IcmpErrors) {
    this.#errors = errors;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      const isTcp = packet.bytes[packet.offset + (packet.bytes[packet.offset]! >> 4 === 4 ? 9 : 6)] === 6;
      if (isTcp) this.#errors.reset(packet, context, "refused");
      else this.#errors.answer(packet, IcmpError.AdministrativelyProhibited, context, "refused");
    }
  }
}

const errors = new IcmpErrors({ address: [ROUTER.ipv4, ROUTER.ipv6] });
const reassemble = new Reassemble({ errors });
const pathMtu = new PathMtu({ errors });

/** The stages of each scenario, from the device on the left on. */
const SCENARIOS: Readonly<Record<string, () => Stage[]>> = {
  fragment: () => [fragment(600, { fragmentIpv6: true, ignoreDontFragment: true, errors })],
  // What the kernel divided is joined, and divided again for the kernel to join.
  reassemble: () => [
    fragment(1400, { direction: Direction.Inbound, fragmentIpv6: true, errors }),
    reassemble,
    fragment(1400, { fragmentIpv6: true, errors }),
  ],
  ttl: () => [ttl({ errors })],
  mtu: () => [new PathMtu({ mtu: 1300, errors })],
  learn: () => [pathMtu],
  clamp: () => [mssClamp({ mtu: 1300 })],
  refuse: () => [new Refuse(errors)],
};

if (import.meta.main) {
  const [scenario] = Deno.args;
  // Unfinished sums would look wrong to tshark.
  const linux = { offload: scenario === "mtu" };
  const far = device({ name: "right", linux });
  const stages = SCENARIOS[scenario!]!();
  await using tunnel = await openTunnel({ name: "left", linux, far, stages });
  const running = tunnel.run();
  console.log("ready");
  await running;
  const { answered } = errors;
  const { reassembled, refused, timedOut } = reassemble;
  const { learned, ignored } = pathMtu;
  console.log(JSON.stringify({ answered, reassembled, refused, timedOut, learned, ignored }));
}
