/**
 * A thread that watches the loop. A script that never returns stops its own thread, and with it Ctrl-C; this
 * one then says which stage it was, puts back what the drivers changed, and ends the process.
 *
 * The thread's code is the text of one function, {@linkcode guard}: a worker of its own file would need
 * `--allow-read`, and a device needs `--allow-ffi` alone.
 */

import type { Rescue } from "../../lib/core/mod.ts";
import type { Heartbeat } from "./heartbeat.ts";
import { endSignals } from "./signals.ts";

// Implementation
/** How long a stage may take, where the options say nothing else (milliseconds). */
const LIMIT = 5000;
/** What a timer takes. */
const MAX_LIMIT = 2 ** 31 - 1;
/** How often the thread looks, as a part of the limit. */
const LOOKS = 5;
/** How often the loop's thread shows that it lives while it has no packets, as a part of the limit. */
const PULSES = 2 * LOOKS;
/** How long Ctrl-C waits for the script to end by itself (milliseconds). */
const REACTION_TIMEOUT = 1000;
/** The time that the end waits for its message to be read (milliseconds). */
const LAST_WORDS_TIMEOUT = 500;

/** One thread's loop: values that can be posted. */
export interface Heart {
  /** See {@linkcode Heartbeat.cells}. */
  readonly cells: Int32Array<SharedArrayBuffer>;
  /** See {@linkcode Heartbeat.names}. */
  readonly names: readonly string[];
  /** See {@linkcode Heartbeat.worker}. */
  readonly worker: string;
  /** After how many milliseconds it hangs. */
  readonly limit: number;
  /** Whether Ctrl-C ends the process though it hangs. */
  readonly signals: boolean;
}

/** What the thread is told, whenever it changes. */
interface Watched {
  hearts: Heart[];
  rescues: { code: string; data: Uint8Array[] }[];
  limit: number;
  /** Those to listen to, from now on. */
  signals: readonly Deno.Signal[];
  looks: number;
  patience: number;
  lastWords: number;
}

/** What a tunnel asks of the thread. */
export interface Watch {
  /** How long a stage may take (milliseconds); 0 for ever. */
  readonly limit: number;
  /** Whether Ctrl-C and SIGTERM end the process though the script hangs. */
  readonly signals: boolean;
  /** What puts a device back from the other thread, asked for anew when anything changes. */
  readonly rescue: () => Rescue | undefined;
}

/**
 * One guard thread for all tunnels of a loop, and for the loops of a script's other workers: Deno takes a second to
 * start a worker's worker.
 */
class Watchdog {
  readonly #heartbeat: Heartbeat;
  readonly #watches = new Set<Watch>();
  readonly #others = new Map<number, Heart>();
  #last: Watch | undefined;
  #worker: Worker | undefined;
  #pulse: ReturnType<typeof setInterval> | undefined;

  constructor(heartbeat: Heartbeat) {
    this.#heartbeat = heartbeat;
    heartbeat.onName = () => this.#tell();
  }

  add(watch: Watch): void {
    this.#watches.add(watch);
    this.#tell();
  }

  remove(watch: Watch): void {
    if (!this.#watches.delete(watch)) return;
    this.#last = watch;
    this.#tell();
  }

  /** Watches a worker's loop, too; without a heart, no longer. */
  setOther(worker: number, heart: Heart | undefined): void {
    if (heart === undefined) this.#others.delete(worker);
    else this.#others.set(worker, heart);
    this.#tell();
  }

  #tell(): void {
    clearInterval(this.#pulse);
    const own = this.#ownHeart();
    if (own !== undefined) {
      this.#pulse = setInterval(() => this.#heartbeat.beat(), own.limit / PULSES);
      this.#pulse.unref();
    }
    if (tellElsewhere !== undefined) return tellElsewhere(own);
    const hearts = [...own === undefined ? [] : [own], ...this.#others.values()];
    if (hearts.length === 0) {
      this.#worker?.terminate();
      this.#worker = undefined;
      return;
    }
    // A device that is closed has nothing to put back; its driver still knows how to end the process.
    const asked = this.#watches.size > 0 || this.#last === undefined ? [...this.#watches] : [this.#last];
    // One call takes back everything of a kind of device: it ends the process.
    const data = new Map<string, Uint8Array[]>();
    for (const { rescue } of asked) {
      const found = rescue();
      if (found === undefined) continue;
      const code = String(found.code);
      data.set(code, [...data.get(code) ?? [], ...found.data]);
    }
    const rescues = Array.from(data, ([code, data]) => ({ code, data }));
    const limit = Math.min(...hearts.map((heart) => heart.limit));
    const signals = hearts.some((heart) => heart.signals) ? endSignals() : [];
    const watched: Watched = {
      hearts,
      rescues,
      limit,
      signals,
      looks: LOOKS,
      patience: REACTION_TIMEOUT,
      lastWords: LAST_WORDS_TIMEOUT,
    };
    this.#worker ??= startGuard();
    this.#worker.postMessage(watched);
  }

  #ownHeart(): Heart | undefined {
    if (this.#watches.size === 0) return undefined;
    const watches = [...this.#watches];
    const { cells, names, worker } = this.#heartbeat;
    const limit = Math.min(...watches.map((watch) => watch.limit));
    return { cells, names, worker, limit, signals: watches.some((watch) => watch.signals) };
  }
}

function startGuard(): Worker {
  const text = URL.createObjectURL(new Blob([`(${guard})()`], { type: "text/javascript" }));
  const worker = new Worker(text, { type: "module", name: "warren watchdog" });
  URL.revokeObjectURL(text);
  return worker;
}

/** The thread. Its text is the worker's whole program, so it uses nothing from outside of itself. */
function guard(): void {
  let watched: Watched | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isEnding = false;
  /** What each loop's heart showed, and how often it was the same. */
  const seen = new Map<string, { last: number; unchanged: number }>();

  /** Prints a line, if it is read in time: a stopped terminal does not keep the process. */
  async function say(text: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, watched!.lastWords);
    const written = Deno.stderr.write(new TextEncoder().encode(`warren: ${text}\n`));
    await Promise.race([promise, written.catch(() => {})]);
  }

  async function end(why: string, status: number): Promise<void> {
    if (isEnding) return;
    isEnding = true;
    await say(`${why}: ending the process`);
    for (const { code, data } of watched!.rescues) {
      try {
        // The driver's rescue function, as text; the last thing that it may do is to end the process.
        (0, eval)(`(${code})`)(data, status);
      } catch (error) {
        await say(`Cannot put everything back: ${error}`);
      }
    }
    Deno.kill(Deno.pid, "SIGKILL");
  }

  function where({ names, cells }: Heart): string {
    return names[cells[1]!] ?? "a stage";
  }

  function look(): void {
    for (const heart of watched!.hearts) {
      const now = heart.cells[0]!;
      const before = seen.get(heart.worker);
      const unchanged = now === before?.last ? before.unchanged + 1 : 0;
      seen.set(heart.worker, { last: now, unchanged });
      if (unchanged >= watched!.looks) {
        end(`Cannot go on${heart.worker}: ${where(heart)} has not returned for ${watched!.limit} ms`, 70);
      }
    }
  }

  function interrupt(): void {
    for (const { worker, cells } of watched?.hearts ?? []) {
      const before = cells[0];
      setTimeout(() => {
        // It may have ended meanwhile.
        const heart = watched!.hearts.find((one) => one.worker === worker);
        if (heart === undefined || cells[0] !== before) return;
        end(`Interrupted while ${where(heart)}${worker} does not return`, 130);
      }, watched!.patience);
    }
  }

  const heard = new Set<Deno.Signal>();
  addEventListener("message", (event) => {
    watched = (event as MessageEvent<Watched>).data;
    for (const signal of watched.signals) {
      if (!heard.has(signal)) Deno.addSignalListener(signal, interrupt);
      heard.add(signal);
    }
    clearInterval(timer);
    timer = setInterval(look, watched.limit / watched.looks);
  });
}

const watchdogs = new WeakMap<Heartbeat, Watchdog>();

function watchdogOf(heartbeat: Heartbeat): Watchdog {
  let watchdog = watchdogs.get(heartbeat);
  if (watchdog === undefined) watchdogs.set(heartbeat, watchdog = new Watchdog(heartbeat));
  return watchdog;
}

/**
 * How long a stage may take (milliseconds); 0 for ever.
 *
 * @throws {RangeError} when it is no whole number, negative, or longer than a timer takes.
 */
export function checkLimit(limit: number = LIMIT): number {
  if (Number.isInteger(limit) && limit >= 0 && limit <= MAX_LIMIT) return limit;
  throw new RangeError(`Cannot set the watchdog to ${limit}: it takes whole milliseconds up to ${MAX_LIMIT}`);
}

/** Watches a loop, from now until the returned function is called. */
export function watch(heartbeat: Heartbeat, watch: Watch): () => void {
  if (watch.limit === 0) return () => {};
  const watchdog = watchdogOf(heartbeat);
  watchdog.add(watch);
  return () => watchdog.remove(watch);
}

/** Watches the loop of another worker beside this thread's; `undefined`: no longer. */
export function watchWorker(heartbeat: Heartbeat, worker: number, heart: Heart | undefined): void {
  watchdogOf(heartbeat).setOther(worker, heart);
}

let tellElsewhere: ((heart: Heart | undefined) => void) | undefined;

/** Has another thread's watchdog watch this thread's loop. */
export function watchElsewhere(tell: (heart: Heart | undefined) => void): void {
  tellElsewhere = tell;
}
