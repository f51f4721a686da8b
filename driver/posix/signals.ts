/** The signals that a process was started with as ignored: by nohup(1), or by a shell in the background. */

import type { Posix } from "./libc.ts";

// Specification: signal.h; these numbers are the same on Linux, macOS and FreeBSD.
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
const SIG_IGN = 1n;
/**
 * `struct sigaction` begins with the handler on every system, and is at most as long as glibc's:
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

/** The signals that are ignored now; a listener of Deno's, once there was one, hides what was so before. */
export function ignoredSignals({ functions }: Posix): Deno.Signal[] {
  return Object.entries(SIGNAL_NUMBERS).flatMap(([name, number]) => {
    const action = new Uint8Array(SIGACTION_BYTES);
    const isKnown = functions.sigaction(number, null, action) === 0;
    return isKnown && new DataView(action.buffer).getBigUint64(0, true) === SIG_IGN
      ? [name as Deno.Signal]
      : [];
  });
}
