/** A stage that writes what passes it to a capture. */

import { checkNames, type OptionNames } from "../../core/options.ts";
import {
  Direction,
  type Packet,
  type PacketBatch,
  type PacketHandler,
  PacketPool,
  type Stage,
  type StageContext,
  Verdict,
} from "../../core/mod.ts";
import { copyPacket } from "../../core/copy_packet.ts";
import { type CaptureSink, PcapngWriter, type PcapngWriterOptions } from "../../pcap/pcapng_writer.ts";

export * from "../../pcap/mod.ts";

// Implementation
const NAMES: OptionNames<CaptureOptions> = {
  filter: "optional",
  interface: "optional",
  flushInterval: "optional",
  snapLength: "optional",
  chunkLength: "optional",
  application: "optional",
  comment: "optional",
};
const FLUSH_INTERVAL = 200;

/** Options of a {@linkcode Capture}. */
export interface CaptureOptions extends PcapngWriterOptions {
  /** Which packets are written, such as what `compileFilter` gives. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
  /** What the capture calls the place where they pass. @default {"warren"} */
  readonly interface?: string;
  /** How long packets wait for the sink at most (milliseconds). @default {200} */
  readonly flushInterval?: number;
}

/**
 * Writes the packets that pass to a pcapng capture, as they are at its place among the stages.
 *
 * **Outbound** and **inbound**: written, and passed on untouched.
 *
 * Several captures may have one writer, each with an interface of its own.
 *
 * **Options**: `filter` (all), `interface` (`warren`), `flushInterval` (200 ms); `snapLength`, `chunkLength`,
 * `application` and `comment` of {@linkcode PcapngWriter}.
 *
 * **Counters**: `packets`, those that were written; a super-packet is one.
 *
 * **Limits**: a packet that an earlier stage drops does not come by. What becomes of a packet is known for a handler's
 * packets alone, which {@linkcode Capture.handler} writes.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Capture } from "@warren/tunnel/capture";
 *
 * const chunks: Uint8Array[] = [];
 * const capture = new Capture({ write: (blocks: Uint8Array) => void chunks.push(blocks.slice()) }, { interface: "tun0" });
 * // tunnel.use(capture);
 * capture.close();
 * assert(chunks.length === 1 && capture.packets === 0);
 * ```
 */
export class Capture implements Stage {
  readonly name = "capture";
  /** Packets that were written. */
  packets = 0;

  readonly #writer: PcapngWriter;
  readonly #interface: number;
  readonly #filter: ((packet: Packet, direction: Direction) => boolean) | undefined;
  readonly #flushInterval: number;
  #flushed = 0;
  /** For the one packet that a handler is at. */
  readonly #copies = new PacketPool({ small: 1, large: 1 });

  /**
   * Writes to a sink, or with others by one writer, which has its options already.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  constructor(sink: CaptureSink | PcapngWriter, options: CaptureOptions = {}) {
    checkNames("capture", options, NAMES);
    const { filter, interface: name = "warren", flushInterval = FLUSH_INTERVAL } = options;
    if (!(flushInterval >= 0)) throw new RangeError(`Cannot flush each ${flushInterval} ms: 0 is the least`);
    this.#writer = sink instanceof PcapngWriter ? sink : new PcapngWriter(sink, options);
    this.#interface = this.#writer.addInterface(name);
    this.#filter = filter;
    this.#flushInterval = flushInterval;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#writeAll(batch, context, Direction.Outbound);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#writeAll(batch, context, Direction.Inbound);
  }

  /** Writes what came before a silence. */
  tick(): number {
    this.#writer.flush();
    return this.#flushInterval;
  }

  close(): void {
    this.#writer.flush();
  }

  /**
   * A handler that does what another one does, and writes each packet as it was before, with the verdict; with none
   * where the handler itself said through its context what becomes of it. For a capture that is no stage: `close()` writes
   * what is left.
   */
  handler(handler: PacketHandler): PacketHandler {
    return (packet, context) => {
      const { now, direction } = context;
      if (this.#filter !== undefined && !this.#filter(packet, direction)) return handler(packet, context);
      const { owner } = packet;
      const before = copyPacket(packet, this.#copies);
      const verdict = handler(packet, context);
      // Moved out of its slot.
      if (before === undefined) return verdict;
      const known = packet.owner === owner ? verdict ?? Verdict.Pass : undefined;
      this.#write(before, now, this.#writer.timeOrigin, direction, known);
      before.pool.give(before);
      return verdict;
    };
  }

  #writeAll({ packets, length }: PacketBatch, { now }: StageContext, direction: Direction): void {
    const { timeOrigin } = this.#writer;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (this.#filter === undefined || this.#filter(packet, direction)) {
        this.#write(packet, now, timeOrigin, direction);
      }
    }
  }

  #write(packet: Packet, now: number, timeOrigin: number, direction: Direction, verdict?: Verdict): void {
    this.#writer.write(packet, this.#interface, timeOrigin + now, direction, verdict);
    this.packets++;
    if (now - this.#flushed < this.#flushInterval) return;
    this.#flushed = now;
    this.#writer.flush();
  }
}
