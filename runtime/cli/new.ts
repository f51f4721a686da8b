/** `warren new`: creates a script, and a deno.json with which the script runs in its folder. */

import { basename, dirname, join, parse, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseCommand } from "./arguments.ts";
import { fileError } from "../script/file_error.ts";
import { ExitCode, UsageError } from "../script/failure.ts";
import { NAME, VERSION } from "./version.ts";

const USAGE = `Usage: warren new NAME

  warren new demo    create the folder demo with demo.ts and deno.json
  warren new my.ts   create my.ts, and deno.json in the same folder if it has none

The script answers pings. Existing files are never overwritten. As root, the command refuses a folder in which
another user could replace the script.`;

const SCRIPT = `#!/usr/bin/env -S deno run --allow-ffi
/** Answers every ping sent into 10.9.0.0/24. Try: ping 10.9.0.77 */
import { script, Verdict } from "${NAME}";
import { Icmpv4 } from "${NAME}/icmpv4";

export default script(import.meta, { address: "10.9.0.1/24" }, (tunnel) =>
  tunnel.run((packet) => {
    const icmp = Icmpv4.of(packet);
    if (icmp?.type !== Icmpv4.EchoRequest) return Verdict.Drop;
    icmp.type = Icmpv4.EchoReply;
    icmp.ip.swap();
    return Verdict.Reply;
  }));
`;

/** Root folder of Warren. */
const ROOT = new URL("../../", import.meta.url);
const EXECUTABLE = 0o755;
const OTHERS_WRITE = 0o002;
const GROUP_WRITES = 0o020;
/** Sticky bit: only its owner can rename or remove a file in the folder. */
const STICKY = 0o1000;
/** Files in a script's folder that change how Deno runs the script. */
const SETTINGS = ["deno.json", "deno.jsonc", "deno.lock", "package.json"] as const;

/** Runs `warren new` with these arguments; returns its exit code. */
export async function create(args: readonly string[]): Promise<number> {
  const line = parseCommand(args, { usage: USAGE });
  if (line === undefined) return ExitCode.Ended;
  const [name] = line.words;
  if (name === undefined || name === "") throw new UsageError("a name is missing: warren new my.ts");
  // The name becomes part of a task's command.
  if (!/^\w[\w.-]*$/.test(basename(name))) {
    throw new UsageError(`NAME must consist of letters, digits, "_", "-" and ".", got "${basename(name)}"`);
  }
  const isFile = /\.m?[jt]s$/.test(name);
  const folder = resolve(isFile ? dirname(name) : name);
  checkDrive(folder, name);
  await write(folder, isFile ? basename(name) : `${basename(name)}.ts`, name);
  return ExitCode.Ended;
}

/** Checks the drive (Windows): Deno 2.9 ignores the imports of a linked checkout that is on a different drive. */
function checkDrive(folder: string, name: string): void {
  if (ROOT.protocol !== "file:") return;
  const drive = parse(fileURLToPath(ROOT)).root;
  if (parse(folder).root.toLowerCase() === drive.toLowerCase()) return;
  throw new Deno.errors.NotSupported(
    `Cannot create "${name}": it must be on the drive of Warren, as Deno cannot link across drives: create it on ${drive}`,
  );
}

async function write(folder: string, file: string, name: string): Promise<void> {
  const path = join(folder, file);
  const isFolder = file !== basename(name);
  await checkFolders(isFolder ? dirname(folder) : folder, name);
  await attempt(name, () => Deno.mkdir(isFolder ? dirname(folder) : folder, { recursive: true }));
  if (isFolder) await attempt(name, () => Deno.mkdir(folder));
  const present = await checkSettings(folder, name);
  await attempt(name, () => Deno.writeTextFile(path, SCRIPT, { createNew: true, mode: EXECUTABLE }));
  console.log(`Created ${path}`);
  const settings = settingsFor(file, ROOT);
  if (present === undefined) {
    const configPath = join(folder, "deno.json");
    const text = `${JSON.stringify(settings, undefined, 2)}\n`;
    // An existing symbolic link is not followed.
    await attempt(name, () => Deno.writeTextFile(configPath, text, { createNew: true }));
    console.log(`Created ${configPath}`);
  } else if (!(await Deno.readTextFile(present)).includes(`"${NAME}"`)) {
    const { imports, links } = settings;
    console.log(`Add to ${present}: ${JSON.stringify({ imports, links }).slice(1, -1)}`);
  }
  const sudo = Deno.build.os !== "windows" && Deno.uid() !== 0 ? "sudo " : "";
  console.log(`Run it: cd ${folder} && ${sudo}deno run --allow-ffi ${file}\nTry: ping 10.9.0.77`);
}

/**
 * Checks the target folder and those above it: a user who can replace the script can run code with this user's rights.
 */
async function checkFolders(folder: string, name: string): Promise<void> {
  let path = folder;
  while (await status(path) === undefined && dirname(path) !== path) path = dirname(path);
  for (path = await Deno.realPath(path);; path = dirname(path)) {
    const reason = control(await Deno.lstat(path));
    if (reason !== undefined) refuseOrWarn(name, `${path} ${reason}`, "choose another folder");
    if (dirname(path) === path) return;
  }
}

/** Checks the files in the script's folder that Deno reads; returns the path of an existing deno.json or deno.jsonc. */
async function checkSettings(folder: string, name: string): Promise<string | undefined> {
  let present: string | undefined;
  for (const file of SETTINGS) {
    const path = join(folder, file);
    const itself = await status(path);
    if (itself === undefined) continue;
    const info = await Deno.stat(path).catch(() => undefined);
    if (info?.isFile !== true) {
      throw new Deno.errors.AlreadyExists(`Cannot create "${name}": ${path} is not a file: remove it`);
    }
    // The owner of a symbolic link can redirect it.
    const reason = control(info) ?? control({ ...info, uid: itself.uid });
    if (reason !== undefined) refuseOrWarn(name, `${path} ${reason}`, "remove it");
    if (file.startsWith("deno.json")) present ??= path;
  }
  return present;
}

function status(path: string): Promise<Deno.FileInfo | undefined> {
  return Deno.lstat(path).catch(() => undefined);
}

/** Returns the reason why another user controls a file or folder, or `undefined` if none does. */
function control({ uid, gid, mode, isDirectory }: Deno.FileInfo): string | undefined {
  if (uid === null || mode === null) return undefined;
  const sudo = Deno.uid() === 0 ? Number(Deno.env.get("SUDO_UID")) : NaN;
  if (uid !== 0 && uid !== Deno.uid() && uid !== sudo) return `belongs to user ${uid}`;
  const writable = (mode & OTHERS_WRITE) !== 0 || ((mode & GROUP_WRITES) !== 0 && gid !== Deno.gid());
  const kept = isDirectory && (mode & STICKY) !== 0;
  return writable && !kept ? `is writable by others (mode ${(mode & 0o7777).toString(8)})` : undefined;
}

/** Throws an error if the user is root, otherwise prints a warning. */
function refuseOrWarn(name: string, reason: string, remedy: string): void {
  if (Deno.uid() === 0) {
    throw new Deno.errors.PermissionDenied(`Cannot create "${name}": ${reason}: ${remedy}`);
  }
  console.error(`warren: other users can change "${name}": ${reason}`);
}

/** Content of a script's deno.json. */
interface Settings {
  imports: Record<string, string>;
  /** Path of a checkout that is used instead of the package from the registry. */
  links?: string[];
  /** Keeps a package.json in the same folder from redirecting Warren's own imports to node_modules. */
  nodeModulesDir: "none";
  tasks: Record<string, string>;
}

/** Returns a script's deno.json; `root` is the URL of Warren's checkout or of its package in a registry. */
export function settingsFor(file: string, root: URL): Settings {
  return {
    imports: { [NAME]: `jsr:${NAME}@^${VERSION}` },
    ...(root.protocol === "file:" ? { links: [fileURLToPath(root).replace(/[\\/]$/, "")] } : {}),
    nodeModulesDir: "none",
    tasks: { start: `deno run --allow-ffi ${file}` },
  };
}

async function attempt(name: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    throw fileError(`create "${name}"`, error, { AlreadyExists: "choose another name" });
  }
}
