/** The one form of a script: what it needs, and what it does; one file for every way to run it. */

import { parseScriptFlags, usage, UsageError } from "./cli/flags.ts";
import { describe, showProgress } from "./cli/progress.ts";
import { openTunnel, type Tunnel, type TunnelOptions } from "./tunnel.ts";

/** What a script with several tunnels needs: the options of each, by its name in the script. */
export interface TunnelsOptions<Name extends string = string> {
  /** Each tunnel's options. */
  tunnels: Record<Name, TunnelOptions>;
}

/** A script with one tunnel. */
export interface TunnelScript {
  /** What it needs. */
  readonly options: TunnelOptions;
  /** What it does; the tunnel is closed when it returns. */
  readonly main: (tunnel: Tunnel) => Promise<void> | void;
}

/** A script with several tunnels. */
export interface TunnelsScript<Name extends string = string> {
  /** What it needs. */
  readonly options: TunnelsOptions<Name>;
  /** What it does; the tunnels are closed when it returns. */
  readonly main: (tunnels: Record<Name, Tunnel>) => Promise<void> | void;
}

/**
 * A script: the default export of its module. When the module is the one that was started, it also runs, once
 * the module has been evaluated: with the flags of its command line, until `main` returns.
 *
 * @example
 * ```ts
 * import { script, Verdict } from "@warren/tunnel";
 *
 * export default script(import.meta, { address: "10.9.0.1/24" }, (tunnel) => tunnel.run(() => Verdict.Reply));
 * ```
 */
export function script(
  meta: ImportMeta,
  options: TunnelOptions,
  main: (tunnel: Tunnel) => Promise<void> | void,
): TunnelScript;
/**
 * A script with several tunnels, which `main` gets by their names.
 *
 * @example
 * ```ts
 * import { script } from "@warren/tunnel";
 *
 * export default script(
 *   import.meta,
 *   { tunnels: { home: { address: "10.9.0.1/24" }, lab: { address: "10.8.0.1/24" } } },
 *   async ({ home, lab }) => void await Promise.all([home.run(), lab.run()]),
 * );
 * ```
 */
export function script<Name extends string>(
  meta: ImportMeta,
  options: TunnelsOptions<Name>,
  main: (tunnels: Record<Name, Tunnel>) => Promise<void> | void,
): TunnelsScript<Name>;
export function script(
  meta: ImportMeta,
  options: TunnelOptions | TunnelsOptions,
  main: TunnelScript["main"] | TunnelsScript["main"],
): TunnelScript | TunnelsScript {
  const made = { options, main } as TunnelScript | TunnelsScript;
  // A module's own import resolves when it has been evaluated, whatever it waits for.
  if (meta.main) import(meta.url).then(() => runAsProgram(made, Deno.args, `deno run ${fileName(meta.url)}`));
  return made;
}

/**
 * Runs a script with a command line, as a program does: errors are printed, and the process's exit code is 0
 * when it ended, 1 when it failed, and 2 when its command line makes no sense. For {@linkcode script} and
 * `warren run`.
 */
export async function runAsProgram(
  made: TunnelScript | TunnelsScript,
  args: string[],
  command: string,
): Promise<void> {
  const several = "tunnels" in made.options;
  const declared: Record<string, TunnelOptions> = "tunnels" in made.options
    ? made.options.tunnels
    : { "": made.options };
  try {
    const names = Object.keys(declared);
    const flags = parseScriptFlags(args, names);
    if (flags.help) return console.log(usage(command, names));
    const merged = names.map((name) => ({ ...declared[name], ...flags.tunnels[name] }));
    if (flags.dryRun) return merged.forEach((options) => console.log(describe(options)));
    await using tunnels = new AsyncDisposableStack();
    const opened: Record<string, Tunnel> = {};
    for (const [i, name] of names.entries()) opened[name] = tunnels.use(await openTunnel(merged[i]));
    if (!flags.quiet) tunnels.defer(showProgress(Object.values(opened)));
    if (several) await (made as TunnelsScript).main(opened);
    else await (made as TunnelScript).main(opened[""]!);
  } catch (error) {
    const usageError = error instanceof UsageError;
    console.error(`warren: ${explain(error)}${usageError ? `\nTry: ${command} --help` : ""}`);
    Deno.exitCode = usageError ? 2 : 1;
  }
}

/** What to print for an error: its message; for an error of the script's own code, where it happened. */
function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (cause instanceof Error && error.message.startsWith("Cannot go on")) {
    return `${error.message}\n${cause.stack}`;
  }
  return /^Cannot |^--|^"/.test(error.message) || error instanceof UsageError
    ? error.message
    : error.stack ?? error.message;
}

function fileName(url: string): string {
  return decodeURIComponent(url.slice(url.lastIndexOf("/") + 1));
}
