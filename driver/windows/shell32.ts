/** shell32.dll: checks for administrator rights. */

import { libraryError } from "../ffi.ts";
import { systemLibrary } from "./library.ts";

const SYMBOLS = {
  // BOOL IsUserAnAdmin(void);
  IsUserAnAdmin: { parameters: [], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"] | undefined;

/** Remedy for missing administrator rights. */
export const ADMINISTRATOR_REMEDY = 'run it in a terminal that was opened by "Run as administrator"';

/**
 * Reports whether this process is elevated or runs as LocalSystem. For an administrator's process that is not elevated,
 * returns false.
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
