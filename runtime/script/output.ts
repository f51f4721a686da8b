/**
 * Standard output and standard error that never block the loop: a stopped terminal, a pager that does not read or a full
 * disk costs lines, not packets.
 *
 *     console.log ─► bounded queue ─► one write at a time, on a thread of Deno ─► terminal, pipe, file
 *
 * A reader that keeps up gets every line. While a reader has stalled, the oldest lines are dropped and counted.
 */

import { onExit } from "../engine/signals.ts";

// Implementation
/** Maximum queue (characters): at 10,000 lines a second, enough to detect a stalled reader before it is full. */
const MAX_QUEUE = 4 * 1024 * 1024;
/** Duration of a write after which its reader counts as stalled (milliseconds). */
const STALLED_AFTER = 100;
/** Additional time for a thread that was busy to receive the end of the write (milliseconds). */
const STALL_MARGIN = 20;
/** Interval of attempts on a non-blocking descriptor (milliseconds). */
const RETRY_INTERVAL = 20;
/** Maximum length of a write (bytes), so that writes show the reader's progress. */
const MAX_WRITE = 65_536;
/** Time at the end of the process for a reader that takes nothing (milliseconds). */
const FLUSH_TIMEOUT = 500;
/** Time at the end of the process for a slow reader (milliseconds). */
const MAX_FLUSH = 3000;
/** Exit code of Deno after an uncaught error. */
const UNCAUGHT = 1;
/** Lowest level of Deno's console that goes to standard error. */
const WARNING_LEVEL = 2;

/** Open file, such as `Deno.stdout`. */
export interface OutputFile {
  /** Writes some of the bytes without blocking this thread; resolves to their number. */
  write(bytes: Uint8Array): Promise<number>;
  /** Writes some of the bytes after those in progress; returns their number. */
  writeSync(bytes: Uint8Array): number;
}

/** Queue of text for a file. Errors of the file are ignored: packets move on without their log. */
export class OutputStream {
  readonly #file: OutputFile;
  readonly #maxQueue: number;
  /** Older half of the queue; the newer half replaces it when it is full. */
  #older: string[] = [];
  #newer: string[] = [];
  #newerLength = 0;
  #status = "";
  /** Bytes taken from the queue and not yet written. */
  #rest = new Uint8Array();
  #linesDropped = 0;
  #isWriting = false;
  #isStalled = false;
  #isLast = false;
  #writes = 0;
  #idle = Promise.resolve();

  /** @param maxQueue Maximum characters that wait for a stalled reader. */
  constructor(file: OutputFile, maxQueue: number = MAX_QUEUE) {
    this.#file = file;
    this.#maxQueue = maxQueue;
  }

  /** True while a write takes so long that its reader counts as stalled. */
  get isStalled(): boolean {
    return this.#isStalled;
  }

  /** Adds one or several lines of text. */
  write(text: string): void {
    if (this.#newerLength + text.length > this.#maxQueue / 2) this.#makeRoom();
    if (this.#isStalled && text.length > this.#maxQueue / 2) {
      this.#linesDropped += lineCount(text);
      return;
    }
    this.#newer.push(text);
    this.#newerLength += text.length;
    if (this.#isLast) this.flushSync();
    else this.#start();
  }

  /** Shows text that replaces the previous status, such as counters: a slow reader gets only the newest. */
  show(status: string): void {
    this.#status = status;
    this.#start();
  }

  /** Waits until everything is written: half a second without progress at most, and three seconds in all. */
  async flush(): Promise<void> {
    for (let waited = 0, before = -1; this.#isWriting && waited < MAX_FLUSH; waited += FLUSH_TIMEOUT) {
      if (this.#writes === before) return;
      before = this.#writes;
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, FLUSH_TIMEOUT);
      await Promise.race([promise, this.#idle]);
      clearTimeout(timer);
    }
  }

  /** Writes the queue synchronously unless the reader has stalled; for the end of the thread. */
  flushSync(): void {
    if (this.#isStalled) return;
    const rest = this.#rest;
    this.#rest = new Uint8Array();
    try {
      for (let bytes of [rest, this.#take()]) {
        while (bytes.length > 0) bytes = bytes.subarray(this.#file.writeSync(bytes));
      }
    } catch {
      // Errors of the file are ignored.
    }
  }

  /** Writes text synchronously until the next turn of the event loop: the thread may be about to end. */
  expectEnd(): void {
    this.#isLast = true;
    this.flushSync();
    setTimeout(() => this.#isLast = false);
  }

  /** Makes room. Waits for a reader that has not stalled: it could not read while this thread was busy. */
  #makeRoom(): void {
    if (!this.#isStalled) return this.flushSync();
    for (const text of this.#older) this.#linesDropped += lineCount(text);
    this.#older = this.#newer;
    this.#newer = [];
    this.#newerLength = 0;
  }

  #start(): void {
    if (this.#isWriting) return;
    this.#idle = this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    while (this.#rest.length > 0 || (this.#rest = this.#take()).length > 0) {
      let part = this.#rest.subarray(0, MAX_WRITE);
      this.#rest = this.#rest.subarray(part.length);
      try {
        while (part.length > 0) part = part.subarray(await this.#writeSome(part));
      } catch {
        // Errors of the file are ignored.
      }
    }
    this.#isWriting = false;
  }

  async #writeSome(bytes: Uint8Array): Promise<number> {
    let timer = setTimeout(() => {
      timer = setTimeout(() => this.#isStalled = true, STALL_MARGIN);
    }, STALLED_AFTER);
    try {
      for (;;) {
        const count = await this.#tryToWrite(bytes);
        if (count === undefined) continue;
        this.#writes++;
        return count;
      }
    } finally {
      clearTimeout(timer);
      this.#isStalled = false;
    }
  }

  /** Writes some bytes; resolves to `undefined` after a pause if the write would have blocked. */
  async #tryToWrite(bytes: Uint8Array): Promise<number | undefined> {
    try {
      return await this.#file.write(bytes);
    } catch (error) {
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      const { promise, resolve } = Promise.withResolvers<void>();
      setTimeout(resolve, RETRY_INTERVAL);
      await promise;
      return undefined;
    }
  }

  /** Takes everything from the queue, as bytes. */
  #take(): Uint8Array<ArrayBuffer> {
    const dropped = this.#linesDropped === 0
      ? ""
      : `warren: ${this.#linesDropped} lines dropped: the output was not read in time\n`;
    const text = this.#status + dropped + this.#older.join("") + this.#newer.join("");
    this.#older = [];
    this.#newer = [];
    this.#newerLength = 0;
    this.#linesDropped = 0;
    this.#status = "";
    return new TextEncoder().encode(text);
  }
}

function lineCount(text: string): number {
  return text.split("\n").length - 1;
}

/** Deno's internal console class, which Deno's types lack; its first argument prints. */
type ConsoleConstructor = new (print: (text: string, level: number) => void) => Console;

let standardOutput: OutputStream | undefined;
let standardError: OutputStream | undefined;

/** Returns the standard error of this thread. */
export function stderr(): OutputStream {
  return standardError ??= new OutputStream(Deno.stderr);
}

/** Makes this thread's `console` write without blocking the thread; its format is unchanged. */
export function takeConsole(): void {
  if (standardOutput !== undefined) return;
  const out = standardOutput = new OutputStream(Deno.stdout);
  const { internal } = Deno as unknown as { internal: symbol };
  const { Console } = Reflect.get(Deno, internal) as { Console: ConsoleConstructor };
  Object.assign(
    console,
    new Console((text, level) => (level < WARNING_LEVEL ? out : stderr()).write(text)),
  );
  // The script may end the thread itself.
  onExit((event) => {
    out.expectEnd();
    stderr().expectEnd();
    // Deno would print the error and wait for the stalled reader.
    if (event.type !== "unload" && !event.defaultPrevented && stderr().isStalled) Deno.exit(UNCAUGHT);
  });
}

/** Waits until the output of this thread is written, unless its reader has stalled. */
export async function flushOutput(): Promise<void> {
  await Promise.all([standardOutput?.flush(), standardError?.flush()]);
}

/** Ends the process after flushing its output. */
export async function exit(code: number): Promise<never> {
  await flushOutput();
  Deno.exit(code);
}
