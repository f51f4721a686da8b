/**
 * `warren run`: runs a script in a Deno process that has only the permissions that the script requests.
 *
 *     warren run FLAGS SCRIPT ─► permissions ─► execv: deno run PERMISSIONS, replaces this process ─► launched.ts
 */

import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { CAN_REPLACE_PROCESS, replaceProcess } from "../../driver/exec.ts";
import { flushOutput } from "../script/output.ts";
import { endSignals } from "../engine/signals.ts";
import { isDenoFlag, ownDenoFlags } from "./deno_flags.ts";
import { ExitCode, UsageError } from "../script/failure.ts";
import { allow, grantsAll, isPermissionFlag, mergeFlags, parseRunLine } from "./permissions.ts";
import { isProfileFlag, PROFILE_SUFFIX, unexpectedWord } from "../script/profile_flag.ts";

// Implementation
/** Permissions of a script that has no run line or is from a URL. */
const DEFAULT_PERMISSIONS = ["--allow-ffi"];
/** Hosts from which Deno imports modules without `--allow-import` (`deno run --help`). */
const MODULE_HOSTS =
  "deno.land:443,jsr.io:443,esm.sh:443,raw.githubusercontent.com:443,gist.githubusercontent.com:443";
/** Maximum length of a run line (bytes). */
const MAX_RUN_LINE = 4096;
const SETTINGS = new URL("../../deno.json", import.meta.url);
const LOCK = new URL("../../deno.lock", import.meta.url);

const USAGE = `Usage: warren run [permissions] SCRIPT [flags]

SCRIPT is a file or URL whose default export is a script. It imports this Warren as "@warren/tunnel"; other imports
resolve by Warren's deno.json, not by the script's. Types are not checked: use \`deno check\`.

  warren run SCRIPT --help   print the script's flags; --profile is also allowed before SCRIPT
  --allow-net=HOST, …        before SCRIPT: Deno permissions in addition to those it requests; also --deny-net, …
  --cert=FILE, --inspect, …  before SCRIPT: other Deno flags for the script

A file runs with the permissions in its first line, "#!/usr/bin/env -S deno run --allow-ffi …", or with --allow-ffi if
it has no such line. A script from a URL gets --allow-ffi and the permissions on the command line; it is fetched each
time. --far, --capture and --profile add the permissions that they need. \`--dry-run\` prints all permissions.
--allow-ffi trusts the script: native code can do everything that you can.

Exit code: 0 for success, 1 for an error, 2 for a wrong command line.`;

/** Runs `warren run` with these arguments; returns its exit code. */
export async function run(args: readonly string[]): Promise<number> {
  // Before the script's name, as with Deno and Node.js: `warren run --profile my.ts`.
  const isBefore = (argument: string) =>
    isProfileFlag(argument) || isPermissionFlag(argument) || isDenoFlag(argument);
  const words = args.findIndex((argument) => !isBefore(argument));
  const before = words < 0 ? args : args.slice(0, words);
  const [name, ...after] = args.slice(before.length);
  if (name === "--help" || name === "-h") {
    console.log(USAGE);
    return ExitCode.Ended;
  }
  if (name === undefined) {
    throw new UsageError(`a script is missing: ${["warren run", ...before, "my.ts"].join(" ")}`);
  }
  if (name.startsWith("-")) {
    throw new UsageError(`the script must come before its flags: warren run my.ts ${name}`);
  }
  if (name.endsWith(PROFILE_SUFFIX)) throw new UsageError(unexpectedWord(name));
  const url = urlOf(name);
  if (url.protocol === "file:") await checkFile(name, url);
  // Words after "--" are passed to the script unchanged.
  const end = after.includes("--") ? after.indexOf("--") : after.length;
  const flags = await nameProfile([...before.filter(isProfileFlag), ...after.slice(0, end)], name);
  const base = mergeFlags([...await permissionsOf(name, url, flags), ...before.filter(isPermissionFlag)]);
  const permissions = grantsAll(base) ? base : mergeFlags([...base, ...flagPermissions(flags)]);
  if (flags.includes("--dry-run")) console.log(`permissions ${permissions.join(" ")}`);
  const denoFlags = [...await ownDenoFlags(), ...before.filter(isDenoFlag)];
  return await launch([...await settings(url), ...denoFlags, ...permissions], rootModule(name, url), [
    ...flags,
    ...after.slice(end),
  ]);
}

/** Returns the URL of a script. @throws {SyntaxError} when the name starts like a URL but does not parse. */
function urlOf(name: string): URL {
  // A single letter before a colon is a drive of Windows.
  if (!/^[a-z][a-z0-9+.-]+:/i.test(name)) return pathToFileURL(resolve(name));
  const url = URL.parse(name);
  if (url !== null) return url;
  throw new SyntaxError(
    `Cannot run ${JSON.stringify(name)}: SCRIPT must be a file or a complete URL, such as https://HOST/my.ts`,
  );
}

/** Checks that a script exists. @throws {Deno.errors.NotFound} when it does not. */
async function checkFile(name: string, url: URL): Promise<void> {
  if (await isFile(url)) return;
  const hint = await isFile(new URL(`${url.href}.ts`)) ? `: did you mean ${name}.ts?` : "";
  throw new Deno.errors.NotFound(`Cannot run "${name}": the file does not exist${hint}`);
}

async function isFile(url: URL): Promise<boolean> {
  try {
    return !(await Deno.stat(url)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Returns the permissions that a script requests. Warns if flags are ignored or all permissions are requested. */
async function permissionsOf(name: string, url: URL, flags: readonly string[]): Promise<readonly string[]> {
  if (isRemote(url)) return [...DEFAULT_PERMISSIONS, `--allow-import=${hostPort(url)},${MODULE_HOSTS}`];
  const line = url.protocol === "file:" ? parseRunLine(await firstLine(url)) : undefined;
  if (line === undefined) return DEFAULT_PERMISSIONS;
  const isQuiet = flags.includes("--quiet") || flags.includes("-q");
  if (!isQuiet && line.ignored.length > 0) {
    console.error(`warren: ignored flags in the first line of ${name}: ${line.ignored.join(" ")}`);
  }
  if (!isQuiet && grantsAll(line.flags)) {
    console.error(`warren: ${name} requests all permissions, and gets them`);
  }
  return line.flags;
}

async function firstLine(url: URL): Promise<string> {
  using file = await Deno.open(url);
  const bytes = new Uint8Array(MAX_RUN_LINE);
  const count = await file.read(bytes) ?? 0;
  return new TextDecoder().decode(bytes.subarray(0, count)).split(/\r?\n/, 1)[0]!;
}

/** Returns the permissions that a script's flags need: by naming a far end or file, the user permits access to it. */
function flagPermissions(flags: readonly string[]): string[] {
  return flags.flatMap((flag, i) => {
    const [, key, inline] = /^--([^=]+)=?(.*)$/s.exec(flag) ?? [];
    const value = flag.includes("=") ? inline! : flags[i + 1] ?? "";
    if (value === "") return [];
    if (key === "capture" && value !== "-") {
      return [allow("read", resolve(value)), allow("write", resolve(value))];
    }
    if (key === "profile") return ["--allow-sys", allow("write", resolve(value))];
    return key === "far" || key?.endsWith(".far") ? farPermissions(value) : [];
  });
}

/** Returns the network permission that a far end needs: for a WebSocket, or for a host name that must be resolved. */
function farPermissions(far: string): string[] {
  if (!URL.canParse(far)) return [];
  const url = new URL(far);
  if (url.protocol === "udp:") return /^[\d.]+$|^\[/.test(url.hostname) ? [] : [allow("net", url.hostname)];
  return /^wss?:$/.test(url.protocol) ? [allow("net", hostPort(url))] : [];
}

function isRemote(url: URL): boolean {
  return /^https?:$/.test(url.protocol);
}

/** Formats a URL's host and port for a permission. */
function hostPort({ protocol, host, port }: URL): string {
  return port === "" ? `${host}:${/^(?:https|wss):$/.test(protocol) ? 443 : 80}` : host;
}

/** Chooses the name of a profile, so that the script gets the permission to write this file only. */
async function nameProfile(flags: readonly string[], script: string): Promise<string[]> {
  const unnamed = flags.filter((flag) => flag === "--profile");
  if (unnamed.length !== 1) return [...flags];
  const { profileName } = await import("../script/profile.ts");
  return flags.map((flag) => flag === "--profile" ? `--profile=${profileName(script)}` : flag);
}

/** Returns Deno's flags for a script: configuration, lock file, module cache, and no type check. */
async function settings(url: URL): Promise<string[]> {
  return [
    "--no-check",
    ...SETTINGS.protocol === "file:" ? ["--config", fileURLToPath(SETTINGS)] : [],
    ...await lockFlags(),
    // Deno would use cached modules, but their author may have changed them.
    ...isRemote(url) ? [`--reload=${new URL(".", url).href.replace(/\/$/, "")}`] : [],
  ];
}

/**
 * Returns the flag for a new copy of Warren's lock file. Deno adds a script's modules to the lock file and would reject
 * a module that has changed since.
 */
async function lockFlags(): Promise<string[]> {
  try {
    const folder = join(cacheFolder(), "warren");
    await Deno.mkdir(folder, { recursive: true });
    const copy = join(folder, "run.lock");
    const own = `${copy}.${crypto.randomUUID()}`;
    // A new file, because another user's symbolic link could redirect a write to an existing path.
    await Deno.writeFile(own, await Deno.readFile(LOCK), { createNew: true });
    await Deno.rename(own, copy);
    return [`--lock=${copy}`];
  } catch {
    // Users such as services may have no home folder. Without the lock file, package versions are still exact.
    return ["--no-lock"];
  }
}

function cacheFolder(): string {
  const named = Deno.env.get(Deno.build.os === "windows" ? "LOCALAPPDATA" : "XDG_CACHE_HOME");
  return named || join(homedir(), ".cache");
}

/** Returns the root module. It imports the script literally, because such an import needs no permission to read. */
function rootModule(name: string, url: URL): string {
  const [module, script, label] = [new URL("./launched.ts", import.meta.url).href, url.href, name].map((
    text,
  ) => JSON.stringify(text));
  const text =
    `import { runLaunched } from ${module}; await runLaunched(() => import(${script}), ${label}, ${script});`;
  return `data:text/javascript,${encodeURIComponent(text)}`;
}

/** Replaces this process with Deno, or starts Deno as a child process on Windows. */
async function launch(flags: readonly string[], module: string, args: readonly string[]): Promise<number> {
  const words = ["run", ...flags, module, ...args];
  await flushOutput();
  if (CAN_REPLACE_PROCESS) return await replaceProcess(Deno.execPath(), words);
  // The console sends Ctrl-C to both processes. This process ignores it and waits for the script to end.
  for (const signal of endSignals()) Deno.addSignalListener(signal, () => {});
  const child = new Deno.Command(Deno.execPath(), {
    args: words,
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  return (await child.status).code;
}
