/** Bounded queue of packets and their frames, until they are written to the socket. */

import { type EndHost, LARGE_ROOM, type Packet, PacketQueue } from "../../lib/core/mod.ts";
import { FRAME_HEADER, FrameWriter, MAX_CONTROL, Opcode } from "./_frames.ts";

// Implementation
const PACKETS = 256;
const BYTES = 256 * 1024;
/** Room in front of the packets, for one control frame of each kind. */
const CONTROL_ROOM = 3 * (MAX_CONTROL + FRAME_HEADER);
const BUFFER = CONTROL_ROOM + BYTES + LARGE_ROOM + PACKETS * FRAME_HEADER;
const NOTHING = new Uint8Array(0);

/** Frames of one connection, in two buffers: one is written while the other is filled. */
export class SendQueue extends PacketQueue {
  readonly #writer: FrameWriter;
  #filling: Uint8Array<ArrayBuffer>;
  #spare: Uint8Array<ArrayBuffer>;
  #end = CONTROL_ROOM;
  /** Of the buffer that is being written: unwritten bytes of control frames, and written bytes of packets. */
  #ahead = 0;
  #written = 0;
  readonly #waiting = new Map<Opcode, Uint8Array>();

  /** @param masked True on the client side, whose frames must be masked. */
  constructor(masked: boolean) {
    super({ packets: PACKETS, bytes: BYTES });
    this.#writer = new FrameWriter(masked, BUFFER);
    this.#spare = this.#writer.allocate();
    this.#filling = this.#writer.allocate();
    this.#writer.use(this.#filling);
  }

  /** Copies a packet into a frame and keeps it until it is written. There must be room. */
  add(packet: Packet): void {
    this.#end = this.#writer.write(this.#end, Opcode.Binary, packet.bytes, packet.offset, packet.length);
    this.push(packet);
  }

  /** Adds a control frame in front of the next packets; replaces a waiting one of its kind (RFC 6455 section 5.5.3). */
  addControl(opcode: Opcode, payload: Uint8Array = NOTHING): void {
    this.#waiting.set(opcode, payload);
  }

  /** Returns the next bytes to write, or `undefined`. All earlier bytes must be settled. */
  next(): Uint8Array<ArrayBuffer> | undefined {
    let start = CONTROL_ROOM;
    for (const payload of this.#waiting.values()) start -= this.#writer.frameLength(payload.length);
    if (start === this.#end) return undefined;
    this.#ahead = CONTROL_ROOM - start;
    this.#written = 0;
    let at = start;
    for (const [opcode, payload] of this.#waiting) {
      at = this.#writer.write(at, opcode, payload, 0, payload.length);
    }
    this.#waiting.clear();
    const bytes = this.#filling.subarray(start, this.#end);
    [this.#filling, this.#spare] = [this.#spare, this.#filling];
    this.#writer.use(this.#filling);
    this.#end = CONTROL_ROOM;
    return bytes;
  }

  /** Notes that `count` more bytes were written, and returns completely written packets to the pool. */
  settle(count: number): void {
    const ahead = Math.min(count, this.#ahead);
    this.#ahead -= ahead;
    this.#written += count - ahead;
    while (this.length > 0) {
      const frame = this.#writer.frameLength(this.first!.length);
      if (frame > this.#written) return;
      this.#written -= frame;
      this.#giveBack();
    }
    this.#written = 0;
  }

  /** Returns all packets to the pool. Their frames are still written, but no longer counted if they are lost. */
  release(): void {
    while (this.length > 0) this.#giveBack();
  }

  /** Drops all packets and control frames. */
  clear(host: EndHost | undefined, reason: string): void {
    while (this.length > 0) host!.finish(this.shift(), reason);
    this.#end = CONTROL_ROOM;
    this.#waiting.clear();
  }

  #giveBack(): void {
    const packet = this.shift();
    packet.pool.give(packet);
  }
}
