/** Destinations of captures: files, which can rotate, and pipes to programs that show packets live. */

import { extname } from "node:path";
import { errorMessage } from "../../driver/error.ts";
import type { CaptureSink } from "../../lib/pcap/pcapng_writer.ts";
import { checkMin, checkOptions, type OptionKinds } from "../../lib/core/options.ts";
import { fileError } from "./file_error.ts";
import { fileTime, openNewFile } from "./new_file.ts";
import { WallClock } from "./wall_clock.ts";

// Implementation
/** Maximum data that waits for the reader of a pipe (bytes). */
const PIPE_LIMIT = 8 * 1024 * 1024;
/** Maximum length of a write (bytes). A reader that completes no write within half a second has stalled. */
const MAX_WRITE = 16 * 1024;
/** Maximum wait at the end for a reader that takes nothing (milliseconds). */
const STALLED_AFTER = 500;
/** Maximum wait at the end for a slow reader (milliseconds). */
const DRAIN_TIMEOUT = 5000;
const WIRESHARK = ["wireshark", "-k", "-i", "-"] as const;

/** Options of a {@linkcode CaptureFile}. */
export interface CaptureFileOptions {
  /** Size of a file after which the next one begins (bytes). @default {Infinity} */
  readonly rotateBytes?: number;
  /** Age of a file after which the next packet begins a new one (milliseconds). @default {Infinity} */
  readonly rotateInterval?: number;
  /** Maximum files; the oldest is removed. @default {Infinity} */
  readonly files?: number;
}

const NAMES: OptionKinds<CaptureFileOptions> = {
  rotateBytes: "number",
  rotateInterval: "number",
  files: "number",
};

/**
 * Capture file, or rotating files whose names get a number and the time: `trace.pcapng` becomes
 * `trace_00001_20261123-101500.pcapng`. Only their owner can read the files, and existing files are not overwritten.
 * Needs `--allow-write`.
 *
 * A full disk or a removed folder ends the capture with a line on standard error, while the tunnel continues. With
 * `--allow-read`, a removed file ends it in the same way.
 *
 * @example
 * ```ts no-eval
 * import { Capture } from "@warren/tunnel/capture";
 * import { openCaptureFile } from "@warren/tunnel/capture_sink";
 *
 * using file = openCaptureFile("trace.pcapng", { rotateBytes: 100e6, files: 10 });
 * const capture = new Capture(file);
 * ```
 */
export class CaptureFile implements CaptureSink, Disposable {
  /** Error that ended the capture before its tunnel; `undefined` while it continues. */
  failure: Error | undefined;
  readonly #clock = new WallClock();
  readonly #path: string;
  readonly #rotateBytes: number;
  readonly #rotateInterval: number;
  readonly #files: number;
  readonly #written: string[] = [];
  #count = 0;
  #file: Deno.FsFile | undefined;
  /** True if the status of the file may be read, which needs `--allow-read`. */
  #mayLook = false;
  #bytes = 0;
  #since = 0;

  /** For {@linkcode openCaptureFile}. */
  constructor(path: string, options: CaptureFileOptions) {
    const { rotateBytes = Infinity, rotateInterval = Infinity, files = Infinity } = options;
    for (const [name, value] of Object.entries({ rotateBytes, rotateInterval, files })) {
      checkMin("write a capture", name, value, 1);
    }
    this.#path = path;
    this.#rotateBytes = rotateBytes;
    this.#rotateInterval = rotateInterval;
    this.#files = files;
    this.#open();
  }

  /** Time since 1970 at which the loop's clock was 0 (milliseconds). */
  get timeOrigin(): number {
    return this.#clock.origin;
  }

  /** Paths of the files that were written and not removed, oldest first. */
  get paths(): readonly string[] {
    return this.#written;
  }

  /** Writes blocks; returns true if the next file has begun. After a failure, blocks are discarded. */
  write(blocks: Uint8Array): boolean {
    const file = this.#file;
    if (file === undefined) return false;
    try {
      // A write to a removed file would succeed, but its data would be lost.
      if (this.#mayLook && file.statSync().nlink === 0) throw new Deno.errors.NotFound();
      for (let rest = blocks; rest.length > 0;) rest = rest.subarray(file.writeSync(rest));
      this.#bytes += blocks.length;
      const isFull = this.#bytes >= this.#rotateBytes ||
        performance.now() - this.#since >= this.#rotateInterval;
      if (!isFull) return false;
      file.close();
      this.#file = undefined;
      this.#open();
      return true;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  /** Closes the file. The capture must have ended before, for example with `tunnel.close()`. */
  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #fail(error: unknown): void {
    const file = this.#file;
    this.#file = undefined;
    this.failure = file === undefined
      ? error as Error
      : fileError(`write capture "${this.#written.at(-1)}"`, error);
    try {
      // Without a partial block at its end, the file remains readable.
      file?.truncateSync(this.#bytes);
    } catch {
      // The error has already been reported.
    } finally {
      file?.close();
    }
    console.error(`warren: ${this.failure.message}: the capture ends here`);
  }

  #open(): void {
    const rotates = this.#rotateBytes < Infinity || this.#rotateInterval < Infinity;
    const path = rotates ? numbered(this.#path, ++this.#count) : this.#path;
    this.#file = openNewFile("capture", path, { AlreadyExists: "choose another name or remove it" });
    this.#mayLook = Deno.permissions.querySync({ name: "read", path }).state === "granted";
    this.#written.push(path);
    if (this.#written.length > this.#files) removeOld(this.#written.shift()!);
    this.#bytes = 0;
    this.#since = performance.now();
  }
}

/**
 * Opens a capture file.
 *
 * @throws {Deno.errors.AlreadyExists} when the file exists.
 * @throws {Deno.errors.NotCapable} without `--allow-write`.
 * @throws {RangeError} when an option is out of range.
 */
export function openCaptureFile(path: string, options: CaptureFileOptions = {}): CaptureFile {
  checkOptions("write a capture", options, NAMES);
  return new CaptureFile(path, options);
}

/**
 * Capture pipe. Packets never wait for its reader: data beyond 8 MiB in transit is lost and counted. When the reader
 * ends, the capture ends with a line on standard error, while the tunnel continues.
 */
export class CapturePipe implements CaptureSink, AsyncDisposable {
  /** Number of bytes lost because the reader was slow or has ended. */
  lost = 0;
  /** Number of lost packets. */
  lostPackets = 0;
  readonly #clock = new WallClock();
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #waiting = 0;
  #waitingPackets = 0;
  #last: Promise<void> = Promise.resolve();
  #hasEnded = false;
  #isClosing = false;

  /** Creates a pipe to a stream such as `Deno.stdout.writable`. */
  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
    this.#writer.closed.catch((error) => this.#end(error));
  }

  /** Time since 1970 at which the loop's clock was 0 (milliseconds). */
  get timeOrigin(): number {
    return this.#clock.origin;
  }

  /** Promise that resolves when all data written so far has arrived or is lost. */
  get drained(): Promise<void> {
    return this.#last;
  }

  /** True after the reader has ended. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Closes the stream when all data has arrived, or when the reader takes nothing for half a second. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    const closed = this.#writer.close().catch(() => {});
    const isOver = Promise.withResolvers<void>();
    const limit = setTimeout(isOver.resolve, DRAIN_TIMEOUT);
    let waiting = this.#waiting;
    const check = setInterval(() => {
      if (this.#waiting === waiting) isOver.resolve();
      waiting = this.#waiting;
    }, STALLED_AFTER);
    await Promise.race([closed, isOver.promise]);
    clearTimeout(limit);
    clearInterval(check);
    this.lost += this.#waiting;
    this.lostPackets += this.#waitingPackets;
    this.#waiting = this.#waitingPackets = 0;
    if (!this.#hasEnded && this.lost > 0) {
      console.error(
        `warren: the capture lost ${this.lostPackets} packets (${this.lost} bytes): its reader was too slow`,
      );
    }
  }

  /** Writes blocks of a capture. */
  write(blocks: Uint8Array, packets = 0): void {
    const { length } = blocks;
    if (this.#hasEnded || this.#waiting + length > PIPE_LIMIT) {
      this.lost += length;
      this.lostPackets += packets;
      return;
    }
    this.#waiting += length;
    this.#waitingPackets += packets;
    const kept = blocks.slice();
    for (let start = 0; start < length; start += MAX_WRITE) {
      const end = Math.min(start + MAX_WRITE, length);
      this.#send(kept.subarray(start, end), end === length ? packets : 0);
    }
  }

  #send(part: Uint8Array, packets: number): void {
    const { length } = part;
    this.#last = this.#writer.write(part).then(
      () => this.#settle(length, packets),
      (error) => {
        this.#settle(length, packets);
        this.lost += length;
        this.lostPackets += packets;
        this.#end(error);
      },
    );
  }

  #settle(length: number, packets: number): void {
    this.#waiting -= length;
    this.#waitingPackets -= packets;
  }

  #end(error: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#isClosing) return;
    const reason = error instanceof Deno.errors.BrokenPipe ? "its reader has ended" : errorMessage(error);
    console.error(`warren: Cannot write the capture: ${reason}: the capture ends here`);
  }
}

/**
 * Starts Wireshark with a live capture. Needs `--allow-run=wireshark`.
 *
 * @throws {Deno.errors.NotFound} when Wireshark is not installed.
 */
export function openWireshark(): CapturePipe {
  const [program, ...args] = WIRESHARK;
  try {
    const child = new Deno.Command(program, { args, stdin: "piped", stdout: "null", stderr: "null" }).spawn();
    // Without `unref`, the process would wait for Wireshark to end.
    child.unref();
    return new CapturePipe(child.stdin);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound("Cannot start wireshark: it is not installed", { cause: error });
  }
}

function removeOld(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // Another program may have removed it.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function numbered(path: string, number: number): string {
  const extension = extname(path);
  const base = path.slice(0, path.length - extension.length);
  return `${base}_${String(number).padStart(5, "0")}_${fileTime()}${extension}`;
}
