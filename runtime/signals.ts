/** Ctrl-C and SIGTERM: one listener each for the process, for as long as something wants to know. */

const SIGNALS: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT", "SIGBREAK"] : ["SIGINT", "SIGTERM"];

const callbacks = new Set<() => void>();

function interrupt(): void {
  for (const callback of [...callbacks]) callback();
}

/** Calls back once when the process is asked to end. Returns what ends the waiting. */
export function onInterrupt(callback: () => void): () => void {
  if (callbacks.size === 0) SIGNALS.forEach((signal) => Deno.addSignalListener(signal, interrupt));
  callbacks.add(callback);
  return () => {
    if (!callbacks.delete(callback) || callbacks.size > 0) return;
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, interrupt);
  };
}
