/** What a socket's callbacks bring, until the loop reads it: bounded, and nothing but IP packets. */

import { type EndHost, LARGE_ROOM, type PacketBatch } from "../../lib/core/mod.ts";
import { objectionTo } from "./_objection.ts";

// Implementation
/** Packets that wait, where the options say nothing else. */
const QUEUE_LENGTH = 1024;
const MAX_QUEUE_LENGTH = 1_000_000;
/** Bytes that wait, whatever the options say. */
const QUEUE_BYTES = 4 * 1024 * 1024;
const TOO_LONG = `longer than ${LARGE_ROOM} bytes`;

/** @throws {RangeError} when a queue cannot have this length. */
export function checkQueueLength(length: number = QUEUE_LENGTH): void {
  if (Number.isInteger(length) && length >= 1 && length <= MAX_QUEUE_LENGTH) return;
  throw new RangeError(
    `Cannot queue ${length} packets: it is not a whole number from 1 to ${MAX_QUEUE_LENGTH}`,
  );
}

/** A bounded queue of messages, in a ring. */
export class ReceiveQueue {
  /** The loop, from `attach` on; what is refused before is counted nowhere. */
  host: EndHost | undefined;
  readonly #ring: (Uint8Array | undefined)[];
  #first = 0;
  #length = 0;
  #bytes = 0;

  /** A queue of `limit` packets. */
  constructor(limit: number = QUEUE_LENGTH) {
    this.#ring = new Array(limit).fill(undefined);
  }

  /** Queues a message, which nobody changes any more, and wakes the loop; or refuses it. */
  accept(message: Uint8Array): void {
    const reason = this.#objection(message);
    if (reason !== undefined) {
      this.host?.refuse(message.length, reason);
      return;
    }
    const place = this.#first + this.#length++;
    this.#ring[place < this.#ring.length ? place : place - this.#ring.length] = message;
    this.#bytes += message.length;
    this.host?.wake();
  }

  /** Copies messages into slots, until the batch is full or the pool is empty; returns how many. */
  read(batch: PacketBatch): number {
    const { pool } = this.host!;
    let count = 0;
    for (; this.#length > 0 && !batch.full; count++) {
      const message = this.#ring[this.#first]!;
      const packet = pool.from(message);
      if (packet === undefined) break;
      batch.push(packet);
      this.#ring[this.#first] = undefined;
      this.#first = this.#first + 1 === this.#ring.length ? 0 : this.#first + 1;
      this.#length--;
      this.#bytes -= message.length;
    }
    return count;
  }

  /** Forgets everything. */
  clear(): void {
    this.#ring.fill(undefined);
    this.#length = 0;
    this.#bytes = 0;
  }

  #objection(message: Uint8Array): string | undefined {
    const objection = objectionTo(message, 0, message.length, LARGE_ROOM, TOO_LONG);
    if (objection !== undefined) return objection;
    if (this.#length === this.#ring.length || this.#bytes + message.length > QUEUE_BYTES) {
      return "receive queue full";
    }
    return undefined;
  }
}
