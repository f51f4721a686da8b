/** What a transport has taken and its socket still has: bounded, in order. */

import { type EndHost, PacketQueue } from "../../lib/core/mod.ts";

/** A queue of packets whose bytes a socket reads until they are sent. */
export class SendQueue extends PacketQueue {
  /** Gives back the oldest packets, as long as those behind them are what a connection still has (bytes). */
  settle(buffered: number): void {
    while (this.length > 0 && this.bytes - this.first!.length >= buffered) {
      const packet = this.shift();
      packet.pool.give(packet);
    }
  }

  /** Throws away all packets, which were not sent. */
  clear(host: EndHost | undefined, reason: string): void {
    while (this.length > 0) host!.drop(this.shift(), reason);
  }
}
