/** The one form of a script: what it needs, and what it does; one file for every way to run it. */

import { checkNames } from "../../lib/core/options.ts";
import { ExitCode, report } from "./failure.ts";
import { checkOwnFlags, parseScriptFlags, type ScriptCommandLine, usage } from "./flags.ts";
import {
  completeArguments,
  type GivenArguments,
  type ScriptArguments,
  type ScriptFlags,
} from "./own_flags.ts";
import type { ScriptCapture } from "./capture.ts";
import type { Profile } from "./profile.ts";
import { describe, greet, showCounters, summarize, tellLoading } from "./progress.ts";
import { Interruption, openOwnFar, openOwnNear, TunnelStart, workerCount } from "../tunnel/open_tunnel.ts";
import { exit, takeConsole } from "./output.ts";
import { learnSignals, onInterrupt } from "../engine/signals.ts";
import type { Tunnel, TunnelOptions } from "../tunnel/tunnel.ts";
import { WorkerPool } from "../workers/worker_pool.ts";

// Specification
/** The exit code of a process that SIGINT ends, as shells have it: 128 and the signal's number. */
const INTERRUPTED = 130;

// Implementation
/** The modules that `deno run -` and `deno eval` make. */
const TYPED_IN = /\/\$deno\$(?:stdin|eval)\.\w+$/;
/** Runs in each further worker of a script. */
const WORKER_MODULE = new URL("./worker_entry.ts", import.meta.url);
/** The time that `main` has to return when a signal has closed its tunnels (milliseconds). */
const MAIN_TIMEOUT = 3000;

/** Options of a script with one tunnel: the tunnel's, and the script's own flags. */
export interface ScriptOptions<Flags extends ScriptFlags = ScriptFlags> extends TunnelOptions {
  /** Flags of the script's own, whose values `main` gets. @default {{}} */
  flags?: Flags;
}

/** Options of a script with several tunnels: those of each, by its name in the script, and the script's own flags. */
export interface TunnelsOptions<Name extends string = string, Flags extends ScriptFlags = ScriptFlags> {
  /** Each tunnel's options. */
  tunnels: Record<Name, TunnelOptions>;
  /** Flags of the script's own, whose values `main` gets. @default {{}} */
  flags?: Flags;
}

/** A script with one tunnel. */
export interface TunnelScript<Flags extends ScriptFlags = ScriptFlags> {
  /** Its options. */
  readonly options: ScriptOptions<Flags>;
  /** Runs it on a tunnel, which is closed when it returns. Flags that are not given have their defaults. */
  main(tunnel: Tunnel, given?: GivenArguments<Flags>): Promise<void> | void;
}

/** A script with several tunnels. */
export interface TunnelsScript<Name extends string = string, Flags extends ScriptFlags = ScriptFlags> {
  /** Its options. */
  readonly options: TunnelsOptions<Name, Flags>;
  /** Runs it on its tunnels, which are closed when it returns. Flags that are not given have their defaults. */
  main(tunnels: Record<Name, Tunnel>, given?: GivenArguments<Flags>): Promise<void> | void;
}

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
export function script<Name extends string, const Flags extends ScriptFlags = Record<never, never>>(
  meta: ImportMeta,
  options: TunnelsOptions<Name, Flags>,
  main: (tunnels: Record<Name, Tunnel>, given: ScriptArguments<Flags>) => Promise<void> | void,
): TunnelsScript<Name, Flags>;
/**
 * A script: the default export of its module. When the module is the one that was started, it also runs, once
 * the module has been evaluated: with the flags of its command line, until `main` returns, which ends the process.
 *
 * @example
 * ```ts
 * import { script, Verdict } from "@warren/tunnel";
 *
 * export default script(import.meta, { address: "10.9.0.1/24" }, (tunnel) => tunnel.run(() => Verdict.Reply));
 * ```
 *
 * @example A script with a flag of its own: `deno run --allow-ffi my.ts --max-length 100`
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
 * @throws {TypeError} when a flag is declared wrongly, or has the name of one that every script has.
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
  const { flags = {} } = options;
  checkOwnFlags(flags, "tunnels" in options ? Object.keys(options.tunnels) : []);
  const made: TunnelScript | TunnelsScript = {
    options,
    main: (opened: Tunnel & Record<string, Tunnel>, given: GivenArguments = {}) =>
      main(opened, completeArguments(flags, given)),
  };
  if (meta.main) {
    takeConsole();
    // A module's own import resolves when it has been evaluated, whatever it waits for; where that fails, Deno says so.
    import(meta.url).then(
      async () => exit(await runScript(made, Deno.args, "deno run", fileName(meta.url), meta.url)),
      () => {},
    );
  }
  return made;
}

/** Tells whether a module's default export is what {@linkcode script} makes, also that of another copy of Warren. */
export function isScript(value: unknown): value is TunnelScript | TunnelsScript {
  const made = value as Partial<TunnelScript> | null | undefined;
  return typeof made?.options === "object" && made.options !== null && typeof made.main === "function";
}

/** What a script says of each of its tunnels, by its name; the name is `""` in a script with one. */
export function declaredTunnels({ options }: TunnelScript | TunnelsScript): Record<string, TunnelOptions> {
  if ("tunnels" in options) {
    checkNames("run the script", options, { tunnels: "needed", flags: "optional" });
    return options.tunnels;
  }
  const { flags: _, ...tunnel } = options;
  return { "": tunnel };
}

/**
 * Runs a script with a command line, as a program does. Errors are printed, not thrown.
 *
 * @param launcher What started it, such as `deno run`, for its usage text.
 * @param name What the script is called there.
 * @param url The script's module, which further workers import.
 * @returns the exit code: 0 when it ended, 1 when it failed, and 2 when its command line makes no sense.
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
    const tunnels = Object.entries(flags.tunnels);
    if (flags.help) {
      console.log(usage(command, Object.keys(declared), made.options.flags));
      return ExitCode.Ended;
    }
    const crew = await openWorkerPool(tunnels, url, args);
    if (flags.dryRun) await tell(tunnels, flags, name);
    else await open(made, tunnels, flags, name, crew);
    return ExitCode.Ended;
  } catch (error) {
    if (error instanceof Interruption) return ExitCode.Ended;
    return report(error, command);
  }
}

type NamedOptions = [name: string, options: TunnelOptions];

/**
 * The workers that the tunnels' queues take; `undefined` when it is one.
 *
 * @throws {TypeError} when the tunnels differ in it, or no module exports the script.
 */
async function openWorkerPool(
  tunnels: NamedOptions[],
  url: string | undefined,
  args: readonly string[],
): Promise<WorkerPool | undefined> {
  const counts = tunnels.map(([, options]) => workerCount(options));
  const most = Math.max(...counts);
  if (most === 1) return undefined;
  const other = counts.findIndex((count) => count !== most);
  if (other >= 0) {
    throw new TypeError(
      `Cannot run ${most} workers: tunnel "${tunnels[other]![0]}" has ${
        counts[other]
      } of the queues: give each ${most}`,
    );
  }
  if (url === undefined || TYPED_IN.test(url)) {
    throw new TypeError(`Cannot run ${most} workers: the script is in no file, which each would load`);
  }
  const { default: made } = await import(url);
  if (!isScript(made)) {
    throw new TypeError(
      `Cannot run ${most} workers: each loads the default export of ${fileName(url)}, which is no script`,
    );
  }
  return new WorkerPool(WORKER_MODULE, most, url, args, tunnels);
}

/** A dry run: says what would be opened. */
async function tell(
  tunnels: NamedOptions[],
  { profile, capture, quiet }: ScriptCommandLine,
  script: string,
): Promise<void> {
  // A profile that is not started is removed again.
  if (profile !== undefined) (await openProfile(profile, script, quiet))[Symbol.dispose]();
  if (capture !== undefined) (await import("./capture.ts")).checkCapture(capture);
  for (const [key, options] of tunnels) console.log(`${key && `${key}: `}${describe(options)}`);
}

async function open(
  made: TunnelScript | TunnelsScript,
  tunnels: NamedOptions[],
  { quiet, profile, capture, filter, given }: ScriptCommandLine,
  script: string,
  crew: WorkerPool | undefined,
): Promise<void> {
  const opened: Record<string, Tunnel> = {};
  const hearsSignals = tunnels.some(([, { signals = true }]) => signals);
  if (hearsSignals) await learnSignals();
  using end = new EndOfScript(hearsSignals);
  await using closing = new AsyncDisposableStack();
  const profiling = profile === undefined
    ? undefined
    : closing.use(await openProfile(profile, script, quiet));
  if (!quiet) closing.defer(() => Object.values(opened).forEach(summarize));
  const capturing = capture === undefined ? undefined : closing.use(await openCapture(capture, filter, crew));
  if (crew !== undefined) closing.use(crew);
  const starts: (() => Promise<void>)[] = [];
  for (const [name, declared] of tunnels) {
    const options = capturing === undefined ? declared : capturing.before(name, declared);
    const start = closing.use(await TunnelStart.begin(options, true));
    if (crew === undefined) await openOwnFar(start, options);
    const openNear = async () => {
      opened[name] = closing.use(
        await (crew?.openTunnel(name, options, start) ?? openOwnNear(start, options)),
      );
      if (!quiet && crew === undefined) greet(opened[name], options);
    };
    // All far ends come before the first device whose routes are to be made: names are looked up by the old ones.
    if (options.device === undefined) starts.push(openNear);
    else await openNear();
  }
  for (const openNear of starts) await openNear();
  if (crew !== undefined) {
    const stopTelling = quiet ? undefined : tellLoading(crew);
    const haveJoined = await crew.start().finally(stopTelling);
    if (!haveJoined) return;
    if (!quiet) { for (const [name, options] of tunnels) greet(opened[name]!, options); }
  }
  if (!quiet) closing.defer(showCounters(Object.values(opened)));
  profiling?.start();
  crew?.go();
  await end.orSoonAfter(runMain(made, opened, given), Object.values(opened));
}

/** The end of a script by signals: the first one closes its tunnels, and a second one ends the process at once. */
class EndOfScript implements Disposable {
  readonly #interrupted = Promise.withResolvers<Deno.Signal>();
  readonly #stopListening: () => void = () => {};
  #signals = 0;

  constructor(hearsSignals: boolean) {
    if (!hearsSignals) return;
    this.#stopListening = onInterrupt((signal) => {
      if (signal === undefined) return;
      this.#interrupted.resolve(signal);
      // Whatever is open puts everything back when the process ends.
      if (++this.#signals > 1) Deno.exit(INTERRUPTED);
    });
  }

  [Symbol.dispose](): void {
    this.#stopListening();
  }

  /** Waits for main; when a signal has closed its tunnels, for a bounded time. */
  async orSoonAfter(main: Promise<void>, tunnels: Tunnel[]): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = (async () => {
      const signal = await this.#interrupted.promise;
      await Promise.allSettled(tunnels.map(({ closed }) => closed));
      await new Promise((resolve) => timer = setTimeout(resolve, MAIN_TIMEOUT));
      console.error(
        `warren: main has not returned within ${MAIN_TIMEOUT} ms of ${signal}: ending the process`,
      );
    })();
    await Promise.race([main, late]).finally(() => clearTimeout(timer));
  }
}

/**
 * Calls a script's main with its tunnels.
 *
 * @throws {TypeError} when main returns while a tunnel runs, or at once without having run any: it has forgotten to
 * wait. One that waits for something else, and returns then, may have its reasons.
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
      `Cannot end: the script returned while "${forgotten.name}" runs: return or await tunnel.run()`,
    );
  }
}

/** Loaded when it is asked for: what it imports takes 20 ms. */
async function openProfile(path: string, script: string, quiet: boolean): Promise<Profile> {
  const { openProfile, profileName } = await import("./profile.ts");
  return openProfile(path || profileName(script), { quiet });
}

/** Loaded when it is asked for. */
async function openCapture(
  path: string,
  filter: string,
  crew: WorkerPool | undefined,
): Promise<ScriptCapture> {
  if (crew !== undefined) {
    throw new TypeError(
      "Cannot capture: each worker sees packets of its own: leave out --workers, or --capture",
    );
  }
  const { openCapture } = await import("./capture.ts");
  return openCapture(path, filter);
}

/** Pipes fail when Ctrl-C closes the tunnel that they write to; that is no failure of the script. */
async function passIfClosed(error: unknown, tunnels: Tunnel[]): Promise<void> {
  if (!(error instanceof Deno.errors.BadResource) || tunnels.some(({ isRunning }) => isRunning)) throw error;
  await Promise.all(tunnels.map(({ closed }) => closed));
}

function fileName(url: string): string {
  return decodeURIComponent(url.slice(url.lastIndexOf("/") + 1));
}
