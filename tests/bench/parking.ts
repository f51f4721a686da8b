/**
 * `parking`: ways of waiting for a packet: how fast each wakes the thread, and what it costs.
 *
 * Each way is a process of its own from the beginning to the end, with a pipe that yet another process writes into.
 * They take turns, in each round in another order; whoever has not its turn is stopped.
 */

import { type Series, WAYS } from "./_parking_process.ts";
import { percentile, processorTime, summarize } from "./measure.ts";
import { buildPeer } from "./peers.ts";
import { atMost, type Contender, latest, type Metric, ratiosOf, type Report, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/** Messages at 0.2 ms and 10 ms in a turn; messages at 1 s after all turns, and seconds without any. */
const FULL = { rounds: 7, dense: 1500, sparse: 80, rare: 20, idle: 10 };
const QUICK = { rounds: 2, dense: 1000, sparse: 40, rare: 6, idle: 2 };
/** Such messages and seconds for one that takes a processor for itself, which the others would feel. */
const ALONE = { rare: 3, idle: 1 };
/** Messages before the first turn, and microseconds between them. Only what V8 has optimized makes fast native calls. */
const WARM_UP = { messages: 12_000, microseconds: 40 };
/** After so many milliseconds without a message, the loop waits beside its thread. */
const SETTLE = 2000;

const C = "c: poll";
const SPIN = "spin";
const POLL = "poll";
const LOOP = "the loop";
const BESIDE = "poll beside the thread";
const WORKERS = ["worker, Atomics.wait", "worker, waitAsync", "worker, postMessage"];
/** What is timed is within another wait, which costs the most of it. */
const WITHIN = ["PollWaiter.wake()", "PollWaiter's pipe"];

/** A distance between messages, and what is measured at it. */
interface Gap {
  readonly microseconds: number;
  readonly median: Metric;
  readonly tail?: Metric;
  readonly cost: Metric;
}

const DENSE = gap(200, "0.2 ms", "200us");
const SPARSE = gap(10_000, "10 ms", "10ms");
/** Each message counts, so their spread tells the slowest. */
const RARE: Gap = { ...gap(1_000_000, "1 s", "1s"), tail: undefined };
/** What a turn measures. */
const TURN = [DENSE.median, DENSE.cost, SPARSE.median, SPARSE.cost];
const IDLE: Metric = { key: "idle_percent", title: "idle %", digits: 2 };

const NOTES = [
  "Another process writes the time into a pipe. us: how much later it is read on the loop's thread, the median; 99 %: of",
  "all rounds. At 1 s, every message counts. cost: the reading process's processor time for a message (us). idle: of a",
  `processor, ${SETTLE / 1000} s after the last message.`,
  "spin: reads again and again. poll: PollWaiter.wait. These two, spin 50 us, poll; worker, Atomics.wait; and the loop",
  "while packets come, give the event loop a turn every 8 ms. io_uring: a multishot read, and io_uring_enter(2) without",
  "a limit of time. poll beside the thread: PollWaiter.park. worker: a thread that polls, and what the loop's thread",
  "waits for. the loop: runtime/engine/loop.ts. PollWaiter.wake() and its pipe: from the call to the end of a park; the first",
  "leaves the poll under way, the second ends it, for other descriptors.",
  "Why the loop polls on its thread while packets come, and beside it later: on the thread, poll wakes soonest of all",
  "that leave the processor to others, but slices cost 1 to 2 % of it while nothing comes; beside it, poll costs nothing",
  "then. A worker that polls has two threads wake, too: by waitAsync as late as poll beside the thread, by Atomics.wait",
  "later than poll, for the same slices. spin takes a processor, and where others want it, loses it when a packet comes.",
  "50 us of it before each poll cost several times as much at 0.2 ms, and wake no sooner.",
];

/** Runs the bench. */
export async function benchParking(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, dense, sparse, rare, idle } = quick ? QUICK : FULL;
  const sender = await buildPeer("parking");
  const missing: string[] = [];
  await using processes = new AsyncDisposableStack();
  const all: Parked[] = [];
  for (const name of [C, ...Object.keys(WAYS)]) {
    try {
      all.push(processes.use(await Parked.open(name, sender, signal)));
    } catch (error) {
      signal.throwIfAborted();
      missing.push(`${name}: ${(error as Error).message}`);
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < all.length; turn++) {
      const one = all[(round + turn) % all.length]!;
      await one.turn(async () => {
        await one.measure(DENSE, dense);
        await one.measure(SPARSE, sparse);
      });
      say(`round ${round + 1} of ${rounds}: ${one.name}: ${latest(one, TURN)}`);
    }
  }
  say(`${rare} messages at 1 s, and ${idle} s without any`);
  const rarely = (one: Parked, size: { rare: number; idle: number }) =>
    one.turn(async () => {
      await one.measure(RARE, size.rare);
      await delay(SETTLE, signal);
      one.figures[IDLE.key] = [await one.idle(size.idle)];
    });
  for (const one of all.filter(({ name }) => name === SPIN)) await rarely(one, ALONE);
  // All at once, evenly apart: whoever gets one has been idle for long.
  await Promise.all(
    all.filter(({ name }) => name !== SPIN).map(async (one, index) => {
      await delay(index * 1000 / all.length, signal);
      await rarely(one, { rare, idle });
    }),
  );
  return judge(all, missing);
}

/** A process that waits in one of the ways. Disposing of it ends it. */
class Parked implements Contender, AsyncDisposable {
  readonly name: string;
  readonly figures: Record<string, number[]> = {};
  readonly #process: Deno.ChildProcess;
  readonly #lines: AsyncGenerator<string>;
  readonly #sender: string;
  readonly #signal: AbortSignal;
  /** The latencies of all rounds, by the metric of their 99th percentile. */
  readonly #pooled: Record<string, number[]> = {};
  #pipe = "";
  #ended = false;

  private constructor(name: string, process: Deno.ChildProcess, sender: string, signal: AbortSignal) {
    this.name = name;
    this.#process = process;
    this.#lines = linesOf(process.stdout);
    this.#sender = sender;
    this.#signal = signal;
    process.status.then(() => this.#ended = true);
  }

  /**
   * Starts it and has V8 compile it; it is stopped until its turn.
   *
   * @throws {Error} when it ends instead of waiting.
   */
  static async open(name: string, sender: string, signal: AbortSignal): Promise<Parked> {
    const script = decodeURI(new URL("_parking_process.ts", import.meta.url).pathname);
    const flags = ["run", "--quiet", "--no-prompt", "--allow-ffi", "--allow-read"];
    const [program, args] = name === C ? [sender, ["wait"]] : [Deno.execPath(), [...flags, script, name]];
    const process = new Deno.Command(program, { args, stdin: "null", stdout: "piped" }).spawn();
    await using undo = new AsyncDisposableStack();
    const parked = undo.use(new Parked(name, process, sender, signal));
    parked.#pipe = await parked.#line();
    await parked.series(WARM_UP.microseconds, WARM_UP.messages);
    process.kill("SIGSTOP");
    undo.move();
    return parked;
  }

  /** Lets it run meanwhile. */
  async turn(action: () => Promise<unknown>): Promise<void> {
    this.#process.kill("SIGCONT");
    await action();
    this.#process.kill("SIGSTOP");
  }

  /** Has so many messages come, and adds what that took. */
  async measure({ microseconds, median, tail, cost }: Gap, count: number): Promise<void> {
    const { latencies, processor } = await this.series(microseconds, count);
    const add = (metric: Metric, ...figures: number[]) => (this.figures[metric.key] ??= []).push(...figures);
    const all = latencies.map((latency) => latency / 1000);
    if (tail === undefined) {
      add(median, ...all);
    } else {
      add(median, summarize(all).median);
      const pooled = this.#pooled[tail.key] ??= [];
      pooled.push(...all);
      this.figures[tail.key] = [percentile(pooled, 0.99)];
    }
    // The message that ends the series costs as much as each of them.
    if (!WITHIN.includes(this.name)) add(cost, processor / 1000 / (count + 1));
  }

  /** Has so many messages come, so far apart. */
  async series(microseconds: number, count: number): Promise<Series> {
    const args = ["send", this.#pipe, String(microseconds), String(count)];
    const command = new Deno.Command(this.#sender, { args, stdin: "null", signal: this.#signal });
    await using sender = command.spawn();
    const { success } = await sender.status;
    this.#signal.throwIfAborted();
    if (!success) throw new Error(`Cannot send to "${this.name}"`);
    return JSON.parse(await this.#line());
  }

  /** How much of a processor it takes without any message (percent). */
  async idle(seconds: number): Promise<number> {
    const [before, start] = [processorTime(this.#process.pid), performance.now()];
    await delay(seconds * 1000, this.#signal);
    return (processorTime(this.#process.pid) - before) / 1e4 / (performance.now() - start);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) this.#process.kill("SIGKILL");
    await this.#lines.return(undefined);
    await this.#process.status;
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`Cannot measure "${this.name}": its process has ended`);
    return value;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

function gap(microseconds: number, title: string, key: string): Gap {
  const metric = (name: string, suffix: string, digits: number): Metric => {
    return { key: `wake${key}_${suffix}`, title: `${title}: ${name}`, digits };
  };
  return {
    microseconds,
    median: metric("us", "us", 0),
    tail: metric("99 %", "p99_us", 0),
    cost: metric("cost", "processor_us", 0),
  };
}

function judge(all: readonly Parked[], missing: readonly string[]): Report {
  const ratios = ratiosOf(all, { wake200us: DENSE.median, wake10ms: SPARSE.median, wake1s: RARE.median }, [
    [POLL, C],
    [LOOP, POLL],
    ...[SPIN, BESIDE, ...WORKERS].map((other) => [LOOP, other] as const),
  ]);
  const most = (name: string, limit: number) => atMost(name, ratios[name] ?? NaN, limit);
  return {
    bench: "parking",
    metrics: [DENSE, SPARSE, RARE].flatMap(({ median, tail, cost }) => [median, tail, cost])
      .concat(IDLE).filter((metric) => metric !== undefined),
    contenders: all,
    ratios,
    targets: [
      ...[BESIDE, ...WORKERS].map((other) => most(`wake10ms ${LOOP}/${other}`, 1)),
      atMost(`${IDLE.key} ${LOOP}`, all.find(({ name }) => name === LOOP)?.figures[IDLE.key]?.[0] ?? NaN, 1),
    ],
    missing,
    notes: NOTES,
  };
}
