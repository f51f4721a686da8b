/** Writes captures as pcapng, which Wireshark and tcpdump read. */

import { finishChecksum } from "../core/checksum.ts";
import { Direction, type Packet, PacketPool, Verdict } from "../core/mod.ts";
import { Segmenter } from "../split/segmenter.ts";
import { copyBytes } from "../core/copy_packet.ts";
import { checkInteger } from "../core/options.ts";
import * as pcapng from "./_pcapng_format.ts";

// Implementation
const CHUNK = 256 * 1024;
/** Space for a packet of 65,535 bytes with a comment of the same length. */
const MIN_CHUNK = CHUNK;
const MAX_TEXT_LENGTH = 65_535;
const APPLICATION = "Warren";
const OPTION_HEAD = 4;
/** Bytes of flags, a verdict, and the end of the options. */
const PACKET_OPTIONS = 8 + 16 + 4;
const TWO_TO_32 = 2 ** 32;
const LOW_32 = 0xffff_ffffn;
/** Bytes of the option `if_tsresol` with padding, and its value: 10^-9 seconds. */
const RESOLUTION_OPTION = OPTION_HEAD + 4;
const NANOSECONDS = 9;
const XDP = {
  [Verdict.Pass]: pcapng.XDP_PASS,
  [Verdict.Drop]: pcapng.XDP_DROP,
  [Verdict.Reply]: pcapng.XDP_TX,
} as const;
const NO_COMMENT: Uint8Array = new Uint8Array();

/** Destination of a capture. */
export interface CaptureSink {
  /**
   * Takes whole blocks with this number of packets; they are valid until it returns. If it returns `true`, the next blocks
   * start a new file.
   */
  write(blocks: Uint8Array, packets: number): boolean | void;
  /**
   * Time since 1970 at which the tunnel's clock was 0 (milliseconds). Read for each batch, since the system's clock may
   * be set. @default {0}
   */
  readonly timeOrigin?: number;
}

/** Options for {@linkcode PcapngWriter}. */
export interface PcapngWriterOptions {
  /** Maximum bytes captured of each packet, from 1 to 65,535. @default {65535} */
  readonly snapLength?: number;
  /** Maximum bytes of one write to the sink, at least 256 KiB. @default {262144} */
  readonly chunkLength?: number;
  /** Name of the capturing program, written to the capture. @default {"Warren"} */
  readonly application?: string;
  /** Comment on the whole capture. @default {""} */
  readonly comment?: string;
}

/**
 * Writes packets as pcapng blocks, as a device without offload sees them: super-packets segmented, checksums complete,
 * times in nanoseconds (`if_tsresol` 9). Blocks are buffered and go to the sink when the buffer is full, and on `flush`.
 * Allocates nothing per packet.
 *
 * @example A capture in memory
 * ```ts
 * import assert from "node:assert/strict";
 * import { PcapngWriter, parseCapture } from "@warren/tunnel/capture";
 * import { Direction, PacketPool } from "@warren/tunnel/core";
 *
 * const chunks: Uint8Array[] = [];
 * const writer = new PcapngWriter({ write: (blocks: Uint8Array) => void chunks.push(blocks.slice()) });
 * const tun = writer.addInterface("tun0");
 * const packet = new PacketPool().from(Uint8Array.of(0x45, 0, 0, 20))!;
 * writer.write(packet, tun, 1_700_000_000_000, Direction.Outbound);
 * writer.flush();
 *
 * const [captured] = parseCapture(chunks);
 * assert.deepEqual([captured!.interface.name, [...captured!.bytes]], ["tun0", [0x45, 0, 0, 20]]);
 * ```
 */
export class PcapngWriter {
  readonly #sink: CaptureSink;
  readonly #snapLength: number;
  readonly #chunk: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #segmenter = new Segmenter();
  readonly #segments = new PacketPool({ small: 1, large: 1 });
  /** Options at the start of each section. */
  readonly #application: Uint8Array;
  readonly #comment: Uint8Array;
  readonly #interfaces: { name: Uint8Array; description: Uint8Array }[] = [];
  #length = 0;
  /** Packets in the buffer. */
  #packets = 0;

  /**
   * Starts a capture without packets.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(sink: CaptureSink, options: PcapngWriterOptions = {}) {
    const { snapLength = MAX_TEXT_LENGTH, chunkLength = CHUNK, application = APPLICATION, comment = "" } =
      options;
    checkInteger("write a capture", "snapLength", snapLength, 1, MAX_TEXT_LENGTH);
    checkInteger("write a capture", "chunkLength", chunkLength, MIN_CHUNK, Infinity);
    this.#sink = sink;
    this.#snapLength = snapLength;
    this.#chunk = new Uint8Array(chunkLength);
    this.#view = new DataView(this.#chunk.buffer);
    this.#application = text(application);
    this.#comment = text(comment);
    this.#startSection();
  }

  /** Value of {@linkcode CaptureSink.timeOrigin}. */
  get timeOrigin(): number {
    return this.#sink.timeOrigin ?? 0;
  }

  /** Bytes in the buffer. */
  get pending(): number {
    return this.#length;
  }

  /** Adds an interface and returns its number, for {@linkcode PcapngWriter.write}. */
  addInterface(name: string, description = ""): number {
    const added = { name: text(name), description: text(description) };
    this.#writeInterface(added.name, added.description);
    return this.#interfaces.push(added) - 1;
  }

  /**
   * Writes a packet, or each segment of a super-packet. A packet outside its slot is not written.
   *
   * @param time Time since 1970: milliseconds as a number, kept to the microsecond, or nanoseconds as a bigint.
   */
  write(
    packet: Packet,
    interfaceNumber: number,
    time: number | bigint,
    direction: Direction,
    verdict?: Verdict,
    comment: Uint8Array = NO_COMMENT,
  ): void {
    if (!packet.isInSlot) return;
    if (packet.segmentSize === 0 || this.#segmenter.start(packet) !== undefined) {
      this.#writePacket(packet, interfaceNumber, time, direction, verdict, comment);
      return;
    }
    while (this.#segmenter.remaining > 0) {
      const segment = this.#segmenter.next(this.#segments)!;
      this.#writePacket(segment, interfaceNumber, time, direction, verdict, comment);
      this.#segments.give(segment);
    }
  }

  /** Writes the buffer to the sink. */
  flush(): void {
    if (this.#length === 0) return;
    const blocks = this.#chunk.subarray(0, this.#length);
    const packets = this.#packets;
    this.#length = 0;
    this.#packets = 0;
    if (this.#sink.write(blocks, packets) !== true) return;
    this.#startSection();
    for (const { name, description } of this.#interfaces) this.#writeInterface(name, description);
  }

  #startSection(): void {
    const room = pcapng.SECTION_BODY + optionLength(this.#comment) + optionLength(this.#application);
    let at = this.#begin(pcapng.SECTION_HEADER, room);
    this.#view.setUint32(at, pcapng.BYTE_ORDER_MAGIC, true);
    this.#view.setUint32(at + 4, pcapng.MAJOR_VERSION, true);
    this.#view.setBigInt64(at + 8, -1n, true); // unknown section length
    at = this.#option(at + pcapng.SECTION_BODY, pcapng.COMMENT, this.#comment);
    this.#end(this.#option(at, pcapng.SECTION_APPLICATION, this.#application));
  }

  #writeInterface(name: Uint8Array, description: Uint8Array): void {
    let at = this.#begin(
      pcapng.INTERFACE_DESCRIPTION,
      pcapng.INTERFACE_BODY + optionLength(name) + optionLength(description) + RESOLUTION_OPTION,
    );
    this.#view.setUint32(at, pcapng.LINK_RAW, true);
    this.#view.setUint32(at + 4, this.#snapLength, true);
    at = this.#option(at + pcapng.INTERFACE_BODY, pcapng.INTERFACE_NAME, name);
    at = this.#option(at, pcapng.INTERFACE_DESCRIPTION_TEXT, description);
    this.#view.setUint32(at, pcapng.INTERFACE_RESOLUTION | 1 << 16, true);
    this.#view.setUint32(at + OPTION_HEAD, NANOSECONDS, true);
    this.#end(at + RESOLUTION_OPTION);
  }

  #writePacket(
    packet: Packet,
    interfaceNumber: number,
    time: number | bigint,
    direction: Direction,
    verdict: Verdict | undefined,
    comment: Uint8Array,
  ): void {
    const { offset, length, checksumStart, checksumOffset } = packet;
    let at = this.#begin(
      pcapng.ENHANCED_PACKET,
      pcapng.PACKET_BODY + padded(length) + PACKET_OPTIONS + optionLength(comment),
    );
    const view = this.#view;
    const kept = Math.min(length, this.#snapLength);
    view.setUint32(at, interfaceNumber, true);
    if (typeof time === "bigint") {
      view.setUint32(at + 4, Number(time >> 32n & LOW_32), true);
      view.setUint32(at + 8, Number(time & LOW_32), true);
    } else {
      // Multiplied by 1000 in two halves, since nanoseconds since 1970 exceed the precision of a number.
      const microseconds = Math.floor(time * 1000);
      const high = Math.floor(microseconds / TWO_TO_32);
      const low = (microseconds - high * TWO_TO_32) * 1000;
      view.setUint32(at + 4, high * 1000 + Math.floor(low / TWO_TO_32), true);
      view.setUint32(at + 8, low, true);
    }
    view.setUint32(at + 12, kept, true);
    view.setUint32(at + 16, length, true);
    at += pcapng.PACKET_BODY;
    // The checksum needs the whole packet. The options overwrite the bytes beyond the snap length.
    copyBytes(packet.view, offset, length, view, at);
    if (checksumStart !== 0) finishChecksum(this.#chunk, at, length, checksumStart, checksumOffset);
    at = this.#pad(at + kept);
    view.setUint32(at, pcapng.PACKET_FLAGS | 4 << 16, true);
    view.setUint32(
      at + 4,
      direction === Direction.Outbound ? pcapng.FLAG_OUTBOUND : pcapng.FLAG_INBOUND,
      true,
    );
    at += 8;
    if (verdict !== undefined) {
      view.setUint32(at, pcapng.PACKET_VERDICT | 9 << 16, true);
      view.setUint32(at + 4, pcapng.VERDICT_XDP | XDP[verdict] << 8, true);
      view.setUint32(at + 8, 0, true);
      view.setUint32(at + 12, 0, true);
      at += 16;
    }
    this.#end(this.#option(at, pcapng.COMMENT, comment));
    this.#packets++;
  }

  /** Starts a block whose body has at most `maxLength` bytes; returns the start of the body. */
  #begin(type: number, maxLength: number): number {
    if (this.#length + pcapng.BLOCK_FRAME + maxLength + OPTION_HEAD > this.#chunk.length) this.flush();
    this.#view.setUint32(this.#length, type, true);
    return this.#length + 8;
  }

  /** Ends the block after its options. */
  #end(at: number): void {
    this.#view.setUint32(at, pcapng.END_OF_OPTIONS, true);
    at += OPTION_HEAD;
    const length = at + 4 - this.#length;
    this.#view.setUint32(this.#length + 4, length, true);
    this.#view.setUint32(at, length, true);
    this.#length = at + 4;
  }

  #option(at: number, code: number, value: Uint8Array): number {
    if (value.length === 0) return at;
    this.#view.setUint32(at, code | value.length << 16, true);
    this.#chunk.set(value, at + OPTION_HEAD);
    return this.#pad(at + OPTION_HEAD + value.length);
  }

  /** Pads with zeros to a multiple of 4, at which blocks start. */
  #pad(at: number): number {
    while ((at & 3) !== 0) this.#chunk[at++] = 0;
    return at;
  }
}

/** Encodes a text, truncated to the maximum length of an option. */
function text(value: string): Uint8Array {
  return new TextEncoder().encode(value).subarray(0, MAX_TEXT_LENGTH);
}

function padded(length: number): number {
  return length + 3 & ~3;
}

/** Returns the bytes that an option takes; an empty one is omitted. */
function optionLength(value: Uint8Array): number {
  return value.length === 0 ? 0 : OPTION_HEAD + padded(value.length);
}
