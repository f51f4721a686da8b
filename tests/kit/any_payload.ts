/** A VPN protocol that carries any bytes through one that carries IP packets: it puts an IPv4 header before them. */

import type { PacketBatch, StageContext } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import type { VpnProtocol } from "@warren/tunnel/vpn";

const HEADER = 20;

/** The protocol, with a header inside each of its packets. */
export class AnyPayload implements VpnProtocol {
  readonly name: string;
  readonly overhead: number;
  readonly segmented = true;
  readonly #protocol: VpnProtocol;

  /** Runs this protocol. */
  constructor(protocol: VpnProtocol) {
    this.#protocol = protocol;
    this.name = protocol.name;
    this.overhead = protocol.overhead + HEADER;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a090002, protocol: 253 });
    this.#protocol.outbound!(batch, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    const owner = batch.packets[0]?.owner;
    this.#protocol.inbound!(batch, context);
    for (const packet of batch) if (packet.owner === owner) packet.strip(HEADER);
  }

  tick(context: StageContext): number | undefined {
    return this.#protocol.tick?.(context);
  }

  close(): void {
    this.#protocol.close?.();
  }
}
