/** What the views of all protocols share: they belong to a packet's handle, and are reused. */

import { OneLine } from "../core/one_line.ts";
import type { Packet } from "../core/packet.ts";

let views = 0;

/** A number for a new class of views: where its instances stand in {@linkcode Packet.views}. */
export function nextViewNumber(): number {
  return views++;
}

/**
 * A protocol's header, seen in place. `X.of(packet)` checks that the whole header is there and returns the
 * packet's own view of it, which is valid until the packet's bytes, `offset` or `length` change otherwise than
 * through views; nothing is allocated after the first time.
 */
export abstract class HeaderView extends OneLine {
  /** The packet that it looks into. */
  readonly packet: Packet;
  /** Where the header starts in `packet.bytes`. */
  start = 0;

  /** For the `of` of each protocol. */
  constructor(packet: Packet) {
    super();
    this.packet = packet;
  }

  /** Which header, where in the packet, and the packet: `Udp at 20 of Packet(28 bytes at 256: 45 00 00 1c ...)`. */
  override toString(): string {
    return `${this.constructor.name} at ${this.start - this.packet.offset} of ${this.packet}`;
  }
}
