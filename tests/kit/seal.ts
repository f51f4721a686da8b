/** A stage that seals packets, as one that encrypts does: XOR with a key, and a tag. It keeps nobody out in earnest. */

import { ENDPOINT_LENGTH, type Packet, type PacketBatch, type StageContext } from "../../lib/core/mod.ts";
import type { VpnProtocol } from "../../lib/vpn/protocol.ts";

/** The bytes that sealing adds: first bytes that no IP packet has, and a tag. */
export const SEAL_OVERHEAD = 8;
const MAGIC = 0x01020304;

/** Seals outbound packets, and opens inbound ones; with `remembers`, its peer is who last sent a genuine one. */
export class Seal implements VpnProtocol {
  /** Its name in statistics. */
  readonly name = "seal";
  /** A super-packet's bytes cannot be sealed as one packet. */
  readonly segmented = true;
  readonly overhead = SEAL_OVERHEAD;
  /** The peer's endpoint. */
  peer: Uint8Array | undefined;
  readonly #key: number;
  readonly #remembers: boolean;

  /** A stage with this key. */
  constructor(key: number, remembers: boolean) {
    this.#key = key;
    this.#remembers = remembers;
  }

  /** Seals. */
  outbound(batch: PacketBatch): void {
    for (const packet of batch) {
      const tag = this.#tag(packet);
      this.#mix(packet);
      packet.prepend(SEAL_OVERHEAD);
      packet.view.setUint32(packet.offset, MAGIC);
      packet.view.setUint32(packet.offset + 4, tag);
      if (this.peer !== undefined) packet.sendTo(this.peer);
    }
  }

  /** Opens; what is not genuine is dropped. */
  inbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      if (!this.#open(packet)) context.drop(packet, "seal: forged");
      else if (this.#remembers) (this.peer ??= new Uint8Array(ENDPOINT_LENGTH)).set(packet.endpoint);
    }
  }

  #open(packet: Packet): boolean {
    if (packet.length <= SEAL_OVERHEAD || packet.view.getUint32(packet.offset) !== MAGIC) return false;
    const tag = packet.view.getUint32(packet.offset + 4);
    packet.strip(SEAL_OVERHEAD);
    this.#mix(packet);
    return this.#tag(packet) === tag;
  }

  #mix({ bytes, offset, length }: Packet): void {
    for (let i = offset; i < offset + length; i++) bytes[i]! ^= this.#key;
  }

  #tag({ bytes, offset, length }: Packet): number {
    let tag = this.#key;
    for (let i = offset; i < offset + length; i++) tag = Math.imul(tag ^ bytes[i]!, 0x01000193);
    return tag >>> 0;
  }
}
