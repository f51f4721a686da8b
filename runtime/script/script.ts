/** Scripts, which consist of options and `main`, and their execution from a command line. */

import { checkOption, checkOptions, gotValue } from "../../lib/core/options.ts";
import { ExitCode, report } from "./failure.ts";
import { checkOwnFlags, parseScriptFlags, type ScriptCommandLine, usage } from "./flags.ts";
import {
  completeArguments,
  type GivenArguments,
  type ScriptArguments,
  type ScriptFlags,
} from "./script_flags.ts";
import type { ScriptCapture } from "./capture.ts";
import type { Profile } from "./profile.ts";
import { describe, greet, reportLoading, showCounters, summarize } from "./progress.ts";
import { Interruption, TunnelStart } from "../tunnel/open_tunnel.ts";
import { exit, takeConsole } from "./output.ts";
import { learnSignals, onInterrupt } from "../engine/signals.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { CheckedTunnelOptions, TunnelOptions } from "../tunnel/tunnel_options.ts";
import { WorkerPool } from "../workers/worker_pool.ts";

// Specification
/** Exit code after SIGINT by shell convention: 128 plus the signal number. */
const INTERRUPTED = 130;

// Implementation
/** Module URLs of scripts that `deno run -` and `deno eval` read. */
const TYPED_IN = /\/\$deno\$(?:stdin|eval)\.\w+$/;
/** Main module of all workers except the first. */
const WORKER_MODULE = new URL("./worker_entry.ts", import.meta.url);
/** Time that `main` has to return after a signal has closed its tunnels (milliseconds). */
const MAIN_TIMEOUT = 3000;

/** Options of a script with one tunnel: those of the tunnel, and the script's own flags. */
export interface ScriptOptions<Flags extends ScriptFlags = ScriptFlags> extends TunnelOptions {
  /** Declarations of the script's own flags, whose values are passed to `main`. @default {{}} */
  flags?: Flags;
}

/** Options of a script with several tunnels. */
export interface TunnelsOptions<Name extends string = string, Flags extends ScriptFlags = ScriptFlags> {
  /** Options of each tunnel by its name in the script. */
  tunnels: Record<Name, TunnelOptions>;
  /** Declarations of the script's own flags, whose values are passed to `main`. @default {{}} */
  flags?: Flags;
}

/** Script with one tunnel. */
export interface TunnelScript<Flags extends ScriptFlags = ScriptFlags> {
  /** Options of the script. */
  readonly options: ScriptOptions<Flags>;
  /** Runs the script on a tunnel, which closes when it returns. Absent flags have their defaults. */
  main(tunnel: Tunnel, given?: GivenArguments<Flags>): Promise<void> | void;
}

/** Script with several tunnels. */
export interface TunnelsScript<Name extends string = string, Flags extends ScriptFlags = ScriptFlags> {
  /** Options of the script. */
  readonly options: TunnelsOptions<Name, Flags>;
  /** Runs the script on its tunnels, which close when it returns. Absent flags have their defaults. */
  main(tunnels: Record<Name, Tunnel>, given?: GivenArguments<Flags>): Promise<void> | void;
}

/**
 * Creates a script with several tunnels, which are passed to `main` by their names.
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
export function script<Name extends string, const Flags extends ScriptFlags = Record<never, never>>(
  meta: ImportMeta,
  options: TunnelsOptions<Name, Flags>,
  main: (tunnels: Record<Name, Tunnel>, given: ScriptArguments<Flags>) => Promise<void> | void,
): TunnelsScript<Name, Flags>;
/**
 * Creates a script, the default export of its module. If the module is the main module, the script also runs, with the
 * flags of the command line, once the module is evaluated. The process ends when `main` returns.
 *
 * @example
 * ```ts
 * import { script, Verdict } from "@warren/tunnel";
 *
 * export default script(import.meta, { address: "10.9.0.1/24" }, (tunnel) => tunnel.run(() => Verdict.Reply));
 * ```
 *
 * @example A script with its own flag: `deno run --allow-ffi my.ts --max-length 100`
 * ```ts
 * import { script, Verdict } from "@warren/tunnel";
 *
 * export default script(import.meta, {
 *   address: "10.9.0.1/24",
 *   flags: { maxLength: { type: "number", default: 1500, value: "BYTES", description: "longer packets are dropped" } },
 * }, (tunnel, { flags }) =>
 *   tunnel.run((packet) => packet.length > flags.maxLength ? Verdict.Drop : Verdict.Reply));
 * ```
 *
 * @throws {TypeError} for an argument of the wrong type, an invalid declaration of a flag or name of a tunnel, and a flag
 * that every script has.
 */
export function script<const Flags extends ScriptFlags = Record<never, never>>(
  meta: ImportMeta,
  options: ScriptOptions<Flags>,
  main: (tunnel: Tunnel, given: ScriptArguments<Flags>) => Promise<void> | void,
): TunnelScript<Flags>;
export function script(
  meta: ImportMeta,
  options: ScriptOptions | TunnelsOptions,
  main: (opened: Tunnel & Record<string, Tunnel>, given: ScriptArguments) => Promise<void> | void,
): TunnelScript | TunnelsScript {
  const attempt = "create a script";
  checkOption(attempt, "options", options, "object");
  checkOption(attempt, "main", main, "function");
  const { flags = {} } = options;
  checkOption(attempt, "flags", flags, "object");
  checkOwnFlags(flags, "tunnels" in options ? tunnelNames(attempt, options.tunnels) : []);
  const made: TunnelScript | TunnelsScript = {
    options,
    main: (opened: Tunnel & Record<string, Tunnel>, given: GivenArguments = {}) =>
      main(opened, completeArguments(flags, given)),
  };
  if (meta.main) {
    takeConsole();
    // The import resolves when this module is evaluated, including its top-level await; Deno reports a failure.
    import(meta.url).then(
      async () => exit(await runScript(made, Deno.args, "deno run", fileName(meta.url), meta.url)),
      () => {},
    );
  }
  return made;
}

/** Checks the tunnels of a script; returns their names, which begin flags such as `--home.mtu`. */
function tunnelNames(attempt: string, tunnels: Readonly<Record<string, unknown>>): string[] {
  checkOption(attempt, "tunnels", tunnels, "object");
  const names = Object.keys(tunnels);
  if (names.length === 0) throw new TypeError(`Cannot ${attempt}: tunnels must have at least one tunnel`);
  for (const name of names) {
    checkOption(attempt, `tunnels.${name}`, tunnels[name], "object");
    if (/^[^\s=.-][^\s=.]*$/.test(name) && !(name in {})) continue;
    throw new TypeError(
      `Cannot ${attempt}: the name of a tunnel must have no spaces, "=" or ".", not begin with "-", and not be ` +
        `that of a property of every object, ${gotValue(name)}`,
    );
  }
  return names;
}

/** Reports whether a value is a result of {@linkcode script}, including one of another copy of Warren. */
export function isScript(value: unknown): value is TunnelScript | TunnelsScript {
  const made = value as Partial<TunnelScript> | null | undefined;
  return typeof made?.options === "object" && made.options !== null && typeof made.main === "function";
}

/** Returns the options of each tunnel of a script, by tunnel name; the name is `""` in a script with one tunnel. */
export function declaredTunnels({ options }: TunnelScript | TunnelsScript): Record<string, TunnelOptions> {
  if ("tunnels" in options) {
    checkOptions("run the script", options, { tunnels: "object", flags: "object" });
    return options.tunnels;
  }
  const { flags: _, ...tunnel } = options;
  return { "": tunnel };
}

/**
 * Runs a script with a command line. Errors are printed, not thrown.
 *
 * @param launcher Command that started the script, such as `deno run`, for the usage text.
 * @param name Name of the script on the command line.
 * @param url Module of the script, which additional workers import.
 * @returns the exit code: 0 for success, 1 for an error, 2 for a wrong command line.
 */
export async function runScript(
  made: TunnelScript | TunnelsScript,
  args: readonly string[],
  launcher: string,
  name: string,
  url?: string,
): Promise<number> {
  const command = `${launcher} ${name}`;
  try {
    const declared = declaredTunnels(made);
    const flags = parseScriptFlags(args, declared, made.options.flags);
    if (flags.help) {
      console.log(usage(command, Object.keys(declared), made.options.flags));
      return ExitCode.Ended;
    }
    const tunnels = Object.entries(flags.tunnels);
    const pool = await openWorkerPool(tunnels, url, args);
    if (flags.dryRun) await printPlan(tunnels, flags, name);
    else await open(made, tunnels, flags, name, pool);
    return ExitCode.Ended;
  } catch (error) {
    if (error instanceof Interruption) return ExitCode.Ended;
    return report(error, command);
  }
}

type NamedOptions = [name: string, options: CheckedTunnelOptions];

/**
 * Creates the workers for the queues of the tunnels; returns `undefined` for a single worker.
 *
 * @throws {TypeError} when the tunnels have different numbers of queues, or no module exports the script.
 */
async function openWorkerPool(
  tunnels: NamedOptions[],
  url: string | undefined,
  args: readonly string[],
): Promise<WorkerPool | undefined> {
  const counts = tunnels.map(([, { workers }]) => workers);
  const max = Math.max(...counts);
  if (max === 1) return undefined;
  const other = counts.findIndex((count) => count !== max);
  if (other >= 0) {
    const [name] = tunnels[other]!;
    throw new TypeError(
      `Cannot run ${max} workers: tunnel "${name}" must have ${max} queues, got ${counts[other]}`,
    );
  }
  if (url === undefined || TYPED_IN.test(url)) {
    throw new TypeError(`Cannot run ${max} workers: the script must be a file, which each worker loads`);
  }
  const { default: made } = await import(url);
  if (!isScript(made)) {
    throw new TypeError(`Cannot run ${max} workers: the default export of ${fileName(url)} must be a script`);
  }
  return new WorkerPool(WORKER_MODULE, max, url, args, tunnels);
}

/** Prints what would be opened, for a dry run. */
async function printPlan(
  tunnels: NamedOptions[],
  { profile, capture, quiet }: ScriptCommandLine,
  script: string,
): Promise<void> {
  // Disposal removes the file of a profile that was not started.
  if (profile !== undefined) (await openProfile(profile, script, quiet))[Symbol.dispose]();
  if (capture !== undefined) (await import("./capture.ts")).checkCapture(capture);
  for (const [key, options] of tunnels) console.log(`${key && `${key}: `}${describe(options)}`);
}

async function open(
  made: TunnelScript | TunnelsScript,
  tunnels: NamedOptions[],
  { quiet, profile, capture, filter, given }: ScriptCommandLine,
  script: string,
  pool: WorkerPool | undefined,
): Promise<void> {
  const opened: Record<string, Tunnel> = {};
  const handlesSignals = tunnels.some(([, { signals }]) => signals);
  if (handlesSignals) await learnSignals();
  using end = new EndOfScript(handlesSignals);
  await using closing = new AsyncDisposableStack();
  const profiling = profile === undefined
    ? undefined
    : closing.use(await openProfile(profile, script, quiet));
  if (!quiet) closing.defer(() => Object.values(opened).forEach(summarize));
  const capturing = capture === undefined ? undefined : closing.use(await openCapture(capture, filter, pool));
  if (pool !== undefined) closing.use(pool);
  const starts: (() => Promise<void>)[] = [];
  for (const [name, declared] of tunnels) {
    const options = capturing === undefined ? declared : capturing.before(name, declared);
    const start = closing.use(await TunnelStart.begin(options, true, given.flags));
    if (pool === undefined) await start.openFar();
    const openNear = async () => {
      opened[name] = closing.use(
        await (pool?.openTunnel(name, options, start) ?? start.openNear()),
      );
      if (!quiet && pool === undefined) greet(opened[name], options);
    };
    // All far ends open before the first device adds routes, so that their names are looked up through the old routes.
    if (options.device === undefined) starts.push(openNear);
    else await openNear();
  }
  for (const openNear of starts) await openNear();
  if (pool !== undefined) {
    const stopReporting = quiet ? undefined : reportLoading(pool);
    const haveJoined = await pool.start().finally(stopReporting);
    if (!haveJoined) return;
    if (!quiet) { for (const [name, options] of tunnels) greet(opened[name]!, options); }
  }
  if (!quiet) closing.defer(showCounters(Object.values(opened)));
  profiling?.start();
  pool?.go();
  await end.waitFor(runMain(made, opened, given), Object.values(opened));
}

/** Handling of signals: tunnels close on the first signal, and the second signal ends the process at once. */
class EndOfScript implements Disposable {
  readonly #interrupted = Promise.withResolvers<Deno.Signal>();
  readonly #stopListening: () => void = () => {};
  #signals = 0;

  constructor(handlesSignals: boolean) {
    if (!handlesSignals) return;
    this.#stopListening = onInterrupt((signal) => {
      if (signal === undefined) return;
      this.#interrupted.resolve(signal);
      // Open devices undo their changes when the process ends.
      if (++this.#signals > 1) Deno.exit(INTERRUPTED);
    });
  }

  [Symbol.dispose](): void {
    this.#stopListening();
  }

  /** Waits for main, but only for a bounded time after a signal has closed the tunnels. */
  async waitFor(main: Promise<void>, tunnels: Tunnel[]): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = (async () => {
      const signal = await this.#interrupted.promise;
      await Promise.allSettled(tunnels.map(({ closed }) => closed));
      await new Promise((resolve) => timer = setTimeout(resolve, MAIN_TIMEOUT));
      console.error(
        `warren: main has not returned within ${MAIN_TIMEOUT} ms after ${signal}: ending the process`,
      );
    })();
    await Promise.race([main, timeout]).finally(() => clearTimeout(timer));
  }
}

/**
 * Calls a script's main with its tunnels.
 *
 * @throws {TypeError} when main returns while a tunnel runs, or when a synchronous main has not run any tunnel. In both
 * cases an `await` or `return` is missing.
 */
export async function runMain(
  made: TunnelScript | TunnelsScript,
  opened: Record<string, Tunnel>,
  given: ScriptArguments,
): Promise<void> {
  const tunnels = Object.values(opened);
  try {
    const running = "tunnels" in made.options
      ? (made as TunnelsScript).main(opened, given)
      : (made as TunnelScript).main(opened[""]!, given);
    if (running === undefined && !tunnels.some(({ hasRun }) => hasRun)) {
      throw new TypeError(
        "Cannot run the script: main returned without running a tunnel: return tunnel.run()",
      );
    }
    await running;
  } catch (error) {
    await passIfClosed(error, tunnels);
  }
  const forgotten = tunnels.find(({ isRunning }) => isRunning);
  if (forgotten !== undefined) {
    throw new TypeError(
      `Cannot end the script: main returned while "${forgotten.name}" is running: return or await tunnel.run()`,
    );
  }
}

/** Opens a profile. The module is loaded on demand, because its imports take 20 ms. */
async function openProfile(path: string, script: string, quiet: boolean): Promise<Profile> {
  const { openProfile, profileName } = await import("./profile.ts");
  return openProfile(path || profileName(script), { quiet });
}

/** Opens a capture. The module is loaded on demand. */
async function openCapture(
  path: string,
  filter: string,
  pool: WorkerPool | undefined,
): Promise<ScriptCapture> {
  if (pool !== undefined) {
    throw new TypeError(
      "Cannot capture: several workers cannot share a capture: remove --workers or --capture",
    );
  }
  const { openCapture } = await import("./capture.ts");
  return openCapture(path, filter);
}

/** Ignores the error of a pipe whose tunnel was closed by a signal; throws any other. */
async function passIfClosed(error: unknown, tunnels: Tunnel[]): Promise<void> {
  if (!(error instanceof Deno.errors.BadResource) || tunnels.some(({ isRunning }) => isRunning)) throw error;
  await Promise.all(tunnels.map(({ closed }) => closed));
}

function fileName(url: string): string {
  return decodeURIComponent(url.slice(url.lastIndexOf("/") + 1));
}
