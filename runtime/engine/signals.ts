/** The end of the process: signals, `Deno.exit` and errors that nobody catches. What is open is closed first. */

import { ignoredSignals } from "../../driver/mod.ts";

/** The signals that end a tunnel, unless the process was started with them ignored. */
const END_SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];
/** `Deno.exit`, and errors that nobody catches. They end the thread whatever the callbacks do. */
const EVENTS = ["unload", "error", "unhandledrejection"] as const;

/** Called when the process is asked to end by this signal, or ends without one. */
type OnInterrupt = (signal: Deno.Signal | undefined) => void;

const callbacks = new Set<OnInterrupt>();
const listeners = new Map<Deno.Signal, () => void>();
let forgetExit: (() => void) | undefined;
let signals: readonly Deno.Signal[] = END_SIGNALS;
let learning: Promise<void> | undefined;

/**
 * Learns which signals were ignored when the process started, as nohup(1) has SIGHUP and a shell SIGINT of a command
 * in its background: they stay ignored. To be awaited before the first {@linkcode onInterrupt}, whose listeners hide
 * it. Without `--allow-ffi` it stays unknown.
 */
export function learnSignals(): Promise<void> {
  return learning ??= (async () => {
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return;
    const ignored = await ignoredSignals();
    signals = END_SIGNALS.filter((signal) => !ignored.includes(signal));
    // With the first listener for any signal, Deno takes SIGHUP, SIGINT and SIGTERM over and ends the process by those
    // that have none, for as long as it lives.
    for (const signal of ignored) Deno.addSignalListener(signal, () => {});
  })();
}

/** The signals that end a tunnel. */
export function endSignals(): readonly Deno.Signal[] {
  return signals;
}

function interrupt(signal?: Deno.Signal): void {
  for (const callback of [...callbacks]) callback(signal);
}

/** Calls back when the process is asked to end, or ends. Returns what ends the waiting. */
export function onInterrupt(callback: OnInterrupt): () => void {
  if (callbacks.size === 0) {
    for (const signal of signals) {
      const listener = () => interrupt(signal);
      listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
    // An error that the program catches by a listener of its own ends nothing.
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

/** Calls back when the thread ends by `Deno.exit` or by an error that nobody catches. Returns what ends the waiting. */
export function onExit(callback: (event: Event) => void): () => void {
  for (const event of EVENTS) addEventListener(event, callback);
  return () => {
    for (const event of EVENTS) removeEventListener(event, callback);
  };
}
