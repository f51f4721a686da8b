/**
 * A thread that ends the process when the loop hangs. A stage that does not return blocks its thread, including Ctrl-C.
 * The watchdog then names the stage, undoes the changes of the drivers to the system, and ends the process.
 *
 * The thread runs the text of one function, {@linkcode guard}. A worker with its own file would need `--allow-read`,
 * while a device needs only `--allow-ffi`.
 */

import type { Rescue } from "../../lib/core/mod.ts";
import type { Heartbeat } from "./heartbeat.ts";
import { endSignals } from "./signals.ts";

// Implementation
/** Checks within the limit. */
const CHECKS = 5;
/** Beats of an idle loop within the limit. */
const IDLE_BEATS = 2 * CHECKS;
/** Time that the script has to react to a signal (milliseconds). */
const SIGNAL_TIMEOUT = 1000;
/** Maximum time to print a message (milliseconds). */
const PRINT_TIMEOUT = 500;

/** Heartbeat of the loop of one thread, in a form that can be posted to another thread. */
export interface Heart extends Readonly<Pick<Heartbeat, "cells" | "names" | "worker">> {
  /** Time without a beat after which the loop counts as hung (milliseconds). */
  readonly limit: number;
  /** True if signals end the process even if the loop hangs. */
  readonly signals: boolean;
}

/** Message to the watchdog thread, posted on each change. */
interface Watched {
  hearts: Heart[];
  rescues: { code: string; data: Uint8Array[] }[];
  limit: number;
  /** Signals to listen for. */
  signals: readonly Deno.Signal[];
  checks: number;
  signalTimeout: number;
  printTimeout: number;
}

/** A tunnel to watch. */
export interface Watch {
  /** Time that a stage may take (milliseconds); 0 for no limit. */
  readonly limit: number;
  /** True if signals end the process even if the script hangs. */
  readonly signals: boolean;
  /** Returns a function that restores the device from another thread; called on each change. */
  readonly rescue: () => Rescue | undefined;
}

/**
 * The watchdog thread of all tunnels of a loop, and of the loops of the script's other workers: a watchdog thread of
 * each worker would take a second to start.
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
    heartbeat.onName = () => this.#update();
  }

  add(watch: Watch): void {
    this.#watches.add(watch);
    this.#update();
  }

  remove(watch: Watch): void {
    if (!this.#watches.delete(watch)) return;
    this.#last = watch;
    this.#update();
  }

  /** Watches the loop of another worker, or stops if `heart` is undefined. */
  setOther(worker: number, heart: Heart | undefined): void {
    if (heart === undefined) this.#others.delete(worker);
    else this.#others.set(worker, heart);
    this.#update();
  }

  #update(): void {
    clearInterval(this.#pulse);
    const own = this.#ownHeart();
    if (own !== undefined) {
      this.#pulse = setInterval(() => this.#heartbeat.beat(), own.limit / IDLE_BEATS);
      this.#pulse.unref();
    }
    if (reportHeart !== undefined) return reportHeart(own);
    const hearts = [...own === undefined ? [] : [own], ...this.#others.values()];
    if (hearts.length === 0) {
      this.#worker?.terminate();
      this.#worker = undefined;
      return;
    }
    // The last tunnel stays although its device has nothing to restore: its driver knows how to end the process.
    const watches = this.#watches.size > 0 || this.#last === undefined ? [...this.#watches] : [this.#last];
    // A single call restores all devices of a driver, because the call ends the process.
    const data = new Map<string, Uint8Array[]>();
    for (const { rescue } of watches) {
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
      checks: CHECKS,
      signalTimeout: SIGNAL_TIMEOUT,
      printTimeout: PRINT_TIMEOUT,
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

/** The program of the watchdog thread, which runs as text and so cannot refer to anything outside this function. */
function guard(): void {
  let watched: Watched | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isEnding = false;
  /** Last counter of each loop, and the number of consecutive checks that found it unchanged. */
  const seen = new Map<string, { last: number; unchanged: number }>();

  /** Prints a line; gives up after a while, so that a stopped terminal does not keep the process alive. */
  async function print(text: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, watched!.printTimeout);
    const written = Deno.stderr.write(new TextEncoder().encode(`warren: ${text}\n`));
    await Promise.race([promise, written.catch(() => {})]);
  }

  async function end(why: string, status: number): Promise<void> {
    if (isEnding) return;
    isEnding = true;
    await print(`${why}: ending the process`);
    for (const { code, data } of watched!.rescues) {
      try {
        // The driver's rescue function, as text; it may end the process.
        (0, eval)(`(${code})`)(data, status);
      } catch (error) {
        await print(`Cannot restore the devices: ${error}`);
      }
    }
    Deno.kill(Deno.pid, "SIGKILL");
  }

  function where({ names, cells }: Heart): string {
    return names[cells[1]!] ?? "a stage";
  }

  function check(): void {
    for (const heart of watched!.hearts) {
      const now = heart.cells[0]!;
      const before = seen.get(heart.worker);
      const unchanged = now === before?.last ? before.unchanged + 1 : 0;
      seen.set(heart.worker, { last: now, unchanged });
      if (unchanged >= watched!.checks) {
        end(`Cannot go on${heart.worker}: ${where(heart)} has not returned for ${watched!.limit} ms`, 70);
      }
    }
  }

  function interrupt(): void {
    for (const { worker, cells } of watched?.hearts ?? []) {
      const before = cells[0];
      setTimeout(() => {
        // The worker may have ended meanwhile.
        const heart = watched!.hearts.find((heart) => heart.worker === worker);
        if (heart === undefined || cells[0] !== before) return;
        end(`Interrupted while ${where(heart)}${worker} does not return`, 130);
      }, watched!.signalTimeout);
    }
  }

  const listening = new Set<Deno.Signal>();
  addEventListener("message", (event) => {
    watched = (event as MessageEvent<Watched>).data;
    for (const signal of watched.signals) {
      if (!listening.has(signal)) Deno.addSignalListener(signal, interrupt);
      listening.add(signal);
    }
    clearInterval(timer);
    timer = setInterval(check, watched.limit / watched.checks);
  });
}

const watchdogs = new WeakMap<Heartbeat, Watchdog>();

function watchdogOf(heartbeat: Heartbeat): Watchdog {
  let watchdog = watchdogs.get(heartbeat);
  if (watchdog === undefined) watchdogs.set(heartbeat, watchdog = new Watchdog(heartbeat));
  return watchdog;
}

/** Watches a loop until the returned function is called. */
export function watch(heartbeat: Heartbeat, watch: Watch): () => void {
  if (watch.limit === 0) return () => {};
  const watchdog = watchdogOf(heartbeat);
  watchdog.add(watch);
  return () => watchdog.remove(watch);
}

/** Watches the loop of another worker along with the loop of this thread, until called with `undefined`. */
export function watchWorker(heartbeat: Heartbeat, worker: number, heart: Heart | undefined): void {
  watchdogOf(heartbeat).setOther(worker, heart);
}

let reportHeart: ((heart: Heart | undefined) => void) | undefined;

/** Lets the watchdog of another thread watch this loop; `report` passes the heartbeat to it on each change. */
export function watchElsewhere(report: (heart: Heart | undefined) => void): void {
  reportHeart = report;
}
