/** Detection of signals that were ignored when the process started, as with nohup(1) or in background jobs. */

import { openPosix } from "../open_posix.ts";

// Specification: signal.h, the same on Linux, macOS and FreeBSD.
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
const SIG_IGN = 1n;
/**
 * Size of `struct sigaction` in glibc, the largest of all systems. On every system it begins with the handler:
 *
 * ```c
 * struct sigaction {
 *   void (*sa_handler)(int);
 *   sigset_t sa_mask;
 *   int sa_flags;
 *   void (*sa_restorer)(void);
 * };
 * ```
 */
const SIGACTION_BYTES = 152;

/**
 * Returns the ignored signals; none on Windows. Call it before the first `Deno.addSignalListener`, which replaces the
 * setting.
 */
export async function ignoredSignals(): Promise<Deno.Signal[]> {
  const functions = (await openPosix())?.functions;
  if (functions === undefined) return [];
  return Object.entries(SIGNAL_NUMBERS).flatMap(([name, number]) => {
    const action = new Uint8Array(SIGACTION_BYTES);
    const isKnown = functions.sigaction(number, null, action) === 0;
    return isKnown && new DataView(action.buffer).getBigUint64(0, true) === SIG_IGN
      ? [name as Deno.Signal]
      : [];
  });
}
