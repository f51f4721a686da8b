/** Packets from a socket's callbacks, until the loop reads them: bounded. */

import { type EndHost, LARGE_ROOM, type PacketBatch } from "../../lib/core/mod.ts";
import { type Payload, refusalReason } from "./_payload.ts";

// Implementation
/** Packets that wait, where the options say nothing else. */
const QUEUE_LENGTH = 1024;
const MAX_QUEUE_LENGTH = 1_000_000;
/** Bytes that wait, whatever the options say. */
const QUEUE_BYTES = 4 * 1024 * 1024;

/** @throws {RangeError} when a queue cannot have this length. */
export function checkQueueLength(length: number = QUEUE_LENGTH): void {
  if (Number.isInteger(length) && length >= 1 && length <= MAX_QUEUE_LENGTH) return;
  throw new RangeError(
    `Cannot open a transport: queueLength must be an integer from 1 to ${MAX_QUEUE_LENGTH}, got ${length}`,
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
  readonly #payload: Payload;

  /** A queue of `limit` packets: of IP, or of any bytes. */
  constructor(limit: number = QUEUE_LENGTH, payload: Payload = "ip") {
    this.#ring = new Array(limit).fill(undefined);
    this.#payload = payload;
  }

  /** True while there may be no room for a message. */
  get full(): boolean {
    return this.#length === this.#ring.length || this.#bytes + LARGE_ROOM > QUEUE_BYTES;
  }

  /** Copies a message and wakes the loop, or refuses it; returns whether it is a packet, for which there may be no room. */
  accept(bytes: Uint8Array, offset: number, length: number): boolean {
    const reason = refusalReason(this.#payload, bytes, offset, length, LARGE_ROOM);
    if (reason !== undefined) {
      this.host?.refuse(length, reason);
      return false;
    }
    if (this.#length === this.#ring.length || this.#bytes + length > QUEUE_BYTES) {
      this.host?.refuse(length, "receive queue full");
      return true;
    }
    const place = this.#first + this.#length++;
    this.#ring[place < this.#ring.length ? place : place - this.#ring.length] = bytes.slice(
      offset,
      offset + length,
    );
    this.#bytes += length;
    this.host?.wake();
    return true;
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
}
