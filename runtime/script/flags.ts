/** Parsing of the command line of a script, which is the same with `deno run` and `warren run`. */

// @ts-types="./parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { compileFilter } from "../../lib/filter/mod.ts";
import {
  type CheckedTunnelOptions,
  checkTunnelOptions,
  type TunnelOptions,
} from "../tunnel/tunnel_options.ts";
import { placeBelow } from "../vpn/vpn.ts";
import { nearest, UsageError } from "./failure.ts";
import {
  checkScriptFlags,
  describeScriptFlags,
  flagName,
  readScriptFlags,
  type ScriptArguments,
  type ScriptFlags,
} from "./script_flags.ts";
import { isProfileFlag, PROFILE_FLAG, unexpectedWord } from "./profile_flag.ts";

/** Parsed command line of a script. */
export interface ScriptCommandLine {
  /** Options of each tunnel with the flags applied, by tunnel name; none with `help`. */
  readonly tunnels: Readonly<Record<string, CheckedTunnelOptions>>;
  /** True to print the usage and exit. */
  readonly help: boolean;
  /** True to print errors only. */
  readonly quiet: boolean;
  /** True to check everything, print what would be opened, and exit. */
  readonly dryRun: boolean;
  /** File for a CPU profile; `""` for a generated name, `undefined` for no profile. */
  readonly profile: string | undefined;
  /** File for a capture; `"-"` for standard output, `undefined` for no capture. */
  readonly capture: string | undefined;
  /** Filter of the capture in pcap-filter syntax; `""` matches all packets. */
  readonly filter: string;
  /** Values of the script's own flags and arguments. */
  readonly given: ScriptArguments;
}

/** Flags of a tunnel, and the options that each one sets. */
const TUNNEL_FLAGS: Readonly<Record<string, (values: string[]) => TunnelOptions>> = {
  "name": ([name]) => ({ name }),
  "address": (address) => ({ address }),
  "route": (route) => ({ route }),
  "mtu": ([mtu]) => ({ mtu: parseInteger(mtu!) }),
  "queue-length": ([length]) => ({ linux: { txQueueLength: parseInteger(length!) } }),
  "far": ([far]) => ({ far }),
  "busy-poll": ([time]) => ({ busyPoll: parseInteger(time!) }),
  "watchdog": ([limit]) => ({ watchdog: parseInteger(limit!) }),
  "no-offload": () => ({ linux: { offload: false } }),
  "no-uring": () => ({ linux: { uring: false } }),
};
/** Tunnel flags without a value. */
const SWITCHES = ["no-offload", "no-uring"];
const REPEATED = ["address", "route"];
/** Tunnel flags with no effect on a device that the script opened itself. */
const DEVICE_FLAGS = ["name", "address", "route", "mtu", "queue-length", ...SWITCHES];
const BOOLEAN_FLAGS = ["help", "quiet", "dry-run"];
/** Has no tunnel name, because each worker has a queue of every tunnel. */
const WORKERS = "workers";
const CAPTURE = "capture";
const FILTER = "filter";
const LETTERS: Readonly<Record<string, string>> = { h: "help", q: "quiet" };
/** Column of the descriptions in a usage text. */
const TEXT_COLUMN = 21;

/**
 * Checks the declarations of a script's own flags.
 *
 * @param tunnels Names of its tunnels.
 * @throws {TypeError} for an invalid declaration, and for the name of another flag or of a tunnel.
 */
export function checkOwnFlags(flags: ScriptFlags, tunnels: readonly string[]): void {
  const shared = [...BOOLEAN_FLAGS, PROFILE_FLAG, WORKERS, CAPTURE, FILTER];
  checkScriptFlags(flags, [...Object.keys(TUNNEL_FLAGS), ...shared, ...Object.keys(LETTERS), ...tunnels]);
}

/**
 * Returns the usage text of a script.
 *
 * @param tunnels Names of its tunnels; `[""]` for a script with one.
 * @param own Declarations of its own flags.
 */
export function usage(command: string, tunnels: readonly string[], own: ScriptFlags = {}): string {
  const several = tunnels.length === 1 && tunnels[0] === ""
    ? ""
    : `\nTunnels of this script: ${tunnels.join(", ")}. A tunnel's flags begin with its name: --${
      tunnels[0]
    }.mtu 1400\n`;
  const ownFlags = describeScriptFlags(own, TEXT_COLUMN);
  const ownText = ownFlags.length === 0
    ? ""
    : `Flags of this script:\n${ownFlags.join("\n")}\n\nFlags of every script:\n`;
  return `Usage: ${command} [flags] [-- WORDS]

${ownText}  --name NAME        name of the device: up to 15 bytes on Linux, 127 characters on Windows; %d becomes a number
  --address PREFIX   address of this machine, such as 10.9.0.1/24 or fd00::1/64; repeatable
  --route ROUTE      route through the device: 10.0.0.0/8, "10.0.0.0/8 via 10.9.0.2 metric 5 table 100"; repeatable
  --mtu BYTES        maximum length of packets that the system sends through the device
  --queue-length N   maximum packets that wait in the kernel for the script (Linux)
  --far URL          far end of the tunnel: udp://HOST:PORT, ws://HOST:PORT/ or tun:NAME; to listen:
                     udp://ADDRESS:PORT?listen, ws://ADDRESS:PORT/?listen; with ?interface=NAME and
                     ?mtu=BYTES for udp:, and ?payload=any for a stage that encrypts; a VPN protocol of the
                     script runs over it
  --no-offload       no super-packets: no packet is longer than the MTU (Linux)
  --no-uring         one packet per system call, without io_uring (Linux)
  --busy-poll US     after each packet, spin for up to this time (microseconds) before waiting: a shorter delay
                     for a whole processor; 0 for never
  --watchdog MS      end the process when a stage does not return for this time; 0 for never
  --profile[=FILE]   write a CPU profile for Chrome DevTools when the script ends, or after ten minutes; without
                     FILE, to the current folder, named after the script and the time
  --capture FILE     write the packets that pass the device to a pcapng file (needs --allow-write), or with - to
                     standard output: --capture - | wireshark -k -i -
  --filter TEXT      capture only matching packets, such as "tcp port 80 and net 10.0.0.0/8": pcap-filter(7)
  --dry-run          check everything, print what would be opened, and exit
  --workers N        run the script in N workers, each with a queue of the device and a processor core (Linux)
  -q, --quiet        print errors only
  -h, --help         print this text
${several}
Flags replace the script's options; WORDS are passed to the script. Exit code: 0 for success, 1 for an error, 2 for
a wrong command line.
`;
}

/**
 * Parses a script's command line.
 *
 * @param declared Options of each tunnel in the script, by tunnel name; the name is `""` in a script with one tunnel.
 * @param own Declarations of its own flags.
 * @throws {UsageError} for an unknown flag, or a value that is invalid or contradicts the options of the script.
 * @throws {Error} when the options of the script are invalid.
 */
export function parseScriptFlags(
  words: readonly string[],
  declared: Readonly<Record<string, TunnelOptions>>,
  own: ScriptFlags = {},
): ScriptCommandLine {
  const names = Object.keys(declared);
  const keys = names.flatMap((name) => Object.keys(TUNNEL_FLAGS).map((flag) => flagKey(name, flag)));
  const switches = names.flatMap((name) => SWITCHES.map((flag) => flagKey(name, flag)));
  const ownSwitches = Object.keys(own).filter((name) => own[name]!.type === "boolean").map(flagName);
  const ownValued = Object.keys(own).map(flagName).filter((flag) => !ownSwitches.includes(flag));
  const valued = [...keys.filter((key) => !switches.includes(key)), WORKERS, CAPTURE, FILTER, ...ownValued];
  const booleans = [...BOOLEAN_FLAGS, ...switches, ...ownSwitches];
  const known = [...keys, ...ownSwitches, ...ownValued];
  const end = words.indexOf("--");
  const args = end < 0 ? words : words.slice(0, end);
  // The parser would take these words as the value of a boolean flag.
  const odd = args.findIndex((word) => word === "true" || word === "false");
  const before = args[odd - 1]?.replace(/^--?/, "");
  if (before !== undefined && [...booleans, ...Object.keys(LETTERS)].includes(before)) {
    throw new UsageError(unknownArgument(args[odd]!, known));
  }
  refuseValues(args, booleans, Object.keys(LETTERS));
  const profiles = args.filter(isProfileFlag);
  if (profiles.length > 1) throw new UsageError(`--${PROFILE_FLAG} is given twice`);
  if (profiles[0]?.endsWith("=")) throw new UsageError(`${profiles[0]} needs a file name`);
  // The parser does not accept an empty word or one that starts with "-" as a value.
  const flagBefore = (word: string) => {
    const flag = args[args.indexOf(word) - 1] ?? "";
    return flag.startsWith("--") && valued.includes(flag.slice(2)) ? flag : undefined;
  };
  if (flagBefore("") !== undefined) throw new UsageError(`${flagBefore("")} needs a value`);
  const rest = args.filter((argument) => !isProfileFlag(argument));
  // The parser does not accept "-" as a value.
  const pipe = rest.findIndex((argument, i) => argument === `--${CAPTURE}` && rest[i + 1] === "-");
  if (pipe >= 0) rest.splice(pipe, 2, `--${CAPTURE}=-`);
  const parsed = parseArgs(rest, {
    string: valued,
    boolean: booleans,
    collect: valued,
    alias: LETTERS,
    unknown: (argument) => {
      const flag = argument.startsWith("-") ? flagBefore(argument) : undefined;
      const remedy = flag === undefined
        ? ""
        : `: to pass it as the value of ${flag}, write ${flag}=${argument}`;
      throw new UsageError(unknownArgument(argument, known) + remedy);
    },
  });
  const help = parsed.help === true;
  const workers = (parsed[WORKERS] ?? []) as string[];
  checkValues(`--${WORKERS}`, workers, false);
  const tunnels: Record<string, CheckedTunnelOptions> = {};
  for (const name of help ? [] : names) {
    const values = (name === "" ? parsed : parsed[name] ?? {}) as Record<string, unknown>;
    tunnels[name] = merge(name, declared[name]!, values, workers[0]);
  }
  const captures = (parsed[CAPTURE] ?? []) as string[];
  checkValues(`--${CAPTURE}`, captures, false);
  const filters = (parsed[FILTER] ?? []) as string[];
  checkValues(`--${FILTER}`, filters, false);
  if (!help && filters.length > 0) {
    if (captures.length === 0) throw new UsageError(`--${FILTER} needs --${CAPTURE}`);
    blame(`--${FILTER}`, () => compileFilter(filters[0]!));
  }
  return {
    tunnels,
    help,
    quiet: parsed.quiet === true,
    dryRun: parsed["dry-run"] === true,
    profile: profiles[0]?.replace(/^[^=]*=?/, ""),
    capture: captures[0],
    filter: filters[0] ?? "",
    given: {
      flags: help ? {} : readScriptFlags(own, (flag) => parsed[flag] as string[] | boolean | undefined),
      args: end < 0 ? [] : words.slice(end + 1),
    },
  };
}

/** Applies the flags of a tunnel to its options, and checks the result. */
function merge(
  name: string,
  declared: TunnelOptions,
  parsed: Record<string, unknown>,
  workers: string | undefined,
): CheckedTunnelOptions {
  /** Options that each flag sets. */
  const given: Record<string, TunnelOptions> = {};
  for (const [flag, read] of Object.entries(TUNNEL_FLAGS)) {
    const isSwitch = SWITCHES.includes(flag);
    const values = isSwitch ? [] : (parsed[flag] ?? []) as string[];
    if (isSwitch ? parsed[flag] !== true : values.length === 0) continue;
    const key = `--${flagKey(name, flag)}`;
    checkValues(key, values, REPEATED.includes(flag));
    if (declared.device !== undefined && DEVICE_FLAGS.includes(flag)) {
      throw new UsageError(
        `${key} has no effect: the script opens its device "${declared.device.name}" itself`,
      );
    }
    given[key] = blame(key, () => read(values));
    if (flag === "far") given[key] = { far: blame(key, () => placeBelow(declared.far, values[0]!)) };
  }
  if (workers !== undefined) {
    const queues = blame(`--${WORKERS}`, () => parseInteger(workers));
    if (queues > 1 && Deno.build.os !== "linux") {
      throw new Deno.errors.NotSupported(
        `Cannot run ${queues} workers: devices have a single queue on ${Deno.build.os}: remove --${WORKERS}`,
      );
    }
    given[`--${WORKERS}`] = { linux: { queues } };
  }
  const merged: TunnelOptions = { ...declared };
  for (const options of Object.values(given)) {
    const linux = { ...merged.linux, ...options.linux };
    Object.assign(merged, options, Object.keys(linux).length === 0 ? {} : { linux });
  }
  try {
    return checkTunnelOptions(merged);
  } catch (error) {
    // The script's options or those of one flag may be wrong by themselves; otherwise they contradict each other.
    checkTunnelOptions(declared);
    for (const [key, options] of Object.entries(given)) blame(key, () => checkTunnelOptions(options));
    return blame(Object.keys(given).join(" "), () => {
      throw error;
    });
  }
}

function checkValues(flag: string, values: readonly string[], mayRepeat: boolean): void {
  if (values.includes("")) throw new UsageError(`${flag} needs a value`);
  if (values.length > 1 && !mayRepeat) throw new UsageError(`${flag} is given twice`);
}

function blame<Result>(flags: string, attempt: () => Result): Result {
  try {
    return attempt();
  } catch (error) {
    throw new UsageError(`${flags}: ${(error as Error).message}`, { cause: error });
  }
}

function parseInteger(text: string): number {
  if (!/^\d+$/.test(text)) throw new SyntaxError(`the value must be an integer, got "${text}"`);
  return Number(text);
}

function flagKey(tunnel: string, flag: string): string {
  return tunnel === "" ? flag : `${tunnel}.${flag}`;
}

/** Returns the error message for an unknown argument; `keys` are the flags of the tunnels and of the script itself. */
function unknownArgument(argument: string, keys: readonly string[]): string {
  if (!argument.startsWith("-")) return unexpectedWord(argument);
  const name = argument.replace(/^-+/, "").replace(/=.*/s, "");
  // An option that is on by default has a flag that turns it off.
  const near = keys.find((key) => key.endsWith(`.${name}`)) ??
    keys.find((key) =>
      SWITCHES.some((flag) => flag === `no-${name.replace(/^linux\./, "")}` && key.endsWith(flag))
    ) ??
    nearest(name, [...keys, ...BOOLEAN_FLAGS, PROFILE_FLAG, WORKERS, CAPTURE, FILTER]) ??
    // The name in Deno and Node.js.
    (name.startsWith("cpu-prof") ? PROFILE_FLAG : undefined);
  return `${argument} is not a flag of this script${near === undefined ? "" : `: did you mean --${near}?`}`;
}

/**
 * Rejects values for flags that take none; the parser would treat such a flag as absent.
 *
 * @throws {UsageError} for the first such flag.
 */
export function refuseValues(
  args: readonly string[],
  flags: readonly string[],
  letters: readonly string[],
): void {
  const ofLetters = new RegExp(`^-[${letters.join("")}]+[^a-z]`);
  const found = args.find((argument) =>
    flags.some((flag) => argument.startsWith(`--${flag}=`)) || ofLetters.test(argument)
  );
  if (found === undefined) return;
  throw new UsageError(`${found} has a value: ${found.match(/^(?:--[^=]*|-[a-z]*)/)![0]} takes none`);
}
