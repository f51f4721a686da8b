/**
 * Checks that keep an elevated process from loading a DLL that an unprivileged program has put in its way.
 *
 * Given a name without a path, Windows looks in the folder of deno.exe first, which the user may be able to write.
 * Therefore system DLLs are loaded by their full path. Elevated processes also inherit the user's environment.
 * Therefore a DLL named by an environment variable needs an absolute path, and its hash in a second variable.
 */

import { createHash } from "node:crypto";
import { buildFor, machineName, peMachine } from "./builds.ts";
import { environment, fromWide, type HeldFile, kernel32, MAX_PATH, openFile } from "./kernel32.ts";
import { win32Error } from "./win32_error.ts";

/** Returns the full path of a system DLL. @throws {Error} when the folder is unknown: see {@linkcode win32Error}. */
export function systemLibrary(name: string): string {
  const { GetSystemDirectoryW, GetLastError } = kernel32();
  const units = new Uint16Array(MAX_PATH);
  const length = GetSystemDirectoryW(units, units.length);
  if (length === 0) throw win32Error(`find ${name}`, "GetSystemDirectoryW", GetLastError());
  return `${fromWide(units)}\\${name}`;
}

/** Creates the error of a DLL that must not be loaded. */
export function loadError(path: string, reason: string, remedy?: string): Error {
  return new Deno.errors.NotSupported(
    `Cannot load "${path}": ${reason}${remedy === undefined ? "" : `: ${remedy}`}`,
  );
}

/** Reports whether a path starts with a drive or a server; false for a device path such as `\\.\C:`. */
function isAbsolute(path: string): boolean {
  return /^(\\\\\?\\)?[a-z]:[\\/]|^\\\\\?\\UNC\\|^[\\/]{2}[^\\/.?]/i.test(path);
}

/**
 * Opens the DLL named by an environment variable.
 *
 * @throws {Deno.errors.NotSupported} when the path is not absolute.
 * @throws {Error} when the file cannot be read: see {@linkcode openFile}.
 */
export function openNamed(variable: string, path: string): HeldFile {
  if (!isAbsolute(path)) throw loadError(path, `${variable} must be the absolute path of a file`);
  return openFile(path);
}

/** Checks that a file is a DLL for this process's architecture. @throws {Deno.errors.NotSupported} when it is not. */
export function checkMachine(path: string, bytes: Uint8Array, remedy: string): void {
  const machine = peMachine(bytes);
  if (machine === undefined) throw loadError(path, "it is not a DLL", remedy);
  const build = buildFor();
  if (machine !== build.machine) {
    throw loadError(path, `it is built for ${machineName(machine)}, and deno for ${build.folder}`, remedy);
  }
}

/** Returns a SHA-256 hash in lower-case hexadecimal. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Compares the hash of a DLL with the environment variable `<variable>_SHA256`.
 *
 * @throws {Deno.errors.NotSupported} when they differ.
 * @throws {Error} `missing` when the environment variable is not set.
 */
export function checkNamedHash(path: string, variable: string, sha256: string, missing: Error): void {
  const expected = environment(`${variable}_SHA256`);
  if (expected === undefined) throw missing;
  if (expected.toLowerCase() === sha256) return;
  throw loadError(path, `its SHA-256 must be ${variable}_SHA256, ${expected}, got ${sha256}`);
}
