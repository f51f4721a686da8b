/** Tests against the real kernel: what they need, and network namespaces that they make and remove. */

import { fileURLToPath } from "node:url";
import { Unavailable, unusable } from "./tools.ts";

const WARREN = "warren";
/** The longest reason for a skip that is found out on the way (characters). */
const MAX_REASON = 300;
const STOP_SIGNALS: readonly Deno.Signal[] = ["SIGTERM", "SIGKILL"];
/** proc_pid_status(5): the bits of signals 1 and 2. */
const SIGHUP_AND_SIGINT = 0b11n;
const STOP_ATTEMPTS = 50;
const STOP_MILLISECONDS = 20;

/** What a test needs of the machine. */
export interface SystemTestOptions {
  /** Whether it must run as root. @default true */
  root?: boolean;
  /** Programs that must be on `PATH` and work. @default [] */
  programs?: string[];
}

function missing(options: SystemTestOptions): string | undefined {
  if (Deno.build.os !== "linux") return `this is ${Deno.build.os}, not linux`;
  if ((options.root ?? true) && Deno.uid() !== 0) return "not root";
  const reasons = (options.programs ?? []).map(unusable).filter((reason) => reason !== undefined);
  return reasons.length === 0 ? undefined : reasons.join("; ");
}

/**
 * Registers a test that needs a real system. Where something is missing or does not work, it is ignored and
 * `skipped: <name>: <reason>` is printed; so it is when the test throws {@linkcode Unavailable}.
 *
 * @example
 * ```ts no-eval
 * import { openNamespace, systemTest } from "../kit/system.ts";
 *
 * systemTest("ip addr show knows lo", { programs: ["ip"] }, async () => {
 *   await using namespace = await openNamespace();
 *   const { stdout } = await namespace.command("ip", ["addr", "show"]);
 *   if (!stdout.includes("lo")) throw new Error(stdout);
 * });
 * ```
 */
export function systemTest(
  name: string,
  options: SystemTestOptions,
  fn: (context: Deno.TestContext) => void | Promise<void>,
): void {
  const reason = missing(options);
  if (reason !== undefined) console.log(`skipped: ${name}: ${reason}`);
  Deno.test({
    name,
    ignore: reason !== undefined,
    fn: (context) => skipUnavailable(name, () => fn(context)),
  });
}

/** Does what a test does; when that throws {@linkcode Unavailable}, prints `skipped: <name>: <reason>`. */
export async function skipUnavailable(name: string, test: () => void | Promise<void>): Promise<void> {
  try {
    await test();
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    console.log(`skipped: ${name}: ${error.message.replaceAll("\n", " ").slice(0, MAX_REASON)}`);
  }
}

/** How a command ended, and what it wrote. */
export interface CommandResult {
  /** Its exit code; 128 and the signal's number when it was killed. */
  readonly code: number;
  /** What it wrote to its standard output. */
  readonly stdout: string;
  /** What it wrote to its standard error. */
  readonly stderr: string;
}

/** How a command is run. */
export interface CommandOptions {
  /** What it reads from its standard input. @default nothing */
  stdin?: string;
  /** Variables added to its environment. @default none */
  env?: Record<string, string>;
  /** Aborting it kills the command. @default never */
  signal?: AbortSignal;
  /** Whether another code than 0 throws, with what the command wrote. @default true */
  check?: boolean;
}

/** Runs a program in the namespace that this process is in. */
export async function command(
  program: string,
  args: string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const { stdin, env, signal, check = true } = options;
  await using child = new Deno.Command(program, {
    args,
    env,
    signal,
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(stdin));
    await writer.close();
  }
  const { code, stdout, stderr } = await output;
  const result = { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  if (check && code !== 0) {
    throw new Error(`${program} ${args.join(" ")} ended with ${code}\n${result.stdout}${result.stderr}`);
  }
  return result;
}

/** One end of a pair of links between two namespaces. */
export interface LinkEnd {
  /** Where it is. */
  namespace: Namespace;
  /** Its name there. */
  name: string;
  /** Its addresses, such as `10.1.0.1/24`; IPv6 ones are usable at once. @default [] */
  addresses?: string[];
}

let namespaces = 0;

/** A network namespace with its `lo` up, named `warren-<pid>-<n>`. Disposing of it ends what runs in it. */
export class Namespace implements AsyncDisposable {
  /** Its name, as `ip netns` has it. */
  readonly name: string;

  /** For {@linkcode openNamespace}. */
  constructor(name: string) {
    this.name = name;
  }

  /**
   * Runs a program in it, to its end.
   *
   * @throws {Error} with what it wrote, when its code is not 0 and `check` is not `false`.
   */
  command(program: string, args: string[], options: CommandOptions = {}): Promise<CommandResult> {
    return command("ip", ["netns", "exec", this.name, program, ...args], options);
  }

  /** What `ip -j` with these words says: the kernel's state by another program's eyes. */
  async ip<Entry>(...words: string[]): Promise<Entry[]> {
    const { stdout } = await this.command("ip", ["-j", ...words]);
    return stdout.trim() === "" ? [] : JSON.parse(stdout);
  }

  /** Starts a program in it that goes on; it is killed with the namespace. Its standard input is empty. */
  spawn(
    program: string,
    args: string[],
    options: Pick<Deno.CommandOptions, "env" | "stdin" | "stdout" | "stderr"> = {},
  ): Deno.ChildProcess {
    return new Deno.Command("ip", {
      args: ["netns", "exec", this.name, ...withDefaultSignals(), program, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      ...options,
    }).spawn();
  }

  /** Ends what runs in it, and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#stop();
    } finally {
      await command("ip", ["netns", "delete", this.name], { check: false });
    }
  }

  /** Ends every process inside, and waits until they are gone. */
  async #stop(): Promise<void> {
    for (const signal of STOP_SIGNALS) {
      for (let i = 0; i < STOP_ATTEMPTS; i++) {
        const { stdout } = await command("ip", ["netns", "pids", this.name], { check: false });
        const pids = stdout.split("\n").filter((line) => line !== "").map(Number);
        if (pids.length === 0) return;
        if (i === 0) pids.forEach((pid) => kill(pid, signal));
        // Nothing tells of the end of another's child.
        await new Promise((resolve) => setTimeout(resolve, STOP_MILLISECONDS));
      }
    }
  }
}

/** Words before a program by which signals end it, where a shell has these tests ignore them in its background. */
function withDefaultSignals(): string[] {
  const [, ignored] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
  const isIgnored = (BigInt(`0x${ignored}`) & SIGHUP_AND_SIGINT) !== 0n;
  return isIgnored ? ["env", "--default-signal=HUP,INT"] : [];
}

function kill(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Makes a network namespace. It is removed by `await using`, after a failure, too. */
export async function openNamespace(): Promise<Namespace> {
  const name = `${WARREN}-${Deno.pid}-${++namespaces}`;
  await command("ip", ["netns", "add", name]);
  const namespace = new Namespace(name);
  try {
    await namespace.command("ip", ["link", "set", "lo", "up"]);
    return namespace;
  } catch (error) {
    await namespace[Symbol.asyncDispose]();
    throw error;
  }
}

/** Joins two namespaces by a pair of links (veth) that are up and have their addresses. */
export async function link(a: LinkEnd, b: LinkEnd): Promise<void> {
  const { namespace, name } = a;
  await namespace.command(
    "ip",
    ["link", "add", name, "type", "veth", "peer", "name", b.name, "netns", b.namespace.name],
  );
  for (const { namespace, name, addresses = [] } of [a, b]) {
    for (const address of addresses) {
      const nodad = address.includes(":") ? ["nodad"] : [];
      await namespace.command("ip", ["addr", "add", address, "dev", name, ...nodad]);
    }
    await namespace.command("ip", ["link", "set", name, "up"]);
  }
}

/**
 * Runs a module in a namespace, in another process with these permissions, and returns what it wrote, parsed as
 * JSON. What it throws is thrown here.
 */
export async function runModule<Result>(
  namespace: Namespace,
  module: URL,
  args: string[] = [],
  permissions: string[] = ["--allow-ffi"],
): Promise<Result> {
  const { stdout } = await namespace.command(
    Deno.execPath(),
    ["run", "--quiet", "--no-prompt", ...permissions, fileURLToPath(module), ...args],
  );
  return JSON.parse(stdout);
}
