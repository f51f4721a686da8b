/** Where captures go: files that take turns, and pipes to programs that show packets as they come. */

import { extname } from "node:path";
import type { CaptureSink } from "../lib/capture/mod.ts";
import { checkNames, type OptionNames } from "../lib/options.ts";
import { newFileError } from "./file_error.ts";

// Implementation
/** What waits for a pipe at most (bytes). */
const PIPE_LIMIT = 8 * 1024 * 1024;
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
  rotateBytes: "optional",
  rotateInterval: "optional",
  files: "optional",
};

/**
 * A capture's file, or several that take turns: `trace.pcapng` is then `trace_00001_20261123-101500.pcapng` and so on,
 * by number and time. A file that is there is not overwritten. Needs `--allow-write`.
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
  /** That of the loop's clock. */
  readonly timeOrigin: number = performance.timeOrigin;
  readonly #path: string;
  readonly #rotateBytes: number;
  readonly #rotateInterval: number;
  readonly #files: number;
  readonly #written: string[] = [];
  #count = 0;
  #file: Deno.FsFile | undefined;
  #bytes = 0;
  #since = 0;

  /** For {@linkcode openCaptureFile}. */
  constructor(path: string, options: CaptureFileOptions) {
    const { rotateBytes = Infinity, rotateInterval = Infinity, files = Infinity } = options;
    for (const [name, value] of Object.entries({ rotateBytes, rotateInterval, files })) {
      if (!(value >= 1)) throw new RangeError(`Cannot rotate captures by ${name} ${value}: 1 is the least`);
    }
    this.#path = path;
    this.#rotateBytes = rotateBytes;
    this.#rotateInterval = rotateInterval;
    this.#files = files;
    this.#open();
  }

  /** The files that were written and are kept, from the oldest on. */
  get paths(): readonly string[] {
    return this.#written;
  }

  /** For the capture; throws what the system says of a full disk, which ends the tunnel. */
  write(blocks: Uint8Array): boolean {
    if (this.#file === undefined) return false;
    for (let rest = blocks; rest.length > 0;) rest = rest.subarray(this.#file.writeSync(rest));
    this.#bytes += blocks.length;
    const isFull = this.#bytes >= this.#rotateBytes ||
      performance.now() - this.#since >= this.#rotateInterval;
    if (!isFull) return false;
    this.#file.close();
    this.#file = undefined;
    this.#open();
    return true;
  }

  /** Closes the file; the capture must have ended, which `tunnel.close()` does. */
  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #open(): void {
    const rotates = this.#rotateBytes < Infinity || this.#rotateInterval < Infinity;
    const path = rotates ? numbered(this.#path, ++this.#count) : this.#path;
    try {
      this.#file = Deno.openSync(path, { write: true, createNew: true });
    } catch (error) {
      throw newFileError("capture", path, error, { AlreadyExists: "choose another name, or remove it" });
    }
    this.#written.push(path);
    if (this.#written.length > this.#files) Deno.removeSync(this.#written.shift()!);
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
 * A capture's pipe. It never makes packets wait: what is written while 8 MiB are on their way is lost, and counted.
 */
export class CapturePipe implements CaptureSink, AsyncDisposable {
  /** That of the loop's clock. */
  readonly timeOrigin: number = performance.timeOrigin;
  /** Bytes that were lost, because the reader was slow or has ended. */
  lost = 0;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();
  #hasEnded = false;

  /** A pipe into this stream, such as `Deno.stdout.writable`. */
  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
    this.#writer.closed.catch(() => {}).then(() => this.#hasEnded = true);
  }

  /** Settled when what was written until now has arrived, or is lost. */
  get drained(): Promise<void> {
    return this.#last;
  }

  /** Whether nobody reads any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Closes the stream when what is on its way has arrived. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
  }

  /** For the capture. */
  write(blocks: Uint8Array): void {
    if (this.#hasEnded || this.#waiting + blocks.length > PIPE_LIMIT) {
      this.lost += blocks.length;
      return;
    }
    this.#waiting += blocks.length;
    const { length } = blocks;
    this.#last = this.#writer.write(blocks.slice()).then(
      () => void (this.#waiting -= length),
      () => {
        this.lost += length;
        this.#hasEnded = true;
      },
    );
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
    // Whoever closes the window ends the capture, not the tunnel.
    child.unref();
    return new CapturePipe(child.stdin);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound("Cannot start wireshark: it is not there: install it", { cause: error });
  }
}

function numbered(path: string, number: number): string {
  const extension = extname(path);
  const time = Temporal.Now.plainDateTimeISO().toString({ smallestUnit: "second" });
  const digits = time.replace(/[-:]/g, "").replace("T", "-");
  return `${path.slice(0, path.length - extension.length)}_${
    String(number).padStart(5, "0")
  }_${digits}${extension}`;
}
