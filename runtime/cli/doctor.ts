/** `warren doctor`: checks whether Warren works on this machine, and suggests remedies. */

import { dirname, join, resolve } from "node:path";
import { type Check, check } from "../../driver/check.ts";
import { examineCryptography } from "../../driver/crypto/choice.ts";
import { examineSystem } from "../../driver/examine.ts";
import { parseCommand } from "./arguments.ts";
import { ExitCode } from "../script/failure.ts";
import { DENO_VERSION } from "./version.ts";

const USAGE = `Usage: warren doctor [SCRIPT] [flags]

Checks Deno, its permissions, this system, and the folder of SCRIPT or the current folder. Changes nothing without
--repair.

  --repair     undo changes that a crashed process left behind
  --json       print the checks as JSON: [{ name, state, text, remedy? }]
  -h, --help   print this text

Exit code: 0 if no check fails, 1 if one does, 2 for a wrong command line.`;

/** Runs `warren doctor` with these arguments; returns its exit code. */
export async function doctor(args: readonly string[]): Promise<number> {
  const line = parseCommand(args, { usage: USAGE, booleans: ["repair", "json"] });
  if (line === undefined) return ExitCode.Ended;
  const [script] = line.words;
  if (script !== undefined && await readText(script) === undefined) {
    throw new Deno.errors.NotFound(
      `Cannot check "${script}": the file does not exist: give the name of a script, or nothing`,
    );
  }
  const folder = script === undefined ? Deno.cwd() : dirname(resolve(script));
  const checks = [
    ...await check("Deno", checkDeno),
    ...await check("permissions", checkPermissions),
    ...await check("package.json", () => checkPackageJson(folder)),
    ...await examineSystem(line.flags.has("repair")),
    ...await examineCryptography(),
  ];
  if (line.flags.has("json")) console.log(JSON.stringify(checks, undefined, 2));
  else for (const found of checks) console.log(formatCheck(found));
  return checks.some(({ state }) => state === "fail") ? ExitCode.Failed : ExitCode.Ended;
}

/** Formats a check as one line. */
export function formatCheck({ name, state, text, remedy }: Check): string {
  return `${state.padEnd(4)}  ${name}: ${text}${remedy === undefined ? "" : `: ${remedy}`}`.replaceAll(
    // deno-lint-ignore no-control-regex
    /\s*[\n\x00-\x1f\x7f-\x9f]\s*/g,
    " ",
  );
}

function checkDeno(): Check[] {
  const { deno } = Deno.version;
  const remedy = `deno upgrade ${DENO_VERSION}`;
  const order = compareVersions(deno, DENO_VERSION);
  if (order === 0) return [{ name: "Deno", state: "ok", text: `version ${deno}` }];
  return [
    order > 0
      ? {
        name: "Deno",
        state: "warn",
        text: `version ${deno}: Warren is tested with ${DENO_VERSION}`,
        remedy,
      }
      : { name: "Deno", state: "fail", text: `version ${deno} is older than ${DENO_VERSION}`, remedy },
  ];
}

/** Returns a negative number if `one` is older than `other`, a positive number if it is newer, otherwise 0. */
function compareVersions(one: string, other: string): number {
  const [a, b] = [one, other].map((version) => version.split(/[.+-]/).map(Number));
  return [0, 1, 2].map((i) => a![i]! - b![i]!).find((difference) => difference !== 0) ?? 0;
}

async function checkPermissions(): Promise<Check[]> {
  const ffi = await Deno.permissions.query({ name: "ffi" });
  const net = await Deno.permissions.query({ name: "net" });
  return [
    ffi.state === "granted" && !ffi.partial
      ? { name: "--allow-ffi", state: "ok", text: "granted; a script needs it for its device" }
      : {
        name: "--allow-ffi",
        state: "fail",
        text: ffi.state === "granted" ? "granted for some libraries only" : "not granted",
        remedy: "run deno with --allow-ffi, not --allow-ffi=PATH",
      },
    net.state === "granted"
      ? {
        name: "--allow-net",
        state: "ok",
        text: "granted; a script needs it for ws: far ends, and for host names in udp: far ends",
      }
      : {
        name: "--allow-net",
        state: "warn",
        text: "not granted: a script cannot use ws: far ends, or host names in udp: far ends",
        remedy: "run deno with --allow-net",
      },
  ];
}

/** Checks the package.json files in the script's folder and the folders above it. */
export async function checkPackageJson(folder: string): Promise<Check[]> {
  const checks: Check[] = [];
  let settings: string | undefined;
  for (let above = folder;; above = dirname(above)) {
    const path = join(above, "package.json");
    const content = await readText(path);
    const own = await readText(join(above, "deno.json")) ?? await readText(join(above, "deno.jsonc"));
    if (content !== undefined && settings === undefined) checks.push(...effectsOf(path, own));
    if (content !== undefined && /"type"\s*:\s*"commonjs"/.test(content)) {
      checks.push({
        name: "package.json",
        state: "warn",
        text: `${path} sets "type": "commonjs", which may break top-level await in a script`,
        remedy: "remove the setting or move the script",
      });
    }
    settings ??= own;
    if (dirname(above) === above) break;
  }
  return checks.length > 0 ? checks : [{ name: "package.json", state: "ok", text: `none affects ${folder}` }];
}

/** Returns how a package.json affects scripts; `settings` is the deno.json in the same folder. */
function effectsOf(path: string, settings: string | undefined): Check[] {
  const name = "package.json";
  if (settings === undefined) {
    return [{
      name,
      state: "warn",
      text: `${path} hides a deno.json above it from \`deno run\``,
      remedy: "create a deno.json in its folder with `warren new my.ts`, or use `warren run`",
    }];
  }
  if (/"nodeModulesDir"\s*:\s*"(none|auto)"/.test(settings)) return [];
  return [{
    name,
    state: "warn",
    text: `${path} makes \`deno run\` look for Warren's own imports in node_modules`,
    remedy: 'add "nodeModulesDir": "none" to the deno.json in its folder',
  }];
}

/** Returns the text of a file, or `undefined` if there is no such file. */
async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.IsADirectory) return undefined;
    throw error;
  }
}
