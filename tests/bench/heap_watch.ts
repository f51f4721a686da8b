/** What V8 does in another process of Deno: how much it allocates, and how often it collects. */

// Implementation
const MEBIBYTE = 1 << 20;
/** `[1:0x5] 22 ms: Scavenge 3.2 (4.2) -> 2.3 (4.5) MB, ...`: in use before, and after. */
const COLLECTION = /ms: .*?([\d.]+) \([\d.]+\) -> ([\d.]+) \([\d.]+\) MB/;
const REPORT = /^heap used (\d+)$/;

/** The flags that a process is started with to be watched. */
export const WATCHED: readonly string[] = [
  "--v8-flags=--trace-gc,--expose-gc",
  `--preload=${decodeURI(new URL("_heap_reporter.ts", import.meta.url).pathname)}`,
];

/** The heap at a moment. */
export interface HeapState {
  /** Bytes that have been allocated since the start; V8 gives those of a collection to a tenth of a MiB. */
  readonly allocated: number;
  /** Collections since the start. */
  readonly collections: number;
}

/** Watches a process that was started with {@linkcode WATCHED} and whose standard output is piped. */
export class HeapWatch {
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";
  #freed = 0;
  #collections = 0;

  constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /**
   * The heap now.
   *
   * @throws {Error} when the process has ended.
   */
  async look(): Promise<HeapState> {
    const used = await this.ask("SIGUSR2", REPORT);
    return { allocated: this.#freed + Number(used), collections: this.#collections };
  }

  /**
   * What the process writes on a signal, in a line like this, behind what the pattern's group leaves out.
   *
   * @throws {Error} when the process has ended.
   */
  async ask(signal: Deno.Signal, answer: RegExp): Promise<string> {
    this.#process.kill(signal);
    for (;;) {
      const line = await this.#line();
      const [, before, after] = COLLECTION.exec(line) ?? [];
      if (before !== undefined) {
        this.#collections++;
        this.#freed += (Number(before) - Number(after)) * MEBIBYTE;
      }
      const [, said] = answer.exec(line) ?? [];
      if (said !== undefined) return said;
    }
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return line;
      }
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("Cannot look at the heap: the process has ended");
      this.#rest += value;
    }
  }
}
