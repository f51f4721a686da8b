/**
 * Errors of Wintun's calls, with remedies. Two error numbers are no errors of a call: ERROR_BUFFER_OVERFLOW (111) means a
 * full ring, where `session.ts` stops sending; ERROR_INVALID_DATA (13) a corrupt ring, for which `device.ts` restarts the
 * session.
 */

import { ADMINISTRATOR_REMEDY } from "./shell32.ts";
import { Win32, win32Error } from "./win32_error.ts";

/**
 * Creates the error of a failed call of Wintun: that of {@linkcode win32Error}, with the errors that wintun.dll logged
 * during the call in the message and as the `cause`.
 */
export function wintunError(
  attempt: string,
  operation: string,
  code: number,
  errors: readonly string[],
): Error {
  const remedies: Record<number, string> = {
    [Win32.ERROR_ACCESS_DENIED]: ADMINISTRATOR_REMEDY,
    [Win32.ERROR_DUP_NAME]: "an interface that does not belong to Wintun has this name: choose another name",
    [Win32.ERROR_ALREADY_INITIALIZED]: "another program uses this adapter",
    [Win32.ERROR_GEN_FAILURE]: "look at the last lines of C:\\Windows\\INF\\setupapi.dev.log",
  };
  const lines = [...new Set(errors)];
  const report = lines.length === 0 ? undefined : `Wintun reports: ${lines.join("; ")}`;
  return win32Error(
    attempt,
    operation,
    code,
    [report, remedies[code]].filter((part) => part !== undefined).join(": ") || undefined,
    lines.length === 0 ? undefined : { cause: new Error(lines.join("\n")) },
  );
}
