/**
 * The Windows build of Deno under Wine, with stand-ins for the libraries that Wine cannot have.
 *
 *     cache, kept in the folder for temporary files         a Wine of a test's own, removed at its end
 *     deno.exe (npm), settled prefix, built C sources ────▶ copy of the prefix, wineserver, DENO_DIR
 *
 * The prefix is kept with links instead of Wine's own libraries, which makes it a few megabytes; so that each test
 * can have its own, and tests of several runs do not meet. The cache is made under a lock, once for a version.
 */

import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { command, type CommandOptions, type CommandResult, type Namespace, systemTest } from "./system.ts";
import { Unavailable } from "./tools.ts";

const PACKAGE = "@deno/win32-x64";
/** The versions to try: this one's, then one that the registry is known to have. */
const VERSIONS = [Deno.version.deno, "2.9.5"];
const COMPILER = "x86_64-w64-mingw32-gcc";
/** Debian has it beside its other programs, and not on PATH. */
const WINES = ["/usr/lib/wine/wine64", "/usr/bin/wine64"];
const WINESERVERS = ["/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver", "/usr/bin/wineserver"];
const SOURCES = new URL("../system/windows/", import.meta.url);
const ROOT = new URL("../../", import.meta.url);
/** The most that a program takes to its end, on a loaded machine (milliseconds). */
const START_LIMIT = 120_000;

/** The compiler's own library is not there under Wine. */
const LIBRARY = ["-shared", "-s", "-static-libgcc"];

/** What can be built from tests/system/windows/. */
const BUILDS = {
  bcryptprimitives: {
    compiler: COMPILER,
    flags: LIBRARY,
    libraries: ["-ladvapi32"],
    suffix: ".dll",
  },
  wintun: { compiler: COMPILER, flags: LIBRARY, libraries: ["-lws2_32"], suffix: ".dll" },
  iphlpapi: { compiler: COMPILER, flags: LIBRARY, libraries: [], suffix: ".dll" },
  bridge: { compiler: "cc", flags: [], libraries: [], suffix: "" },
} as const;

function existing(paths: readonly string[]): string | undefined {
  return paths.find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** Whether this machine has a Wine. */
export function hasWine(): boolean {
  return existing(WINES) !== undefined;
}

/**
 * Registers a test that needs Wine, the compiler for Windows and npm. Where one is missing or does not work, it is
 * ignored and `skipped: <name>: <reason>` is printed.
 */
export function wineTest(
  name: string,
  fn: (context: Deno.TestContext) => void | Promise<void>,
  programs: readonly string[] = [],
): void {
  systemTest(name, {
    programs: [existing(WINES) ?? WINES[0]!, COMPILER, "cc", "npm", "tar", "ip", ...programs],
  }, fn);
}

/** The folder that outlives tests: this user's, and nobody else's to write. */
async function cacheFolder(): Promise<string> {
  const { stdout } = await command(existing(WINES)!, ["--version"]);
  const version = stdout.trim().replaceAll(/[^\w.-]/g, "");
  const folder = `${await temporaryFolder()}/warren-${Deno.uid()}-${version}-deno-${Deno.version.deno}`;
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  if ((await Deno.lstat(folder)).uid !== Deno.uid()) {
    throw new Error(`Cannot use ${folder}: it is another user's`);
  }
  return folder;
}

async function temporaryFolder(): Promise<string> {
  const probe = await Deno.makeTempDir();
  await Deno.remove(probe);
  return probe.slice(0, probe.lastIndexOf("/"));
}

/** Makes something in the cache once, under a lock; half of it is never seen. */
async function cached(cache: string, name: string, make: (path: string) => Promise<void>): Promise<string> {
  const path = `${cache}/${name}`;
  using lock = await Deno.open(`${cache}/lock`, { create: true, write: true });
  await lock.lock(true);
  if (await Deno.lstat(path).then(() => true, () => false)) return path;
  const half = await Deno.makeTempDir({ dir: cache, prefix: "half-" });
  try {
    await make(`${half}/made`);
    await Deno.rename(`${half}/made`, path);
  } finally {
    await Deno.remove(half, { recursive: true });
  }
  return path;
}

async function unpack(specifier: string, members: readonly string[], into: string): Promise<void> {
  await Deno.mkdir(into);
  const { stdout } = await command("npm", [
    "pack",
    "--silent",
    "--pack-destination",
    into,
    specifier,
  ]);
  const tarball = `${into}/${stdout.trim().split("\n").at(-1)}`;
  await command("tar", ["-xzf", tarball, "-C", into, ...members]);
  await Deno.remove(tarball);
}

async function makeDeno(path: string): Promise<void> {
  let last: unknown;
  for (const version of VERSIONS) {
    try {
      await unpack(`${PACKAGE}@${version}`, ["package/deno.exe"], `${path}.${version}`);
      await Deno.rename(`${path}.${version}/package/deno.exe`, path);
      return;
    } catch (error) {
      last = error;
    }
  }
  throw new Unavailable(`Cannot get deno.exe: npm has none of ${VERSIONS.join(", ")}`, { cause: last });
}

/** The files of a package of npm, unpacked: the folder with its `package.json`. For what tests look at. */
export async function npmPackage(name: string, version: string): Promise<string> {
  const key = `${name}-${version}`.replaceAll(/[^\w.-]/g, "-");
  const folder = await cached(await cacheFolder(), key, (path) => unpack(`${name}@${version}`, [], path));
  return `${folder}/package`;
}

/** Environment that Wine needs; `rest` comes on top. */
function environment(prefix: string, rest: Record<string, string>): Record<string, string> {
  return {
    WINEPREFIX: prefix,
    // The debugger would keep a program that crashed.
    WINEDLLOVERRIDES: "mscoree,mshtml,winedbg.exe=",
    WINEDEBUG: "-all",
    NO_COLOR: "1",
    DENO_NO_UPDATE_CHECK: "1",
    ...rest,
  };
}

/** Makes a settled prefix, and puts links in the place of Wine's own libraries. */
async function makePrefix(path: string): Promise<void> {
  const env = environment(path, {});
  try {
    const signal = AbortSignal.timeout(START_LIMIT);
    await command(existing(WINES)!, ["wineboot", "--init"], { env, signal });
  } catch (error) {
    throw new Unavailable(`Wine does not start: ${(error as Error).message}`, { cause: error });
  }
  await command(existing(WINES)!, [
    "reg",
    "add",
    "HKCU\\Software\\Wine",
    "/v",
    "Version",
    "/d",
    "win10",
    "/f",
  ], {
    env,
  });
  await command(existing(WINESERVERS)!, ["-k", "-w"], { env, check: false });
  await command(existing(WINESERVERS)!, ["-w"], { env, check: false });
  const libraries = existing([
    "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/ntdll.dll",
    "/usr/lib/wine/x86_64-windows/ntdll.dll",
  ])?.replace(/\/[^/]*$/, "");
  if (libraries === undefined) return;
  const system = `${path}/drive_c/windows/system32`;
  for await (const { name, isFile } of Deno.readDir(system)) {
    if (!isFile || existing([`${libraries}/${name}`]) === undefined) continue;
    await Deno.remove(`${system}/${name}`);
    await Deno.symlink(`${libraries}/${name}`, `${system}/${name}`);
  }
}

/** Builds a C source of tests/system/windows/, unless this text of it is built already. */
async function build(cache: string, name: keyof typeof BUILDS): Promise<string> {
  const { compiler, flags, libraries, suffix } = BUILDS[name];
  const source = fileURLToPath(new URL(`${name}.c`, SOURCES));
  const digest = createHash("sha256").update(await Deno.readFile(source)).digest("hex").slice(0, 16);
  return await cached(cache, `${name}-${digest}${suffix}`, async (path) => {
    const warnings = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"];
    // With a suffix, as the compiler for Windows gives its own to a name that has none.
    await command(compiler, [...warnings, ...flags, "-o", `${path}.built`, source, ...libraries]);
    await Deno.rename(`${path}.built`, path);
  });
}

/** A Windows path of a file of this machine. */
export function windowsPath(path: string): string {
  return `Z:${path.replaceAll("/", "\\")}`;
}

/** Options of {@linkcode openWine}. */
export interface WineOptions {
  /** Where its sockets are, and what it runs. @default the namespace of this process */
  namespace?: Namespace;
}

/** How a program is run under Wine. */
export interface WineCommandOptions extends CommandOptions {
  /** The folder that it starts in. @default the repository */
  cwd?: string;
}

function end(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has just ended.
  }
}

/** A Wine of one's own: a prefix, and what runs in it. Disposing of it ends that, and removes the prefix. */
export class Wine implements AsyncDisposable {
  /** A folder for what the test needs; it goes with the Wine. */
  readonly folder: string;
  /** The stand-ins: paths on this machine. */
  readonly builds: Readonly<Record<keyof typeof BUILDS, string>>;
  readonly #deno: string;
  readonly #namespace: Namespace | undefined;
  readonly #children = new Set<Deno.ChildProcess>();

  /** For {@linkcode openWine}. */
  constructor(
    folder: string,
    deno: string,
    builds: Record<keyof typeof BUILDS, string>,
    namespace: Namespace | undefined,
  ) {
    this.folder = folder;
    this.#deno = deno;
    this.builds = builds;
    this.#namespace = namespace;
  }

  /** The variables by which Warren's driver takes the stand-ins for the libraries. */
  async standIns(): Promise<Record<string, string>> {
    const sha256 = async (path: string) =>
      createHash("sha256").update(await Deno.readFile(path)).digest("hex");
    const { wintun, iphlpapi } = this.builds;
    return {
      WARREN_WINTUN: windowsPath(wintun),
      WARREN_WINTUN_SHA256: await sha256(wintun),
      WARREN_IPHLPAPI: windowsPath(iphlpapi),
      WARREN_IPHLPAPI_SHA256: await sha256(iphlpapi),
    };
  }

  /**
   * Starts wineserver and Wine's services. They keep the standard output of what starts them, so that a reader of
   * it would wait for their end; therefore they get none.
   */
  async boot(): Promise<void> {
    const [first, ...args] = this.#arguments("cmd", ["/c", "exit"]);
    const child = new Deno.Command(first!, {
      args,
      env: environment(`${this.folder}/prefix`, {}),
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const { code } = await child.status;
    if (code !== 0) throw new Unavailable(`Wine does not start: cmd ends with ${code}`);
  }

  #arguments(program: string, args: readonly string[]): string[] {
    const wine = [existing(WINES)!, program, ...args];
    return this.#namespace === undefined ? wine : ["ip", "netns", "exec", this.#namespace.name, ...wine];
  }

  /** Starts a program of the prefix, such as `cmd` or {@linkcode Wine.spawnDeno}'s. */
  spawn(
    program: string,
    args: readonly string[],
    options: Pick<WineCommandOptions, "env" | "cwd" | "signal"> = {},
  ): Deno.ChildProcess {
    const [first, ...rest] = this.#arguments(program, args);
    const env = environment(`${this.folder}/prefix`, {
      DENO_DIR: windowsPath(`${this.folder}/deno_dir`),
      ...options.env,
    });
    const child = new Deno.Command(first!, {
      args: rest,
      env,
      cwd: options.cwd ?? ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#children.add(child);
    // Not by Deno, whose SIGTERM a program that hangs in a call under Wine does not obey.
    options.signal?.addEventListener("abort", () => end(child));
    child.status.finally(() => this.#children.delete(child));
    return child;
  }

  /** Starts deno.exe. A Unix signal to it arrives as one of Windows: SIGINT as Ctrl-C. */
  spawnDeno(
    args: readonly string[],
    options: Pick<WineCommandOptions, "env" | "cwd" | "signal"> = {},
  ): Deno.ChildProcess {
    return this.spawn(windowsPath(this.#deno), args, options);
  }

  /**
   * Runs deno.exe to its end.
   *
   * @throws {Error} with what it wrote, when its code is not 0 and `check` is not `false`.
   */
  async deno(args: readonly string[], options: WineCommandOptions = {}): Promise<CommandResult> {
    const { check = true } = options;
    const child = this.spawnDeno(args, { signal: AbortSignal.timeout(START_LIMIT), ...options });
    const output = await child.output();
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replaceAll("\r\n", "\n");
    const result = { code: output.code, stdout: decode(output.stdout), stderr: decode(output.stderr) };
    if (check && result.code !== 0) {
      throw new Error(
        `deno.exe ${args.join(" ")} ended with ${result.code}\n${result.stdout}${result.stderr}`,
      );
    }
    return result;
  }

  /**
   * Runs tests of this file under it, with the stand-ins; their names need not end with `_test.ts`.
   *
   * @throws {Error} with what deno.exe wrote, when one fails or it is not so many that pass.
   */
  async tests(file: string, count: number, options: WineCommandOptions = {}): Promise<void> {
    const env = { ...await this.standIns(), ...options.env };
    // The types are checked on this side.
    const { code, stdout, stderr } = await this.deno(["test", "--no-check", "-A", file], {
      ...options,
      env,
      check: false,
    });
    const passed = /ok \| (\d+) passed/.exec(stdout)?.[1];
    if (code !== 0 || Number(passed) !== count) {
      // Not as lines of their own: whoever reads this test's output would count them.
      const output = `${stdout}${stderr}`.replaceAll(/^/gm, "  ");
      throw new Error(`${passed} tests of ${file} passed instead of ${count}\n${output}`);
    }
  }

  /** Ends what runs in it, and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#children.forEach(end);
    await Promise.all(Array.from(this.#children, (child) => child.status));
    const env = environment(`${this.folder}/prefix`, {});
    await command(existing(WINESERVERS)!, ["-k"], { env, check: false });
    await command(existing(WINESERVERS)!, ["-w"], { env, check: false });
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Where this Deno keeps what it got from npm. */
async function npmCache(): Promise<string> {
  const { stdout } = await command(Deno.execPath(), ["info", "--json"]);
  return JSON.parse(stdout).npmCache;
}

/** Makes a Wine with deno.exe and the stand-ins. The first one of a machine takes half a minute, others a second. */
export async function openWine(options: WineOptions = {}): Promise<Wine> {
  const cache = await cacheFolder();
  const deno = await cached(cache, "deno.exe", makeDeno);
  const prefix = await cached(cache, "prefix", makePrefix);
  const builds = {} as Record<keyof typeof BUILDS, string>;
  for (const name of Object.keys(BUILDS) as (keyof typeof BUILDS)[]) builds[name] = await build(cache, name);
  const folder = await Deno.makeTempDir({ dir: cache, prefix: "wine-" });
  await command("cp", ["-a", prefix, `${folder}/prefix`]);
  // Beside deno.exe would be another place, which the cache keeps for all versions of the helper.
  await Deno.copyFile(
    builds.bcryptprimitives,
    `${folder}/prefix/drive_c/windows/system32/bcryptprimitives.dll`,
  );
  await Deno.mkdir(`${folder}/deno_dir`);
  await Deno.symlink(await npmCache(), `${folder}/deno_dir/npm`);
  const wine = new Wine(folder, deno, builds, options.namespace);
  try {
    await wine.boot();
    return wine;
  } catch (error) {
    await wine[Symbol.asyncDispose]();
    throw error;
  }
}
