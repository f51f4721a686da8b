/**
 * A thread that watches the loop. A script that never returns stops its own thread, and with it Ctrl-C; this
 * one then says which stage it was, puts back what the drivers changed, and ends the process.
 *
 * The thread's code is the text of one function, {@linkcode guard}: a worker of its own file would need
 * `--allow-read`, and a device needs `--allow-ffi` alone.
 */

import type { Rescue } from "../lib/core/mod.ts";
import type { Heartbeat } from "./heartbeat.ts";

// Implementation
/** How often the thread looks, as a part of the limit. */
const LOOKS = 5;
/** How often the loop's thread shows that it lives while it has no packets, as a part of the limit. */
const PULSES = 2 * LOOKS;
/** How long Ctrl-C waits for the script to end by itself (milliseconds). */
const PATIENCE = 1000;

/** What the thread is told, whenever it changes. */
interface Watched {
  cells: Int32Array<SharedArrayBuffer>;
  names: string[];
  worker: string;
  rescues: { code: string; data: Uint8Array[] }[];
  limit: number;
  signals: boolean;
  looks: number;
  patience: number;
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

/** One guard thread for all tunnels of a loop. */
class Watchdog {
  readonly #heartbeat: Heartbeat;
  readonly #watches = new Set<Watch>();
  #worker: Worker | undefined;
  #pulse: ReturnType<typeof setInterval> | undefined;

  constructor(heartbeat: Heartbeat) {
    this.#heartbeat = heartbeat;
  }

  add(watch: Watch): void {
    this.#watches.add(watch);
    if (this.#worker === undefined) {
      const text = URL.createObjectURL(new Blob([`(${guard})()`], { type: "text/javascript" }));
      this.#worker = new Worker(text, { type: "module", name: "warren watchdog" });
      URL.revokeObjectURL(text);
      this.#heartbeat.onName = () => this.#tell();
    }
    this.#tell();
  }

  remove(watch: Watch): void {
    if (!this.#watches.delete(watch)) return;
    if (this.#watches.size > 0) return this.#tell();
    this.#heartbeat.onName = undefined;
    clearInterval(this.#pulse);
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  #tell(): void {
    const { cells, names, worker } = this.#heartbeat;
    const rescues = [...this.#watches].flatMap(({ rescue }) => {
      const found = rescue();
      return found === undefined ? [] : [{ code: String(found.code), data: found.data }];
    });
    const watches = [...this.#watches];
    const limit = Math.min(...watches.map((watch) => watch.limit));
    const signals = watches.some((watch) => watch.signals);
    clearInterval(this.#pulse);
    this.#pulse = setInterval(() => this.#heartbeat.beat(), limit / PULSES);
    this.#pulse.unref();
    const watched: Watched = {
      cells,
      names,
      worker,
      rescues,
      limit,
      signals,
      looks: LOOKS,
      patience: PATIENCE,
    };
    this.#worker?.postMessage(watched);
  }
}

/** The thread. Its text is the worker's whole program, so it uses nothing from outside of itself. */
function guard(): void {
  let watched: Watched | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let last = 0;
  let unchanged = 0;

  function end(why: string, status: number): void {
    console.error(`warren: ${why}: ending the process`);
    for (const { code, data } of watched!.rescues) {
      try {
        // The driver's rescue function, as text; the last thing that it may do is to end the process.
        (0, eval)(`(${code})`)(data, status);
      } catch (error) {
        console.error(`warren: Cannot put everything back: ${error}`);
      }
    }
    Deno.kill(Deno.pid, "SIGKILL");
  }

  function where(): string {
    return watched!.names[watched!.cells[1]!] ?? "a stage";
  }

  function look(): void {
    const now = watched!.cells[0]!;
    unchanged = now === last ? unchanged + 1 : 0;
    last = now;
    if (unchanged >= watched!.looks) {
      end(`Cannot go on${watched!.worker}: ${where()} has not returned for ${watched!.limit} ms`, 70);
    }
  }

  function interrupt(): void {
    if (watched === undefined) return;
    const before = watched.cells[0];
    setTimeout(() => {
      if (watched!.cells[0] === before) {
        end(`Interrupted while ${where()}${watched!.worker} does not return`, 130);
      }
    }, watched.patience);
  }

  let listening = false;
  addEventListener("message", (event) => {
    watched = (event as MessageEvent<Watched>).data;
    if (watched.signals && !listening) {
      listening = true;
      const signals: Deno.Signal[] = ["SIGINT"];
      if (Deno.build.os !== "windows") signals.push("SIGTERM", "SIGHUP");
      for (const signal of signals) Deno.addSignalListener(signal, interrupt);
    }
    clearInterval(timer);
    timer = setInterval(look, watched.limit / watched.looks);
  });
}

const watchdogs = new WeakMap<Heartbeat, Watchdog>();

/** Watches a loop, from now until the returned function is called. */
export function watch(heartbeat: Heartbeat, watch: Watch): () => void {
  if (watch.limit === 0) return () => {};
  let watchdog = watchdogs.get(heartbeat);
  if (watchdog === undefined) watchdogs.set(heartbeat, watchdog = new Watchdog(heartbeat));
  const guarding = watchdog;
  guarding.add(watch);
  return () => guarding.remove(watch);
}
