/** Events that end the process, before which tunnels are closed: signals, `Deno.exit` and uncaught errors. */

import { ignoredSignals } from "../../driver/mod.ts";

/** Signals that end a tunnel, unless the process was started with them ignored. */
const END_SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];
/** `Deno.exit` and uncaught errors, which end the thread whatever the callbacks do. */
const EVENTS = ["unload", "error", "unhandledrejection"] as const;

/** Callback for the signal that is to end the process; `undefined` when the process ends without one. */
type OnInterrupt = (signal: Deno.Signal | undefined) => void;

const callbacks = new Set<OnInterrupt>();
const listeners = new Map<Deno.Signal, () => void>();
let forgetExit: (() => void) | undefined;
let signals: readonly Deno.Signal[] = END_SIGNALS;
let learning: Promise<void> | undefined;

/**
 * Finds the signals that were ignored when the process started, which stay ignored: SIGHUP under nohup(1), SIGINT of a
 * shell's background command. Must be awaited before the first {@linkcode onInterrupt}, whose listeners change what can
 * be read. Does nothing without `--allow-ffi`.
 */
export function learnSignals(): Promise<void> {
  return learning ??= (async () => {
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return;
    const ignored = await ignoredSignals();
    signals = END_SIGNALS.filter((signal) => !ignored.includes(signal));
    // From the first listener for any signal on, Deno handles SIGHUP, SIGINT and SIGTERM and ends the process on those
    // without a listener.
    for (const signal of ignored) Deno.addSignalListener(signal, () => {});
  })();
}

/** Returns the signals that end a tunnel. */
export function endSignals(): readonly Deno.Signal[] {
  return signals;
}

function interrupt(signal?: Deno.Signal): void {
  for (const callback of [...callbacks]) callback(signal);
}

/** Calls back on a signal that ends the process, or when the process ends. The returned function stops that. */
export function onInterrupt(callback: OnInterrupt): () => void {
  if (callbacks.size === 0) {
    for (const signal of signals) {
      const listener = () => interrupt(signal);
      listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
    // An error that a listener of the program catches does not end the process.
    forgetExit = onExit(({ defaultPrevented }) => defaultPrevented || interrupt());
  }
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    listeners.clear();
    forgetExit?.();
  };
}

/** Calls back when the thread ends by `Deno.exit` or an uncaught error. The returned function stops that. */
export function onExit(callback: (event: Event) => void): () => void {
  for (const event of EVENTS) addEventListener(event, callback);
  return () => {
    for (const event of EVENTS) removeEventListener(event, callback);
  };
}
