/** The streams give the guarantees of every end. */

import type { EndHost, EndWait, Packet, PacketBatch, TunnelEnd } from "../../lib/core/mod.ts";
import { StreamSurface } from "../../runtime/tunnel/surfaces.ts";
import { endConformance } from "./end.ts";

// Implementation
/** Packets that the script has read and the suite has not. */
const HELD = 64;

/** The script, as an end: it reads the one stream and writes the other. */
class ScriptSide implements TunnelEnd {
  readonly name = "script";
  readonly waits: readonly EndWait[] = [{ waitable: undefined }];
  readonly failure: Error | undefined = undefined;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #held: Uint8Array[] = [];
  #host: EndHost | undefined;
  #reading = false;
  #written = 0;
  #closed = false;

  constructor({ readable, writable }: StreamSurface) {
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    // What ends the streams is the surface's affair.
    this.#writer.closed.catch(() => {});
  }

  /** Packets whose writes the stream has not taken. */
  get queued(): number {
    return this.#written;
  }

  attach(host: EndHost): void {
    this.#host = host;
    void this.#fetch();
  }

  read(batch: PacketBatch): number {
    if (this.#closed) return 0;
    let count = 0;
    for (; this.#held.length > 0 && !batch.full; count++) {
      const packet = this.#host!.pool.from(this.#held[0]!);
      if (packet === undefined) break;
      this.#held.shift();
      batch.push(packet);
    }
    void this.#fetch();
    return count;
  }

  write(batch: PacketBatch): number {
    let count = 0;
    for (; !this.#closed && count < batch.length && this.#writer.desiredSize! > 0; count++) {
      this.#send(batch.packets[count]!);
    }
    batch.shift(count);
    return count;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#held.length = 0;
    this.#reader.cancel().catch(() => {});
    this.#writer.close().catch(() => {});
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #send(packet: Packet): void {
    this.#written++;
    const settle = () => {
      this.#written--;
      this.#host!.wake();
    };
    this.#writer.write(packet.data.slice()).then(settle, settle);
    packet.pool.give(packet);
  }

  async #fetch(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (this.#held.length < HELD && !this.#closed) {
      const { done, value } = await this.#reader.read();
      if (done || this.#closed) break;
      this.#held.push(value);
      this.#host!.wake();
    }
    this.#reading = false;
  }
}

endConformance("StreamSurface", () => {
  const near = new StreamSurface(() => {});
  return { near, far: new ScriptSide(near), mtu: 65_535, failsWithPeer: false };
});
