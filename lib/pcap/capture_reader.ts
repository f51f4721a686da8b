/** Reads captures in pcapng and the older pcap format. */

import { Direction, Verdict } from "../core/mod.ts";
import * as pcapng from "./_pcapng_format.ts";

// Implementation
/** Maximum length of a block (bytes), as in Wireshark. */
const MAX_BLOCK_LENGTH = 16 * 1024 * 1024;
/** Nanoseconds in a second. */
const NANOSECONDS = 1_000_000_000n;
const NANOSECONDS_IN_MILLISECOND = 1_000_000n;
/** Default resolution: 10^-6 seconds. */
const MICROSECONDS = 6;

/** Magic numbers of pcap with times in micro- and nanoseconds. */
const PCAP_MICROSECONDS = 0xa1b2c3d4;
const PCAP_NANOSECONDS = 0xa1b23c4d;
const PCAP_HEADER = 24;
const PCAP_RECORD = 16;
/** Link type bits of pcap's header field. */
const PCAP_LINK_BITS = 0x0fffffff;

/** Interface on which packets were captured. */
export interface CaptureInterface {
  /** Name; `""` if the capture has none. */
  readonly name: string;
  /** Description; `""` if the capture has none. */
  readonly description: string;
  /** Link-layer header of the packets, https://www.tcpdump.org/linktypes.html; 101 for none. */
  readonly linkType: number;
}

/** A packet of a capture. */
export interface CapturedPacket {
  /** Interface on which it was captured. */
  readonly interface: CaptureInterface;
  /** Time of capture (milliseconds since 1970), to a quarter of a microsecond; 0 if the capture has none. */
  readonly time: number;
  /** Time of capture (nanoseconds since 1970), rounded if the capture is finer; 0n if it has none. */
  readonly timestamp: bigint;
  /** Captured bytes, including the link-layer header; a copy. */
  readonly bytes: Uint8Array;
  /** Length of the packet on the wire (bytes), at least that of `bytes`. */
  readonly originalLength: number;
  /** Direction, if the capture has it. */
  readonly direction: Direction | undefined;
  /** Verdict, if the capture has it. */
  readonly verdict: Verdict | undefined;
  /** Comments on the packet. */
  readonly comments: readonly string[];
}

interface Interface extends CaptureInterface {
  /** Units of time in a second, and the offset of each time (seconds). */
  readonly unitsPerSecond: bigint;
  readonly secondsOffset: bigint;
  readonly snapLength: number;
}

interface Options {
  readonly texts: Map<number, string>;
  readonly comments: string[];
  readonly values: Map<number, DataView>;
}

/** Parses a capture as its bytes arrive. */
class CaptureParser {
  #bytes = new Uint8Array(64 * 1024);
  #start = 0;
  #end = 0;
  /** Offset of the bytes at `#start` in the capture. */
  #position = 0;
  #format: "pcap" | "pcapng" | undefined;
  #littleEndian = false;
  #interfaces: Interface[] = [];

  /** Appends bytes of the capture, and iterates over the packets that are complete. */
  *parse(chunk: Uint8Array): Generator<CapturedPacket, void, void> {
    this.#push(chunk);
    for (let packet = this.#next(); packet !== undefined; packet = this.#next()) yield packet;
  }

  #push(chunk: Uint8Array): void {
    const kept = this.#end - this.#start;
    if (this.#end + chunk.length > this.#bytes.length) {
      const from = this.#bytes.subarray(this.#start, this.#end);
      if (kept + chunk.length > this.#bytes.length) {
        const larger = new Uint8Array(2 ** Math.ceil(Math.log2(kept + chunk.length)));
        larger.set(from);
        this.#bytes = larger;
      } else this.#bytes.set(from);
      this.#start = 0;
      this.#end = kept;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** Returns the next packet; `undefined` when more bytes are needed. */
  #next(): CapturedPacket | undefined {
    this.#format ??= this.#findFormat();
    if (this.#format === undefined) return undefined;
    if (this.#format === "pcap") return this.#nextRecord();
    for (let block = this.#block(); block !== undefined; block = this.#block()) {
      const found = this.#read(block);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Ends the capture, which must not end within a block. */
  end(): void {
    const left = this.#end - this.#start;
    if (left > 0 || this.#format === undefined) {
      this.#fail(`it ends within a block, after ${left} bytes of it,`);
    }
  }

  #findFormat(): "pcap" | "pcapng" | undefined {
    if (this.#left < 4) return undefined;
    const view = this.#view(0, 4);
    if (view.getUint32(0) === pcapng.SECTION_HEADER) return "pcapng";
    for (const littleEndian of [true, false]) {
      const magic = view.getUint32(0, littleEndian);
      if (magic !== PCAP_MICROSECONDS && magic !== PCAP_NANOSECONDS) continue;
      if (this.#left < PCAP_HEADER) return undefined;
      const header = this.#view(0, PCAP_HEADER);
      this.#littleEndian = littleEndian;
      this.#interfaces.push({
        name: "",
        description: "",
        linkType: header.getUint32(20, littleEndian) & PCAP_LINK_BITS,
        unitsPerSecond: magic === PCAP_MICROSECONDS ? 1_000_000n : NANOSECONDS,
        secondsOffset: 0n,
        snapLength: header.getUint32(16, littleEndian),
      });
      this.#advance(PCAP_HEADER);
      return "pcap";
    }
    this.#fail("its format is neither pcapng nor pcap");
  }

  #nextRecord(): CapturedPacket | undefined {
    if (this.#left < PCAP_RECORD) return undefined;
    const [from] = this.#interfaces as [Interface];
    const header = this.#view(0, PCAP_RECORD);
    const kept = header.getUint32(8, this.#littleEndian);
    if (kept > MAX_BLOCK_LENGTH) {
      this.#fail(`packet length must be at most ${MAX_BLOCK_LENGTH}, got ${kept},`);
    }
    if (this.#left < PCAP_RECORD + kept) return undefined;
    const seconds = BigInt(header.getUint32(0, this.#littleEndian));
    const units = seconds * from.unitsPerSecond + BigInt(header.getUint32(4, this.#littleEndian));
    const originalLength = Math.max(kept, header.getUint32(12, this.#littleEndian));
    const bytes = bytesOf(this.#view(PCAP_RECORD, kept), 0, kept);
    this.#advance(PCAP_RECORD + kept);
    return {
      interface: from,
      ...timesOf(units, from),
      ...UNSTATED,
      bytes,
      originalLength,
    };
  }

  /** Removes the next block; returns its type and its body, including options. */
  #block(): { type: number; body: DataView } | undefined {
    if (this.#left < pcapng.BLOCK_FRAME) return undefined;
    const isSection = this.#view(0, 4).getUint32(0) === pcapng.SECTION_HEADER;
    const head = this.#view(0, pcapng.BLOCK_FRAME);
    if (isSection) {
      this.#littleEndian = head.getUint32(8, true) === pcapng.BYTE_ORDER_MAGIC;
      if (!this.#littleEndian && head.getUint32(8) !== pcapng.BYTE_ORDER_MAGIC) {
        this.#fail("a section has no byte-order magic");
      }
    }
    const type = head.getUint32(0, this.#littleEndian);
    const length = head.getUint32(4, this.#littleEndian);
    if (length < pcapng.BLOCK_FRAME || length > MAX_BLOCK_LENGTH || length % 4 !== 0) {
      this.#fail(
        `block length must be a multiple of 4 from ${pcapng.BLOCK_FRAME} to ${MAX_BLOCK_LENGTH}, got ${length},`,
      );
    }
    if (this.#left < length) return undefined;
    const block = this.#view(0, length);
    if (block.getUint32(length - 4, this.#littleEndian) !== length) {
      this.#fail("a block has two different lengths");
    }
    // The view is valid until the next chunk.
    this.#advance(length);
    return { type, body: new DataView(block.buffer, block.byteOffset + 8, length - pcapng.BLOCK_FRAME) };
  }

  #read({ type, body }: { type: number; body: DataView }): CapturedPacket | undefined {
    const min = MIN_BODY[type];
    if (min === undefined) return undefined;
    if (body.byteLength < min) this.#fail(`a block of type ${type} is truncated`);
    switch (type) {
      case pcapng.SECTION_HEADER:
        if (body.getUint16(4, this.#littleEndian) !== pcapng.MAJOR_VERSION) {
          const version = body.getUint16(4, this.#littleEndian);
          this.#fail(`section version must be ${pcapng.MAJOR_VERSION}, got ${version},`);
        }
        this.#interfaces = [];
        return undefined;
      case pcapng.INTERFACE_DESCRIPTION:
        this.#readInterface(body);
        return undefined;
      case pcapng.SIMPLE_PACKET:
        return this.#readSimple(body);
      default:
        return this.#readPacket(body);
    }
  }

  #readInterface(body: DataView): void {
    const { texts, values } = this.#options(body, pcapng.INTERFACE_BODY);
    const stated = values.get(pcapng.INTERFACE_RESOLUTION);
    const resolution = stated?.byteLength === 1 ? stated.getUint8(0) : MICROSECONDS;
    const offset = values.get(pcapng.INTERFACE_OFFSET);
    this.#interfaces.push({
      name: texts.get(pcapng.INTERFACE_NAME) ?? "",
      description: texts.get(pcapng.INTERFACE_DESCRIPTION_TEXT) ?? "",
      linkType: body.getUint16(0, this.#littleEndian),
      unitsPerSecond: ((resolution & 0x80) !== 0 ? 2n : 10n) ** BigInt(resolution & 0x7f),
      secondsOffset: offset?.byteLength === 8 ? offset.getBigInt64(0, this.#littleEndian) : 0n,
      snapLength: body.getUint32(4, this.#littleEndian),
    });
  }

  #readSimple(body: DataView): CapturedPacket {
    const from = this.#interface(0);
    const originalLength = body.getUint32(0, this.#littleEndian);
    const { snapLength } = from;
    const kept = Math.min(originalLength, snapLength === 0 ? originalLength : snapLength);
    if (pcapng.SIMPLE_PACKET_BODY + kept > body.byteLength) this.#fail("a packet is longer than its block");
    const bytes = bytesOf(body, pcapng.SIMPLE_PACKET_BODY, kept);
    return { interface: from, time: 0, timestamp: 0n, ...UNSTATED, bytes, originalLength };
  }

  #readPacket(body: DataView): CapturedPacket {
    const from = this.#interface(body.getUint32(0, this.#littleEndian));
    const units = BigInt(body.getUint32(4, this.#littleEndian)) << 32n |
      BigInt(body.getUint32(8, this.#littleEndian));
    const kept = body.getUint32(12, this.#littleEndian);
    if (pcapng.PACKET_BODY + kept > body.byteLength) this.#fail("a packet is longer than its block");
    const { comments, values } = this.#options(body, pcapng.PACKET_BODY + (kept + 3 & ~3));
    const flags = values.get(pcapng.PACKET_FLAGS);
    return {
      interface: from,
      ...timesOf(units, from),
      bytes: bytesOf(body, pcapng.PACKET_BODY, kept),
      originalLength: Math.max(kept, body.getUint32(16, this.#littleEndian)),
      direction: flags?.byteLength === 4 ? directionOf(flags.getUint32(0, this.#littleEndian)) : undefined,
      verdict: this.#verdictOf(values.get(pcapng.PACKET_VERDICT)),
      comments,
    };
  }

  #verdictOf(value: DataView | undefined): Verdict | undefined {
    if (value?.byteLength !== 9 || value.getUint8(0) !== pcapng.VERDICT_XDP) return undefined;
    return VERDICTS[Number(value.getBigUint64(1, this.#littleEndian))];
  }

  #interface(number: number): Interface {
    return this.#interfaces[number] ?? this.#fail(`a packet has the unknown interface ${number}`);
  }

  /** Reads the options after a block's fixed part. */
  #options(body: DataView, start: number): Options {
    const found: Options = { texts: new Map(), comments: [], values: new Map() };
    for (let at = start; at + 4 <= body.byteLength;) {
      const code = body.getUint16(at, this.#littleEndian);
      const length = body.getUint16(at + 2, this.#littleEndian);
      if (code === pcapng.END_OF_OPTIONS) break;
      if (at + 4 + length > body.byteLength) this.#fail("an option is longer than its block");
      const value = new DataView(body.buffer, body.byteOffset + at + 4, length);
      const text = () => new TextDecoder().decode(bytesOf(value, 0, length));
      if (code === pcapng.COMMENT) found.comments.push(text());
      else {
        found.values.set(code, value);
        if (code === pcapng.INTERFACE_NAME || code === pcapng.INTERFACE_DESCRIPTION_TEXT) {
          found.texts.set(code, text());
        }
      }
      at += 4 + (length + 3 & ~3);
    }
    return found;
  }

  get #left(): number {
    return this.#end - this.#start;
  }

  #view(from: number, length: number): DataView {
    return new DataView(this.#bytes.buffer, this.#start + from, length);
  }

  #advance(length: number): void {
    this.#start += length;
    this.#position += length;
  }

  #fail(reason: string): never {
    throw new SyntaxError(`Cannot read the capture: ${reason} at byte ${this.#position}`);
  }
}

/**
 * Iterates over the packets of a capture in memory, in chunks or whole (`[bytes]`): pcapng of either byte order with any
 * number of sections, and pcap with times in micro- or nanoseconds. Skips blocks without packets.
 *
 * **Limits**: blocks of up to 16 MiB; no obsolete packet blocks of pcapng, which are skipped; no compressed files.
 *
 * @throws {SyntaxError} when the capture is malformed, after the packets before that; the message names the byte.
 */
export function* parseCapture(chunks: Iterable<Uint8Array>): Generator<CapturedPacket, void, void> {
  const parser = new CaptureParser();
  for (const chunk of chunks) yield* parser.parse(chunk);
  parser.end();
}

/**
 * Iterates over the packets of a stream, such as a file's `readable`, like {@linkcode parseCapture}.
 *
 * @throws {SyntaxError} as {@linkcode parseCapture} does.
 */
export async function* readCapture(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<CapturedPacket, void, void> {
  const parser = new CaptureParser();
  for await (const chunk of chunks) yield* parser.parse(chunk);
  parser.end();
}

/** Properties of a packet without options. */
const UNSTATED = { direction: undefined, verdict: undefined, comments: [] } as const;

const VERDICTS: Readonly<Record<number, Verdict>> = {
  [pcapng.XDP_DROP]: Verdict.Drop,
  [pcapng.XDP_PASS]: Verdict.Pass,
  [pcapng.XDP_TX]: Verdict.Reply,
};

/** Minimum length of a block's body by type (bytes); blocks of other types are skipped. */
const MIN_BODY: Readonly<Record<number, number>> = {
  [pcapng.SECTION_HEADER]: pcapng.SECTION_BODY,
  [pcapng.INTERFACE_DESCRIPTION]: pcapng.INTERFACE_BODY,
  [pcapng.SIMPLE_PACKET]: pcapng.SIMPLE_PACKET_BODY,
  [pcapng.ENHANCED_PACKET]: pcapng.PACKET_BODY,
};

/** Converts a time in an interface's units to milliseconds and to nanoseconds, rounded. */
function timesOf(units: bigint, { unitsPerSecond, secondsOffset }: Interface) {
  const timestamp = (units * NANOSECONDS + unitsPerSecond / 2n) / unitsPerSecond +
    secondsOffset * NANOSECONDS;
  const time = Number(timestamp / NANOSECONDS_IN_MILLISECOND) +
    Number(timestamp % NANOSECONDS_IN_MILLISECOND) / 1e6;
  return { time, timestamp };
}

function directionOf(flags: number): Direction | undefined {
  if ((flags & 3) === pcapng.FLAG_OUTBOUND) return Direction.Outbound;
  return (flags & 3) === pcapng.FLAG_INBOUND ? Direction.Inbound : undefined;
}

function bytesOf(view: DataView, from: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset + from, length).slice();
}
