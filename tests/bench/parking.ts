/**
 * `parking`: how soon a thread of Deno notices that a descriptor can be read, by each way of waiting, and its cost.
 *
 *     _parking_source.ts ── its clock's time ─► pipe ─► the way waits ─► this thread reads it ─► time since
 */

import { setImmediate } from "node:timers";
import { posix } from "../../driver/linux/libc.ts";
import { guard } from "../../driver/posix/libc.ts";
import { PollWaiter } from "../../driver/posix/waiter.ts";
import { type Watch, Watching } from "./_parking_watching.ts";
import { percentile, processorTime, ratio, readMonotonicTime, summarize, TIMESPEC_WORDS } from "./measure.ts";
import { type Metric, type Report, say } from "./report.ts";

// Implementation
/** Times between two writes (milliseconds), and how many writes a round has. */
interface Gap {
  readonly name: string;
  readonly milliseconds: number;
  readonly count: number;
}

const SHORT: Gap = { name: "1ms", milliseconds: 1, count: 200 };
const MIDDLE: Gap = { name: "10ms", milliseconds: 10, count: 100 };
const LONG: Gap = { name: "1s", milliseconds: 1000, count: 3 };
/** What quick runs know of idling: no latency, as there is one sample a round. */
const IDLE: Gap = { name: "idle", milliseconds: 300, count: 1 };
const FULL = { rounds: 7, gaps: [SHORT, MIDDLE, LONG] };
const QUICK = { rounds: 4, gaps: [SHORT, MIDDLE, IDLE] };
/** As in runtime/loop.ts (milliseconds). */
const SLICE = 8;
/** Reads that found nothing after which spinning lets a turn pass, for Ctrl-C: about half a second. */
const SPINS = 2 ** 20;

const METRICS: readonly Metric[] = [
  { key: "latency_1ms_us", title: "us, gaps 1 ms", digits: 1 },
  { key: "p99_1ms_us", title: "p99 us", digits: 0 },
  { key: "latency_10ms_us", title: "us, gaps 10 ms", digits: 1 },
  { key: "p99_10ms_us", title: "p99 us", digits: 0 },
  { key: "latency_1s_us", title: "us, gaps 1 s", digits: 0 },
  { key: "cpu_10ms_us", title: "cpu us/wake, 10 ms", digits: 0 },
  { key: "idle_percent", title: "idle cpu %", digits: 2 },
];

/** A way of waiting, for one run. */
interface Way {
  /** Waits until the pipe may be readable; `misses` reads found nothing since the last one that did. */
  wait(misses: number): void | Promise<void>;
  /** Ends what it started, which may need the pipe to be readable. */
  close(ring: () => void): void | Promise<void>;
}

const WAYS: Record<string, (pipe: number) => Way | Promise<Way>> = {
  spin: () => ({
    wait: (misses) => misses % SPINS === 0 ? turn() : undefined,
    close() {},
  }),
  poll: openPoll,
  "poll beside": openPollBeside,
  "worker, Atomics": (pipe) => openWorker(pipe, false),
  "worker, message": (pipe) => openWorker(pipe, true),
};

/** Runs the bench, in this process and one that writes. */
export async function benchParking(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, gaps } = quick ? QUICK : FULL;
  await using source = openSource(signal);
  const contenders = Object.entries(WAYS).map(([name, open]) => ({
    name,
    open,
    figures: Object.fromEntries(METRICS.map(({ key }) => [key, [] as number[]])),
  }));
  for (const { open } of contenders) await measure(open, SHORT, source); // V8 compiles
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}`);
    for (const { open, figures } of contenders) {
      for (const gap of gaps) {
        const { latencies, cpu, elapsed } = await measure(open, gap, source);
        figures[`latency_${gap.name}_us`]?.push(summarize(latencies).median);
        figures[`p99_${gap.name}_us`]?.push(percentile(latencies, 0.99));
        figures[`cpu_${gap.name}_us`]?.push(cpu / 1e3 / gap.count);
        if (gap.milliseconds >= IDLE.milliseconds) figures.idle_percent!.push(cpu / elapsed * 100);
      }
    }
  }
  const latency = (name: string) =>
    contenders.find((contender) => contender.name === name)!.figures.latency_10ms_us!;
  const others = Object.keys(WAYS).filter((name) => name !== "spin");
  return {
    bench: "parking",
    metrics: METRICS,
    contenders: contenders.map(({ name, figures }) => ({
      name,
      figures: Object.fromEntries(Object.entries(figures).filter(([, values]) => values.length > 0)),
    })),
    ratios: Object.fromEntries(
      others.map((name) => [`latency ${name}/spin`, ratio(latency(name), latency("spin"))]),
    ),
    targets: [],
    missing: [],
    notes: [
      "Another process sleeps for the gap, reads the monotonic clock, and writes the time into a pipe. us: from then",
      "until this thread has read it, the median of a round; p99: what 99 of 100 in a round do not exceed. Ratios are",
      "those at gaps of 10 ms. cpu: of this whole process, with its workers and Deno's own threads, without the writer.",
      "idle: the same while nothing comes for 1 s, in quick runs 0.3 s; quick runs have no latency at gaps of 1 s.",
      "Other programs on the machine show in p99 first, and in spin most: the scheduler takes the processor from it,",
      "and it wakes late. Its idle figure is then the share of a processor that it got.",
      "spin: read(2) again and again. poll: poll(2) on this thread, a turn of the event loop every 8 ms. beside: poll(2)",
      "as a nonblocking call, awaited. worker: polls, wakes this thread, and polls again when this thread has read.",
      "The loop polls on its thread while packets came in the last 1.5 s: of the ways that sleep this is the soonest, and",
      "its turns cost about 2 % of a processor. Then it polls beside the thread: at gaps of 10 ms that takes three times",
      "as long, at gaps of 1 s less than twice as long, and idling is nearly free. A worker with Atomics is about as",
      "soon as that and needs a thread for good; with messages it is later. Spinning takes a whole processor, to be up",
      "to twice as soon as poll, at gaps of 1 s more.",
      "A spin of 60 us before the wait gained nothing measurable in pings and was left out; it is not measured here.",
    ],
  };
}

interface Run {
  /** From the write to the end of the read (microseconds). */
  readonly latencies: number[];
  /** The processor time of this process, of all its threads (nanoseconds). */
  readonly cpu: number;
  /** How long it took (nanoseconds). */
  readonly elapsed: number;
}

async function measure(open: (pipe: number) => Way | Promise<Way>, gap: Gap, source: Source): Promise<Run> {
  const way = await open(source.pipe);
  try {
    const latencies: number[] = [];
    await source.ask(gap);
    const start = performance.now();
    const cpu = processorTime(Deno.pid);
    for (let i = 0; i < gap.count; i++) {
      let latency: number | undefined;
      for (let misses = 0; latency === undefined; misses++) {
        const waiting = way.wait(misses);
        if (waiting !== undefined) await waiting;
        latency = source.read();
      }
      latencies.push(latency);
    }
    return {
      latencies,
      cpu: processorTime(Deno.pid) - cpu,
      elapsed: (performance.now() - start) * 1e6,
    };
  } finally {
    await way.close(source.ring);
    source.drain();
  }
}

/** What the loop does while packets came lately. */
function openPoll(pipe: number): Way {
  const waiter = new PollWaiter(posix());
  let lastTurn = performance.now();
  return {
    wait() {
      const left = lastTurn + SLICE - performance.now();
      if (left > 0) {
        waiter.clear();
        waiter.add(pipe, true, false);
        if (waiter.wait(left)) return;
      }
      return turn().then(() => {
        lastTurn = performance.now();
      });
    },
    close: () => waiter[Symbol.dispose](),
  };
}

/** What the loop does when it is idle. */
function openPollBeside(pipe: number): Way {
  const waiter = new PollWaiter(posix());
  return {
    async wait() {
      waiter.clear();
      waiter.add(pipe, true, false);
      await waiter.park(Infinity);
    },
    close: () => waiter[Symbol.dispose](),
  };
}

async function openWorker(pipe: number, byMessage: boolean): Promise<Way> {
  const cell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const worker = new Worker(new URL("_parking_worker.ts", import.meta.url), { type: "module" });
  let heard = Promise.withResolvers<void>();
  worker.onmessage = () => heard.resolve();
  worker.onerror = (event) => heard.reject(new Error(`Cannot wait in a worker: ${event.message}`));
  const hear = () => (heard = Promise.withResolvers<void>()).promise;
  const tell = (word: number) => {
    Atomics.store(cell, 0, word);
    Atomics.notify(cell, 0);
  };
  worker.postMessage({ descriptor: pipe, cell, byMessage } satisfies Watch);
  await heard.promise;
  return {
    wait() {
      const message = hear();
      tell(Watching.Polls);
      if (byMessage) return message;
      const { async, value } = Atomics.waitAsync(cell, 0, Watching.Polls);
      return async ? value.then(() => {}) : undefined;
    },
    async close(ring) {
      const ended = hear();
      tell(Watching.Ended);
      ring();
      await ended;
    },
  };
}

/** The process that writes, and the pipe. */
interface Source extends AsyncDisposable {
  /** The pipe's end that is read. */
  readonly pipe: number;
  /** Has it sleep and write. */
  ask(gap: Gap): Promise<void>;
  /** How long ago it wrote (microseconds); `undefined` when the pipe is empty. Throws when it ended. */
  read(): number | undefined;
  /** Makes the pipe readable. */
  ring(): void;
  /** Empties the pipe. */
  drain(): void;
}

function openSource(signal: AbortSignal): Source {
  const system = posix();
  const { functions } = system;
  const [pipe, to] = openPipe();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--allow-all",
      new URL("_parking_source.ts", import.meta.url).pathname,
      `/proc/${Deno.pid}/fd/${to}`,
    ],
    stdin: "piped",
    stdout: "null",
  }).spawn();
  const input = child.stdin.getWriter();
  const written = new BigInt64Array(TIMESPEC_WORDS);
  const bytes = new Uint8Array(written.buffer);
  const size = BigInt(bytes.length);
  const now = new BigInt64Array(TIMESPEC_WORDS);
  const zeros = new Uint8Array(bytes.length);
  const ring = () => {
    functions.writeFrom(to, zeros, size);
  };
  let ended = false;
  const status = child.status.then(() => {
    ended = true;
    ring();
  });
  signal.addEventListener("abort", ring);
  return {
    pipe,
    ring,
    ask: ({ milliseconds, count }) => input.write(new TextEncoder().encode(`${milliseconds} ${count}\n`)),
    read() {
      if (functions.readInto(pipe, bytes, size) <= 0) return;
      readMonotonicTime(now);
      signal.throwIfAborted();
      if (ended) throw new Error("Cannot bench parking: the process that writes has ended");
      return Number(now[0]! - written[0]!) * 1e6 + Number(now[1]! - written[1]!) / 1e3;
    },
    drain() {
      while (functions.readInto(pipe, bytes, size) > 0);
    },
    async [Symbol.asyncDispose]() {
      signal.removeEventListener("abort", ring);
      // In the middle of a round it would go on writing.
      if (!ended) child.kill("SIGKILL");
      await status;
      await input.abort().catch(() => {});
      functions.close(pipe);
      functions.close(to);
    },
  };

  function openPipe(): [number, number] {
    const ends = new Int32Array(2);
    if (functions.pipe(ends) < 0) throw system.systemError("make a pipe", "pipe", system.errno());
    for (const end of ends) guard(system, end);
    return [ends[0]!, ends[1]!];
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
