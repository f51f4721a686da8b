/** Packets given to a connection that does not say when it has sent them, only how many bytes it still has. */

import type { Packet } from "../../lib/core/mod.ts";

// Implementation
const PACKETS = 256;
const BYTES = 256 * 1024;

/** A bounded first-in, first-out queue of packets, in a ring. */
export class SendQueue {
  readonly #ring: (Packet | undefined)[] = new Array(PACKETS).fill(undefined);
  #first = 0;
  #length = 0;
  #bytes = 0;

  /** How many packets are in it. */
  get length(): number {
    return this.#length;
  }

  /** Whether no more should be given to the connection. */
  get full(): boolean {
    return this.#length === PACKETS || this.#bytes >= BYTES;
  }

  /** Appends a packet and becomes its owner. */
  push(packet: Packet): void {
    this.#ring[(this.#first + this.#length++) % PACKETS] = packet;
    this.#bytes += packet.length;
    packet.owner = this;
  }

  /** Removes the oldest packet. */
  shift(): Packet {
    const packet = this.#ring[this.#first]!;
    this.#ring[this.#first] = undefined;
    this.#first = (this.#first + 1) % PACKETS;
    this.#length--;
    this.#bytes -= packet.length;
    return packet;
  }

  /** Gives back the oldest packets until those that are left are no more than what the connection has (bytes). */
  settle(buffered: number): void {
    while (this.#length > 0 && this.#bytes - this.#ring[this.#first]!.length >= buffered) this.giveBack(1);
  }

  /** Gives the oldest packets back to their pool. */
  giveBack(count: number): void {
    for (let i = 0; i < count; i++) {
      const packet = this.shift();
      packet.pool.give(packet);
    }
  }
}
