/** Callbacks before the process ends by a signal, `Deno.exit` or an uncaught error, so that tunnels can close. */

import { ignoredSignals } from "../../driver/posix/signals.ts";

/** Signals that end a tunnel, unless the process was started with them ignored. */
const END_SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];
/** Events of `Deno.exit` and uncaught errors. */
const EVENTS = ["unload", "error", "unhandledrejection"] as const;

/** Callback at the end of the process, with the signal that ends it, if any. */
type OnInterrupt = (signal: Deno.Signal | undefined) => void;

const callbacks = new Set<OnInterrupt>();
const listeners = new Map<Deno.Signal, () => void>();
let removeExitListener: (() => void) | undefined;
let signals: readonly Deno.Signal[] = END_SIGNALS;
let learning: Promise<void> | undefined;

/**
 * Detects the signals that were ignored when the process started, and keeps them ignored: SIGHUP under nohup(1), SIGINT
 * of background commands of a shell. Must be awaited before the first {@linkcode onInterrupt}, whose listeners replace
 * these settings. Does nothing without `--allow-ffi`.
 */
export function learnSignals(): Promise<void> {
  return learning ??= (async () => {
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return;
    const ignored = await ignoredSignals();
    signals = END_SIGNALS.filter((signal) => !ignored.includes(signal));
    // Once any signal has a listener, Deno ends the process on SIGHUP, SIGINT and SIGTERM unless they have one.
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

/** Calls back on a signal and when the process ends. Returns a function that removes the callback. */
export function onInterrupt(callback: OnInterrupt): () => void {
  if (callbacks.size === 0) {
    for (const signal of signals) {
      const listener = () => interrupt(signal);
      listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
    // An uncaught error whose event a listener of the program cancels does not end the process.
    removeExitListener = onExit(({ defaultPrevented }) => defaultPrevented || interrupt());
  }
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    listeners.clear();
    removeExitListener?.();
  };
}

/** Calls back when `Deno.exit` or an uncaught error ends the thread. Returns a function that removes the callback. */
export function onExit(callback: (event: Event) => void): () => void {
  for (const event of EVENTS) addEventListener(event, callback);
  return () => {
    for (const event of EVENTS) removeEventListener(event, callback);
  };
}
