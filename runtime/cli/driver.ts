/** `warren driver`: gets wintun.dll, signed by its maker, for this user. */

import { createHash } from "node:crypto";
import { join } from "node:path";
// @ts-types="./parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { unzipSync } from "fflate";
import { ExitCode, nearest, UsageError } from "./failure.ts";

const FLAGS = ["help", "from"];

const USAGE = `Usage: warren driver install [--from FILE]

Gets Wintun 0.14.1 for this user: the official zip of www.wintun.net, or FILE, which is such a zip. Its DLL for this
machine and its licence go to %LOCALAPPDATA%\\warren, if they are what their maker signed.

Only Windows needs it. The first tunnel that is opened loads the DLL, which then removes network adapters that other
products have from Wintun's generations before 0.14 (OpenVPN, OpenConnect).

  --from FILE   a zip that is here already
  -h, --help    this text

Exit code: 0 when it is installed, 1 when it is not, 2 for a wrong command line.`;

/** A file to be kept. */
export interface Extracted {
  /** Its name. */
  readonly name: string;
  /** What is in it. */
  readonly bytes: Uint8Array;
}

/** Runs `warren driver` with these arguments, and returns its exit code. */
export async function driver(args: readonly string[]): Promise<number> {
  const parsed = parseArgs([...args], {
    string: ["_", "from"],
    boolean: ["help"],
    alias: { h: "help" },
    unknown: (argument) => {
      if (!argument.startsWith("-")) return;
      const near = nearest(argument.replace(/^-+/, "").replace(/=.*/s, ""), FLAGS);
      throw new UsageError(`${argument} is no flag${near === undefined ? "" : `: did you mean --${near}?`}`);
    },
  });
  if (parsed.help === true) {
    console.log(USAGE);
    return ExitCode.Ended;
  }
  const [word, surplus] = parsed._;
  if (word !== "install") {
    throw new UsageError(word === undefined ? "it needs a word: install" : `"${word}" is not install`);
  }
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`);
  if (parsed.from === "") throw new UsageError("--from needs a file");
  const from = parsed.from === undefined ? undefined : String(parsed.from);
  if (Deno.build.os !== "windows") {
    throw new Deno.errors.NotSupported(`Cannot install Wintun on ${Deno.build.os}: only Windows has it`);
  }
  const { buildFor, cacheFolder, WINTUN_VERSION } = await import("../../driver/windows/builds.ts");
  const local = Deno.env.get("LOCALAPPDATA");
  if (local === undefined) {
    throw new Deno.errors.NotFound(
      "Cannot install Wintun: LOCALAPPDATA is not set: it names the user's folder",
    );
  }
  const files = await extract(from === undefined ? await download() : await read(from));
  const folder = cacheFolder(local, buildFor());
  await keep(folder, files);
  console.log(`Installed Wintun ${WINTUN_VERSION}: ${join(folder, "wintun.dll")}, and its licence beside it`);
  return ExitCode.Ended;
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    const refusal = error instanceof Deno.errors.NotFound
      ? Deno.errors.NotFound
      : Deno.errors.PermissionDenied;
    throw new refusal(`Cannot read "${path}": ${(error as Error).message}`, { cause: error });
  }
}

async function download(): Promise<Uint8Array> {
  const { WINTUN_ZIP, WINTUN_ZIP_SHA256 } = await import("../../driver/windows/builds.ts");
  const fail = (what: string, cause?: unknown) =>
    new Deno.errors.NotFound(
      `Cannot get ${WINTUN_ZIP}: ${what}: get it by a browser, and say warren driver install --from FILE`,
      { cause },
    );
  let bytes: Uint8Array;
  try {
    const response = await fetch(WINTUN_ZIP);
    bytes = await response.bytes();
    if (!response.ok) throw fail(`the server says ${response.status}`);
  } catch (error) {
    throw error instanceof Deno.errors.NotFound ? error : fail((error as Error).message, error);
  }
  const sha256 = hashOf(bytes);
  if (sha256 !== WINTUN_ZIP_SHA256) throw fail(`its SHA-256 is ${sha256}, and not ${WINTUN_ZIP_SHA256}`);
  return bytes;
}

/**
 * Takes the DLL for an architecture and the licence out of a zip, wherever in it they are.
 *
 * @throws {SyntaxError} when it is no zip.
 * @throws {Deno.errors.NotFound} when they are not in it.
 * @throws {Deno.errors.NotSupported} when they are not what Wintun's maker signed.
 */
export async function extract(
  zip: Uint8Array,
  arch: typeof Deno.build.arch = Deno.build.arch,
): Promise<Extracted[]> {
  const { buildFor, WINTUN_LICENCE_SHA256, WINTUN_VERSION } = await import("../../driver/windows/builds.ts");
  const build = buildFor(arch);
  const wanted = [
    { name: "wintun.dll", path: `bin/${build.folder}/wintun.dll`, sha256: build.sha256 },
    { name: "LICENSE.txt", path: "LICENSE.txt", sha256: WINTUN_LICENCE_SHA256 },
  ];
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(zip, {
      filter: ({ name }) => wanted.some(({ path }) => isAt(name, path)),
    });
  } catch (error) {
    throw new SyntaxError(`Cannot install Wintun: this is no zip file: ${(error as Error).message}`);
  }
  return wanted.map(({ name, path, sha256 }) => {
    const bytes = Object.entries(entries).find(([entry]) => isAt(entry, path))?.[1];
    if (bytes === undefined) throw new Deno.errors.NotFound(`Cannot install Wintun: the zip has no ${path}`);
    const is = hashOf(bytes);
    if (is === sha256) return { name, bytes };
    throw new Deno.errors.NotSupported(
      `Cannot install Wintun: ${path} is not that of ${WINTUN_VERSION}: its SHA-256 is ${is}, and not ${sha256}`,
    );
  });
}

function isAt(entry: string, path: string): boolean {
  return entry === path || entry.endsWith(`/${path}`);
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Writes files into a folder; each is there whole or not at all. */
export async function keep(folder: string, files: readonly Extracted[]): Promise<void> {
  try {
    await Deno.mkdir(folder, { recursive: true });
    for (const { name, bytes } of files) {
      const path = join(folder, name);
      const half = `${path}.${Deno.pid}`;
      await Deno.writeFile(half, bytes);
      await Deno.rename(half, path);
    }
  } catch (error) {
    throw new Deno.errors.PermissionDenied(
      `Cannot install Wintun into ${folder}: ${(error as Error).message}: end programs that use it`,
      { cause: error },
    );
  }
}
