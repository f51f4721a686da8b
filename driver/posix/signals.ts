/** Signals that are ignored since the start of the process: by nohup(1), or by a shell for background jobs. */

import type { Posix } from "./libc.ts";

// Specification: signal.h; these numbers are the same on Linux, macOS and FreeBSD.
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
const SIG_IGN = 1n;
/**
 * `struct sigaction`, which begins with the handler on every system and is at most as long as in glibc:
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

/** Signals that are ignored now. To be called before the first signal listener of Deno, which replaces the setting. */
export function ignoredSignals({ functions }: Posix): Deno.Signal[] {
  return Object.entries(SIGNAL_NUMBERS).flatMap(([name, number]) => {
    const action = new Uint8Array(SIGACTION_BYTES);
    const isKnown = functions.sigaction(number, null, action) === 0;
    return isKnown && new DataView(action.buffer).getBigUint64(0, true) === SIG_IGN
      ? [name as Deno.Signal]
      : [];
  });
}
