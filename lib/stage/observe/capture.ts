/** A stage that writes packets to a pcapng capture. */

import { checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";
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

export {
  type CapturedPacket,
  type CaptureInterface,
  parseCapture,
  readCapture,
} from "../../pcap/capture_reader.ts";
export { type CaptureSink, PcapngWriter, type PcapngWriterOptions } from "../../pcap/pcapng_writer.ts";

// Implementation
const NAMES: OptionKinds<CaptureOptions> = {
  filter: "function",
  interface: "text",
  flushInterval: "number",
  snapLength: "number",
  chunkLength: "number",
  application: "text",
  comment: "text",
};
const FLUSH_INTERVAL = 200;

/** Options of {@linkcode Capture}. */
export interface CaptureOptions extends PcapngWriterOptions {
  /** Selects the packets to write, such as a filter from `compileFilter`. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
  /** Name of the interface in the capture. @default {"warren"} */
  readonly interface?: string;
  /** Maximum time that packets wait in the buffer (milliseconds). @default {200} */
  readonly flushInterval?: number;
}

/**
 * Writes packets to a pcapng capture, in their state at this position among the stages.
 *
 * **Outbound** and **inbound**: writes each packet that the filter selects; passes all packets unchanged.
 * **Options**: {@linkcode CaptureOptions}. **Counters**: `packets` written; a super-packet counts once.
 * **Limits**: packets that an earlier stage drops are not seen; only {@linkcode Capture.handler} records verdicts.
 *
 * Several captures may share a writer; each adds an interface.
 *
 * @example Capturing one packet
 * ```ts
 * import assert from "node:assert/strict";
 * import { Capture } from "@warren/tunnel/capture";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 *
 * const chunks: Uint8Array[] = [];
 * const capture = new Capture({ write: (blocks: Uint8Array) => void chunks.push(blocks.slice()) }, { interface: "tun0" });
 * const batch = new PacketBatch();
 * batch.push(new PacketPool().from(Uint8Array.of(0x45, 0, 0, 20))!);
 * capture.outbound(batch, { now: 0 } as StageContext); // the tunnel does this
 * capture.close();
 * assert(capture.packets === 1 && chunks.length === 1);
 * ```
 */
export class Capture implements Stage {
  readonly name = "capture";
  /** Packets written. */
  packets = 0;

  readonly #writer: PcapngWriter;
  readonly #interface: number;
  readonly #filter: ((packet: Packet, direction: Direction) => boolean) | undefined;
  readonly #flushInterval: number;
  #flushed = 0;
  /** Holds a copy of the packet that the handler of {@linkcode Capture.handler} works on. */
  readonly #copies = new PacketPool({ small: 1, large: 1 });

  /**
   * Writes to a sink, or adds an interface to a writer, whose own options then apply.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(sink: CaptureSink | PcapngWriter, options: CaptureOptions = {}) {
    checkOptions("capture", options, NAMES);
    const { filter, interface: name = "warren", flushInterval = FLUSH_INTERVAL } = options;
    checkMin("capture", "flushInterval", flushInterval, 0);
    this.#writer = sink instanceof PcapngWriter ? sink : new PcapngWriter(sink, options);
    this.#interface = this.#writer.addInterface(name);
    this.#filter = filter;
    this.#flushInterval = flushInterval;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { packets: this.packets };
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#writeAll(batch, context, Direction.Outbound);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#writeAll(batch, context, Direction.Inbound);
  }

  /** Flushes packets while no others arrive. */
  tick(): number {
    this.#writer.flush();
    return this.#flushInterval;
  }

  close(): void {
    this.#writer.flush();
  }

  /**
   * Wraps a handler: writes each packet as it was before the handler, with the verdict; without one if the handler
   * dropped, held or emitted the packet through its context. A capture that is not used as a stage must be flushed with
   * `close()`.
   */
  handler(handler: PacketHandler): PacketHandler {
    return (packet, context) => {
      const { now, direction } = context;
      if (this.#filter !== undefined && !this.#filter(packet, direction)) return handler(packet, context);
      const { owner } = packet;
      const before = copyPacket(packet, this.#copies);
      const verdict = handler(packet, context);
      // A packet outside its slot cannot be copied.
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
