/**
 * Scripts under Wine whose adapters are TUN devices of namespaces here.
 *
 *     ping, iperf3 ── TUN device ── bridge ══ UDP ══ stand-in wintun.dll ── script in deno.exe
 */

import { openWine, windowsPath, type Wine } from "../../kit/wine.ts";
import { type Namespace, openNamespace } from "../../kit/system.ts";
import { type Counters, type NetworkState, readNetwork, StandInReport } from "./stand_in.ts";

const FIRST_PORT = 40_001;
/** Timeout of an expected line of output (milliseconds). */
const TIMEOUT = 30_000;

/** A running script. */
export class RunningScript {
  /** Output so far, of both streams. */
  output = "";
  /** Exit code, once it has ended. */
  readonly ended: Promise<number>;
  readonly #child: Deno.ChildProcess;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();

  /** For {@linkcode WindowsLab.start}. */
  constructor(child: Deno.ChildProcess) {
    this.#child = child;
    const both = [child.stdout, child.stderr].map((stream) => this.#listen(stream));
    this.ended = Promise.all(both).then(async () => (await child.status).code);
  }

  async #listen(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.output += text.replaceAll("\r\n", "\n");
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }

  /** Waits until the output contains this. */
  async said(words: string): Promise<void> {
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, TIMEOUT);
    let late = false;
    const end = Promise.race([over.promise, this.ended]).then(() => late = true);
    try {
      while (!this.output.includes(words)) {
        if (late) throw new Error(`The output lacks "${words}": ${this.output}`);
        await Promise.race([this.#changed.promise, end]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends it with Ctrl-C and returns its exit code. */
  async interrupt(): Promise<number> {
    this.#child.kill("SIGINT");
    const timer = setTimeout(() => this.kill(), TIMEOUT);
    try {
      return await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Kills it. */
  kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has already ended.
    }
  }
}

/** Options of {@linkcode WindowsLab.start}. */
export interface ScriptOptions {
  /** Permissions of the script. @default {["--allow-ffi"]} */
  permissions?: readonly string[];
  /** Variables, such as `STAND_IN_FAULTS`. @default {{}} */
  env?: Record<string, string>;
  /** Output that shows that it is ready. @default {"is open"} */
  ready?: string;
}

/** Wine in a namespace, and the links of its adapters. */
export class WindowsLab implements AsyncDisposable {
  /** Where Wine's sockets are. */
  readonly namespace: Namespace;
  /** The Wine. */
  readonly wine: Wine;
  /** Counters of the stand-in for wintun.dll, summed over all processes. */
  readonly report: StandInReport;
  readonly #links: string[] = [];
  readonly #bridges: Deno.ChildProcess[] = [];

  /** For {@linkcode openWindowsLab}. */
  constructor(namespace: Namespace, wine: Wine) {
    this.namespace = namespace;
    this.wine = wine;
    this.report = new StandInReport(`${wine.folder}/report`);
  }

  /** Counters of the stand-in for wintun.dll. */
  get counters(): Counters {
    return this.report.counters;
  }

  /** Addresses, routes and other settings now in effect. */
  get network(): NetworkState {
    return readNetwork(`${this.wine.folder}/network`);
  }

  /** Each call of the stand-in for iphlpapi.dll: its name, result and bytes. */
  get calls(): string[] {
    return Deno.readTextFileSync(`${this.wine.folder}/calls`).trim().split("\n");
  }

  /** Connects the adapter of this name to a TUN device `sys` with these addresses. */
  async join(adapter: string, namespace: Namespace, addresses: readonly string[]): Promise<void> {
    const port = FIRST_PORT + 2 * this.#links.length;
    this.#links.push(`${adapter}=${port}:${port + 1}`);
    const path = `/run/netns/${namespace.name}`;
    const bridge = this.namespace.spawn(this.wine.builds.bridge, [path, "sys", `${port + 1}`, `${port}`], {
      stderr: "inherit",
    });
    this.#bridges.push(bridge);
    const reader = bridge.stdout.getReader();
    if ((await reader.read()).done) throw new Error("The bridge does not start");
    await reader.cancel();
    for (const address of addresses) {
      await namespace.command("ip", [
        "addr",
        "add",
        address,
        "dev",
        "sys",
        ...address.includes(":") ? ["nodad"] : [],
      ]);
    }
    await namespace.command("ip", ["link", "set", "sys", "up"]);
  }

  /** Environment variables of the stand-ins. */
  async environment(): Promise<Record<string, string>> {
    const file = (name: string) => windowsPath(`${this.wine.folder}/${name}`);
    return {
      ...await this.wine.standIns(),
      STAND_IN_LINKS: this.#links.join(","),
      STAND_IN_REPORT: file("report"),
      STAND_IN_NETWORK: file("network"),
      STAND_IN_CALLS: file("calls"),
    };
  }

  /** Starts a file of `scripts/` unchanged. */
  async start(
    script: string,
    args: readonly string[] = [],
    options: ScriptOptions = {},
  ): Promise<RunningScript> {
    const { permissions = ["--allow-ffi"], env, ready = "is open" } = options;
    const all = ["run", "--no-prompt", ...permissions, `scripts/${script}`, ...args];
    const running = new RunningScript(
      this.wine.spawnDeno(all, { env: { ...await this.environment(), ...env } }),
    );
    await running.said(ready);
    return running;
  }

  /** Ends everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.wine[Symbol.asyncDispose]();
    } finally {
      // A bridge is in its device's namespace, which may outlive this one.
      for (const bridge of this.#bridges) bridge.kill("SIGKILL");
      await Promise.all(this.#bridges.map((bridge) => bridge.status));
      await this.namespace[Symbol.asyncDispose]();
    }
  }
}

/** Creates a namespace with Wine in it. */
export async function openWindowsLab(): Promise<WindowsLab> {
  const namespace = await openNamespace();
  try {
    return new WindowsLab(namespace, await openWine({ namespace }));
  } catch (error) {
    await namespace[Symbol.asyncDispose]();
    throw error;
  }
}
