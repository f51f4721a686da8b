/** The end of the process, as far as it can be told: what is open is closed first. */

/** Ctrl-C, the system's wish, and the end of the terminal. */
export const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];
/** `Deno.exit`, and errors that nobody catches. They end the thread whatever the callbacks do. */
const EVENTS = ["unload", "error", "unhandledrejection"] as const;

const callbacks = new Set<() => void>();
let forgetExit: (() => void) | undefined;

function interrupt(): void {
  for (const callback of [...callbacks]) callback();
}

/** Calls back once when the process is asked to end, or ends. Returns what ends the waiting. */
export function onInterrupt(callback: () => void): () => void {
  if (callbacks.size === 0) {
    for (const signal of SIGNALS) Deno.addSignalListener(signal, interrupt);
    forgetExit = onExit(interrupt);
  }
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, interrupt);
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
