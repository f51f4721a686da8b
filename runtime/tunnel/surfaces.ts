/**
 * A script's own far ends: batches for `for await`, and byte streams.
 *
 * Each is an end like any other, so that back-pressure and counting are the tunnel's: while the script is busy
 * with what it has, the end takes nothing.
 */

import { bytesOf } from "../../lib/core/bytes_of.ts";
import { type Borrower, LendingBatch } from "../../lib/core/batch.ts";
import {
  type EndHost,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type TunnelEnd,
  type Waitable,
} from "../../lib/core/mod.ts";
import { OUT_OF_SLOT } from "../../lib/core/packet.ts";
import { copy } from "../../lib/split/copy.ts";

// Implementation
const SCRIPT: Borrower = {
  title: "for await",
  remedy: "send its packets with tunnel.send, or leave them",
};
/** Packets that wait in each stream. */
const STREAM_PACKETS = 64;

/** The far end of a tunnel that a script reads with `for await`. */
export class BatchSurface implements TunnelEnd {
  /** What messages call it. */
  readonly name = "for await";
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** None: what it takes is the script's. */
  readonly queued = 0;
  /** Never: it ends with its tunnel. */
  readonly failure: Error | undefined = undefined;

  /** The packets that the script has. */
  readonly #batch = new LendingBatch();
  #host: EndHost | undefined;
  #waiting: ((result: IteratorResult<PacketBatch, void>) => void) | undefined;

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
  }

  /** Nothing: what the script sends, it sends through its tunnel. */
  read(): number {
    return 0;
  }

  /** Hands a batch to the script when it waits for one. */
  write(batch: PacketBatch): number {
    if (this.#waiting === undefined) return 0;
    const count = batch.length;
    batch.moveTo(this.#batch);
    this.#waiting({ done: false, value: this.#batch.lend(SCRIPT) });
    this.#waiting = undefined;
    return count;
  }

  /** Takes back the batch that the script had, and gives it the next one. */
  next(): Promise<IteratorResult<PacketBatch, void>> {
    this.#giveBack();
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#host!.wake();
    });
  }

  /** Tells whether this is a packet of the batch that the script has. */
  has(packet: Packet): boolean {
    return packet.owner === this.#batch;
  }

  /** Ends the iteration. */
  close(): void {
    this.#giveBack();
    this.#waiting?.({ done: true, value: undefined });
    this.#waiting = undefined;
  }

  /** The same as {@linkcode BatchSurface.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #giveBack(): void {
    const { packets, length } = this.#batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (packet.owner === this.#batch) this.#host!.done(packet);
    }
    this.#batch.clear();
  }
}

/** The far end of a tunnel that a script reads and writes as streams, one owned `Uint8Array` a packet. */
export class StreamSurface implements TunnelEnd {
  /** What messages call it. */
  readonly name = "streams";
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** None: what it takes is in the stream. */
  readonly queued = 0;
  /** Never: it ends with its tunnel. */
  readonly failure: Error | undefined = undefined;
  /** Packets from this machine. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Packets to this machine. */
  readonly writable: WritableStream<Uint8Array>;

  readonly #end: () => void;
  #host: EndHost | undefined;
  #reader: ReadableStreamDefaultController<Uint8Array> | undefined;
  #writer: WritableStreamDefaultController | undefined;
  #incoming: Uint8Array[] = [];
  #drained: (() => void) | undefined;
  #closed = false;

  /** Streams; `end` is called when the script has finished with both: cancelled the one, closed the other. */
  constructor(end: () => void) {
    this.#end = end;
    this.readable = new ReadableStream({
      start: (controller) => void (this.#reader = controller),
      pull: () => this.#host?.wake(),
      cancel: () => {
        this.#reader = undefined;
        this.#finish();
      },
    }, { highWaterMark: STREAM_PACKETS });
    this.writable = new WritableStream({
      start: (controller) => void (this.#writer = controller),
      write: (chunk) => this.#accept(chunk),
      close: () => this.#closeWriter(),
      abort: () => this.#closeWriter(),
    }, { highWaterMark: STREAM_PACKETS });
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
  }

  /** Appends what the script wrote. */
  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { pool, refuse } = this.#host!;
    let count = 0;
    let taken = 0;
    for (const chunk of this.#incoming) {
      if (batch.full) break;
      if (chunk.length === 0 || chunk.length > LARGE_ROOM) {
        refuse(chunk.length, "not a packet's length");
      } else {
        const packet = pool.take(chunk.length);
        if (packet === undefined) break;
        packet.bytes.set(chunk, packet.offset);
        batch.push(packet);
        count++;
      }
      taken++;
    }
    if (taken > 0) this.#incoming = this.#incoming.slice(taken);
    if (this.#incoming.length < STREAM_PACKETS) {
      this.#drained?.();
      this.#drained = undefined;
    }
    return count;
  }

  /** Copies packets into the readable stream while it wants some. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const reader = this.#reader;
    const { length } = batch;
    let count = 0;
    for (; count < length; count++) {
      const packet = batch.packets[count]!;
      if (reader === undefined) {
        this.#host!.drop(packet, "readable cancelled");
        continue;
      }
      if (reader.desiredSize! <= 0) break;
      const copies = copy(packet);
      if (copies.length === 0) {
        this.#host!.drop(packet, packet.isInSlot ? "super-packet malformed" : OUT_OF_SLOT);
        continue;
      }
      for (const bytes of copies) reader.enqueue(bytes);
      packet.pool.give(packet);
    }
    batch.shift(count);
    return count;
  }

  /** Ends both streams; with an error, they fail. */
  close(error?: unknown): void {
    this.#closed = true;
    if (error === undefined) this.#reader?.close();
    else this.#reader?.error(error);
    this.#reader = undefined;
    this.#writer?.error(error ?? new Deno.errors.BadResource("Cannot write: the tunnel is closed"));
    this.#writer = undefined;
    this.#drained?.();
  }

  /** The same as {@linkcode StreamSurface.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #accept(chunk: unknown): Promise<void> | undefined {
    const bytes = bytesOf(chunk);
    if (bytes === undefined) throw new TypeError("Cannot write to a tunnel: a packet must be a Uint8Array");
    // The script may use its buffer anew as soon as its write is done.
    this.#incoming.push(bytes.slice());
    this.#host?.wake();
    if (this.#incoming.length < STREAM_PACKETS) return undefined;
    return new Promise((resolve) => void (this.#drained = resolve));
  }

  /** What the script has written goes out first. */
  async #closeWriter(): Promise<void> {
    while (this.#incoming.length > 0 && this.#writer !== undefined) {
      this.#host?.wake();
      await new Promise<void>((resolve) => void (this.#drained = resolve));
    }
    this.#writer = undefined;
    this.#finish();
  }

  #finish(): void {
    if (this.#reader === undefined && this.#writer === undefined) this.#end();
  }
}
