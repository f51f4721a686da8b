/**
 * Standard output and standard error that never block the loop. A stopped terminal, a pager that does not read, or a
 * full disk costs lines, but no packets.
 *
 *     console.log ─► bounded queue ─► one write at a time, on a thread of Deno ─► terminal, pipe, file
 *
 * A reader that keeps up gets every line. While a reader has stalled, the oldest lines are dropped and counted.
 */

import { onExit } from "../engine/signals.ts";

// Implementation
/** Maximum queue (characters): at 10,000 lines per second, a stalled reader is detected before it is full. */
const MAX_QUEUE = 4 * 1024 * 1024;
/** Duration of a write after which its reader counts as stalled (milliseconds). */
const STALLED_AFTER = 100;
/** Additional time for a busy thread to notice the end of the write (milliseconds). */
const STALL_MARGIN = 20;
/** Interval between attempts on a non-blocking descriptor (milliseconds). */
const RETRY_INTERVAL = 20;
/** Maximum length of a write (bytes); short writes reveal the progress of the reader. */
const MAX_WRITE = 65_536;
/** Maximum wait at the end of the process for a reader that takes nothing (milliseconds). */
const FLUSH_TIMEOUT = 500;
/** Maximum wait at the end of the process for a slow reader (milliseconds). */
const MAX_FLUSH = 3000;
/** Exit code of Deno after an uncaught error. */
const UNCAUGHT = 1;
/** Level of Deno's console from which messages go to standard error. */
const WARNING_LEVEL = 2;

/** An open file, such as `Deno.stdout`. */
export interface OutputFile {
  /** Writes some of the bytes without blocking this thread; resolves to their number. */
  write(bytes: Uint8Array): Promise<number>;
  /** Writes some of the bytes after those in progress; returns their number. */
  writeSync(bytes: Uint8Array): number;
}

/** Queue of text for a file. Errors of the file are ignored, so that packets keep moving without a log. */
export class OutputStream {
  readonly #file: OutputFile;
  readonly #maxQueue: number;
  /** The two halves of the queue. When the newer half is full, it replaces the older half. */
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

  /** Shows a status line, such as counters. It replaces a waiting one, so a slow reader gets only the newest. */
  show(status: string): void {
    this.#status = status;
    this.#start();
  }

  /** Waits until everything is written, for at most half a second without progress and three seconds in total. */
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

  /** Writes text synchronously until the next turn of the event loop, for a thread that may be about to end. */
  expectEnd(): void {
    this.#isLast = true;
    this.flushSync();
    setTimeout(() => this.#isLast = false);
  }

  /** Frees half of the queue: writes it synchronously, or drops it if the reader has stalled. */
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

  /** Removes and encodes the whole queue. */
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

/** Internal console class of Deno, which is missing from its types; the first argument prints. */
type ConsoleConstructor = new (print: (text: string, level: number) => void) => Console;

let standardOutput: OutputStream | undefined;
let standardError: OutputStream | undefined;

/** Returns the standard error of this thread. */
export function stderr(): OutputStream {
  return standardError ??= new OutputStream(Deno.stderr);
}

/** Replaces the `console` of this thread with one that does not block the thread; the format is the same. */
export function takeConsole(): void {
  if (standardOutput !== undefined) return;
  const out = standardOutput = new OutputStream(Deno.stdout);
  const { internal } = Deno as unknown as { internal: symbol };
  const { Console } = Reflect.get(Deno, internal) as { Console: ConsoleConstructor };
  Object.assign(
    console,
    new Console((text, level) => (level < WARNING_LEVEL ? out : stderr()).write(text)),
  );
  // The script may end the thread by itself.
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
