/** Where captures go: files that take turns, and pipes to programs that show packets as they come. */

import { extname } from "node:path";
import { errorMessage } from "../../driver/error.ts";
import type { CaptureSink } from "../../lib/pcap/mod.ts";
import { checkNames, type OptionNames } from "../../lib/core/options.ts";
import { fileError } from "./file_error.ts";
import { fileTime, openNewFile } from "./new_file.ts";
import { WallClock } from "./wall_clock.ts";

// Implementation
/** What waits for a pipe at most (bytes). */
const PIPE_LIMIT = 8 * 1024 * 1024;
/** The longest write (bytes): a reader that takes so much in half a second is not stalled. */
const PIECE = 16 * 1024;
/**
 * The time that the end waits for a reader of a pipe that takes nothing, and for one that takes a little
 * (milliseconds).
 */
const STALLED_AFTER = 500;
const DRAIN_TIMEOUT = 5000;
const WIRESHARK = ["wireshark", "-k", "-i", "-"] as const;

/** Options of a {@linkcode CaptureFile}. */
export interface CaptureFileOptions {
  /** After how many bytes the next file begins. @default {Infinity} */
  readonly rotateBytes?: number;
  /** After how many milliseconds, when packets come. @default {Infinity} */
  readonly rotateInterval?: number;
  /** How many files are kept; of more, the oldest is removed. @default {Infinity} */
  readonly files?: number;
}

const NAMES: OptionNames<CaptureFileOptions> = {
  rotateBytes: "number",
  rotateInterval: "number",
  files: "number",
};

/**
 * A capture's file, or several that take turns: `trace.pcapng` is then `trace_00001_20261123-101500.pcapng` and so on,
 * by number and time. Only this user may read them. A file that is there is not overwritten. Needs `--allow-write`.
 *
 * A full disk, or a folder that was removed, ends the capture with a line on standard error; the tunnel goes on. A file
 * that was removed does, too, with `--allow-read`.
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
  /** The reason for a capture's end before its tunnel's; `undefined` while it goes on. */
  failure: Error | undefined;
  readonly #clock = new WallClock();
  readonly #path: string;
  readonly #rotateBytes: number;
  readonly #rotateInterval: number;
  readonly #files: number;
  readonly #written: string[] = [];
  #count = 0;
  #file: Deno.FsFile | undefined;
  /** True if the file's status may be read, which needs `--allow-read`. */
  #mayLook = false;
  #bytes = 0;
  #since = 0;

  /** For {@linkcode openCaptureFile}. */
  constructor(path: string, options: CaptureFileOptions) {
    const { rotateBytes = Infinity, rotateInterval = Infinity, files = Infinity } = options;
    for (const [name, value] of Object.entries({ rotateBytes, rotateInterval, files })) {
      if (!(value >= 1)) {
        throw new RangeError(`Cannot write a capture: ${name} must be at least 1, got ${value}`);
      }
    }
    this.#path = path;
    this.#rotateBytes = rotateBytes;
    this.#rotateInterval = rotateInterval;
    this.#files = files;
    this.#open();
  }

  /** The time since 1970 at which the loop's clock was 0 (milliseconds). */
  get timeOrigin(): number {
    return this.#clock.origin;
  }

  /** The files that were written and are kept, from the oldest on. */
  get paths(): readonly string[] {
    return this.#written;
  }

  /** Takes a capture's blocks; after a failure they are passed over. */
  write(blocks: Uint8Array): boolean {
    const file = this.#file;
    if (file === undefined) return false;
    try {
      // A file that was removed takes bytes which nobody can read any more.
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

  /** Closes the file; the capture must have ended, which `tunnel.close()` does. */
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
      // Without half a block at its end, the file can be read.
      file?.truncateSync(this.#bytes);
    } catch {
      // The disk's error.
    } finally {
      file?.close();
    }
    console.error(`warren: ${this.failure.message}: the capture ends here`);
  }

  #open(): void {
    const rotates = this.#rotateBytes < Infinity || this.#rotateInterval < Infinity;
    const path = rotates ? numbered(this.#path, ++this.#count) : this.#path;
    this.#file = openNewFile("capture", path, { AlreadyExists: "choose another name, or remove it" });
    this.#mayLook = Deno.permissions.querySync({ name: "read", path }).state === "granted";
    this.#written.push(path);
    if (this.#written.length > this.#files) removeOld(this.#written.shift()!);
    this.#bytes = 0;
    this.#since = performance.now();
  }
}

/**
 * Opens a capture's file.
 *
 * @throws {Deno.errors.AlreadyExists} when there is such a file.
 * @throws {Deno.errors.NotCapable} without `--allow-write`.
 * @throws {RangeError} when an option is out of its range.
 */
export function openCaptureFile(path: string, options: CaptureFileOptions = {}): CaptureFile {
  checkNames("write a capture", options, NAMES);
  return new CaptureFile(path, options);
}

/**
 * A capture's pipe. It never makes packets wait: what is written while 8 MiB are on their way is lost, and counted. A
 * reader that has ended ends the capture with a line on standard error; the tunnel goes on.
 */
export class CapturePipe implements CaptureSink, AsyncDisposable {
  /** Bytes that were lost, because the reader was slow or has ended. */
  lost = 0;
  /** Packets that were lost. */
  lostPackets = 0;
  readonly #clock = new WallClock();
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #waiting = 0;
  #waitingPackets = 0;
  #last: Promise<void> = Promise.resolve();
  #hasEnded = false;
  #isClosing = false;

  /** A pipe into this stream, such as `Deno.stdout.writable`. */
  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
    this.#writer.closed.catch((error) => this.#end(error));
  }

  /** The time since 1970 at which the loop's clock was 0 (milliseconds). */
  get timeOrigin(): number {
    return this.#clock.origin;
  }

  /** Settled when what was written until now has arrived, or is lost. */
  get drained(): Promise<void> {
    return this.#last;
  }

  /** Whether nobody reads any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Closes the stream when what is on its way has arrived, or when its reader takes nothing for half a second. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    const closed = this.#writer.close().catch(() => {});
    const isOver = Promise.withResolvers<void>();
    const limit = setTimeout(isOver.resolve, DRAIN_TIMEOUT);
    let waiting = this.#waiting;
    const look = setInterval(() => {
      if (this.#waiting === waiting) isOver.resolve();
      waiting = this.#waiting;
    }, STALLED_AFTER);
    await Promise.race([closed, isOver.promise]);
    clearTimeout(limit);
    clearInterval(look);
    this.lost += this.#waiting;
    this.lostPackets += this.#waitingPackets;
    this.#waiting = this.#waitingPackets = 0;
    if (!this.#hasEnded && this.lost > 0) {
      console.error(
        `warren: ${this.lostPackets} packets of the capture were lost (${this.lost} bytes): they were not read in time`,
      );
    }
  }

  /** Takes a capture's blocks. */
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
    for (let start = 0; start < length; start += PIECE) {
      const end = Math.min(start + PIECE, length);
      this.#send(kept.subarray(start, end), end === length ? packets : 0);
    }
  }

  #send(piece: Uint8Array, packets: number): void {
    const { length } = piece;
    this.#last = this.#writer.write(piece).then(
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
    const what = error instanceof Deno.errors.BrokenPipe ? "nobody reads it any more" : errorMessage(error);
    console.error(`warren: Cannot write the capture: ${what}: the capture ends here`);
  }
}

/**
 * Starts Wireshark, which shows packets as they come. Needs `--allow-run=wireshark`.
 *
 * @throws {Deno.errors.NotFound} when it is not installed.
 */
export function openWireshark(): CapturePipe {
  const [program, ...args] = WIRESHARK;
  try {
    const child = new Deno.Command(program, { args, stdin: "piped", stdout: "null", stderr: "null" }).spawn();
    // Closing its window ends the capture, not the tunnel.
    child.unref();
    return new CapturePipe(child.stdin);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound("Cannot start wireshark: it is not there: install it", { cause: error });
  }
}

function removeOld(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // Another program has removed it.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function numbered(path: string, number: number): string {
  const extension = extname(path);
  const base = path.slice(0, path.length - extension.length);
  return `${base}_${String(number).padStart(5, "0")}_${fileTime()}${extension}`;
}
