/** What V8 does in another process of Deno: how much it allocates, how often it collects, and for how long. */

// Implementation
const MEBIBYTE = 1 << 20;
/**
 * `[1:0x5] 22 ms: Scavenge 3.2 (4.2) -> 2.3 (4.5) MB, pooled: 0.0 MB, 0.19 / 0.00 ms (average mu = ...`: what is in use
 * before, and after; what takes steps before its pause has `(+ 3.5 ms in 44 steps since start of marking, ...` there.
 */
const COLLECTION =
  /ms: ([A-Z].*?)([\d.]+) \([\d.]+\) -> ([\d.]+) \([\d.]+\) MB.*? ([\d.]+) \/ [\d.]+ ms(?: \(\+ ([\d.]+) ms in)?/;
const SCAVENGE = "Scavenge";
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
  /** Those of them that looked at young objects alone. */
  readonly scavenges: number;
  /** How long their threads have stood still for them since the start (milliseconds). */
  readonly paused: number;
}

/** Watches a process that was started with {@linkcode WATCHED} and whose standard output is piped. */
export class HeapWatch {
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStream<string>;
  #freed = 0;
  #collections = 0;
  #scavenges = 0;
  #paused = 0;
  /** What waits for an answer. */
  #expected: { answer: RegExp; resolve(said: string): void; reject(error: Error): void } | undefined;
  #ended = false;

  constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = process.stdout.pipeThrough(new TextDecoderStream());
    this.#listen();
  }

  /**
   * The heap now.
   *
   * @throws {Error} when the process has ended.
   */
  async look(): Promise<HeapState> {
    const used = await this.ask("SIGUSR2", REPORT);
    return {
      allocated: this.#freed + Number(used),
      collections: this.#collections,
      scavenges: this.#scavenges,
      paused: this.#paused,
    };
  }

  /**
   * What the process writes on a signal, in a line like this, behind what the pattern's group leaves out.
   *
   * @throws {Error} when the process has ended.
   */
  ask(signal: Deno.Signal, answer: RegExp): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#expected = { answer, resolve, reject };
      if (this.#ended) this.#end();
      else this.#process.kill(signal);
    });
  }

  /** Reads all the time: V8 writes on the thread that it stops, which would stay there while the pipe is full. */
  async #listen(): Promise<void> {
    let rest = "";
    for await (const text of this.#lines) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#hear(line);
    }
    this.#end();
  }

  #hear(line: string): void {
    const [, kind, before, after, pause, steps = "0"] = COLLECTION.exec(line) ?? [];
    if (kind !== undefined) {
      this.#collections++;
      if (kind.startsWith(SCAVENGE)) this.#scavenges++;
      this.#freed += (Number(before) - Number(after)) * MEBIBYTE;
      this.#paused += Number(pause) + Number(steps);
    }
    const [, said] = this.#expected?.answer.exec(line) ?? [];
    if (said === undefined) return;
    this.#expected!.resolve(said);
    this.#expected = undefined;
  }

  #end(): void {
    this.#ended = true;
    this.#expected?.reject(new Error("Cannot look at the heap: the process has ended"));
  }
}
