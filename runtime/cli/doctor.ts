/** `warren doctor`: checks whether Warren can work on this machine, and says what to do where it cannot. */

import { dirname, join, resolve } from "node:path";
// @ts-types="./parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import type { Leftover } from "../../driver/linux/journal.ts";
import { ExitCode, nearest, UsageError } from "./failure.ts";
import { DENO_VERSION } from "./version.ts";

// Specification
/** CAP_NET_ADMIN, linux/capability.h */
const CAP_NET_ADMIN = 12;
/** fcntl.h */
const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;

// Implementation
const TUN_PATH = "/dev/net/tun";
/** Systems with a driver. */
const SYSTEMS: readonly string[] = ["linux", "windows"];
const FLAGS = ["help", "repair", "json"];

const USAGE = `Usage: warren doctor [SCRIPT] [flags]

Checks Deno, its permissions, this system, and the folder of SCRIPT or this one; changes nothing without --repair.

  --repair     put back what a crashed process left behind
  --json       print the checks as JSON: [{ what, state, says, remedy? }]
  -h, --help   this text

Exit code: 0 when nothing fails, 1 when something does, 2 for a wrong command line.`;

/** What was found. */
export interface Check {
  /** What was looked at. */
  readonly what: string;
  /** `fail`: Warren does not work so. `warn`: something does not, or may not. */
  readonly state: "ok" | "warn" | "fail";
  /** What is so. */
  readonly says: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** What the command line said. */
interface Visit {
  /** The folder whose package.json matters. */
  readonly folder: string;
  /** Whether to put leftovers back. */
  readonly repair: boolean;
}

type Examination = (visit: Visit) => Check[] | Promise<Check[]>;

/** Runs `warren doctor` with these arguments, and returns its exit code. */
export async function doctor(args: readonly string[]): Promise<number> {
  const parsed = parseArgs([...args], {
    string: ["_"],
    boolean: FLAGS,
    alias: { h: "help" },
    unknown: (argument) => {
      if (!argument.startsWith("-")) return;
      const near = nearest(argument.replace(/^-+/, ""), FLAGS);
      throw new UsageError(`${argument} is no flag${near === undefined ? "" : `: did you mean --${near}?`}`);
    },
  });
  const [script, surplus] = parsed._;
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here`);
  if (parsed.help === true) {
    console.log(USAGE);
    return ExitCode.Ended;
  }
  const folder = script === undefined ? Deno.cwd() : dirname(resolve(String(script)));
  const checks = await examine({ folder, repair: parsed.repair === true });
  if (parsed.json === true) console.log(JSON.stringify(checks, undefined, 2));
  else for (const check of checks) console.log(formatCheck(check));
  return checks.some(({ state }) => state === "fail") ? ExitCode.Failed : ExitCode.Ended;
}

/** A check in one line. */
export function formatCheck({ what, state, says, remedy }: Check): string {
  return `${state.padEnd(4)}  ${what}: ${says}${remedy === undefined ? "" : `: ${remedy}`}`.replaceAll(
    // deno-lint-ignore no-control-regex
    /\s*[\n\x00-\x1f\x7f-\x9f]\s*/g,
    " ",
  );
}

/** Makes every check that this system allows. What goes wrong in one is told as its result. */
export async function examine(visit: Visit): Promise<Check[]> {
  const checks: Check[] = [];
  const look = async (what: string, examination: Examination) => {
    try {
      checks.push(...await examination(visit));
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      checks.push({ what, state: "warn", says: `it cannot be told: ${said}` });
    }
  };
  await look("Deno", checkDeno);
  await look("permissions", checkPermissions);
  await look("package.json", checkPackageJson);
  await look("system", checkSystem);
  if (!SYSTEMS.includes(Deno.build.os)) return checks;
  if (Deno.build.os === "windows") {
    await look("wintun.dll", checkWintun);
    await look("iphlpapi.dll", checkIphlpapi);
    await look("privileges", checkAdministrator);
    return checks;
  }
  await look("C library", checkLibc);
  if (checks.some(({ state }) => state === "fail")) return checks;
  await look(TUN_PATH, checkTun);
  await look("privileges", checkPrivileges);
  await look("user namespaces", checkUserNamespaces);
  await look("leftovers", checkLeftovers);
  await look("persistent devices", checkPersistentDevices);
  return checks;
}

function checkDeno(): Check[] {
  const { deno } = Deno.version;
  const remedy = `deno upgrade ${DENO_VERSION}`;
  const order = compareVersions(deno, DENO_VERSION);
  if (order === 0) return [{ what: "Deno", state: "ok", says: `version ${deno}` }];
  return [
    order > 0
      ? {
        what: "Deno",
        state: "warn",
        says: `version ${deno}: Warren is tested with ${DENO_VERSION}`,
        remedy,
      }
      : { what: "Deno", state: "fail", says: `version ${deno} is older than ${DENO_VERSION}`, remedy },
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
      ? { what: "--allow-ffi", state: "ok", says: "granted here; a script needs it for its device" }
      : {
        what: "--allow-ffi",
        state: "fail",
        says: ffi.state === "granted" ? "granted for some libraries alone" : "not granted",
        remedy: "run deno with --allow-ffi, without a path",
      },
    net.state === "granted"
      ? {
        what: "--allow-net",
        state: "ok",
        says: "granted here; a script needs it for udp: and ws: far ends",
      }
      : {
        what: "--allow-net",
        state: "warn",
        says: "not granted: a script cannot have udp: and ws: far ends",
        remedy: "run deno with --allow-net",
      },
  ];
}

/** Looks at each package.json from the script's folder upward; one above the script's deno.json disturbs nothing. */
export async function checkPackageJson({ folder }: Pick<Visit, "folder">): Promise<Check[]> {
  const checks: Check[] = [];
  let settings: string | undefined;
  for (let above = folder;; above = dirname(above)) {
    const path = join(above, "package.json");
    const content = await readText(path);
    const own = await readText(join(above, "deno.json")) ?? await readText(join(above, "deno.jsonc"));
    if (content !== undefined && settings === undefined) checks.push(...disturbed(path, own));
    if (content !== undefined && /"type"\s*:\s*"commonjs"/.test(content)) {
      checks.push({
        what: "package.json",
        state: "warn",
        says: `${path} says "type": "commonjs", with which a script's top-level await may not work`,
        remedy: "remove that, or move the script",
      });
    }
    settings ??= own;
    if (dirname(above) === above) break;
  }
  return checks.length > 0
    ? checks
    : [{ what: "package.json", state: "ok", says: `none disturbs ${folder}` }];
}

/** What a package.json does to scripts, with the deno.json beside it. */
function disturbed(path: string, settings: string | undefined): Check[] {
  const what = "package.json";
  if (settings === undefined) {
    return [{
      what,
      state: "warn",
      says: `${path} hides a deno.json above it from \`deno run\``,
      remedy: "make one beside it by `warren new my.ts`, or use `warren run`",
    }];
  }
  if (/"nodeModulesDir"\s*:\s*"(none|auto)"/.test(settings)) return [];
  return [{
    what,
    state: "warn",
    says: `${path} has \`deno run\` look for Warren's own imports in node_modules`,
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

function checkSystem(): Check[] {
  const { os, arch } = Deno.build;
  return SYSTEMS.includes(os) ? [{ what: "system", state: "ok", says: `${os} ${arch}: driver ${os}` }] : [{
    what: "system",
    state: "fail",
    says: `${os} ${arch}: Warren has no driver for it yet`,
    remedy: "use MemoryDevice.pair(), Linux or Windows",
  }];
}

/** Looks at the DLL without loading it: that would remove other products' adapters. */
async function checkWintun(): Promise<Check[]> {
  const what = "wintun.dll";
  const { findWintun } = await import("../../driver/windows/wintun.ts");
  try {
    const { path, official, file } = findWintun();
    file[Symbol.dispose]();
    return [
      official ? { what, state: "ok", says: `${path} is an official build for this machine` } : {
        what,
        state: "warn",
        says: `${path} is no official build; WARREN_WINTUN and its SHA-256 name it`,
      },
    ];
  } catch (error) {
    return [{ what, state: "fail", says: (error as Error).message }];
  }
}

async function checkIphlpapi(): Promise<Check[]> {
  const what = "iphlpapi.dll";
  const { iphlpapi } = await import("../../driver/windows/iphlpapi.ts");
  try {
    const { SetInterfaceDnsSettings } = iphlpapi();
    return [
      SetInterfaceDnsSettings === null
        ? { what, state: "warn", says: "it cannot set name servers: Windows 10 2004 has that first" }
        : { what, state: "ok", says: "it loads, with every function that Warren calls" },
    ];
  } catch (error) {
    return [{ what, state: "fail", says: (error as Error).message }];
  }
}

async function checkAdministrator(): Promise<Check[]> {
  const what = "privileges";
  const { ADMINISTRATOR_REMEDY, isAdministrator } = await import("../../driver/windows/shell32.ts");
  return [
    isAdministrator()
      ? { what, state: "ok", says: "an administrator's" }
      : { what, state: "fail", says: "not an administrator's", remedy: ADMINISTRATOR_REMEDY },
  ];
}

async function checkLibc(): Promise<Check[]> {
  const { libc } = await import("../../driver/linux/libc.ts");
  try {
    libc();
  } catch (error) {
    return [{ what: "C library", state: "fail", says: (error as Error).message }];
  }
  return [{ what: "C library", state: "ok", says: "it loads, with every function that Warren calls" }];
}

async function checkTun(): Promise<Check[]> {
  const { cString, errno, libc } = await import("../../driver/linux/libc.ts");
  const { Errno, errnoName } = await import("../../driver/linux/errno.ts");
  const { open, close } = libc();
  const descriptor = open(cString(TUN_PATH), O_RDWR | O_CLOEXEC, 0);
  if (descriptor >= 0) {
    close(descriptor);
    return [{ what: TUN_PATH, state: "ok", says: "it can be opened" }];
  }
  const failed = errno();
  const remedies: Record<number, string> = {
    [Errno.ENOENT]: "modprobe tun; for a container: --device /dev/net/tun",
    [Errno.ENODEV]: "modprobe tun, outside of a container",
    [Errno.EACCES]: `run as root, or chmod 666 ${TUN_PATH}`,
    [Errno.EPERM]: "for a container: --device /dev/net/tun",
  };
  const remedy = remedies[failed];
  const says = `it cannot be opened: ${errnoName(failed)} (${failed})`;
  return [{ what: TUN_PATH, state: "fail", says, ...(remedy === undefined ? {} : { remedy }) }];
}

async function checkPrivileges(): Promise<Check[]> {
  const { libc } = await import("../../driver/linux/libc.ts");
  const { readSystemFile } = await import("../../driver/linux/files.ts");
  const user = `user ${libc().geteuid()}`;
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(readSystemFile("/proc/self/status") ?? "")?.[1];
  if (hex === undefined) {
    return [{ what: "privileges", state: "warn", says: `${user}; /proc does not say its capabilities` }];
  }
  if ((BigInt(`0x${hex}`) >> BigInt(CAP_NET_ADMIN) & 1n) === 1n) {
    return [{ what: "privileges", state: "ok", says: `${user}, with CAP_NET_ADMIN` }];
  }
  return [{
    what: "privileges",
    state: "warn",
    says: `${user}, without CAP_NET_ADMIN: a script can use a device only that was prepared for it`,
    remedy: "run as root (for a container: --cap-add NET_ADMIN), or ip tuntap add NAME mode tun user USER",
  }];
}

async function checkUserNamespaces(): Promise<Check[]> {
  const what = "user namespaces";
  const { code, stderr } = await new Deno.Command("unshare", { args: ["-Urn", "true"] }).output();
  if (code === 0) return [{ what, state: "ok", says: "unshare -Urn works: the demo needs no root" }];
  return [{
    what,
    state: "warn",
    says: `${new TextDecoder().decode(stderr).trim()}: without root, the demo is in memory`,
    remedy: "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, " +
      "kernel.apparmor_restrict_unprivileged_userns",
  }];
}

async function checkLeftovers({ repair: repairs }: Visit): Promise<Check[]> {
  const what = "leftovers";
  const { leftovers, repair } = await import("../../driver/linux/journal.ts");
  const { found, refused } = leftovers();
  const checks: Check[] = refused.map(({ message }) => ({ what, state: "warn", says: message }));
  for (const leftover of found) {
    const left = describe(leftover);
    if (!repairs) {
      // Nothing but the file is left of what a crash before the system's start did.
      const state = leftover.entries.length === 0 ? "warn" : "fail";
      checks.push({ what, state, says: left, remedy: "warren doctor --repair" });
      continue;
    }
    const failures = repair(leftover);
    for (const { message } of failures) checks.push({ what, state: "fail", says: message });
    if (failures.length === 0) checks.push({ what, state: "ok", says: `put back: ${left}` });
  }
  return checks.length > 0 ? checks : [{ what, state: "ok", says: "no crash left anything behind" }];
}

function describe({ device, pid, path, entries }: Leftover): string {
  const done = entries.map(({ description }) => description).join("; ");
  return `process ${pid} with device ${device}: ${done === "" ? `its file ${path} alone` : done}`;
}

async function checkPersistentDevices(): Promise<Check[]> {
  const what = "persistent devices";
  const { Netlink } = await import("../../driver/linux/netlink.ts");
  const names = (await Deno.readTextFile("/proc/net/dev")).matchAll(/^\s*([^\s:]+):/gm);
  using netlink = Netlink.open();
  const unused = Array.from(names, ([, name]) => netlink.linkByName(name!))
    .filter((link) => link?.persistent === true && !link.running)
    .map((link) => link!.name);
  return unused.length === 0
    ? [{ what, state: "ok", says: "none that no program has open" }]
    : unused.map((name) => ({
      what,
      state: "warn",
      says: `${name} stays, and no program has it open`,
      remedy: `if nobody prepared it for a script: ip tuntap del ${name} mode tun`,
    }));
}
