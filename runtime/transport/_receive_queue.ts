/** Bounded queue of received packets, between the callbacks of a socket and the loop. */

import { type EndHost, LARGE_ROOM, type PacketBatch } from "../../lib/core/mod.ts";
import { checkInteger } from "../../lib/core/options.ts";
import { dropReason, type Payload } from "./_payload.ts";

// Implementation
/** Default and maximum number of packets. */
const QUEUE_LENGTH = 1024;
const MAX_QUEUE_LENGTH = 1_000_000;
/** Maximum number of bytes. */
const QUEUE_BYTES = 4 * 1024 * 1024;

/** Checks the option `queueLength`. @throws {RangeError} out of range; {@linkcode TypeError} for other types. */
export function checkQueueLength(length: number = QUEUE_LENGTH): void {
  checkInteger("open a WebSocket transport", "queueLength", length, 1, MAX_QUEUE_LENGTH);
}

/** A ring of copied messages. */
export class ReceiveQueue {
  /** The loop, once attached; packets refused before that are not counted. */
  host: EndHost | undefined;
  readonly #ring: (Uint8Array | undefined)[];
  #first = 0;
  #length = 0;
  #bytes = 0;
  readonly #payload: Payload;

  constructor(limit: number = QUEUE_LENGTH, payload: Payload = "ip") {
    this.#ring = new Array(limit).fill(undefined);
    this.#payload = payload;
  }

  /** True while a message may not fit. */
  get full(): boolean {
    return this.#length === this.#ring.length || this.#bytes + LARGE_ROOM > QUEUE_BYTES;
  }

  /** Copies a message and wakes the loop, or drops the message. Returns false if it is not a packet. */
  accept(bytes: Uint8Array, offset: number, length: number): boolean {
    const reason = dropReason(this.#payload, bytes, offset, length, LARGE_ROOM);
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

  /** Moves messages into slots until the batch is full or the pool is empty; returns their number. */
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

  /** Removes all messages. */
  clear(): void {
    this.#ring.fill(undefined);
    this.#length = 0;
    this.#bytes = 0;
  }
}
