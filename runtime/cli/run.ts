/** `warren run`: imports a script, wherever it is, and runs it. */

import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { isScript, runScript, type TunnelScript, type TunnelsScript } from "../script.ts";
import { ExitCode, UsageError } from "./failure.ts";
import { isProfileFlag, PROFILE_SUFFIX, unknownArgument } from "./flags.ts";

const USAGE = `Usage: warren run SCRIPT [flags]

SCRIPT is a file or a URL whose default export is a script. Its imports of "@warren/tunnel" are this Warren; other
names resolve by Warren's deno.json, not by its own. Types are not checked: that is what \`deno check\` does.

  warren run SCRIPT --help   the script's flags; --profile may come before SCRIPT, too

Exit code: 0 when it ended, 1 when it failed, 2 for a wrong command line.`;

/** Runs `warren run` with these arguments, and returns its exit code. */
export async function run(args: readonly string[]): Promise<number> {
  // As Deno and Node.js have theirs: `warren run --profile my.ts`.
  const words = args.findIndex((argument) => !isProfileFlag(argument));
  const profile = words < 0 ? args : args.slice(0, words);
  const [name, ...flags] = args.slice(profile.length);
  if (name === "--help" || name === "-h") {
    console.log(USAGE);
    return ExitCode.Ended;
  }
  if (name === undefined) {
    throw new UsageError(`it needs a script: ${["warren run", ...profile, "my.ts"].join(" ")}`);
  }
  if (name.startsWith("-")) {
    throw new UsageError(`the script comes before its flags: warren run my.ts ${name}`);
  }
  if (name.endsWith(PROFILE_SUFFIX)) throw new UsageError(unknownArgument(name, []));
  const url = urlOf(name);
  return await runScript(await load(name), [...profile, ...flags], "warren run", name, url.href);
}

function urlOf(name: string): URL {
  // One letter before a colon is a drive.
  return /^[a-z][a-z0-9+.-]+:/i.test(name) ? new URL(name) : pathToFileURL(resolve(name));
}

/**
 * Imports a script by its path or URL.
 *
 * @throws {Deno.errors.NotFound} when there is no such file.
 * @throws {TypeError} when it, or what it imports, does not load, or is no script.
 * @throws what its own code throws.
 */
export async function load(name: string): Promise<TunnelScript | TunnelsScript> {
  const url = urlOf(name);
  if (url.protocol === "file:") await checkFile(name, url);
  let module: { default?: unknown };
  try {
    module = await import(url.href);
  } catch (error) {
    throw loadError(name, error);
  }
  if (!isScript(module.default)) {
    throw new TypeError(
      `Cannot run "${name}": its default export is no script: end it with \`export default script(import.meta, …)\``,
    );
  }
  return module.default;
}

async function checkFile(name: string, url: URL): Promise<void> {
  const fail = (what: string): never => {
    throw new Deno.errors.NotFound(`Cannot run "${name}": ${what}`);
  };
  if (await isFile(url)) return;
  const longer = new URL(`${url.href}.ts`);
  if (await isFile(longer)) fail(`there is no such file: did you mean ${name}.ts?`);
  fail("there is no such file");
}

async function isFile(url: URL): Promise<boolean> {
  try {
    return !(await Deno.stat(url)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Deno's own reports of what does not load, in our words; what the script's code threw stays as it is. */
function loadError(name: string, error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown };
  if (code !== "ERR_MODULE_NOT_FOUND" || typeof message !== "string") return error;
  const lines = stripVTControlCharacters(message).split("\n").filter((line) => !/^\s+hint:/.test(line));
  const said = lines.join("\n");
  const remedy = /not a dependency|not prefixed with/.test(said)
    ? `\n\`warren run\` knows Warren's own imports alone: run it by \`deno run --allow-ffi\`, with its own deno.json`
    : "";
  return new TypeError(`Cannot run "${name}": ${said}${remedy}`);
}
