/**
 * An end made of several: packets come from all of them, and each goes to one.
 *
 *     read   end 1 ─┐                     write                ┌─► queue ─► end 1
 *            end 2 ─┼─► packet.from 1, 2, 3     packet.to ─────┼─► queue ─► end 2
 *            end 3 ─┘                                          └─► queue ─► end 3
 */

import {
  type EndHost,
  type EndWait,
  type Packet,
  PacketBatch,
  PacketQueue,
  type TunnelEnd,
  type Waitable,
} from "../core/mod.ts";
import { writeTo } from "../core/write_to.ts";

// Implementation
/** Packets that wait for an end that is full. */
const QUEUE = 256;

/** An end, and what waits for it. */
class Socket implements EndWait {
  readonly end: TunnelEnd;
  readonly #queue = new PacketQueue({ packets: QUEUE });
  /** What the end is written next. */
  readonly #batch = new PacketBatch();

  constructor(end: TunnelEnd) {
    this.end = end;
  }

  get waitable(): Waitable | undefined {
    return this.end.waitable;
  }

  get isFull(): boolean {
    return this.#batch.length > 0;
  }

  get queued(): number {
    return this.end.queued + this.#batch.length + this.#queue.length;
  }

  /** Takes a packet if there is room. */
  push(packet: Packet): boolean {
    if (this.#queue.full) this.flush();
    if (this.#queue.full) return false;
    this.#queue.push(packet);
    return true;
  }

  /** Writes what waits, as far as the end takes it. */
  flush(): void {
    do {
      while (this.#queue.length > 0 && !this.#batch.full) this.#batch.push(this.#queue.shift());
    } while (this.#batch.length > 0 && writeTo(this.end, this.#batch) > 0);
  }

  /** Gives up what waits. */
  clear(host: EndHost): void {
    for (const packet of this.#batch) host.drop(packet, "closed");
    this.#batch.clear();
    while (this.#queue.length > 0) host.drop(this.#queue.shift(), "closed");
  }
}

/**
 * Several ends as one: `packet.from` says which one a packet came from, and `packet.to` which one it goes to, by their
 * numbers from 1 on. What goes to none of them is dropped as `no such end`.
 *
 * A full end does not hold up the others: 256 packets wait for it, and more are dropped as `end full`. The order
 * of packets for the same end is kept. It takes super-packets when all of its ends do; when one of them fails, it does.
 *
 * **Limits**: the numbers that an end sets itself, such as peers', are overwritten.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { Switchboard } from "@warren/tunnel/switchboard";
 *
 * const [home] = MemoryDevice.pair({ name: "home" });
 * const [lab] = MemoryDevice.pair({ name: "lab" });
 * const far = new Switchboard([home, lab]);
 * assert.equal(far.name, "home, lab");
 * far.close();
 * ```
 */
export class Switchboard implements TunnelEnd {
  readonly name: string;
  /** Whether all ends take super-packets. */
  readonly offload: boolean;
  /** None of its own; see {@linkcode Switchboard.waits}. */
  readonly waitable: Waitable | undefined = undefined;
  /** Its ends, from the first one on. */
  readonly ends: readonly TunnelEnd[];
  readonly #sockets: readonly Socket[];
  #host: EndHost | undefined;
  /** Which end is read first: another one each time. */
  #first = 0;

  /**
   * Takes the ends over: they are closed with it.
   *
   * @throws {TypeError} when there is none, or one is there twice.
   */
  constructor(ends: readonly TunnelEnd[]) {
    if (ends.length === 0) throw new TypeError("Cannot make a switchboard: it has no ends");
    if (new Set(ends).size < ends.length) {
      throw new TypeError("Cannot make a switchboard: an end is there twice");
    }
    this.ends = [...ends];
    this.name = ends.map(({ name }) => name).join(", ");
    this.offload = ends.every(({ offload }) => offload === true);
    this.#sockets = ends.map((end) => new Socket(end));
  }

  /** What the loop waits for: each end's descriptor. */
  get waits(): readonly EndWait[] {
    return this.#sockets;
  }

  /** The MTU of the packet's end; `Infinity` where it has none. */
  mtuFor(packet: Packet): number {
    const end = this.ends[packet.to - 1];
    if (end === undefined || end.payload === "any") return Infinity;
    return end.mtuFor?.(packet) ?? end.mtu ?? Infinity;
  }

  get queued(): number {
    let sum = 0;
    for (const { queued } of this.#sockets) sum += queued;
    return sum;
  }

  get failure(): Error | undefined {
    return this.ends.find(({ failure }) => failure !== undefined)?.failure;
  }

  get closed(): Promise<void> {
    return Promise.all(this.ends.map(({ closed }) => closed)).then(() => {});
  }

  attach(host: EndHost): void {
    this.#host = host;
    for (const end of this.ends) end.attach(host);
  }

  read(batch: PacketBatch): number {
    const { length } = this.#sockets;
    const start = batch.length;
    for (let i = 0; i < length; i++) {
      const number = (this.#first + i) % length;
      const socket = this.#sockets[number]!;
      socket.flush();
      const before = batch.length;
      if (!batch.full) socket.end.read(batch);
      for (let at = before; at < batch.length; at++) batch.packets[at]!.from = number + 1;
    }
    this.#first = (this.#first + 1) % length;
    return batch.length - start;
  }

  write(batch: PacketBatch): number {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const socket = this.#sockets[packet.to - 1];
      if (socket === undefined) this.#host!.drop(packet, "no such end");
      else if (!socket.push(packet)) this.#host!.drop(packet, "end full");
    }
    batch.clear();
    for (const socket of this.#sockets) socket.flush();
    return length;
  }

  /** Closes its ends. */
  close(): void {
    for (const socket of this.#sockets) {
      if (this.#host !== undefined) socket.clear(this.#host);
      socket.end.close();
    }
  }

  /** The same. */
  [Symbol.dispose](): void {
    this.close();
  }
}
