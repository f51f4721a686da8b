/**
 * Standard output and standard error that never hold the loop: a stopped terminal, a pager that does not read or a full
 * disk costs lines, not packets.
 *
 *     console.log ─► queue, bounded ─► one write at a time, on a thread of Deno's ─► terminal, pipe, file
 *
 * A reader that keeps up gets every line. While a reader is stalled, the oldest lines are left out and counted.
 */

import { onExit } from "../engine/signals.ts";

// Implementation
/** The longest queue (characters): at 10,000 lines a second, more than a reader needs to be found stalled. */
const MAX_QUEUE = 4 * 1024 * 1024;
/** A reader is stalled when a write has taken longer (milliseconds). */
const STALLED_AFTER = 100;
/** The time that a thread which was busy for so long has to hear that the write has ended (milliseconds). */
const HEARING_TIME = 20;
/**
 * The pause before a write that would have blocked is tried again, on a descriptor in non-blocking mode (milliseconds).
 */
const RETRY_INTERVAL = 20;
/** The most bytes of a write, so that it shows whether the reader takes something. */
const MAX_WRITE = 65_536;
/** The time that the end of the process waits for a reader that takes nothing (milliseconds). */
const FLUSH_TIMEOUT = 500;
/** The time that it waits for one that is slow (milliseconds). */
const MAX_FLUSH = 3000;
/** Deno's exit code after an error that nobody caught. */
const UNCAUGHT = 1;
/** The least severe level of Deno's console that goes to standard error. */
const WARNING_LEVEL = 2;

/** An open file, as `Deno.stdout` is one. */
export interface OutputFile {
  /** Writes some of the bytes, without blocking this thread; returns how many. */
  write(bytes: Uint8Array): Promise<number>;
  /** Writes some of the bytes, after those that are being written; returns how many. */
  writeSync(bytes: Uint8Array): number;
}

/** Text on its way to a file. Errors of the file are passed over: the packets go on without their log. */
export class OutputStream {
  readonly #file: OutputFile;
  readonly #maxQueue: number;
  /** The queue is two halves: when the newer one is full, it takes the place of the older one. */
  #older: string[] = [];
  #newer: string[] = [];
  #newerLength = 0;
  #status = "";
  /** Taken from the queue, and not yet given to the file. */
  #rest = new Uint8Array();
  #linesLeftOut = 0;
  #isWriting = false;
  #isStalled = false;
  #isLast = false;
  #writes = 0;
  #idle = Promise.resolve();

  /** @param maxQueue Characters that wait for a stalled reader. */
  constructor(file: OutputFile, maxQueue: number = MAX_QUEUE) {
    this.#file = file;
    this.#maxQueue = maxQueue;
  }

  /** True while a write has been under way for so long that its reader seems to have stopped. */
  get isStalled(): boolean {
    return this.#isStalled;
  }

  /** Adds text, which is one line or several. */
  write(text: string): void {
    if (this.#newerLength + text.length > this.#maxQueue / 2) this.#turn();
    if (this.#isStalled && text.length > this.#maxQueue / 2) {
      this.#linesLeftOut += lineCount(text);
      return;
    }
    this.#newer.push(text);
    this.#newerLength += text.length;
    if (this.#isLast) this.flushSync();
    else this.#start();
  }

  /** Shows text that replaces what was shown before, such as counters: a reader that lags gets the newest alone. */
  show(status: string): void {
    this.#status = status;
    this.#start();
  }

  /** Waits until everything is written: for half a second while nothing is taken, and for three altogether. */
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

  /** Writes the queue on this thread, unless the reader is stalled: for the end of the thread, which waits for nothing. */
  flushSync(): void {
    if (this.#isStalled) return;
    const rest = this.#rest;
    this.#rest = new Uint8Array();
    try {
      for (let bytes of [rest, this.#take()]) {
        while (bytes.length > 0) bytes = bytes.subarray(this.#file.writeSync(bytes));
      }
    } catch {
      // The file's error.
    }
  }

  /** The thread may be about to end: until it goes on, text is written at once. */
  expectEnd(): void {
    this.#isLast = true;
    this.flushSync();
    setTimeout(() => this.#isLast = false);
  }

  /** Makes room. A reader that has had no chance to read yet, as this thread has not returned, is waited for. */
  #turn(): void {
    if (!this.#isStalled) return this.flushSync();
    for (const text of this.#older) this.#linesLeftOut += lineCount(text);
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
        // The file's error.
      }
    }
    this.#isWriting = false;
  }

  async #writeSome(bytes: Uint8Array): Promise<number> {
    let timer = setTimeout(() => {
      timer = setTimeout(() => this.#isStalled = true, HEARING_TIME);
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

  /** Returns `undefined` a moment later when the write would have blocked. */
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
    const leftOut = this.#linesLeftOut === 0
      ? ""
      : `warren: ${this.#linesLeftOut} lines left out: they were not read in time\n`;
    const text = this.#status + leftOut + this.#older.join("") + this.#newer.join("");
    this.#older = [];
    this.#newer = [];
    this.#newerLength = 0;
    this.#linesLeftOut = 0;
    this.#status = "";
    return new TextEncoder().encode(text);
  }
}

function lineCount(text: string): number {
  return text.split("\n").length - 1;
}

/** Deno's own console; its first argument prints. Not among Deno's types. */
type ConsoleConstructor = new (print: (text: string, level: number) => void) => Console;

let standardOutput: OutputStream | undefined;
let standardError: OutputStream | undefined;

/** This thread's standard error. */
export function stderr(): OutputStream {
  return standardError ??= new OutputStream(Deno.stderr);
}

/** Makes this thread's `console` write without holding the thread. The text that it prints stays the same. */
export function takeConsole(): void {
  if (standardOutput !== undefined) return;
  const out = standardOutput = new OutputStream(Deno.stdout);
  const { internal } = Deno as unknown as { internal: symbol };
  const { Console } = Reflect.get(Deno, internal) as { Console: ConsoleConstructor };
  Object.assign(
    console,
    new Console((text, level) => (level < WARNING_LEVEL ? out : stderr()).write(text)),
  );
  // Where the script itself ends the thread.
  onExit((event) => {
    out.expectEnd();
    stderr().expectEnd();
    // Deno would print the error, and wait for a reader that does not read.
    if (event.type !== "unload" && !event.defaultPrevented && stderr().isStalled) Deno.exit(UNCAUGHT);
  });
}

/** Waits until this thread's output is written, or not read any more: a reader that is stalled holds no end. */
export async function flushOutput(): Promise<void> {
  await Promise.all([standardOutput?.flush(), standardError?.flush()]);
}

/** Ends the process, its output written as far as it is read. */
export async function exit(code: number): Promise<never> {
  await flushOutput();
  Deno.exit(code);
}
