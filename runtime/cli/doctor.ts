/** `warren doctor`: checks whether Warren can work on this machine, and says what to do where it cannot. */

import { dirname, join, resolve } from "node:path";
import { type Check, check } from "../../driver/check.ts";
import { examineSystem } from "../../driver/examine.ts";
import { parseCommand } from "./arguments.ts";
import { ExitCode } from "../script/failure.ts";
import { DENO_VERSION } from "./version.ts";

const USAGE = `Usage: warren doctor [SCRIPT] [flags]

Checks Deno, its permissions, this system, and the folder of SCRIPT or this one; changes nothing without --repair.

  --repair     put back what a crashed process left behind
  --json       print the checks as JSON: [{ name, state, text, remedy? }]
  -h, --help   this text

Exit code: 0 when nothing fails, 1 when something does, 2 for a wrong command line.`;

/** Runs `warren doctor` with these arguments, and returns its exit code. */
export async function doctor(args: readonly string[]): Promise<number> {
  const line = parseCommand(args, { usage: USAGE, booleans: ["repair", "json"] });
  if (line === undefined) return ExitCode.Ended;
  const [script] = line.words;
  if (script !== undefined && await readText(script) === undefined) {
    throw new Deno.errors.NotFound(
      `Cannot look at "${script}": it is no file: say a script's name, or nothing`,
    );
  }
  const folder = script === undefined ? Deno.cwd() : dirname(resolve(script));
  const checks = [
    ...await check("Deno", checkDeno),
    ...await check("permissions", checkPermissions),
    ...await check("package.json", () => checkPackageJson(folder)),
    ...await examineSystem(line.flags.has("repair")),
  ];
  if (line.flags.has("json")) console.log(JSON.stringify(checks, undefined, 2));
  else for (const found of checks) console.log(formatCheck(found));
  return checks.some(({ state }) => state === "fail") ? ExitCode.Failed : ExitCode.Ended;
}

/** A check in one line. */
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

/** Less than 0 when `one` is older, more than 0 when it is newer. */
function compareVersions(one: string, other: string): number {
  const [a, b] = [one, other].map((version) => version.split(/[.+-]/).map(Number));
  return [0, 1, 2].map((i) => a![i]! - b![i]!).find((difference) => difference !== 0) ?? 0;
}

async function checkPermissions(): Promise<Check[]> {
  const ffi = await Deno.permissions.query({ name: "ffi" });
  const net = await Deno.permissions.query({ name: "net" });
  return [
    ffi.state === "granted" && !ffi.partial
      ? { name: "--allow-ffi", state: "ok", text: "granted here; a script needs it for its device" }
      : {
        name: "--allow-ffi",
        state: "fail",
        text: ffi.state === "granted" ? "granted for some libraries alone" : "not granted",
        remedy: "run deno with --allow-ffi, not --allow-ffi=PATH",
      },
    net.state === "granted"
      ? {
        name: "--allow-net",
        state: "ok",
        text: "granted here; a script needs it for ws: far ends, and for names in udp: ones",
      }
      : {
        name: "--allow-net",
        state: "warn",
        text: "not granted: a script cannot have ws: far ends, nor names in udp: ones",
        remedy: "run deno with --allow-net",
      },
  ];
}

/** Looks at each package.json from the script's folder upward; one above the script's deno.json disturbs nothing. */
export async function checkPackageJson(folder: string): Promise<Check[]> {
  const checks: Check[] = [];
  let settings: string | undefined;
  for (let above = folder;; above = dirname(above)) {
    const path = join(above, "package.json");
    const content = await readText(path);
    const own = await readText(join(above, "deno.json")) ?? await readText(join(above, "deno.jsonc"));
    if (content !== undefined && settings === undefined) checks.push(...disturbed(path, own));
    if (content !== undefined && /"type"\s*:\s*"commonjs"/.test(content)) {
      checks.push({
        name: "package.json",
        state: "warn",
        text: `${path} says "type": "commonjs", with which a script's top-level await may not work`,
        remedy: "remove that, or move the script",
      });
    }
    settings ??= own;
    if (dirname(above) === above) break;
  }
  return checks.length > 0
    ? checks
    : [{ name: "package.json", state: "ok", text: `none disturbs ${folder}` }];
}

/** What a package.json does to scripts, with the deno.json beside it. */
function disturbed(path: string, settings: string | undefined): Check[] {
  const name = "package.json";
  if (settings === undefined) {
    return [{
      name,
      state: "warn",
      text: `${path} hides a deno.json above it from \`deno run\``,
      remedy: "make one beside it by `warren new my.ts`, or use `warren run`",
    }];
  }
  if (/"nodeModulesDir"\s*:\s*"(none|auto)"/.test(settings)) return [];
  return [{
    name,
    state: "warn",
    text: `${path} has \`deno run\` look for Warren's own imports in node_modules`,
    remedy: 'put "nodeModulesDir": "none" into the deno.json beside it',
  }];
}

/** A file's text; `undefined` when it is not there. */
async function readText(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.IsADirectory) return undefined;
    throw error;
  }
}
