/**
 * `deno task demo`: a real tunnel, pinged and flooded, in under 20 s, with nothing but deno and what the kernel has.
 *
 *     here ──▶ unshare ──▶ here again, alone in a network ──▶ scripts/icmp_echo.ts on a TUN device
 *       └────▶ where that is not allowed: the same over a device in memory
 *
 * @module
 */

import { firstAnswer, measure, type Road } from "./demo/measure.ts";
import { MemoryRoad } from "./demo/memory.ts";
import { type Findings, format, problems } from "./demo/report.ts";

// Implementation
/** Says that this process is the one inside the namespace. */
const INSIDE = "--inside";
const INTERRUPTED = 130;
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

/** What the process inside says, a line of JSON each; the last line is one of the last three. */
type Message = { progress: string } | { findings: Findings } | { obstacle: string } | { failure: string };

const HELP = `Usage: deno task demo [--memory]

  --memory     over a device in memory, also where a TUN device could be opened
  -h, --help   this text

Exit code: 0 when every echo request was answered, 1 when not, 2 for a wrong command line, 130 after Ctrl-C.
`;

async function explore(road: Road, started: number, progress: (text: string) => void): Promise<Findings> {
  const { about, cpuOf } = road;
  const answered = await firstAnswer(road);
  if (answered === undefined) {
    throw new Error("Cannot reach scripts/icmp_echo.ts: no echo request is answered");
  }
  return { about, cpuOf, start: answered - started, parts: await measure(road, progress) };
}

/** In the namespace: the demo on a TUN device. */
async function inside(): Promise<void> {
  const say = (message: Message) => console.log(JSON.stringify(message));
  try {
    const { KernelRoad, obstacle } = await import("./demo/kernel.ts");
    const reason = obstacle();
    if (reason !== undefined) return say({ obstacle: reason.message });
    const interrupted = interruption();
    await using road = await KernelRoad.open();
    const explored = explore(road, road.started, (progress) => say({ progress }));
    const findings = await Promise.race([explored, interrupted, road.failed]);
    await road[Symbol.asyncDispose]();
    say({ findings: { ...findings, summary: road.summary } });
  } catch (error) {
    say({ failure: (error as Error).message });
  }
}

/** Rejects when this process is told to end, or the one outside is gone. */
function interruption(): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>();
  for (const signal of SIGNALS) Deno.addSignalListener(signal, () => reject(new Error(signal)));
  Deno.stdin.read(new Uint8Array(1)).then(() => reject(new Error("nobody waits for it")));
  promise.catch(() => {});
  return promise;
}

/** Starts this file again in a network namespace of its own, and returns its last word. */
async function outside(): Promise<Message> {
  if (Deno.build.os !== "linux") return { obstacle: `the demo has no real device for ${Deno.build.os} yet` };
  const flags = Deno.uid() === 0 ? "-n" : "-Urn";
  const args = [flags, Deno.execPath(), "run", "--quiet", "--allow-all", import.meta.filename!, INSIDE];
  let child: Deno.ChildProcess;
  try {
    // Its standard input stays open for as long as this process lives.
    const pipes = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
    child = new Deno.Command("unshare", { args, ...pipes }).spawn();
  } catch (error) {
    return { obstacle: `Cannot run unshare: ${(error as Error).message}` };
  }
  let interrupted = false;
  const stop = () => {
    interrupted = true;
    child.kill("SIGTERM");
  };
  for (const signal of SIGNALS) Deno.addSignalListener(signal, stop);
  const complaints = new Response(child.stderr).text();
  let last: Message = { obstacle: "" };
  let rest = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      last = JSON.parse(line) as Message;
      if ("progress" in last) console.log(`  ... ${last.progress}`);
    }
  }
  await child.status;
  if (interrupted) Deno.exit(INTERRUPTED);
  if ("obstacle" in last && last.obstacle === "") return { obstacle: (await complaints).trim() };
  return "progress" in last ? { failure: (await complaints).trim() } : last;
}

/** The demo where there is no TUN device to be had. */
async function inMemory(): Promise<Message> {
  try {
    const started = performance.now();
    await using road = await MemoryRoad.open();
    const explored = explore(road, started, (progress) => console.log(`  ... ${progress}`));
    return { findings: await Promise.race([explored, road.failed]) };
  } catch (error) {
    return { failure: (error as Error).message };
  }
}

async function main(args: string[]): Promise<number> {
  if (args.includes("-h") || args.includes("--help")) {
    console.log(HELP);
    return 0;
  }
  const unknown = args.find((arg) => arg !== "--memory");
  if (unknown !== undefined) {
    console.error(`${unknown} is no flag of the demo\nTry: deno task demo --help`);
    return 2;
  }
  console.log("Warren's demo: scripts/icmp_echo.ts answers every ping.\n");
  let said: Message = args.length > 0 ? { obstacle: "--memory says so" } : await outside();
  if ("obstacle" in said) {
    console.log(`Not on a real TUN device, but in memory:\n  ${said.obstacle.replaceAll("\n", "\n  ")}\n`);
    said = await inMemory();
  }
  if (!("findings" in said)) {
    console.error(`The demo failed: ${"failure" in said ? said.failure : "it ended early"}`);
    return 1;
  }
  console.log(`\n${format(said.findings)}\n`);
  const wrong = problems(said.findings.parts);
  for (const problem of wrong) console.error(`The demo failed: ${problem}`);
  if (wrong.length > 0) return 1;
  console.log(
    "Next, as root: deno run --allow-ffi scripts/icmp_echo.ts, and in another terminal: ping 10.9.0.77",
  );
  return 0;
}

if (Deno.args[0] === INSIDE) {
  await inside();
  Deno.exit(0);
} else if (import.meta.main) {
  Deno.exitCode = await main(Deno.args);
}
