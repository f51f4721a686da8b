/** What an end has taken and not sent yet: bounded, in order. */

import type { EndHost, Packet } from "../../lib/core/mod.ts";

/** A bounded first-in, first-out queue of packets, in a ring. */
export class SendQueue {
  readonly #ring: (Packet | undefined)[];
  readonly #byteLimit: number;
  #first = 0;
  #length = 0;
  #bytes = 0;

  /** A queue that is full with so many packets or so many bytes. */
  constructor(packets: number, bytes: number) {
    this.#ring = new Array(packets).fill(undefined);
    this.#byteLimit = bytes;
  }

  /** How many packets are in it. */
  get length(): number {
    return this.#length;
  }

  /** Whether it takes no more. */
  get full(): boolean {
    return this.#length === this.#ring.length || this.#bytes >= this.#byteLimit;
  }

  /** Appends a packet and becomes its owner. */
  push(packet: Packet): void {
    this.#ring[(this.#first + this.#length++) % this.#ring.length] = packet;
    this.#bytes += packet.length;
    packet.owner = this;
  }

  /** The oldest packet. */
  get first(): Packet | undefined {
    return this.#length === 0 ? undefined : this.#ring[this.#first];
  }

  /** Removes the oldest packet. */
  shift(): Packet {
    const packet = this.#ring[this.#first]!;
    this.#ring[this.#first] = undefined;
    this.#first = (this.#first + 1) % this.#ring.length;
    this.#length--;
    this.#bytes -= packet.length;
    return packet;
  }

  /** Gives back the oldest packets, as long as those behind them are what a connection still has (bytes). */
  settle(buffered: number): void {
    while (this.#length > 0 && this.#bytes - this.#ring[this.#first]!.length >= buffered) this.giveBack();
  }

  /** Gives the oldest packet back to its pool. */
  giveBack(): void {
    const packet = this.shift();
    packet.pool.give(packet);
  }

  /** Throws away all packets, which were not sent. */
  clear(host: EndHost | undefined, reason: string): void {
    while (this.#length > 0) host!.drop(this.shift(), reason);
  }
}
