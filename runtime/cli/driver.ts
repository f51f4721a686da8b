/** `warren driver`: installs the official wintun.dll for this user. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { unzipSync } from "fflate";
import { errorMessage } from "../../driver/error.ts";
import { parseCommand } from "./arguments.ts";
import { fileError } from "../script/file_error.ts";
import { ExitCode, UsageError } from "../script/failure.ts";

const USAGE = `Usage: warren driver install [--from FILE]

Installs Wintun 0.14.1 for this user (Windows only), from the official zip archive at www.wintun.net or from FILE, a
copy of it. Checks the SHA-256 of the DLL and its licence, and writes both to %LOCALAPPDATA%\\warren.

The first tunnel that opens loads the DLL, which then removes network adapters that other products (OpenVPN,
OpenConnect) created with Wintun versions before 0.14.

  --from FILE   read the zip archive from a file
  -h, --help    print this text

Exit code: 0 for success, 1 for an error, 2 for a wrong command line.`;

/** The module with the official builds, which is loaded on Windows only. */
type Builds = typeof import("../../driver/windows/builds.ts");

/** A file to be installed. */
export interface Extracted {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Runs `warren driver` with these arguments; returns its exit code. */
export async function driver(args: readonly string[]): Promise<number> {
  const line = parseCommand(args, { usage: USAGE, strings: ["from"] });
  if (line === undefined) return ExitCode.Ended;
  const [word] = line.words;
  if (word !== "install") {
    throw new UsageError(`the argument must be install, got ${word === undefined ? "nothing" : `"${word}"`}`);
  }
  const { from } = line.values;
  if (Deno.build.os !== "windows") {
    throw new Deno.errors.NotSupported(
      `Cannot install Wintun on ${Deno.build.os}: it is a driver for Windows`,
    );
  }
  const local = Deno.env.get("LOCALAPPDATA");
  if (local === undefined) {
    throw new Deno.errors.NotFound(
      "Cannot install Wintun: the environment variable LOCALAPPDATA is not set: set it to the user's data folder",
    );
  }
  const builds = await import("../../driver/windows/builds.ts");
  const files = extract(from === undefined ? await download(builds) : await read(from), builds);
  const folder = builds.cacheFolder(local, builds.buildFor());
  await keep(folder, files);
  console.log(
    `Installed Wintun ${builds.WINTUN_VERSION}: ${
      join(folder, "wintun.dll")
    }, with its licence in the same folder`,
  );
  return ExitCode.Ended;
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw fileError(`read "${path}"`, error);
  }
}

async function download(builds: Builds): Promise<Uint8Array> {
  const { WINTUN_ZIP, WINTUN_ZIP_SHA256 } = builds;
  const fail = (reason: string, cause?: unknown) =>
    new Deno.errors.NotFound(
      `Cannot download ${WINTUN_ZIP}: ${reason}: download it with a browser and run warren driver install --from FILE`,
      { cause },
    );
  let response: Response;
  let bytes: Uint8Array;
  try {
    response = await fetch(WINTUN_ZIP);
    bytes = await response.bytes();
  } catch (error) {
    throw fail(errorMessage(error), error);
  }
  if (!response.ok) throw fail(`the server responded with status ${response.status}`);
  checkHash(builds, WINTUN_ZIP, bytes, WINTUN_ZIP_SHA256);
  return bytes;
}

/**
 * Extracts the DLL for an architecture, and the licence, from any folder of a zip archive.
 *
 * @throws {SyntaxError} when the bytes are not a zip archive.
 * @throws {Deno.errors.NotFound} when the archive lacks a file.
 * @throws {Deno.errors.NotSupported} when there is no build for the architecture, or the hash of a file is wrong.
 */
export function extract(
  zip: Uint8Array,
  builds: Builds,
  arch: typeof Deno.build.arch = Deno.build.arch,
): Extracted[] {
  const build = builds.buildFor(arch);
  const wanted = [
    { name: "wintun.dll", path: `bin/${build.folder}/wintun.dll`, sha256: build.sha256 },
    { name: "LICENSE.txt", path: "LICENSE.txt", sha256: builds.WINTUN_LICENCE_SHA256 },
  ];
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(zip, {
      filter: ({ name }) => wanted.some(({ path }) => isAt(name, path)),
    });
  } catch (error) {
    const message = `Cannot install Wintun: the file is not a zip archive: ${errorMessage(error)}`;
    throw new SyntaxError(message, { cause: error });
  }
  return wanted.map(({ name, path, sha256 }) => {
    const bytes = Object.entries(entries).find(([entry]) => isAt(entry, path))?.[1];
    if (bytes === undefined) throw new Deno.errors.NotFound(`Cannot install Wintun: the zip has no ${path}`);
    checkHash(builds, path, bytes, sha256);
    return { name, bytes };
  });
}

function isAt(entry: string, path: string): boolean {
  return entry === path || entry.endsWith(`/${path}`);
}

function checkHash({ WINTUN_VERSION }: Builds, what: string, bytes: Uint8Array, sha256: string): void {
  const actual = createHash("sha256").update(bytes).digest("hex");
  if (actual === sha256) return;
  throw new Deno.errors.NotSupported(
    `Cannot install Wintun: the SHA-256 of ${what} (${WINTUN_VERSION}) must be ${sha256}, got ${actual}`,
  );
}

/** Writes files to a folder, and replaces existing ones atomically. */
export async function keep(folder: string, files: readonly Extracted[]): Promise<void> {
  try {
    await Deno.mkdir(folder, { recursive: true });
    for (const { name, bytes } of files) await replace(join(folder, name), bytes);
  } catch (error) {
    const inUse = "stop programs that use it";
    throw fileError(`install Wintun in ${folder}`, error, { PermissionDenied: inUse, Busy: inUse });
  }
}

async function replace(path: string, bytes: Uint8Array): Promise<void> {
  const partial = `${path}.${Deno.pid}`;
  try {
    await Deno.writeFile(partial, bytes);
    await Deno.rename(partial, path);
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    throw error;
  }
}
