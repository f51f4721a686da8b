/**
 * Far ends that a script reads itself: batches for `for await`, and byte streams.
 *
 * Each is an end like any other, with the tunnel's back-pressure and counters: while the script works on its packets,
 * the end takes no others.
 */

import { bytesOf } from "../../lib/core/bytes_of.ts";
import { type Borrower, LendingBatch } from "../../lib/core/batch.ts";
import {
  type EndHost,
  type EndWait,
  LARGE_ROOM,
  type Packet,
  type PacketBatch,
  type TunnelEnd,
} from "../../lib/core/mod.ts";
import { gotValue } from "../../lib/core/options.ts";
import { OUT_OF_SLOT } from "../../lib/core/packet.ts";
import { copy } from "../../lib/split/copy.ts";

// Implementation
const SCRIPT: Borrower = { title: "for await", remedy: "send packets with tunnel.send" };
/** Maximum packets that wait in each stream. */
const STREAM_PACKETS = 64;

/** Far end that a script reads with `for await`. */
export class BatchSurface implements TunnelEnd {
  /** The name in messages. */
  readonly name = "for await";
  /** No descriptor: it calls `wake`. */
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  /** Always 0: packets that it takes are delivered. */
  readonly queued = 0;
  /** Always `undefined`: it ends with its tunnel. */
  readonly failure: Error | undefined = undefined;

  /** The current batch of the script. */
  readonly #batch = new LendingBatch();
  #host: EndHost | undefined;
  #waiting: ((result: IteratorResult<PacketBatch, void>) => void) | undefined;

  /** Attaches the end to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
  }

  /** Returns 0: the script sends through its tunnel. */
  read(): number {
    return 0;
  }

  /** Passes a batch to the script if it waits for one. */
  write(batch: PacketBatch): number {
    if (this.#waiting === undefined) return 0;
    const count = batch.length;
    batch.moveTo(this.#batch);
    this.#waiting({ done: false, value: this.#batch.lend(SCRIPT) });
    this.#waiting = undefined;
    return count;
  }

  /** Takes the current batch back from the script, and returns the next one. */
  next(): Promise<IteratorResult<PacketBatch, void>> {
    this.#giveBack();
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#host!.wake();
    });
  }

  /** Reports whether a packet belongs to the current batch. */
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
      if (packet.owner === this.#batch) this.#host!.finish(packet);
    }
    this.#batch.clear();
  }
}

/** Far end that a script reads and writes as streams, one `Uint8Array` a packet. */
export class StreamSurface implements TunnelEnd {
  /** The name in messages. */
  readonly name = "streams";
  /** No descriptor: it calls `wake`. */
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  /** Always 0: packets that it takes are delivered. */
  readonly queued = 0;
  /** Always `undefined`: it ends with its tunnel. */
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

  /** Makes both streams; `end` is called when the script has cancelled `readable` and closed `writable`. */
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

  /** Attaches the end to its loop. */
  attach(host: EndHost): void {
    this.#host = host;
  }

  /** Appends packets that the script has written. */
  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const { pool, refuse } = this.#host!;
    let count = 0;
    let taken = 0;
    for (const chunk of this.#incoming) {
      if (batch.full) break;
      if (chunk.length === 0 || chunk.length > LARGE_ROOM) {
        refuse(chunk.length, "invalid length");
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

  /** Copies packets into the readable stream while it has room. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const reader = this.#reader;
    const { length } = batch;
    let count = 0;
    for (; count < length; count++) {
      const packet = batch.packets[count]!;
      if (reader === undefined) {
        this.#host!.finish(packet, "readable cancelled");
        continue;
      }
      if (reader.desiredSize! <= 0) break;
      const copies = copy(packet);
      for (const bytes of copies) reader.enqueue(bytes);
      const reason = packet.isInSlot ? "super-packet malformed" : OUT_OF_SLOT;
      this.#host!.finish(packet, copies.length > 0 ? undefined : reason);
    }
    batch.shift(count);
    return count;
  }

  /** Closes both streams; with an error, both fail. */
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
    if (bytes === undefined) {
      throw new TypeError(`Cannot write: a packet must be a Uint8Array, ${gotValue(chunk)}`);
    }
    // The script may reuse its buffer after the write.
    this.#incoming.push(bytes.slice());
    this.#host?.wake();
    if (this.#incoming.length < STREAM_PACKETS) return undefined;
    return new Promise((resolve) => void (this.#drained = resolve));
  }

  /** Finishes after the packets that the script has written are out. */
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
