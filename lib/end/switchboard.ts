/**
 * Several ends as one: packets are read from all of them, and each packet is written to one.
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
} from "../core/mod.ts";
import { checkEnd, waitsBelow } from "../core/end.ts";
import { checkOption, gotValue } from "../core/options.ts";
import { writeTo } from "../core/write_to.ts";

// Implementation
/** Maximum packets that wait for a full end. */
const MAX_QUEUED = 256;

/** An end, and the packets that wait for it. */
class EndQueue {
  readonly end: TunnelEnd;
  readonly #queue = new PacketQueue({ packets: MAX_QUEUED });
  /** Packets of the next write. */
  readonly #batch = new PacketBatch();

  constructor(end: TunnelEnd) {
    this.end = end;
  }

  get isFull(): boolean {
    return this.#batch.length > 0;
  }

  get queued(): number {
    return this.end.queued + this.#batch.length + this.#queue.length;
  }

  /** Queues a packet; returns `false` if the queue is full. */
  push(packet: Packet): boolean {
    if (this.#queue.full) this.flush();
    if (this.#queue.full) return false;
    this.#queue.push(packet);
    return true;
  }

  /** Writes waiting packets until the end takes no more. */
  flush(): void {
    do {
      while (this.#queue.length > 0 && !this.#batch.full) this.#batch.push(this.#queue.shift());
    } while (this.#batch.length > 0 && writeTo(this.end, this.#batch) > 0);
  }

  /** Drops waiting packets. */
  clear(host: EndHost): void {
    for (const packet of this.#batch) host.finish(packet, "closed");
    this.#batch.clear();
    while (this.#queue.length > 0) host.finish(this.#queue.shift(), "closed");
  }
}

/**
 * Combines several ends into one. Ends are numbered from 1: `packet.from` is the number of a packet's source, and a stage
 * sets `packet.to` to that of its destination. The switchboard accepts super-packets if all of its ends do, and fails when
 * one of them fails.
 *
 * A full end does not delay the others: 256 packets wait for it, in order.
 *
 * **Drops**: `no such end` for an unknown number in `packet.to`; `end full` when 256 packets wait; `closed`.
 *
 * **Limits**: `packet.from` of an end with several peers is overwritten.
 *
 * @example Writing to the second of two ends
 * ```ts
 * import assert from "node:assert/strict";
 * import { type EndHost, PacketBatch, PacketPool } from "@warren/tunnel/core";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { Switchboard } from "@warren/tunnel/switchboard";
 *
 * const [home] = MemoryDevice.pair({ name: "home" });
 * const [lab, labPeer] = MemoryDevice.pair({ name: "lab" });
 * const pool = new PacketPool();
 * const host = { pool, wake() {} } as unknown as EndHost;
 * using far = new Switchboard([home, lab]);
 * far.attach(host);
 * labPeer.attach(host);
 *
 * const batch = new PacketBatch();
 * batch.push(pool.from(Uint8Array.of(0x45, 0, 0, 20))!);
 * batch.packets[0]!.to = 2;
 * far.write(batch);
 * assert.equal(labPeer.read(batch), 1);
 * ```
 */
export class Switchboard implements TunnelEnd {
  readonly name: string;
  /** Set if all ends accept super-packets. */
  readonly offload: boolean;
  /** Descriptors of all ends. */
  readonly waits: readonly EndWait[];
  /** Ends in order: the first has number 1. */
  readonly ends: readonly TunnelEnd[];
  readonly #queues: readonly EndQueue[];
  #host: EndHost | undefined;
  /** Index of the end that is read first, which advances with each read. */
  #first = 0;

  /**
   * Takes ownership of the ends, which are closed with it.
   *
   * @throws {TypeError} when there is no end, an end occurs twice, or lacks a part.
   */
  constructor(ends: readonly TunnelEnd[]) {
    checkOption("create a switchboard", "ends", ends, "list");
    ends.forEach(checkEnd);
    if (ends.length === 0 || new Set(ends).size < ends.length) {
      const names = ends.map(({ name }) => name).join(", ");
      throw new TypeError(
        `Cannot create a switchboard: ends must be one or more different ends, ${gotValue(names)}`,
      );
    }
    this.ends = [...ends];
    this.name = ends.map(({ name }) => name).join(", ");
    this.offload = ends.every(({ offload }) => offload === true);
    this.#queues = ends.map((end) => new EndQueue(end));
    this.waits = this.#queues.flatMap((queue) => waitsBelow(queue.end, () => queue.isFull));
  }

  /** Returns the MTU of the packet's destination; `Infinity` if it has none. */
  mtuFor(packet: Packet): number {
    const end = this.ends[packet.to - 1];
    if (end === undefined || end.payload === "any") return Infinity;
    return end.mtuFor?.(packet) ?? end.mtu ?? Infinity;
  }

  get queued(): number {
    let total = 0;
    for (const { queued } of this.#queues) total += queued;
    return total;
  }

  /** Time of the next tick of an end. */
  get due(): number {
    let due = Infinity;
    for (const end of this.ends) if (end.due! < due) due = end.due!;
    return due;
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
    const { length } = this.#queues;
    const start = batch.length;
    for (let i = 0; i < length; i++) {
      const number = (this.#first + i) % length;
      const queue = this.#queues[number]!;
      queue.flush();
      const before = batch.length;
      if (!batch.full) queue.end.read(batch);
      for (let at = before; at < batch.length; at++) batch.packets[at]!.from = number + 1;
    }
    this.#first = (this.#first + 1) % length;
    return batch.length - start;
  }

  tick(): void {
    for (const end of this.ends) if (end.due! <= this.#host!.now()) end.tick!();
  }

  write(batch: PacketBatch): number {
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const queue = this.#queues[packet.to - 1];
      if (queue === undefined) this.#host!.finish(packet, "no such end");
      else if (!queue.push(packet)) this.#host!.finish(packet, "end full");
    }
    batch.clear();
    for (const queue of this.#queues) queue.flush();
    return length;
  }

  /** Closes all ends and drops waiting packets as `closed`. */
  close(): void {
    for (const queue of this.#queues) {
      if (this.#host !== undefined) queue.clear(this.#host);
      queue.end.close();
    }
  }

  /** Calls {@linkcode Switchboard.close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
