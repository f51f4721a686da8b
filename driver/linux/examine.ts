/** Runs the checks of `warren doctor` on Linux. */

import { type Check, check, checkLibrary } from "../check.ts";
import { cString } from "../posix/libc.ts";
import { TUN_PATH, tunRemedy } from "./device.ts";
import { errnoName } from "./errno.ts";
import { O_CLOEXEC, O_RDWR } from "./fcntl.ts";
import { readSystemFile } from "./files.ts";
import { type Leftover, leftovers, repair } from "./leftovers.ts";
import { errno, libc } from "./libc.ts";
import { Netlink } from "./netlink/netlink.ts";
import { Uring } from "./queue/uring.ts";

// Specification
/** CAP_NET_ADMIN, linux/capability.h */
const CAP_NET_ADMIN = 12;

// Implementation
/** Maximum number of changes listed for one leftover. */
const MAX_NAMED_CHANGES = 4;

/** Runs the checks; if `repairs` is true, also repairs what crashed processes left behind. */
export async function examine(repairs: boolean): Promise<Check[]> {
  const library = checkLibrary("C library", libc);
  if (library.some(({ state }) => state === "fail")) return library;
  return [
    ...library,
    ...await check(TUN_PATH, checkTun),
    ...await check("privileges", checkPrivileges),
    ...await check("user namespaces", checkUserNamespaces),
    ...await check("io_uring", checkUring),
    ...await check("leftovers", () => checkLeftovers(repairs)),
    ...await check("persistent devices", checkPersistentDevices),
  ];
}

function checkTun(): Check[] {
  const { open, close } = libc();
  const descriptor = open(cString(TUN_PATH), O_RDWR | O_CLOEXEC, 0);
  if (descriptor >= 0) {
    close(descriptor);
    return [{ name: TUN_PATH, state: "ok", text: "it can be opened" }];
  }
  const failed = errno();
  const remedy = tunRemedy(failed);
  const text = `it cannot be opened: ${errnoName(failed)} (${failed})`;
  return [{ name: TUN_PATH, state: "fail", text, ...(remedy === undefined ? {} : { remedy }) }];
}

function checkPrivileges(): Check[] {
  const user = `user ${libc().geteuid()}`;
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(readSystemFile("/proc/self/status") ?? "")?.[1];
  if (hex === undefined) {
    return [{ name: "privileges", state: "warn", text: `${user}; its capabilities are not in /proc` }];
  }
  if ((BigInt(`0x${hex}`) >> BigInt(CAP_NET_ADMIN) & 1n) === 1n) {
    return [{ name: "privileges", state: "ok", text: `${user}, with CAP_NET_ADMIN` }];
  }
  return [{
    name: "privileges",
    state: "warn",
    text: `${user}, without CAP_NET_ADMIN: a script can only use a device that was prepared for it`,
    remedy: "run as root (for a container: --cap-add NET_ADMIN), or ip tuntap add NAME mode tun user USER",
  }];
}

async function checkUserNamespaces(): Promise<Check[]> {
  const name = "user namespaces";
  const { code, stderr } = await new Deno.Command("unshare", { args: ["-Urn", "true"] }).output();
  if (code === 0) return [{ name, state: "ok", text: "unshare -Urn works: the demo runs without root" }];
  return [{
    name,
    state: "warn",
    text: `${new TextDecoder().decode(stderr).trim()}: without root, the demo runs in memory`,
    remedy: "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, " +
      "kernel.apparmor_restrict_unprivileged_userns",
  }];
}

/** Checks io_uring, which is optional. */
function checkUring(): Check[] {
  using ring = Uring.open(1, 1);
  const text = ring === undefined
    ? "not available (needs Linux 5.19, or is disabled): a device without offload moves one packet per call"
    : "it works: a device without offload moves many packets per call";
  return [{ name: "io_uring", state: "ok", text }];
}

function checkLeftovers(repairs: boolean): Check[] {
  const name = "leftovers";
  const { found, refused, otherNamespaces } = leftovers();
  const checks: Check[] = refused.map(({ message }) => ({ name, state: "warn", text: message }));
  for (const leftover of found) {
    const description = describe(leftover);
    if (!repairs) {
      // After a reboot, only the file is left.
      const state = leftover.entries.length === 0 ? "warn" : "fail";
      checks.push({ name, state, text: description, remedy: "warren doctor --repair" });
      continue;
    }
    const failures = repair(leftover);
    for (const { message } of failures) checks.push({ name, state: "fail", text: message });
    if (failures.length === 0) checks.push({ name, state: "ok", text: `repaired: ${description}` });
  }
  if (checks.length === 0) checks.push({ name, state: "ok", text: "no crash left anything behind" });
  if (otherNamespaces.length > 0) {
    const text =
      `${otherNamespaces.length} journals of crashes, which the next start in the same namespace repairs, ` +
      `such as ${otherNamespaces[0]!.path}`;
    checks.push({ name: "other network namespaces", state: "ok", text });
  }
  return checks;
}

/** Describes a leftover: process, device, first changes, time. */
function describe({ device, pid, path, since, entries }: Leftover): string {
  const named = entries.slice(0, MAX_NAMED_CHANGES).map(({ description }) => description);
  const others = entries.length - named.length;
  if (others > 0) named.push(`and ${others} more changes (${path})`);
  if (entries.length === 0) named.push(`only its file ${path}`);
  return `process ${pid} with device ${device}: ${named.join("; ")}${
    since === undefined ? "" : ` (since ${since})`
  }`;
}

async function checkPersistentDevices(): Promise<Check[]> {
  const name = "persistent devices";
  const names = (await Deno.readTextFile("/proc/net/dev")).matchAll(/^\s*([^\s:]+):/gm);
  using netlink = Netlink.open();
  const unused = Array.from(names, ([, name]) => netlink.link(name!))
    .filter((link) => link?.persistent === true && !link.running)
    .map((link) => link!.name);
  return unused.length === 0
    ? [{ name, state: "ok", text: "none, or all in use" }]
    : unused.map((device) => ({
      name,
      state: "warn",
      text: `${device} exists, and no program has it open`,
      remedy: `remove it with \`ip tuntap del ${device} mode tun\`, unless it was prepared for a script`,
    }));
}
