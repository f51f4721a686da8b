/**
 * `warren run`: a script in a process of Deno's that has the permissions that the script asks for, not Warren's.
 *
 *     warren run FLAGS SCRIPT ─► permissions ─► execv: deno run PERMISSIONS, in the place of this process ─► launched.ts
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
/** Permissions of a script without a run line, and of one from a URL, whatever its run line asks for. */
const DEFAULT_PERMISSIONS = ["--allow-ffi"];
/** The hosts from which Deno loads modules by default, as `deno run --help` lists them. */
const MODULE_HOSTS =
  "deno.land:443,jsr.io:443,esm.sh:443,raw.githubusercontent.com:443,gist.githubusercontent.com:443";
/** The longest run line (bytes). */
const MAX_RUN_LINE = 4096;
const SETTINGS = new URL("../../deno.json", import.meta.url);
const LOCK = new URL("../../deno.lock", import.meta.url);

const USAGE = `Usage: warren run [permissions] SCRIPT [flags]

SCRIPT is a file or a URL whose default export is a script. Its imports of "@warren/tunnel" are this Warren; other
names resolve by Warren's deno.json, not by its own. Types are not checked: that is what \`deno check\` does.

  warren run SCRIPT --help   the script's flags; --profile may come before SCRIPT, too
  --allow-net=HOST, …        permissions of Deno's for the script, before SCRIPT: more than it asks for, or --deny-net, …
  --cert=FILE, --inspect, …  other flags of Deno's for the script, before SCRIPT

A file runs with the permissions of its first line, "#!/usr/bin/env -S deno run --allow-ffi …", and without one with
--allow-ffi. A script from a URL gets --allow-ffi and what you grant; it is fetched anew each time. --far, --capture
and --profile bring the permission for what they name. \`--dry-run\` lists them all. --allow-ffi trusts the script: native
code does what you may do.

Exit code: 0 when it ended, 1 when it failed, 2 for a wrong command line.`;

/** Runs `warren run` with these arguments, and returns its exit code. */
export async function run(args: readonly string[]): Promise<number> {
  // As Deno and Node.js have theirs: `warren run --profile my.ts`.
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
    throw new UsageError(`it needs a script: ${["warren run", ...before, "my.ts"].join(" ")}`);
  }
  if (name.startsWith("-")) {
    throw new UsageError(`the script comes before its flags: warren run my.ts ${name}`);
  }
  if (name.endsWith(PROFILE_SUFFIX)) throw new UsageError(unexpectedWord(name));
  const url = urlOf(name);
  if (url.protocol === "file:") await checkFile(name, url);
  // What follows is for the script alone.
  const end = after.includes("--") ? after.indexOf("--") : after.length;
  const flags = await nameProfile([...before.filter(isProfileFlag), ...after.slice(0, end)], name);
  const asked = mergeFlags([...await permissionsOf(name, url, flags), ...before.filter(isPermissionFlag)]);
  const permissions = grantsAll(asked) ? asked : mergeFlags([...asked, ...flagPermissions(flags)]);
  if (flags.includes("--dry-run")) console.log(`permissions ${permissions.join(" ")}`);
  const denoFlags = [...await ownDenoFlags(), ...before.filter(isDenoFlag)];
  return await launch([...await settings(url), ...denoFlags, ...permissions], rootModule(name, url), [
    ...flags,
    ...after.slice(end),
  ]);
}

/** @throws {SyntaxError} for a URL that does not parse. */
function urlOf(name: string): URL {
  // One letter before a colon is a drive.
  if (!/^[a-z][a-z0-9+.-]+:/i.test(name)) return pathToFileURL(resolve(name));
  const url = URL.parse(name);
  if (url !== null) return url;
  throw new SyntaxError(
    `Cannot run ${JSON.stringify(name)}: SCRIPT must be a file or a whole URL, such as https://HOST/my.ts`,
  );
}

/** @throws {Deno.errors.NotFound} when there is no such file. */
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

/** The permissions that a script asks for. Prints a line about anything unusual. */
async function permissionsOf(name: string, url: URL, flags: readonly string[]): Promise<readonly string[]> {
  if (isRemote(url)) return [...DEFAULT_PERMISSIONS, `--allow-import=${hostPort(url)},${MODULE_HOSTS}`];
  const line = url.protocol === "file:" ? parseRunLine(await firstLine(url)) : undefined;
  if (line === undefined) return DEFAULT_PERMISSIONS;
  const isQuiet = flags.includes("--quiet") || flags.includes("-q");
  if (!isQuiet && line.leftOut.length > 0) {
    console.error(`warren: left out of the run line of ${name}: ${line.leftOut.join(" ")}`);
  }
  if (!isQuiet && grantsAll(line.flags)) {
    console.error(`warren: ${name} asks for every permission, and gets it`);
  }
  return line.flags;
}

async function firstLine(url: URL): Promise<string> {
  using file = await Deno.open(url);
  const bytes = new Uint8Array(MAX_RUN_LINE);
  const count = await file.read(bytes) ?? 0;
  return new TextDecoder().decode(bytes.subarray(0, count)).split(/\r?\n/, 1)[0]!;
}

/** Permissions for the far ends and files that flags name: the user wrote them there to be used. */
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

/** The network for a WebSocket, and for a name that is looked up. */
function farPermissions(far: string): string[] {
  if (!URL.canParse(far)) return [];
  const url = new URL(far);
  if (url.protocol === "udp:") return /^[\d.]+$|^\[/.test(url.hostname) ? [] : [allow("net", url.hostname)];
  return /^wss?:$/.test(url.protocol) ? [allow("net", hostPort(url))] : [];
}

function isRemote(url: URL): boolean {
  return /^https?:$/.test(url.protocol);
}

/** A URL's host with its port, as Deno's permissions have it. */
function hostPort({ protocol, host, port }: URL): string {
  return port === "" ? `${host}:${/^(?:https|wss):$/.test(protocol) ? 443 : 80}` : host;
}

/** A profile's name is chosen here, so that the script may write that file alone. */
async function nameProfile(flags: readonly string[], script: string): Promise<string[]> {
  const unnamed = flags.filter((flag) => flag === "--profile");
  if (unnamed.length !== 1) return [...flags];
  const { profileName } = await import("../script/profile.ts");
  return flags.map((flag) => flag === "--profile" ? `--profile=${profileName(script)}` : flag);
}

/** Deno's settings for a script: this Warren's imports. */
async function settings(url: URL): Promise<string[]> {
  return [
    "--no-check",
    ...SETTINGS.protocol === "file:" ? ["--config", fileURLToPath(SETTINGS)] : [],
    ...await lockFlags(),
    // Deno keeps a module that it has fetched once; the author may have changed it since.
    ...isRemote(url) ? [`--reload=${new URL(".", url).href.replace(/\/$/, "")}`] : [],
  ];
}

/**
 * Warren's lock file knows its own packages; Deno adds every module that a script loads from elsewhere, and refuses one
 * that has changed. So it works on a copy.
 */
async function lockFlags(): Promise<string[]> {
  try {
    const folder = join(cacheFolder(), "warren");
    await Deno.mkdir(folder, { recursive: true });
    const copy = join(folder, "run.lock");
    const own = `${copy}.${crypto.randomUUID()}`;
    // A new file, so that no link of another user's leads the write elsewhere.
    await Deno.writeFile(own, await Deno.readFile(LOCK), { createNew: true });
    await Deno.rename(own, copy);
    return [`--lock=${copy}`];
  } catch {
    // A user without a folder, as services have. Without the lock file, the packages' versions are exact all the same.
    return ["--no-lock"];
  }
}

function cacheFolder(): string {
  const named = Deno.env.get(Deno.build.os === "windows" ? "LOCALAPPDATA" : "XDG_CACHE_HOME");
  return named || join(homedir(), ".cache");
}

/** The root module: its import is a literal, which Deno loads without the script's permissions. */
function rootModule(name: string, url: URL): string {
  const [module, script, said] = [new URL("./launched.ts", import.meta.url).href, url.href, name].map((
    text,
  ) => JSON.stringify(text));
  const text =
    `import { runLaunched } from ${module}; await runLaunched(() => import(${script}), ${said}, ${script});`;
  return `data:text/javascript,${encodeURIComponent(text)}`;
}

/** Starts Deno in the place of this process; beside it where the system cannot. */
async function launch(flags: readonly string[], module: string, args: readonly string[]): Promise<number> {
  const words = ["run", ...flags, module, ...args];
  await flushOutput();
  if (CAN_REPLACE_PROCESS) return await replaceProcess(Deno.execPath(), words);
  // The console gives Ctrl-C to both: the script ends, and this process after it.
  for (const signal of endSignals()) Deno.addSignalListener(signal, () => {});
  const child = new Deno.Command(Deno.execPath(), {
    args: words,
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn();
  return (await child.status).code;
}
