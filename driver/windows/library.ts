/**
 * Where DLLs are loaded from. The program's folder, which its user may write, comes first for one that is opened by
 * name alone, and a user's environment reaches elevated processes: so the system's own are opened in their folder,
 * and one that a variable names by an absolute path and with its hash.
 */

import { createHash } from "node:crypto";
import { buildFor, machineName, peMachine } from "./builds.ts";
import { environment, fromWide, type HeldFile, kernel32, MAX_PATH, openFile } from "./kernel32.ts";
import { win32Error } from "./win32_error.ts";

/** The path of one of the system's own DLLs. */
export function systemLibrary(name: string): string {
  const { GetSystemDirectoryW, GetLastError } = kernel32();
  const units = new Uint16Array(MAX_PATH);
  const length = GetSystemDirectoryW(units, units.length);
  if (length === 0) throw win32Error(`find ${name}`, "GetSystemDirectoryW", GetLastError());
  return `${fromWide(units)}\\${name}`;
}

/** The error for a DLL that must not be loaded. */
export function refusal(path: string, what: string, remedy?: string): Error {
  return new Deno.errors.NotSupported(
    `Cannot load "${path}": ${what}${remedy === undefined ? "" : `: ${remedy}`}`,
  );
}

/** Whether a path says by itself which file it is: with a drive or a server, and no device. */
function isAbsolute(path: string): boolean {
  return /^(\\\\\?\\)?[a-z]:[\\/]|^\\\\\?\\UNC\\|^[\\/]{2}[^\\/.?]/i.test(path);
}

/**
 * Reads and holds a DLL that a variable names.
 *
 * @throws {Deno.errors.NotSupported} for a path that is not absolute, which is not read.
 */
export function openNamed(variable: string, path: string): HeldFile {
  if (!isAbsolute(path)) throw refusal(path, `${variable} has to be an absolute path, and no device's`);
  return openFile(path);
}

/** Refuses what is no DLL, or one for another machine. @throws {Deno.errors.NotSupported} saying so. */
export function checkMachine(path: string, bytes: Uint8Array, remedy: string): void {
  const machine = peMachine(bytes);
  if (machine === undefined) throw refusal(path, "it is no DLL", remedy);
  const build = buildFor();
  if (machine !== build.machine) {
    throw refusal(path, `it is for ${machineName(machine)}, and this deno for ${build.folder}`, remedy);
  }
}

/** SHA-256 in lower-case hexadecimal. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Checks a DLL's hash against that of the variable beside the one that names it.
 *
 * @throws {Deno.errors.NotSupported} when it is another one; and when there is none, as `otherwise` says.
 */
export function checkNamedHash(path: string, variable: string, sha256: string, otherwise: Error): void {
  const expected = environment(`${variable}_SHA256`);
  if (expected === undefined) throw otherwise;
  if (expected.toLowerCase() === sha256) return;
  throw refusal(path, `its SHA-256 is ${sha256}, and ${variable}_SHA256 says ${expected}`);
}
