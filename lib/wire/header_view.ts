/** Common base of all header views. */

import { OneLine } from "../core/one_line.ts";
import type { Packet } from "../core/packet.ts";

let views = 0;

/** Returns the index in {@linkcode Packet.views} for a new class of views. */
export function nextViewNumber(): number {
  return views++;
}

/**
 * Header of a packet, read and written in place. `X.of(packet)` checks the header and returns the packet's view of it,
 * which is valid until the packet's bytes, `offset` or `length` change other than through views. Each packet handle keeps
 * its views: only the first call for a handle allocates.
 */
export abstract class HeaderView extends OneLine {
  /** Packet of the header. */
  readonly packet: Packet;
  /** Offset of the header in `packet.bytes`. */
  start = 0;

  /** Creates the view of a packet; `of` of each protocol calls it once. */
  constructor(packet: Packet) {
    super();
    this.packet = packet;
  }

  /** Formats it as `Udp at 20 of Packet(28 bytes at 256: 45 00 00 1c ...)`. */
  override toString(): string {
    return `${this.constructor.name} at ${this.start - this.packet.offset} of ${this.packet}`;
  }
}
