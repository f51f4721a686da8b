/** `warren driver`: gets wintun.dll, signed by its maker, for this user. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { unzipSync } from "fflate";
import { errorMessage } from "../../driver/error.ts";
import { parseCommand } from "./arguments.ts";
import { fileError } from "../script/file_error.ts";
import { ExitCode, UsageError } from "../script/failure.ts";

const USAGE = `Usage: warren driver install [--from FILE]

Gets Wintun 0.14.1 for this user: the official zip of www.wintun.net, or FILE, which is such a zip. Its DLL for this
machine and its licence go to %LOCALAPPDATA%\\warren, if they are what their maker signed.

Only Windows needs it. The first tunnel that is opened loads the DLL, which then removes network adapters that other
products have from Wintun's generations before 0.14 (OpenVPN, OpenConnect).

  --from FILE   a zip that is here already
  -h, --help    this text

Exit code: 0 when it is installed, 1 when it is not, 2 for a wrong command line.`;

/** What is known of the official builds. */
type Builds = typeof import("../../driver/windows/builds.ts");

/** A file to be kept. */
export interface Extracted {
  /** Its name. */
  readonly name: string;
  /** What is in it. */
  readonly bytes: Uint8Array;
}

/** Runs `warren driver` with these arguments, and returns its exit code. */
export async function driver(args: readonly string[]): Promise<number> {
  const line = parseCommand(args, { usage: USAGE, strings: ["from"] });
  if (line === undefined) return ExitCode.Ended;
  const [word] = line.words;
  if (word !== "install") {
    throw new UsageError(word === undefined ? "it needs a word: install" : `"${word}" is not install`);
  }
  const { from } = line.values;
  if (Deno.build.os !== "windows") {
    throw new Deno.errors.NotSupported(`Cannot install Wintun on ${Deno.build.os}: only Windows has it`);
  }
  const local = Deno.env.get("LOCALAPPDATA");
  if (local === undefined) {
    throw new Deno.errors.NotFound(
      "Cannot install Wintun: LOCALAPPDATA is not set: it names the user's folder",
    );
  }
  const builds = await import("../../driver/windows/builds.ts");
  const files = extract(from === undefined ? await download(builds) : await read(from), builds);
  const folder = builds.cacheFolder(local, builds.buildFor());
  await keep(folder, files);
  console.log(
    `Installed Wintun ${builds.WINTUN_VERSION}: ${join(folder, "wintun.dll")}, and its licence beside it`,
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
  const fail = (what: string, cause?: unknown) =>
    new Deno.errors.NotFound(
      `Cannot get ${WINTUN_ZIP}: ${what}: get it by a browser, and say warren driver install --from FILE`,
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
  if (!response.ok) throw fail(`the server says ${response.status}`);
  checkHash(builds, WINTUN_ZIP, bytes, WINTUN_ZIP_SHA256);
  return bytes;
}

/**
 * Takes the DLL for an architecture and the licence out of a zip, wherever in it they are.
 *
 * @throws {SyntaxError} when it is no zip.
 * @throws {Deno.errors.NotFound} when they are not in it.
 * @throws {Deno.errors.NotSupported} for another architecture, and when they are not what Wintun's maker signed.
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
    throw new SyntaxError(`Cannot install Wintun: this is no zip file: ${errorMessage(error)}`, {
      cause: error,
    });
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
  const is = createHash("sha256").update(bytes).digest("hex");
  if (is === sha256) return;
  throw new Deno.errors.NotSupported(
    `Cannot install Wintun: ${what} is not that of ${WINTUN_VERSION}: its SHA-256 is ${is}, and not ${sha256}`,
  );
}

/** Writes files into a folder; each is there whole or not at all. */
export async function keep(folder: string, files: readonly Extracted[]): Promise<void> {
  try {
    await Deno.mkdir(folder, { recursive: true });
    for (const { name, bytes } of files) await replace(join(folder, name), bytes);
  } catch (error) {
    const inUse = "end programs that use it";
    throw fileError(`install Wintun into ${folder}`, error, { PermissionDenied: inUse, Busy: inUse });
  }
}

async function replace(path: string, bytes: Uint8Array): Promise<void> {
  const half = `${path}.${Deno.pid}`;
  try {
    await Deno.writeFile(half, bytes);
    await Deno.rename(half, path);
  } catch (error) {
    await Deno.remove(half).catch(() => {});
    throw error;
  }
}
