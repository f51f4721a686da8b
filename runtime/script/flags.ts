/** The flags of a script: the same by `deno run script.ts` and by `warren run script.ts`. */

// @ts-types="./parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { checkDeviceOptions } from "../../driver/mod.ts";
import { compileFilter } from "../../lib/filter/mod.ts";
import { parseFarUrl } from "../transport/far_url.ts";
import { checkTunnelOptions } from "../tunnel/open_tunnel.ts";
import type { TunnelOptions } from "../tunnel/tunnel.ts";
import { nearest, UsageError } from "./failure.ts";
import {
  checkScriptFlags,
  describeScriptFlags,
  flagName,
  readScriptFlags,
  type ScriptArguments,
  type ScriptFlags,
} from "./own_flags.ts";
import { isProfileFlag, PROFILE_FLAG, unexpectedWord } from "./profile_flag.ts";

/** What a script's command line said. */
export interface ScriptCommandLine {
  /** Each tunnel's options, by its name in the script: the script's own, with what the flags replace. */
  readonly tunnels: Readonly<Record<string, TunnelOptions>>;
  /** Whether to print the usage and end. */
  readonly help: boolean;
  /** Whether to say nothing but errors. */
  readonly quiet: boolean;
  /** Whether to check everything, say what would be opened, and end. */
  readonly dryRun: boolean;
  /** The file for a CPU profile: `""` when it was not named, `undefined` when none is asked for. */
  readonly profile: string | undefined;
  /** The file for a capture: `"-"` is standard output, `undefined` when none is asked for. */
  readonly capture: string | undefined;
  /** What is captured, as pcap-filter has it; `""` is all. */
  readonly filter: string;
  /** The script's own part. */
  readonly given: ScriptArguments;
}

/** The flags of one tunnel, and what each one sets. */
const TUNNEL_FLAGS: Readonly<Record<string, (values: string[]) => TunnelOptions>> = {
  "name": ([name]) => ({ name }),
  "address": (address) => ({ address }),
  "route": (route) => ({ route }),
  "mtu": ([mtu]) => ({ mtu: wholeNumber(mtu!) }),
  "queue-length": ([length]) => ({ linux: { txQueueLength: wholeNumber(length!) } }),
  "far": ([far]) => ({ far }),
  "watchdog": ([limit]) => ({ watchdog: wholeNumber(limit!) }),
  "no-offload": () => ({ linux: { offload: false } }),
  "no-uring": () => ({ linux: { uring: false } }),
};
/** Those of them that take no value. */
const SWITCHES = ["no-offload", "no-uring"];
const REPEATED = ["address", "route"];
/** Those that say nothing to a device that the script opened itself. */
const DEVICE_FLAGS = ["name", "address", "route", "mtu", "queue-length", ...SWITCHES];
const BOOLEAN_FLAGS = ["help", "quiet", "dry-run"];
/** For all tunnels: each worker has all of them. */
const WORKERS = "workers";
const CAPTURE = "capture";
const FILTER = "filter";
const LETTERS: Readonly<Record<string, string>> = { h: "help", q: "quiet" };
/** The column in which a usage text says what a flag does. */
const TEXT_COLUMN = 21;

/**
 * Checks the flags that a script declares for itself.
 *
 * @param tunnels The names of its tunnels.
 * @throws {TypeError} when one is declared wrongly, or has the name of another flag or of a tunnel.
 */
export function checkOwnFlags(flags: ScriptFlags, tunnels: readonly string[]): void {
  const shared = [...BOOLEAN_FLAGS, PROFILE_FLAG, WORKERS, CAPTURE, FILTER];
  checkScriptFlags(flags, [...Object.keys(TUNNEL_FLAGS), ...shared, ...Object.keys(LETTERS), ...tunnels]);
}

/**
 * The usage text of a script.
 *
 * @param tunnels The names of its tunnels; `[""]` for a script with one.
 * @param own The flags that it declares for itself.
 */
export function usage(command: string, tunnels: readonly string[], own: ScriptFlags = {}): string {
  const several = tunnels.length === 1 && tunnels[0] === ""
    ? ""
    : `\nThis script's tunnels are ${tunnels.join(", ")}. Say which: --${tunnels[0]}.mtu 1400\n`;
  const ownFlags = describeScriptFlags(own, TEXT_COLUMN);
  const ownText = ownFlags.length === 0
    ? ""
    : `This script's own:\n${ownFlags.join("\n")}\n\nEvery script's:\n`;
  return `Usage: ${command} [flags] [-- WORDS]

${ownText}  --name NAME        the device's name: 15 bytes on Linux, on Windows 127 characters; "%d" in it becomes a number
  --address PREFIX   an address of this machine, such as 10.9.0.1/24 or fd00::1/64; may be repeated
  --route ROUTE      such as 10.0.0.0/8 or "10.0.0.0/8 via 10.9.0.2 metric 5 table 100"; may be repeated
  --mtu BYTES        the longest packet that the system sends through the device
  --queue-length N   packets that wait in the kernel for the script (Linux)
  --far URL          what the tunnel leads to: udp://HOST:PORT, ws://HOST:PORT/, tun:NAME; as the listening
                     side udp://ADDRESS:PORT?listen, ws://ADDRESS:PORT/?listen; with ?interface=NAME
                     and ?mtu=BYTES for udp:, and ?payload=any for a stage that encrypts
  --no-offload       no super-packets: every packet is at most as long as the MTU (Linux)
  --no-uring         one packet a system call, without io_uring (Linux)
  --watchdog MS      end the process when a stage has not returned for so long; 0 for never
  --profile[=FILE]   write a CPU profile for Chrome's DevTools when the script ends, or after ten minutes:
                     FILE, or here, named after the script and the time
  --capture FILE     write what passes next to the device to a pcapng file, which takes --allow-write; - is standard
                     output: --capture - | wireshark -k -i -
  --filter TEXT      capture packets like "tcp port 80 and net 10.0.0.0/8" alone: pcap-filter(7)
  --dry-run          check everything, say what would be opened, and end
  --workers N        run the script in N workers, each with a queue of the device and a processor core (Linux)
  -q, --quiet        say nothing but errors
  -h, --help         this text
${several}
A flag replaces what the script says; WORDS are for the script. Exit code: 0 when it ended, 1 when it failed, 2 for a wrong command line.
`;
}

/**
 * Reads a script's flags.
 *
 * @param declared What the script says of each tunnel, by its name; the name is `""` in a script with one.
 * @param own The flags that it declares for itself.
 * @throws {UsageError} for an unknown flag, a bad value, or one that does not fit what the script says.
 * @throws {Error} when what the script says is wrong by itself.
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
  // To the parser, these words would be a flag's value.
  const odd = args.findIndex((word) => word === "true" || word === "false");
  const before = args[odd - 1]?.replace(/^--?/, "");
  if (before !== undefined && [...booleans, ...Object.keys(LETTERS)].includes(before)) {
    throw new UsageError(unknownArgument(args[odd]!, known));
  }
  refuseValues(args, booleans, Object.keys(LETTERS));
  const profiles = args.filter(isProfileFlag);
  if (profiles.length > 1) throw new UsageError(`--${PROFILE_FLAG} is given twice`);
  if (profiles[0]?.endsWith("=")) throw new UsageError(`${profiles[0]} needs a file's name behind it`);
  // To the parser, an empty word and one that starts with "-" are no values.
  const flagBefore = (word: string) => {
    const flag = args[args.indexOf(word) - 1] ?? "";
    return flag.startsWith("--") && valued.includes(flag.slice(2)) ? flag : undefined;
  };
  if (flagBefore("") !== undefined) throw new UsageError(`${flagBefore("")} needs a value`);
  const rest = args.filter((argument) => !isProfileFlag(argument));
  // To the parser, "-" is no value.
  const pipe = rest.findIndex((argument, i) => argument === `--${CAPTURE}` && rest[i + 1] === "-");
  if (pipe >= 0) rest.splice(pipe, 2, `--${CAPTURE}=-`);
  const parsed = parseArgs(rest, {
    string: valued,
    boolean: booleans,
    collect: valued,
    alias: LETTERS,
    unknown: (argument) => {
      const flag = argument.startsWith("-") ? flagBefore(argument) : undefined;
      const remedy = flag === undefined ? "" : `: as the value of ${flag}, write ${flag}=${argument}`;
      throw new UsageError(unknownArgument(argument, known) + remedy);
    },
  });
  const help = parsed.help === true;
  const tunnels: Record<string, TunnelOptions> = {};
  for (const name of names) {
    const values = (name === "" ? parsed : parsed[name] ?? {}) as Record<string, unknown>;
    tunnels[name] = help ? declared[name]! : merge(name, declared[name]!, values);
  }
  const workers = (parsed[WORKERS] ?? []) as string[];
  if (!help && workers.length > 0) setWorkers(tunnels, workers);
  const captures = (parsed[CAPTURE] ?? []) as string[];
  checkValues(`--${CAPTURE}`, captures, false);
  const filters = (parsed[FILTER] ?? []) as string[];
  checkValues(`--${FILTER}`, filters, false);
  if (!help && filters.length > 0) {
    if (captures.length === 0) throw new UsageError(`--${FILTER} says nothing without --${CAPTURE}`);
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

/** A tunnel's options with its flags, checked: each flag alone, then all of them with what the script says. */
function merge(name: string, declared: TunnelOptions, parsed: Record<string, unknown>): TunnelOptions {
  check(declared);
  const merged: TunnelOptions = { ...declared };
  const given: string[] = [];
  for (const [flag, read] of Object.entries(TUNNEL_FLAGS)) {
    const isSwitch = SWITCHES.includes(flag);
    const values = isSwitch ? [] : (parsed[flag] ?? []) as string[];
    if (isSwitch ? parsed[flag] !== true : values.length === 0) continue;
    const key = `--${flagKey(name, flag)}`;
    checkValues(key, values, REPEATED.includes(flag));
    if (declared.device !== undefined && DEVICE_FLAGS.includes(flag)) {
      throw new UsageError(
        `${key} says nothing here: the script opens its device "${declared.device.name}" itself`,
      );
    }
    const options = blame(key, () => {
      const options = read(values);
      check(options);
      return options;
    });
    const linux = { ...merged.linux, ...options.linux };
    Object.assign(merged, options, Object.keys(linux).length === 0 ? {} : { linux });
    given.push(key);
  }
  if (given.length > 0) blame(given.join(" "), () => check(merged));
  return merged;
}

/** Gives each tunnel a queue for each worker. */
function setWorkers(tunnels: Record<string, TunnelOptions>, values: readonly string[]): void {
  const flag = `--${WORKERS}`;
  checkValues(flag, values, false);
  for (const [name, options] of Object.entries(tunnels)) {
    const queues = blame(flag, () => {
      const queues = wholeNumber(values[0]!);
      checkDeviceOptions({ linux: { queues } });
      return queues;
    });
    if (queues > 1 && Deno.build.os !== "linux") {
      throw new Deno.errors.NotSupported(
        `Cannot run ${queues} workers: ${Deno.build.os} has no device of several queues: leave out ${flag}`,
      );
    }
    tunnels[name] = { ...options, linux: { ...options.linux, queues } };
  }
}

function checkValues(flag: string, values: readonly string[], mayRepeat: boolean): void {
  if (values.includes("")) throw new UsageError(`${flag} needs a value`);
  if (values.length > 1 && !mayRepeat) throw new UsageError(`${flag} is given twice`);
}

function check(options: TunnelOptions): void {
  checkTunnelOptions(options);
  if (typeof options.far === "string") parseFarUrl(options.far);
}

function blame<Result>(flags: string, attempt: () => Result): Result {
  try {
    return attempt();
  } catch (error) {
    throw new UsageError(`${flags}: ${(error as Error).message}`, { cause: error });
  }
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new SyntaxError(`"${text}" is no whole number`);
  return Number(text);
}

function flagKey(tunnel: string, flag: string): string {
  return tunnel === "" ? flag : `${tunnel}.${flag}`;
}

/** What is wrong with an argument that is none of a script's; `keys` are its tunnels' flags. */
function unknownArgument(argument: string, keys: readonly string[]): string {
  if (!argument.startsWith("-")) return unexpectedWord(argument);
  const name = argument.replace(/^-+/, "").replace(/=.*/s, "");
  // What is on by default has a flag that turns it off.
  const near = keys.find((key) => key.endsWith(`.${name}`)) ??
    keys.find((key) =>
      SWITCHES.some((flag) => flag === `no-${name.replace(/^linux\./, "")}` && key.endsWith(flag))
    ) ??
    nearest(name, [...keys, ...BOOLEAN_FLAGS, PROFILE_FLAG, WORKERS, CAPTURE, FILTER]) ??
    // That is what Deno and Node.js call it.
    (name.startsWith("cpu-prof") ? PROFILE_FLAG : undefined);
  return `${argument} is no flag of this script${near === undefined ? "" : `: did you mean --${near}?`}`;
}

/**
 * Refuses values of flags that take none, which the parser takes as a flag that was not given.
 *
 * @throws {UsageError} for the first one.
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
