/** shell32.dll: whether this process has an administrator's rights. */

import { libraryError } from "../ffi.ts";
import { systemLibrary } from "./library.ts";

const SYMBOLS = {
  // BOOL IsUserAnAdmin(void);
  IsUserAnAdmin: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"] | undefined;

/** What to do without an administrator's rights. */
export const ADMINISTRATOR_REMEDY = 'run it in a terminal that was opened by "Run as administrator"';

/**
 * Whether this process is elevated: an administrator's account alone is not enough. The local system's is.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function isAdministrator(): boolean {
  try {
    opened ??= Deno.dlopen(systemLibrary("shell32.dll"), SYMBOLS).symbols;
  } catch (error) {
    throw libraryError("shell32.dll", error);
  }
  return opened.IsUserAnAdmin() !== 0;
}
