/** The flags of a script: the same by `deno run script.ts` and by `warren run script.ts`. */

// @ts-types="./parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { checkDeviceOptions } from "../../driver/options.ts";
import { checkFarUrl } from "../transport/mod.ts";
import type { TunnelOptions } from "../tunnel.ts";

/** The command line makes no sense: shown with a hint at `--help`, exit code 2. */
export class UsageError extends Error {
  /** @ignore */
  override readonly name = "UsageError";
}

/** What a script's command line said. */
export interface ScriptFlags {
  /** What to change in each tunnel's options, by its name in the script; `""` in a script with one. */
  readonly tunnels: Readonly<Record<string, TunnelOptions>>;
  /** Whether to print the usage and end. */
  readonly help: boolean;
  /** Whether to say nothing but errors. */
  readonly quiet: boolean;
  /** Whether to check everything, say what would be opened, and end. */
  readonly dryRun: boolean;
}

/** The flags of one tunnel. Those that may be repeated collect. */
const TUNNEL_FLAGS = ["name", "address", "route", "mtu", "far", "queue-length", "watchdog"] as const;
const COLLECTED = ["address", "route"] as const;

/** The usage text of a script. */
export function usage(command: string, tunnels: readonly string[]): string {
  const several = tunnels.length === 1
    ? ""
    : `\nThis script has several tunnels: ${tunnels.join(", ")}. Say which: --${tunnels[0]}.mtu 1400\n`;
  return `Usage: ${command} [flags]

  --name NAME          the device's name, at most 15 bytes; "%d" in it becomes a number
  --address PREFIX     an address of this machine, such as 10.9.0.1/24 or fd00::1/64; may be repeated
  --route ROUTE        a route, such as 10.0.0.0/8 or "10.0.0.0/8 via 10.9.0.2 metric 5 table 100"; may be repeated
  --mtu BYTES          the longest packet that the system sends through the device
  --queue-length N     packets that wait in the kernel for the script (Linux)
  --far URL            what the tunnel leads to: udp://HOST:PORT, ws://HOST:PORT/, tun:NAME
  --watchdog MS        end the process when a stage has not returned for so long; 0 for never
  --dry-run            check everything, say what would be opened, and end
  -q, --quiet          no counters, no greeting
  -h, --help           this text
${several}
A flag replaces what the script says. Exit code: 0 when it ended, 1 when it failed, 2 for a wrong command line.
`;
}

/**
 * Reads a script's flags.
 *
 * @param tunnels The names of the script's tunnels; `[""]` for a script with one.
 * @throws {UsageError} for an unknown flag or a bad value.
 */
export function parseScriptFlags(args: readonly string[], tunnels: readonly string[]): ScriptFlags {
  const keys = tunnels.flatMap((tunnel) => TUNNEL_FLAGS.map((flag) => flagKey(tunnel, flag)));
  const parsed = parseArgs([...args], {
    string: keys,
    boolean: ["help", "quiet", "dry-run"],
    collect: keys,
    alias: { h: "help", q: "quiet" },
    unknown: (argument) => {
      throw new UsageError(unknownArgument(argument, keys));
    },
  });
  const overrides: Record<string, TunnelOptions> = {};
  for (const tunnel of tunnels) {
    const of = (tunnel === "" ? parsed : parsed[tunnel] ?? {}) as Record<string, unknown>;
    const given: Record<string, string[]> = {};
    for (const flag of TUNNEL_FLAGS) {
      const values = of[flag];
      if (!Array.isArray(values) || values.length === 0) continue;
      given[flag] = values.map(String);
      const collects = (COLLECTED as readonly string[]).includes(flag);
      if (values.length > 1 && !collects) throw new UsageError(`--${flagKey(tunnel, flag)} is given twice`);
      if (given[flag].includes("")) throw new UsageError(`--${flagKey(tunnel, flag)} needs a value`);
    }
    overrides[tunnel] = checked(tunnel, given);
  }
  return {
    tunnels: overrides,
    help: parsed.help === true,
    quiet: parsed.quiet === true,
    dryRun: parsed["dry-run"] === true,
  };
}

function checked(tunnel: string, given: Record<string, string[]>): TunnelOptions {
  const number = (flag: typeof TUNNEL_FLAGS[number]) => {
    const text = given[flag]?.[0];
    if (text === undefined) return undefined;
    if (!/^\d+$/.test(text)) throw new UsageError(`--${flagKey(tunnel, flag)} "${text}" is no whole number`);
    return Number(text);
  };
  const options: TunnelOptions = {};
  if (given.name !== undefined) options.name = given.name[0]!;
  if (given.address !== undefined) options.address = given.address;
  if (given.route !== undefined) options.route = given.route;
  if (given.mtu !== undefined) options.mtu = number("mtu")!;
  if (given.watchdog !== undefined) options.watchdog = number("watchdog")!;
  if (given.far !== undefined) options.far = given.far[0]!;
  if (given["queue-length"] !== undefined) options.linux = { txQueueLength: number("queue-length")! };
  try {
    checkDeviceOptions(options);
    if (typeof options.far === "string") checkFarUrl(options.far);
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
  return options;
}

function flagKey(tunnel: string, flag: string): string {
  return tunnel === "" ? flag : `${tunnel}.${flag}`;
}

function unknownArgument(argument: string, keys: readonly string[]): string {
  if (!argument.startsWith("-")) return `"${argument}" is not expected here`;
  const name = argument.replace(/^-+/, "").replace(/=.*/, "");
  const known = [...keys, "help", "quiet", "dry-run"];
  const near = known.find((key) => key.startsWith(name.slice(0, 3)) || key.endsWith(`.${name}`));
  return `${argument} is no flag of this script${near === undefined ? "" : `: did you mean --${near}?`}`;
}
